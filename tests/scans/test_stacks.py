"""Frames wherever they are in an HDF5 file."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scanfiles import BITSHUFFLE, SHAPE, frames_from, read_slice, write_scan

from dadafs.scans.catalog import Catalog
from dadafs.scans.model import Raster
from dadafs.scans.tree import RawTree


def stack(file: h5py.File, path: str, first: int, count: int) -> h5py.Dataset:
    frames = frames_from(first, count)
    return file.create_dataset(path, data=frames, chunks=(1, *SHAPE), **BITSHUFFLE)


def test_nexus_file_is_a_scan(root: Path, tree: RawTree, catalog: Catalog) -> None:
    with h5py.File(root / "run_7.nxs", "w") as file:
        stack(file, "/entry_0001/eiger/image", 0, 4)
    assert [entry.name for entry in catalog.list(b"")] == [b"run_7"]
    scan = catalog.scan(b"run_7")
    assert (scan.frames, scan.problems) == (4, ())
    frames = read_slice(tree, catalog.slice(b"run_7", 0, 4))
    assert_array_equal(frames[3], frames_from(3, 1)[0])


def test_nexus_default_leads_to_the_signal(root: Path, catalog: Catalog) -> None:
    with h5py.File(root / "r.nxs", "w") as file:
        stack(file, "/entry1/other/b", 0, 9)
        stack(file, "/entry1/plot/counts", 0, 3)
        file.attrs["default"] = "entry1"
        file["entry1"].attrs["default"] = "plot"
        file["entry1/plot"].attrs["signal"] = "counts"
    assert catalog.scan(b"r").frames == 3


def test_signal_of_nxdata_without_default(root: Path, catalog: Catalog) -> None:
    with h5py.File(root / "r.nxs", "w") as file:
        stack(file, "/scan/detector/raw", 0, 9)
        stack(file, "/scan/plot/counts", 0, 3)
        file["scan/plot"].attrs["signal"] = np.bytes_("counts")
        file["scan/plot/again"] = file["scan/plot/counts"]  # the same by another name
    assert catalog.scan(b"r").frames == 3


def test_several_series_are_told(root: Path, catalog: Catalog) -> None:
    with h5py.File(root / "r.nxs", "w") as file:
        stack(file, "/a/x", 0, 3)
        stack(file, "/b/y", 0, 3)
    scan = catalog.scan(b"r")
    assert scan.frames == 0
    assert scan.problems[0] == (
        "r.nxs: 2 series of frames in it (/a/x, /b/y): name one in geometry.toml,"
        ' [data] dataset = "/a/x"'
    )
    (root / "geometry.toml").write_text('[data]\ndataset = "/b/y"')
    assert Catalog(catalog._tree, catalog._indexer._store).scan(b"r").frames == 3


def test_nexus_file_without_frames(root: Path, catalog: Catalog) -> None:
    with h5py.File(root / "r.nxs", "w") as file:
        file["/entry/motors/x"] = np.arange(5.0)
    assert catalog.scan(b"r").problems[0].startswith("r.nxs: no dataset /entry/data/data in it")


@pytest.mark.parametrize("chunked", [True, False])
def test_an_axis_for_lines_and_points(
    root: Path, tree: RawTree, catalog: Catalog, chunked: bool
) -> None:
    frames = frames_from(0, 12).reshape(3, 4, *SHAPE)
    with h5py.File(root / "r.nxs", "w") as file:
        options = {"chunks": (1, 1, *SHAPE), **BITSHUFFLE} if chunked else {}
        file.create_dataset("/entry/data/data", data=frames, **options)
    scan = catalog.scan(b"r")
    assert scan.raster == Raster(4, 3, source="the shape of the dataset: lines x points")
    found = read_slice(tree, catalog.slice(b"r", 0, 12))
    for number, frame in found.items():
        assert_array_equal(frame, frames_from(number, 1)[0])
    assert len(found) == 12


def test_master_with_several_triggers(root: Path, tree: RawTree, catalog: Catalog) -> None:
    write_scan(root, counts=(4, 4, 4), announced=4, ntrigger=3)
    scan = catalog.scan(b"scan42")
    assert (scan.frames, scan.problems) == (12, ())
    assert scan.raster is not None
    assert (scan.raster.horz, scan.raster.vert) == (4, 3)
    assert len(read_slice(tree, catalog.slice(b"scan42", 0, 12))) == 12
