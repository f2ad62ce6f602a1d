"""PONI files, pyFAI's calibrations: where a detector stood, as found with a standard. Pure."""

from __future__ import annotations

import json
import math
import re

import msgspec

READ_BYTES = 1 << 20  # pyFAI appends to them; the last block counts
NATIVE = (0, 3)  # orientations in which the first pixel is the first in the file
PIXELS_M = {"eiger": 75e-6, "pilatus": 172e-6, "jungfrau": 75e-6}  # by the name's beginning


class Poni(msgspec.Struct, frozen=True, array_like=True):
    """A calibration, in the terms of an untilted detector."""

    source: str
    distance_m: float | None = None
    wavelength_nm: float | None = None
    pixel_m: float | None = None
    cx: float | None = None
    """Where the direct beam meets the detector, pixel centres at integers."""
    cy: float | None = None
    tilt_rad: float = 0.0


def read_poni(text: str, source: str) -> Poni:
    """The last calibration in a PONI file. ValueError, one line, where it cannot be used."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, found, value = line.partition(":")
        if found and not line.startswith("#"):
            values[name.strip().lower()] = value.strip()
    for needed in ("distance", "poni1", "poni2"):
        if needed not in values:
            raise ValueError(f"{source}: no {needed.capitalize()} in it")
    numbers = {name: _number(values, name, source) for name in _NUMBERS if name in values}
    if numbers["distance"] <= 0:
        raise ValueError(f"{source}: Distance is {numbers['distance']:g}")
    if numbers.get("wavelength", 1.0) <= 0:
        raise ValueError(f"{source}: Wavelength is {numbers['wavelength']:g}")
    pixel = _pixel(values, numbers, source)
    rot1, rot2 = numbers.get("rot1", 0.0), numbers.get("rot2", 0.0)
    tilt = math.acos(max(-1.0, min(1.0, math.cos(rot1) * math.cos(rot2))))
    if tilt >= math.pi / 2:
        raise ValueError(f"{source}: the detector is turned away from the beam")
    # the beam direction of pyFAI's rotations; the third turns about the beam
    across = numbers["poni2"] - numbers["distance"] * math.tan(rot1)
    down = numbers["poni1"] + numbers["distance"] * math.tan(rot2) / math.cos(rot1)
    wavelength = numbers.get("wavelength")
    return Poni(
        source,
        numbers["distance"] / math.cos(tilt),
        None if wavelength is None else wavelength * 1e9,
        pixel,
        None if pixel is None else across / pixel - 0.5,  # pyFAI counts from the corner
        None if pixel is None else down / pixel - 0.5,
        tilt,
    )


_NUMBERS = (
    "distance",
    "poni1",
    "poni2",
    "rot1",
    "rot2",
    "rot3",
    "wavelength",
    "pixelsize1",
    "pixelsize2",
)


def _number(values: dict[str, str], name: str, source: str) -> float:
    try:
        number = float(values[name])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{source}: {name} is {values[name]!r}, which is no number")
    return number


def _pixel(values: dict[str, str], numbers: dict[str, float], source: str) -> float | None:
    """The edge of a pixel, metres, as the file says it or the detector's name."""
    try:
        config = json.loads(values.get("detector_config", "{}"))
    except ValueError:
        raise ValueError(f"{source}: Detector_config is no JSON") from None
    config = config if isinstance(config, dict) else {}
    if (orientation := config.get("orientation", 3)) not in NATIVE:
        raise ValueError(f"{source}: orientation {orientation} of the detector is not supported")
    told = [config.get(f"pixel{n}", numbers.get(f"pixelsize{n}")) for n in (1, 2)]
    sizes = [float(size) for size in told if isinstance(size, int | float) and size > 0]
    if len(sizes) != 2:
        match = re.match(r"[a-z]+", values.get("detector", "").lower())
        return PIXELS_M.get(match[0]) if match else None
    if abs(sizes[0] - sizes[1]) > 0.01 * sizes[0]:
        raise ValueError(f"{source}: pixels of {sizes[1]:.4g} m x {sizes[0]:.4g} m are not square")
    return sizes[0]
