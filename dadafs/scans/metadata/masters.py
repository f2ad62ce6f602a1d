"""What a master file says: where the frames are, how the detector stood, which pixels are bad."""

from __future__ import annotations

import os
import re

import h5py
import msgspec
from h5py import h5g, h5l
from msgspec.structs import replace

from analysis.plan import Geometry, pack_mask
from dadafs.errors import BadData, DadaError
from dadafs.scans.beside.overrides import HC_NM_KEV
from dadafs.scans.formats import hdf5
from dadafs.scans.metadata.layout import Part
from dadafs.scans.metadata.planes import read_plane, tiles_of
from dadafs.scans.metadata.quantities import (
    ENERGIES_EV,
    LENGTHS_M,
    PIXELS,
    TIMES_S,
    WAVELENGTHS_NM,
    Quantities,
)
from dadafs.scans.metadata.virtual import grid, sources, virtual_stack
from dadafs.scans.model import Flat, Identity
from dadafs.scans.names import show, split
from dadafs.scans.tree import RawTree, identity_of

DATA = b"/entry/data"
DETECTOR = b"/entry/instrument/detector/"
SPECIFIC = DETECTOR + b"detectorSpecific/"
MAX_ANNOUNCED = 1 << 30
MAX_LINKS = 100_000  # ten times as many data files as the largest scans have
TOLERANCE = 0.01  # of values that are said twice


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
        self._told = Quantities(file)
        self._grid: tuple[int, int] | None = None

    def read(self, dataset: bytes) -> Master:
        """All of it."""
        links = self._virtual(dataset) if dataset else ()
        if not links and dataset and hdf5.dataset(self._file, dataset) is not None:
            links = (Link(self._path, dataset),)
        links = links or self._links() or self._virtual()
        images = self._told.count(SPECIFIC + b"nimages", "nimages")
        triggers = self._told.count(SPECIFIC + b"ntrigger", "ntrigger")
        announced = (images or 0) * (1 if triggers is None else triggers)
        if links and links[-1].part is not None:
            announced = max(announced, links[-1].part.end)
        if announced > MAX_ANNOUNCED:
            self._told.problems.append(f"{announced} frames announced: not believed")
            announced = 0
        height = self._told.count(SPECIFIC + b"y_pixels_in_detector") or 0
        width = self._told.count(SPECIFIC + b"x_pixels_in_detector") or 0
        mask, mask_shape = self._mask()
        if not height and not width:
            height, width = mask_shape
        bits, _ = self._told.number(DETECTOR + b"bit_depth_image")
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
            self._told.values,
            self._told.sources,
            tuple(self._told.problems),
            self._told.withheld,
            self._flat(),
            grid=self._grid,
        )

    def _links(self) -> tuple[Link, ...]:
        """The external links of the data group by number, or the dataset of the master itself."""
        group = hdf5.find(self._file, DATA)
        if not isinstance(group, h5g.GroupID):
            return ()
        if group.get_num_objs() > MAX_LINKS:
            self._told.problems.append(
                f"{group.get_num_objs()} links in {show(DATA)}: not believed"
            )
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
            self._told.problems.append(f"{len(out)} links lead out of the raw tree: {out[0]}")
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
            self._told.problems.append(f"{show(split(self._path)[1])}: {exc}")
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

    def _wavelength(self) -> float | None:
        """In nm, as given or from the photon energy."""
        energy_path = SPECIFIC + b"photon_energy"
        energy = self._told.measure("photon_energy_ev", energy_path, ENERGIES_EV, "ev")
        if energy is not None:
            self._told.values["photon_energy_ev"] = energy
        given = None
        for path in (
            b"/entry/instrument/beam/incident_wavelength",
            b"/entry/sample/beam/incident_wavelength",
        ):
            if given is None:
                given = self._told.measure("wavelength_nm", path, WAVELENGTHS_NM, "angstrom")
        if energy is None:
            if given is None and "photon_energy_ev" in self._told.withheld:
                self._told.withheld.setdefault(
                    "wavelength_nm", self._told.withheld["photon_energy_ev"]
                )
            return given
        derived = HC_NM_KEV / (energy / 1e3)
        if given is None:
            self._told.sources["wavelength_nm"] = show(energy_path)
            self._told.withheld.pop("wavelength_nm", None)
            return derived
        if abs(derived - given) > TOLERANCE * given:
            self._told.refuse(
                "wavelength_nm",
                f"wavelength {given:.5g} nm and photon energy {energy:.6g} eV contradict each"
                " other",
            )
            return None
        return given

    def _geometry(self) -> Geometry | None:
        distance = self._told.measure(
            "distance_m", DETECTOR + b"detector_distance", LENGTHS_M, "m"
        ) or self._told.measure("distance_m", DETECTOR + b"distance", LENGTHS_M, "m")
        wavelength = self._wavelength()
        pixel = self._told.measure("pixel_m", DETECTOR + b"x_pixel_size", LENGTHS_M, "m")
        other = self._told.measure("pixel_y_m", DETECTOR + b"y_pixel_size", LENGTHS_M, "m")
        self._told.sources.pop("pixel_y_m", None)
        if pixel is not None and other is not None and abs(pixel - other) > TOLERANCE * pixel:
            self._told.refuse("pixel_m", f"pixels of {pixel:.4g} m x {other:.4g} m are not square")
            pixel = None
        values = {"distance_m": distance, "wavelength_nm": wavelength, "pixel_m": pixel}
        for key, value in values.items():
            if value is None:
                self._told.sources.pop(key, None)
            self._told.values[key] = value
        if distance is None or wavelength is None or pixel is None:
            return None
        return Geometry(distance, wavelength, pixel)

    def _centre(self, height: int, width: int) -> tuple[float | None, float | None]:
        paths = {"cx": DETECTOR + b"beam_center_x", "cy": DETECTOR + b"beam_center_y"}
        found: dict[str, float | None] = {}
        for key, path in paths.items():
            value, unit = self._told.number(path, "centre")
            found[key] = value
            pixel = self._told.values["pixel_m"]
            if value is None or unit in PIXELS or not unit:
                continue
            if unit in LENGTHS_M and isinstance(pixel, float):
                found[key] = value * LENGTHS_M[unit] / pixel
            else:
                self._told.refuse(
                    "centre", f"{show(path)} is in {unit!r}, which is no unit known here"
                )
                found[key] = None
        cx, cy = found["cx"], found["cy"]
        if cx is None or cy is None:
            return None, None
        if cx == cy == 0:
            self._told.refuse("centre", "the beam centre is (0, 0): never set")
            return None, None
        if height and width and not within(cx, cy, height, width):
            self._told.refuse("centre", outside(cx, cy, height, width))
            return None, None
        self._told.sources.update({key: show(path) for key, path in paths.items()})
        return cx, cy

    def _facts(self) -> None:
        """What only scan.json tells."""
        exposure = self._told.measure("exposure_s", DETECTOR + b"count_time", TIMES_S, "s")
        if exposure is not None:
            self._told.values["exposure_s"] = exposure
        path = DETECTOR + b"description"
        try:
            description, _ = hdf5.scalar(self._file, path)
        except hdf5.ERRORS:
            return
        if isinstance(description, str):
            self._told.values["detector"] = description
            self._told.sources["detector"] = show(path)

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
                self._told.problems.append(f"{show(path)} is not used: {why}")
                continue
            self._told.sources["mask"] = show(path)
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
