"""Every layout of files that becomes a scan, mounted: numbers, where they are from, raw bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import fabio
import h5py
import numpy as np
import pytest
from fabio.cbfimage import CbfImage
from fabio.edfimage import EdfImage
from metadatafiles import fio, spec
from mounting import Site, contents
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from scanfiles import BITSHUFFLE, SHAPE, SPECIFIC, write_data, write_master

pytestmark = pytest.mark.mount

HORZ, VERT = 4, 3
MESH = f"mesh stx 0 10 {HORZ - 1} sty 0 4 {VERT - 1} 0.02"
TOML = f"[raster]\nhorz = {HORZ}\n"
PILATUS = """\
# Detector: PILATUS 300K, S/N 3-0101
# Pixel_size 172e-6 m x 172e-6 m
# Wavelength 0.90000 A
# Detector_distance 2.50000 m
# Beam_xy (2.50, 3.25) pixels
"""


class Laid(NamedTuple):
    """A scan of `HORZ` x `VERT` points on disk."""

    scan: str
    """Its path, below the directory of the layout."""
    files: list[str]
    """What is in its `raw/`; all in the scan's directory."""
    sources: dict[str, str]
    """Of what scan.json says; paths below the directory of the layout."""
    read: Callable[[], NDArray[Any]]
    """The frames by a program of the field, (frames, rows, columns)."""
    order: str = "raster"
    master: Path | None = None
    """With a pixel mask."""


def counts(number: int = HORZ * VERT, dtype: str = "<u2", seed: int = 0) -> NDArray[Any]:
    """Frames with a pixel that was not measured in every second one."""
    frames = np.random.default_rng(seed).poisson(9.0, (number, *SHAPE)).astype(dtype)
    invalid = {"i": -2, "f": np.nan}
    kind = frames.dtype.kind
    frames[1::2, 2, 3] = invalid[kind] if kind in invalid else np.iinfo(dtype).max
    return frames


def measured(frames: NDArray[Any]) -> NDArray[np.bool_]:
    """Which pixels are counts."""
    if frames.dtype.kind == "u":
        return np.asarray(frames != np.iinfo(frames.dtype).max)
    return np.asarray(frames >= 0)


def stack(file: h5py.File, path: str, frames: NDArray[Any]) -> None:
    chunks = (*(1 for _ in frames.shape[:-2]), *SHAPE)
    file.create_dataset(path, data=frames, chunks=chunks, **BITSHUFFLE)


def from_hdf5(path: Path, dataset: str) -> Callable[[], NDArray[Any]]:
    def read() -> NDArray[Any]:
        with h5py.File(path) as file:
            return np.asarray(file[dataset][()]).reshape(-1, *SHAPE)

    return read


def from_links(master: Path) -> Callable[[], NDArray[Any]]:
    def read() -> NDArray[Any]:
        with h5py.File(master) as file:
            return np.concatenate([link[()] for link in file["entry/data"].values()])

    return read


def nexus_by_default_attributes(root: Path) -> Laid:
    with h5py.File(root / "run_7.nxs", "w") as file:
        stack(file, "/entry1/other/raw", counts(seed=1))
        stack(file, "/entry1/plot/image", counts())
        file.attrs["default"] = "entry1"
        file["entry1"].attrs["default"] = "plot"
        file["entry1/plot"].attrs["signal"] = "image"
    (root / "geometry.toml").write_text(TOML)
    read = from_hdf5(root / "run_7.nxs", "/entry1/plot/image")
    return Laid("run_7", ["run_7.nxs"], {"raster": "geometry.toml: horz"}, read)


def nexus_by_its_only_signal(root: Path) -> Laid:
    """With an axis for lines and one for points."""
    with h5py.File(root / "run_7.nxs", "w") as file:
        stack(file, "/scan/detector/raw", counts(9, seed=1))
        stack(file, "/scan/plot/image", counts().reshape(VERT, HORZ, *SHAPE))
        file["scan/plot"].attrs["NX_class"] = "NXdata"
        file["scan/plot"].attrs["signal"] = "image"
    read = from_hdf5(root / "run_7.nxs", "/scan/plot/image")
    source = "the shape of the dataset: lines x points"
    return Laid("run_7", ["run_7.nxs"], {"raster": source}, read)


