"""What the headers of single image files say of a scan. Pure."""

from __future__ import annotations

import re

from analysis.plan import Geometry
from dadafs.scans.formats.images import HEADER_BYTES
from dadafs.scans.metadata.masters import Master

NUMBER = rb"([-+0-9.eE]+)"
PILATUS = {  # `# Detector_distance 0.5 m`, as the camera server writes it into CBF files
    "distance_m": re.compile(rb"#\s*Detector_distance\s+" + NUMBER + rb"\s*m\b"),
    "wavelength_a": re.compile(rb"#\s*Wavelength\s+" + NUMBER + rb"\s*A\b"),
    "pixel_m": re.compile(rb"#\s*Pixel_size\s+" + NUMBER + rb"\s*m\s*x"),
    "exposure_s": re.compile(rb"#\s*Exposure_time\s+" + NUMBER + rb"\s*s\b"),
}
BEAM = re.compile(rb"#\s*Beam_xy\s+\(\s*" + NUMBER + rb"\s*,\s*" + NUMBER + rb"\s*\)\s*pixels")
DETECTOR = re.compile(rb"#\s*Detector:\s*([^\r\n]{1,200})")


def header_facts(data: bytes, kind: str) -> Master:
    """What the header of a CBF file of a Pilatus says, in the terms of a master."""
    if kind != "cbf":
        return Master()
    head = data[:HEADER_BYTES]
    values: dict[str, float] = {}
    for key, pattern in PILATUS.items():
        if (match := pattern.search(head)) and (value := _positive(match[1])) is not None:
            values[key] = value
    metadata: dict[str, str | int | float | None] = {
        "distance_m": values.get("distance_m"),
        "wavelength_nm": values["wavelength_a"] / 10 if "wavelength_a" in values else None,
        "pixel_m": values.get("pixel_m"),
    }
    if "exposure_s" in values:
        metadata["exposure_s"] = values["exposure_s"]
    if match := DETECTOR.search(head):
        metadata["detector"] = " ".join(match[1].decode("utf-8", "replace").split())
    cx = cy = None
    if (match := BEAM.search(head)) and _positive(match[1]) and _positive(match[2]):
        cx, cy = float(match[1]), float(match[2])
    distance, wavelength, pixel = (
        metadata[key] for key in ("distance_m", "wavelength_nm", "pixel_m")
    )
    geometry = None
    if distance and wavelength and pixel:
        geometry = Geometry(float(distance), float(wavelength), float(pixel))
    told = {key for key, value in metadata.items() if value is not None}
    told |= {"cx", "cy"} if cx is not None else set()
    source = "header of the first file"
    return Master(
        cx=cx, cy=cy, geometry=geometry, metadata=metadata, sources=dict.fromkeys(told, source)
    )


def _positive(text: bytes) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < 1e9 else None
