"""What a master file says: where the frames are, how the detector stood, which pixels are bad."""

from __future__ import annotations

import math
import os
import re
from typing import Any

import h5py
import msgspec
import numpy as np
from h5py import h5d, h5g, h5l
from msgspec.structs import replace

from analysis.codec import Codec
from analysis.plan import Geometry, pack_mask
from dadafs.errors import BadData, DadaError
from dadafs.scans.formats import hdf5
from dadafs.scans.formats.decode import decode
from dadafs.scans.metadata.layout import Part
from dadafs.scans.metadata.virtual import grid, sources, virtual_stack
from dadafs.scans.model import ChunkRun, Flat, Identity
from dadafs.scans.names import show, split
from dadafs.scans.tree import RawTree, identity_of

DATA = b"/entry/data"
DETECTOR = b"/entry/instrument/detector/"
SPECIFIC = DETECTOR + b"detectorSpecific/"
HC_NM_KEV = 1.23984198
LENGTHS_M = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "micron": 1e-6, "nm": 1e-9}
WAVELENGTHS_NM = {"angstrom": 0.1, "å": 0.1, "a": 0.1, "nm": 1.0, "m": 1e9, "pm": 1e-3}
ENERGIES_EV = {"ev": 1.0, "kev": 1e3}
PIXELS = {"pixel": 1.0, "pixels": 1.0, "px": 1.0}
MAX_PIXELS = 1 << 26  # four times the largest Eiger
MAX_ANNOUNCED = 1 << 30
MAX_TILES = 4096  # of a flat field
MAX_LINKS = 100_000  # ten times as many data files as the largest scans have
TOLERANCE = 0.01  # of values that are said twice
INSTEAD = {
    "centre": "cx and cy",
    "distance_m": "distance_m",
    "wavelength_nm": "wavelength_nm",
    "photon_energy_ev": "energy_kev",
    "pixel_m": "pixel_um",
}


class Link(msgspec.Struct, frozen=True):
    """Where a master, or the name of a data file, says that frames are."""

    path: bytes
    """Of the data file in the raw tree; b"" when it leads out of it."""
    dataset: bytes
    """Inside the data file; b"" for wherever its frames are."""
    part: Part | None = None
    """Which frames of the file are which of the scan, where that is said."""


class Master(msgspec.Struct, frozen=True):
    """What was found in a master file; a plain value, None or empty where it says nothing."""

    links: tuple[Link, ...] = ()
    """In the order of the frames."""
    announced: int = 0
    """Frames that were to be recorded."""
    height: int = 0
    width: int = 0
    dtype: str = ""
    cx: float | None = None
    cy: float | None = None
    geometry: Geometry | None = None
    mask: bytes = b""
    """Pixels of the detector that are not to be used, `pack_mask`."""
    mask_shape: tuple[int, int] = (0, 0)
    metadata: dict[str, str | int | float | None] = {}
    sources: dict[str, str] = {}
    problems: tuple[str, ...] = ()
    withheld: dict[str, str] = {}
    """The problem for which a value is not believed: distance_m, wavelength_nm, pixel_m, centre."""
    flat: Flat | None = None
    broken: bool = False
    """It cannot be read at all."""
    grid: tuple[int, int] | None = None
    """Points and lines of a virtual dataset with an axis for each."""


def read_master(tree: RawTree, path: bytes, dataset: bytes = b"") -> Master:
    """Read a master file without opening its data files. Whatever is wrong is in `problems`.

    Where there is something at `dataset` in it, its frames are there, whatever else it links to.
    """
    name = show(split(path)[1])
    try:
        fd = tree.open(path)
    except DadaError as exc:
        return Master(problems=(str(exc),), broken=True)
    try:
        with hdf5.opened(fd) as file:
            return _Reader(file, path, identity_of(os.fstat(fd))).read(dataset)
    except hdf5.ERRORS as exc:
        return Master(problems=(f"{name} {hdf5.reason(exc)}",), broken=True)
    finally:
        os.close(fd)