def nexus_named_by_the_user(root: Path) -> Laid:
    with h5py.File(root / "run_7.nxs", "w") as file:
        stack(file, "/a/x", counts(seed=1))
        stack(file, "/b/y", counts())
    (root / "geometry.toml").write_text(f'{TOML}[data]\ndataset = "/b/y"\n')
    read = from_hdf5(root / "run_7.nxs", "/b/y")
    return Laid("run_7", ["run_7.nxs"], {"raster": "geometry.toml: horz"}, read)


def nexus_of(dtype: str) -> Callable[[Path], Laid]:
    """Pixels as detectors with electronic noise, and programs that correct, store them."""

    def lay(root: Path) -> Laid:
        with h5py.File(root / "run_7.nxs", "w") as file:
            stack(file, "/entry/data/data", counts(dtype=dtype))
        (root / "geometry.toml").write_text(TOML)
        read = from_hdf5(root / "run_7.nxs", "/entry/data/data")
        return Laid("run_7", ["run_7.nxs"], {"raster": "geometry.toml: horz"}, read)

    lay.__name__ = f"nexus_of_{np.dtype(dtype)}"
    return lay


def virtual_dataset(root: Path) -> Laid:
    """Frames of files that have more, each file a part of the raster."""
    (root / "lines").mkdir()
    layout = h5py.VirtualLayout((VERT, HORZ, *SHAPE), "<u2")
    for line in range(VERT):
        name = f"lines/line{line}.h5"
        with h5py.File(root / name, "w") as file:
            stack(file, "/entry/data/data", counts(HORZ + 2, seed=line))
        source = h5py.VirtualSource(name, "/entry/data/data", (HORZ + 2, *SHAPE))
        layout[line] = source[1 : HORZ + 1]
    with h5py.File(root / "v_master.h5", "w") as file:
        file.create_virtual_dataset("/entry/data/data", layout)
    read = from_hdf5(root / "v_master.h5", "/entry/data/data")
    source = "the shape of the dataset: lines x points"
    return Laid("v", ["v_master.h5"], {"raster": source}, read)


def written(directory: Path, name: str, **facts: Any) -> tuple[Path, list[str]]:
    """As DECTRIS's file writer does: an NXmx master with a pixel mask, two data files."""
    directory.mkdir(parents=True, exist_ok=True)
    half = HORZ * VERT // 2
    links = [f"{name}_data_{number:06}.h5" for number in (1, 2)]
    for number, link in enumerate(links):
        frames = counts()[number * half : (number + 1) * half]
        write_data(directory / link, frames, low=1 + number * half)
    mask = np.zeros(SHAPE, np.uint32)
    mask[1, 2], mask[4] = 1, 8
    master = directory / f"{name}_master.h5"
    write_master(master, links, mask, **{"nimages": HORZ * VERT, **facts})
    with h5py.File(master, "a") as file:
        file["entry/definition"] = "NXmx"
    return master, [master.name, *links]


def nxmx_with_several_triggers(root: Path) -> Laid:
    master, files = written(root, "scan42", nimages=HORZ, ntrigger=VERT)
    source = "nimages x ntrigger: a line for each trigger"
    told = {"raster": source, "distance_m": "/entry/instrument/detector/detector_distance"}
    return Laid("scan42", files, told, from_links(master), master=master)


def p10_with_a_spec_file(root: Path) -> Laid:
    """P10 (PETRA III), with SPEC, which says *snake* in a comment."""
    master, files = written(root / "run/detectors/eiger/new", "new_00042")
    text = spec((41, "ascan stx 0 1 9 1"), (42, MESH), (43, "ct 1"))
    (root / "run/new.dat").write_text(text.replace("#T 0.02", "#C mode: snake\n#T 0.02"))
    scan, source = "run/detectors/eiger/new/new_00042", f"run/new.dat #S 42: {MESH}"
    return Laid(scan, files, {"raster": source}, from_links(master), "snake", master)


def p10_with_a_fio_file(root: Path) -> Laid:
    """P10 (PETRA III), with Sardana, whose `mesh` ends in `bidirectional`."""
    master, files = written(root / "s_00042/e4m", "s_00042")
    (root / "s_00042/s_00042.fio").write_text(fio(f"{MESH} True"))
    source = f"s_00042/s_00042.fio: {MESH} True"
    scan = "s_00042/e4m/s_00042"
    return Laid(scan, files, {"raster": source}, from_links(master), "snake", master)


def id13(root: Path) -> Laid:
    """ID13 (ESRF): numbers without zeros, all in one directory."""
    master, files = written(root, "new_42")
    written(root, "new_43")
    (root / "new.dat").write_text(spec((42, MESH), (43, "ascan stx 0 1 11 1")))
    source = f"new.dat #S 42: {MESH}"
    return Laid("new_42", files, {"raster": source}, from_links(master), master=master)


