"""Frames wherever they are in an HDF5 file."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scanfiles import BITSHUFFLE, SHAPE, frames_from, read_slice, write_scan

from dadafs.scans.catalog import Catalog
from dadafs.scans.model import Identity, Raster
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


def test_frames_are_rather_unsigned_than_what_was_made_of_them(
    root: Path, catalog: Catalog
) -> None:
    with h5py.File(root / "r.nxs", "w") as file:
        stack(file, "/entry1/eiger/image", 0, 3)
        file["entry1/processed/corrected"] = np.ones((5, *SHAPE), "<f4")
        file["entry1/processed/difference"] = np.ones((5, *SHAPE), "<i4")
        file["entry1/processed"].attrs["signal"] = "corrected"
    scan = catalog.scan(b"r")
    assert (scan.frames, scan.dtype, scan.problems) == (3, "<u2", ())


@pytest.mark.parametrize(("stored", "counts"), [("<i2", "<u2"), ("<f8", "<u4"), (">u4", "<u4")])
def test_pixels_of_any_kind_are_counts(
    root: Path, tree: RawTree, catalog: Catalog, stored: str, counts: str
) -> None:
    frames = frames_from(0, 4).astype(stored)
    with h5py.File(root / "r.nxs", "w") as file:
        file.create_dataset("entry/x/y", data=frames, chunks=(1, *SHAPE), **BITSHUFFLE)
    scan = catalog.scan(b"r")
    assert (scan.frames, scan.dtype, scan.problems) == (4, counts, ())
    assert catalog.slice(b"r", 0, 4).runs[0].codec.dtype == stored


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


def virtual(root: Path, shape: tuple[int, ...], *sources: tuple[str, object, int, object]) -> None:
    """`v_master.h5` with a virtual dataset; of each source its file, what of all it is, how many
    frames it has, and what of them is taken."""
    layout = h5py.VirtualLayout((*shape, *SHAPE), "u2")
    for name, place, count, taken in sources:
        layout[place] = h5py.VirtualSource(name, "/entry/data/data", (count, *SHAPE))[taken]
    with h5py.File(root / "v_master.h5", "w") as file:
        file.create_virtual_dataset("/entry/data/data", layout)


def test_virtual_master(root: Path, tree: RawTree, catalog: Catalog) -> None:
    """Runs of frames of files that have more, in any order; one file is not there yet."""
    (root / "sub").mkdir()
    for name, first in (("sub/a.h5", 0), ("b.h5", 100)):
        with h5py.File(root / name, "w") as file:
            stack(file, "/entry/data/data", first, 8)
    every = np.s_[:]
    virtual(
        root,
        (13,),
        ("b.h5", np.s_[0:3], 8, np.s_[2:5]),
        ("sub/a.h5", np.s_[4:12], 8, every),
        ("c.h5", np.s_[12:13], 1, every),
    )
    scan = catalog.scan(b"v")
    assert (scan.frames, scan.problems) == (13, ("1 of 3 data files are missing: c.h5",))
    frames = read_slice(tree, catalog.slice(b"v", 0, 13))
    assert sorted(frames) == [0, 1, 2, *range(4, 12)]  # 3 is in no file
    with h5py.File(root / "v_master.h5") as file:
        for number, frame in frames.items():
            assert_array_equal(frame, file["/entry/data/data"][number])
    assert [one.state for one in catalog.data_files(b"v")] == ["present", "present", "missing"]
    files = {one.name: one.identity for one in catalog.files(b"v", scan.version)}
    assert set(files) == {b"v_master.h5", b"b.h5", b"sub/a.h5"}
    assert (scan.files, scan.name_bytes) == (3, len("v_master.h5"))
    for name, identity in files.items():
        of = (root / name.decode()).stat()
        assert identity == Identity(of.st_size, of.st_mtime_ns, of.st_ino)


def test_virtual_lines(root: Path, tree: RawTree, catalog: Catalog) -> None:
    """A file for each line of a raster."""
    for line in range(3):
        with h5py.File(root / f"line{line}.h5", "w") as file:
            stack(file, "/entry/data/data", 10 * line, 4)
    virtual(root, (3, 4), *((f"line{line}.h5", np.s_[line], 4, np.s_[:]) for line in range(3)))
    scan = catalog.scan(b"v")
    assert (scan.frames, scan.problems) == (12, ())
    assert scan.raster is not None
    assert (scan.raster.horz, scan.raster.vert) == (4, 3)
    frames = read_slice(tree, catalog.slice(b"v", 0, 12))
    assert_array_equal(frames[9], frames_from(21, 1)[0])


def test_virtual_dataset_of_the_user(root: Path, tree: RawTree, catalog: Catalog) -> None:
    with h5py.File(root / "a.h5", "w") as file:
        stack(file, "/entry/data/data", 0, 4)
    virtual(root, (4,), ("a.h5", np.s_[:], 4, np.s_[:]))
    with h5py.File(root / "v_master.h5", "a") as file:
        file.move("/entry/data/data", "/measurement/eiger")
    (root / "geometry.toml").write_text('[data]\ndataset = "/measurement/eiger"\n')
    assert catalog.scan(b"v").frames == 4
    assert_array_equal(read_slice(tree, catalog.slice(b"v", 3, 1))[3], frames_from(3, 1)[0])


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (("a.h5", np.s_[:, 0:3], 4, np.s_[:, 0:3]), "parts of frames"),
        (("a.h5", np.s_[0:4:2], 4, np.s_[0:2]), "parts of frames"),
        (("../../a.h5", np.s_[:], 4, np.s_[:]), "no frames can be read"),
    ],
)
def test_virtual_datasets_that_are_refused(
    root: Path, catalog: Catalog, source: tuple[str, object, int, object], line: str
) -> None:
    virtual(root, (4,), source)
    scan = catalog.scan(b"v")
    assert scan.frames == 0
    assert any(line in problem for problem in scan.problems), scan.problems


def test_virtual_sources_that_overlap(root: Path, catalog: Catalog) -> None:
    virtual(root, (4,), ("a.h5", np.s_[0:3], 3, np.s_[:]), ("b.h5", np.s_[2:4], 2, np.s_[:]))
    assert "frame 2 is in b.h5 and elsewhere" in catalog.scan(b"v").problems[0]