class _Reader:
    """Collects what one open master says."""

    def __init__(self, file: h5py.File, path: bytes, identity: Identity) -> None:
        self._file = file
        self._path = path
        self._identity = identity
        self._metadata: dict[str, str | int | float | None] = {}
        self._sources: dict[str, str] = {}
        self._problems: list[str] = []
        self._withheld: dict[str, str] = {}
        self._grid: tuple[int, int] | None = None

    def read(self, dataset: bytes) -> Master:
        """All of it."""
        links = self._virtual(dataset) if dataset else ()
        if not links and dataset and hdf5.dataset(self._file, dataset) is not None:
            links = (Link(self._path, dataset),)
        links = links or self._links() or self._virtual()
        images, triggers = self._count("nimages"), self._count("ntrigger")
        announced = (images or 0) * (1 if triggers is None else triggers)
        if links and links[-1].part is not None:
            announced = max(announced, links[-1].part.end)
        if announced > MAX_ANNOUNCED:
            self._problems.append(f"{announced} frames announced: not believed")
            announced = 0
        height = self._count("y_pixels_in_detector", keep=False) or 0
        width = self._count("x_pixels_in_detector", keep=False) or 0
        mask, mask_shape = self._mask()
        if not height and not width:
            height, width = mask_shape
        bits, _ = self._number(DETECTOR + b"bit_depth_image")
        dtype = {8.0: "|u1", 16.0: "<u2", 32.0: "<u4"}.get(bits or 0.0, "")
        geometry = self._geometry()
        cx, cy = self._centre(height, width)
        self._facts()
        return Master(
            links,
            announced,
            height,
            width,
            dtype,
            cx,
            cy,
            geometry,
            mask,
            mask_shape,
            self._metadata,
            self._sources,
            tuple(self._problems),
            self._withheld,
            self._flat(),
            grid=self._grid,
        )

    def _refuse(self, key: str, line: str) -> None:
        """Note why a value is not believed, and what would be instead."""
        if key in INSTEAD:
            line += f"; give {INSTEAD[key]} in geometry.toml"
        self._problems.append(line)
        self._withheld[key] = line

    def _links(self) -> tuple[Link, ...]:
        """The external links of the data group by number, or the dataset of the master itself."""
        group = hdf5.find(self._file, DATA)
        if not isinstance(group, h5g.GroupID):
            return ()
        if group.get_num_objs() > MAX_LINKS:
            self._problems.append(f"{group.get_num_objs()} links in {show(DATA)}: not believed")
            return ()
        numbered: list[tuple[bool, int, bytes]] = []
        for name in group:
            if group.links.get_info(name).type == h5l.TYPE_EXTERNAL:
                match = re.search(rb"([0-9]{1,18})$", name)
                numbered.append((match is None, int(match[1]) if match else 0, name))
        links = []
        out = []
        for _, _, name in sorted(numbered):
            target, inside = group.links.get_val(name)
            links.append(Link(self._target(target), inside))
            if not links[-1].path:
                out.append(f"{show(name)} -> {show(target)}")
        if out:
            self._problems.append(f"{len(out)} links lead out of the raw tree: {out[0]}")
        own = DATA + b"/data"
        if not links and hdf5.dataset(self._file, own) is not None:
            links.append(Link(self._path, own))
        return tuple(links)

    def _virtual(self, dataset: bytes = b"") -> tuple[Link, ...]:
        """The sources of a virtual dataset; none where there is no such dataset."""
        found = virtual_stack(self._file, dataset)
        if found is None:
            return ()
        try:
            parts = sources(found)
        except ValueError as exc:
            self._problems.append(f"{show(split(self._path)[1])}: {exc}")
            return ()
        self._grid = grid(found)
        return tuple(
            Link(self._path if name == b"." else self._target(name), inside, part)
            for name, inside, part in parts
        )

    def _target(self, target: bytes) -> bytes:
        """The path in the raw tree that an external link leads to, b"" where it leads out."""
        parts = split(self._path)[0].split(b"/") if b"/" in self._path else []
        inside = not target.startswith(b"/") and target != b""
        for part in target.split(b"/"):
            if part == b"..":
                inside = inside and bool(parts)
                del parts[-1:]
            elif part not in (b"", b"."):
                parts.append(part)
        return b"/".join(parts) if inside else b""

    def _number(self, path: bytes, key: str = "") -> tuple[float | None, str]:
        """A finite number and its unit in lower case; None where there is none."""
        try:
            value, unit = hdf5.scalar(self._file, path)
        except hdf5.ERRORS as exc:
            self._refuse(key, f"{show(path)} {hdf5.reason(exc)}")
            return None, ""
        if not isinstance(value, float):
            return None, ""
        if not math.isfinite(value):
            self._refuse(key, f"{show(path)} is {value}")
            return None, ""
        return value, unit.lower()

    def _count(self, name: str, *, keep: bool = True) -> int | None:
        """A number of things, not negative."""
        path = SPECIFIC + name.encode()
        value, _ = self._number(path)
        if value is None:
            return None
        if value < 0 or not value.is_integer():
            self._problems.append(f"{show(path)} is {value:g}, which is no number of things")
            return None
        if keep:
            self._metadata[name] = int(value)
            self._sources[name] = show(path)
        return int(value)

    def _measure(
        self, key: str, path: bytes, units: dict[str, float], default: str
    ) -> float | None:
        """A positive quantity in the unit for which `units` has 1; None where there is none."""
        value, unit = self._number(path, key)
        if value is None:
            return None
        factor = units.get(unit or default)
        if factor is None:
            self._refuse(key, f"{show(path)} is in {unit!r}, which is no unit known here")
            return None
        if value <= 0:
            self._refuse(key, f"{show(path)} is {value:g}: never set")
            return None
        self._sources[key] = show(path)
        self._withheld.pop(key, None)
        return value * factor

    def _wavelength(self) -> float | None:
        """In nm, as given or from the photon energy."""
        energy_path = SPECIFIC + b"photon_energy"
        energy = self._measure("photon_energy_ev", energy_path, ENERGIES_EV, "ev")
        if energy is not None:
            self._metadata["photon_energy_ev"] = energy
        given = None
        for path in (
            b"/entry/instrument/beam/incident_wavelength",
            b"/entry/sample/beam/incident_wavelength",
        ):
            if given is None:
                given = self._measure("wavelength_nm", path, WAVELENGTHS_NM, "angstrom")
        if energy is None:
            if given is None and "photon_energy_ev" in self._withheld:
                self._withheld.setdefault("wavelength_nm", self._withheld["photon_energy_ev"])
            return given
        derived = HC_NM_KEV / (energy / 1e3)
        if given is None:
            self._sources["wavelength_nm"] = show(energy_path)
            self._withheld.pop("wavelength_nm", None)
            return derived
        if abs(derived - given) > TOLERANCE * given:
            self._refuse(
                "wavelength_nm",
                f"wavelength {given:.5g} nm and photon energy {energy:.6g} eV contradict each"
                " other",
            )
            return None
        return given

    def _geometry(self) -> Geometry | None:
        distance = self._measure(
            "distance_m", DETECTOR + b"detector_distance", LENGTHS_M, "m"
        ) or self._measure("distance_m", DETECTOR + b"distance", LENGTHS_M, "m")
        wavelength = self._wavelength()
        pixel = self._measure("pixel_m", DETECTOR + b"x_pixel_size", LENGTHS_M, "m")
        other = self._measure("pixel_y_m", DETECTOR + b"y_pixel_size", LENGTHS_M, "m")
        self._sources.pop("pixel_y_m", None)
        if pixel is not None and other is not None and abs(pixel - other) > TOLERANCE * pixel:
            self._refuse("pixel_m", f"pixels of {pixel:.4g} m x {other:.4g} m are not square")
            pixel = None
        values = {"distance_m": distance, "wavelength_nm": wavelength, "pixel_m": pixel}
        for key, value in values.items():
            if value is None:
                self._sources.pop(key, None)
            self._metadata[key] = value
        if distance is None or wavelength is None or pixel is None:
            return None
        return Geometry(distance, wavelength, pixel)

    def _centre(self, height: int, width: int) -> tuple[float | None, float | None]:
        paths = {"cx": DETECTOR + b"beam_center_x", "cy": DETECTOR + b"beam_center_y"}
        found: dict[str, float | None] = {}
        for key, path in paths.items():
            value, unit = self._number(path, "centre")
            found[key] = value
            pixel = self._metadata["pixel_m"]
            if value is None or unit in PIXELS or not unit:
                continue
            if unit in LENGTHS_M and isinstance(pixel, float):
                found[key] = value * LENGTHS_M[unit] / pixel
            else:
                self._refuse("centre", f"{show(path)} is in {unit!r}, which is no unit known here")
                found[key] = None
        cx, cy = found["cx"], found["cy"]
        if cx is None or cy is None:
            return None, None
        if cx == cy == 0:
            self._refuse("centre", "the beam centre is (0, 0): never set")
            return None, None
        if height and width and not within(cx, cy, height, width):
            self._refuse("centre", outside(cx, cy, height, width))
            return None, None
        self._sources.update({key: show(path) for key, path in paths.items()})
        return cx, cy

    def _facts(self) -> None:
        """What only scan.json tells."""
        exposure = self._measure(
            "exposure_s", DETECTOR + b"count_time", {"s": 1.0, "ms": 1e-3, "us": 1e-6}, "s"
        )
        if exposure is not None:
            self._metadata["exposure_s"] = exposure
        path = DETECTOR + b"description"
        try:
            description, _ = hdf5.scalar(self._file, path)
        except hdf5.ERRORS:
            return
        if isinstance(description, str):
            self._metadata["detector"] = description
            self._sources["detector"] = show(path)

    def _mask(self) -> tuple[bytes, tuple[int, int]]:
        """The packed mask and its shape; the shape (0, 0) where there is none."""
        for path in (SPECIFIC + b"pixel_mask", DETECTOR + b"pixel_mask"):
            try:
                found = hdf5.dataset(self._file, path)
                if found is None:
                    continue
                values = read_plane(found)
            except (*hdf5.ERRORS, BadData) as exc:
                why = str(exc) if isinstance(exc, DadaError) else hdf5.reason(exc)
                self._problems.append(f"{show(path)} is not used: {why}")
                continue
            self._sources["mask"] = show(path)
            return pack_mask(values != 0), values.shape
        return b"", (0, 0)

    def _flat(self) -> Flat | None:
        """The flat field, with where its chunks lie: what computes does not open HDF5 files."""
        for path in (SPECIFIC + b"flatfield", DETECTOR + b"flatfield"):
            known = Flat(show(path), 0, 0)
            try:
                found = hdf5.dataset(self._file, path)
                if found is None:
                    continue
                known = Flat(show(path), *(found.shape if len(found.shape) == 2 else (0, 0)))
                known = replace(known, applied=self._flag(b"flatfield_correction_applied"))
                return replace(known, tiles=tiles_of(found, self._path, self._identity))
            except (*hdf5.ERRORS, BadData) as exc:
                why = str(exc) if isinstance(exc, DadaError) else hdf5.reason(exc)
                return replace(known, problem=f"cannot be used: {why}")
        return None

    def _flag(self, name: bytes) -> bool | None:
        """What a dataset of 0 or 1 says, None where there is none."""
        for path in (DETECTOR + name, SPECIFIC + name):
            value, _ = hdf5.scalar(self._file, path)
            if value in (0, 1):
                return bool(value)
        return None