def single_files(root: Path, ending: str, write: Callable[[Path, NDArray[Any]], None]) -> Laid:
    names = [f"p_{number:05}.{ending}" for number in range(HORZ * VERT)]
    for name, frame in zip(names, counts(dtype="<i4"), strict=True):
        write(root / name, frame)
    (root / "geometry.toml").write_text(TOML)

    def read() -> NDArray[Any]:
        return np.stack([fabio.open(os.fspath(root / name)).data for name in names])

    return Laid("p", names, {"raster": "geometry.toml: horz"}, read)


def cbf_of_a_pilatus(root: Path) -> Laid:
    def write(path: Path, frame: NDArray[Any]) -> None:
        image = CbfImage(data=frame)
        image.header["_array_data.header_convention"] = "PILATUS_1.2"
        image.header["_array_data.header_contents"] = PILATUS
        image.pilatus_headers = None
        image.write(os.fspath(path))

    laid = single_files(root, "cbf", write)
    header = "header of the first file"
    return laid._replace(sources=laid.sources | {"distance_m": header, "cx": header})


def edf(root: Path) -> Laid:
    def write(path: Path, frame: NDArray[Any]) -> None:
        EdfImage(data=frame, header={"title": "a scan"}).write(os.fspath(path))

    return single_files(root, "edf", write)


def folded(values: NDArray[Any], order: str) -> NDArray[np.float64]:
    """Values of frames as (line, point, ...)."""
    out = values.reshape(VERT, HORZ, *values.shape[1:]).astype(np.float64)
    if order == "snake":
        out[1::2] = out[1::2, ::-1].copy()
    return out


@pytest.mark.parametrize(
    "lay",
    [
        nexus_by_default_attributes,
        nexus_by_its_only_signal,
        nexus_named_by_the_user,
        *map(nexus_of, ("<i2", "<i4", "<f4", "<u8", ">u2")),
        virtual_dataset,
        nxmx_with_several_triggers,
        cbf_of_a_pilatus,
        edf,
        p10_with_a_spec_file,
        p10_with_a_fio_file,
        id13,
    ],
)
def test_a_layout(shared: Site, lay: Callable[[Path], Laid]) -> None:
    root = shared.raw / "layouts" / lay.__name__
    root.mkdir(parents=True)
    laid = lay(root)
    scan = f"layouts/{lay.__name__}/{laid.scan}"
    frames = laid.read()
    assert frames.shape == (HORZ * VERT, *SHAPE)
    valid = measured(frames)
    if laid.master is not None:
        with h5py.File(laid.master) as file:
            valid &= file[SPECIFIC + "pixel_mask"][()] == 0
    rows, columns = np.indices(SHAPE)
    sector = np.degrees(np.arctan2(2.25 - rows, columns - 1.75)) % 360 // 90
    assert not valid.all()

    each = np.where(valid, frames, 0).astype(np.int64)
    darkfield = shared.load(f"{scan}/darkfield/full.npy")
    assert_array_equal(darkfield, folded(each.sum((1, 2)), laid.order))
    sums = np.stack([each[:, sector == one].sum(1) for one in range(4)], axis=1)
    pixels = np.stack([valid[:, sector == one].sum(1) for one in range(4)], axis=1)
    profiles = np.stack(
        [folded(one, laid.order) for one in (sums / pixels, np.sqrt(sums) / pixels, pixels)]
    )
    assert_array_equal(shared.load(f"{scan}/azimuthal/cx=1.75/cy=2.25/bins=4.npy"), profiles)

    told = json.loads(contents(shared.mnt / scan / "scan.json"))
    place = f"layouts/{lay.__name__}/"
    raster = told["raster"]
    assert (raster["horz"], raster["vert"], raster["order"]) == (HORZ, VERT, laid.order)
    assert raster["source"].removeprefix(place) == laid.sources["raster"]
    found = {name: told["sources"].get(name, "").removeprefix(place) for name in laid.sources}
    assert found == laid.sources
    assert (told["problems"], told["complete"]) == ([], True)

    assert sorted(os.listdir(shared.mnt / scan / "raw")) == sorted(laid.files)
    for name in laid.files:
        there = root / laid.scan.rpartition("/")[0] / name
        assert contents(shared.mnt / scan / "raw" / name) == there.read_bytes()