def within(cx: float, cy: float, height: int, width: int) -> bool:
    """Whether a beam centre lies on the detector."""
    return -0.5 <= cx <= width - 0.5 and -0.5 <= cy <= height - 0.5


def outside(cx: float, cy: float, height: int, width: int) -> str:
    """The problem of a beam centre that does not."""
    return f"the beam centre ({cx:g}, {cy:g}) is outside the detector of {width} x {height} pixels"


def tiles_of(found: h5d.DatasetID, path: bytes, identity: Identity) -> ChunkRun:
    """Where the chunks of a plane of floats lie in its file, in raster order. BadData."""
    if len(found.shape) != 2 or found.dtype.kind != "f" or found.dtype.itemsize not in (4, 8):
        raise BadData(f"{len(found.shape)} dimensions of {found.dtype}")
    properties = found.get_create_plist()
    height, width = found.shape
    if not 0 < height * width <= MAX_PIXELS:
        raise BadData(f"{height} x {width} pixels")
    places: list[tuple[int, int]] = []
    if properties.get_layout() == h5d.CONTIGUOUS:
        tile = found.shape
        if found.get_offset() is not None:
            places.append((found.get_offset(), found.get_storage_size()))
    elif properties.get_layout() == h5d.CHUNKED:
        tile = properties.get_chunk()
        for row in range(0, height, tile[0]):
            for column in range(0, width, tile[1]):
                info = found.get_chunk_info_by_coord((row, column))
                if info.filter_mask == 0 and info.byte_offset is not None:
                    places.append((info.byte_offset, info.size))
    else:
        raise BadData("it is stored within the header of its file")
    if len(places) != -(-height // tile[0]) * -(-width // tile[1]) or len(places) > MAX_TILES:
        raise BadData("its chunks are not all there, or too many")
    codec = Codec(tile[0], tile[1], found.dtype.str, hdf5.filters(found))
    offsets, lengths = (np.array(column) for column in zip(*places, strict=True))
    return ChunkRun(
        path, identity, codec, 0, offsets.astype("<u8").tobytes(), lengths.astype("<u4").tobytes()
    )


def read_plane(found: h5d.DatasetID) -> np.ndarray[tuple[int, int], np.dtype[Any]]:
    """A dataset of integers (rows, columns). BadData when it is none, or does not decode.

    Compressed chunks go through our own decoder, which checks what the library's filters trust.
    """
    shape = found.shape
    if len(shape) != 2 or found.dtype.kind not in "iub":
        raise BadData(f"{len(shape)} dimensions of {found.dtype}")
    if not 0 < shape[0] * shape[1] <= MAX_PIXELS:
        raise BadData(f"{shape[0]} x {shape[1]} pixels")
    plane = np.zeros((shape[0], shape[1]), found.dtype)
    if found.get_create_plist().get_layout() != h5d.CHUNKED:
        h5py.Dataset(found).read_direct(plane)
        return plane
    height, width = found.get_create_plist().get_chunk()
    if height * width > MAX_PIXELS:
        raise BadData(f"chunks of {height} x {width} pixels")
    codec = Codec(height, width, found.dtype.str, hdf5.filters(found))
    for number in range(found.get_num_chunks()):
        row, column = found.get_chunk_info(number).chunk_offset
        skipped, chunk = found.read_direct_chunk((row, column))
        if skipped:
            raise BadData("a chunk that lacks filters")
        part = decode(bytes(chunk), codec)
        target = plane[row : row + height, column : column + width]
        target[...] = part[: target.shape[0], : target.shape[1]]
    return plane
