"""Frames that LImA recorded for BLISS: which files make a scan, and which frames are in which."""

from __future__ import annotations

from pathlib import Path

import pytest
from blissfiles import lima_name, write_camera, write_lima
from hypothesis import given
from hypothesis import strategies as st
from scanfiles import Clock, assert_frames, frames_from

from dadafs.errors import NoSuchPath
from dadafs.scans.catalog import Catalog
from dadafs.scans.frames.lima import lima_links
from dadafs.scans.names import ScanFiles, group, scan_of
from dadafs.scans.tree import RawTree

SCAN = b"s_0001/scan0001/eiger"


@pytest.fixture
def directory(root: Path) -> Path:
    made = root / "s_0001/scan0001"
    made.mkdir(parents=True)
    return made


def test_names_in_the_directory_of_a_scan() -> None:
    files = [b"eiger_0001.h5", b"eiger_0000.h5", b"mpx_1_10000.h5", b"mpx_1_9999.h5", b"a.txt"]
    scans, loose = group(files, (), b"s_0001/scan0001")
    assert scans == {
        b"eiger": ScanFiles(None, (b"eiger_0000.h5", b"eiger_0001.h5"), lima=True),
        b"mpx_1": ScanFiles(None, (b"mpx_1_9999.h5", b"mpx_1_10000.h5"), lima=True),
    }
    assert loose == [b"a.txt"]


@pytest.mark.parametrize("directory", [b"", b"s_0001", b"scan1", b"scan0001/x", b"my_scan0001"])
def test_the_same_names_elsewhere(directory: bytes) -> None:
    files = [b"s_0001.h5", b"eiger_0000.h5", b"eiger_0001.h5"]
    assert group(files, (), directory) == ({}, files)
    assert all(scan_of(name, directory) is None for name in files)


def test_other_names_in_that_directory() -> None:
    files = [b"bliss.h5", b"_0000.h5", b"e_00000.h5", b"e_001.h5", b".e_0000.h5", b"e_0000.hdf5"]
    assert group(files, (), b"scan0001") == ({}, files)
    files = [b"e_master.h5", b"e_0000.h5", b"f_data_000001.h5", b"f_0000.h5"]
    scans, loose = group(files, (), b"scan0001")
    assert (set(scans), loose) == ({b"e", b"f"}, [b"e_0000.h5", b"f_0000.h5"])


def test_names_that_are_taken() -> None:
    scans, loose = group([b"e_0000.h5", b"e"], [b"e.scan"], b"scan0001")
    assert (set(scans), loose) == ({b"e.scan.scan"}, [b"e"])


@given(st.integers(0, 60), st.integers(0, 20), st.sets(st.integers(0, 40), min_size=1))
def test_every_frame_has_one_place(frames: int, per_file: int, numbers: set[int]) -> None:
    names = tuple(lima_name("e", number).encode() for number in sorted(numbers))
    links = lima_links(b"d", ScanFiles(None, names, lima=True), frames, per_file)
    expected = [b"d/" + lima_name("e", at).encode() for at in range(len(links))]
    assert [link.path for link in links] == expected
    assert len(links) > max(numbers)
    parts = [link.part for link in links if link.part is not None]
    if not frames or not per_file:
        assert parts == []
        return
    assert len(parts) == len(links)
    placed = [frame for part in parts for frame in range(part.first, part.end)]
    assert placed == list(range(len(placed)))
    assert len(placed) % frames == 0
    assert all(part.count == min(per_file, frames) for part in parts if part.end % frames)


def test_numbers_far_apart_are_no_positions() -> None:
    names = (b"e_0000.h5", b"e_99999999.h5")
    links = lima_links(b"", ScanFiles(None, names, lima=True), 10, 5)
    assert [(link.path, link.part) for link in links] == [(names[0], None), (names[1], None)]


def test_files_follow_one_another(directory: Path, tree: RawTree, catalog: Catalog) -> None:
    """The last one is allocated in full too; its frames beyond the series are none."""
    write_camera(directory, frames_from(0, 10), 4)
    assert [entry.name for entry in catalog.list(b"s_0001/scan0001")] == [b"eiger"]
    assert_frames(tree, catalog, SCAN, range(10), 10)
    scan = catalog.scan(SCAN)
    assert scan.problems == ()
    assert scan.metadata["detector"] == "Dectris Eiger 4M"
    assert scan.metadata["exposure_s"] == 0.01
    assert scan.metadata["pixel_m"] == 75e-6
    place = "/entry_0000/ESRF-ID13/eiger/"
    assert scan.sources["pixel_m"] == place + "detector_information/pixel_size/xsize"
    assert (scan.geometry, scan.cx) == (None, None)
    found = [(one.name, one.first, one.frames) for one in catalog.data_files(SCAN)]
    assert found == [("eiger_0000.h5", 0, 4), ("eiger_0001.h5", 4, 4), ("eiger_0002.h5", 8, 2)]
    raw = [entry.name for entry in catalog.raw_files(SCAN)]
    assert sorted(raw) == [b"eiger_0000.h5", b"eiger_0001.h5", b"eiger_0002.h5"]
    with pytest.raises(NoSuchPath, match="is part of scan eiger: eiger/raw/"):
        catalog.resolve(b"s_0001/scan0001/eiger_0001.h5")


def test_the_last_file_may_be_short(directory: Path, tree: RawTree, catalog: Catalog) -> None:
    write_lima(directory / "eiger_0000.h5", frames_from(0, 4), announced=6)
    write_lima(directory / "eiger_0001.h5", frames_from(4, 2), announced=6)
    assert_frames(tree, catalog, SCAN, range(6), 6)


def test_a_scan_grows(directory: Path, tree: RawTree, catalog: Catalog, clock: Clock) -> None:
    """How many frames there will be is known from the first file on."""
    write_lima(directory / "eiger_0000.h5", frames_from(0, 4), announced=10, closed=False)
    assert_frames(tree, catalog, SCAN, range(4), 10)
    before = catalog.scan(SCAN)
    assert before.problems == ("2 of 3 data files are missing: eiger_0001.h5, eiger_0002.h5",)
    clock.now += 10
    write_lima(directory / "eiger_0001.h5", frames_from(4, 4), announced=10, missing=(3,))
    assert_frames(tree, catalog, SCAN, range(7), 10)
    assert catalog.scan(SCAN).version != before.version
    clock.now += 10
    write_lima(directory / "eiger_0001.h5", frames_from(4, 4), announced=10)
    write_lima(directory / "eiger_0002.h5", frames_from(8, 2), announced=10, allocated=4)
    assert_frames(tree, catalog, SCAN, range(10), 10)
    assert catalog.scan(SCAN).problems == ()


def test_a_lost_file(directory: Path, tree: RawTree, catalog: Catalog) -> None:
    paths = write_camera(directory, frames_from(0, 10), 4)
    paths[0].unlink()
    assert_frames(tree, catalog, SCAN, range(4, 10), 10)
    assert catalog.scan(SCAN).problems == ("1 of 3 data files are missing: eiger_0000.h5",)


def test_one_frame_an_acquisition(directory: Path, tree: RawTree, catalog: Catalog) -> None:
    """A step scan may start the camera anew at each point."""
    for number in (0, 1, 2, 4):
        name = lima_name("eiger", number)
        write_lima(directory / name, frames_from(number, 1), announced=1)
    assert_frames(tree, catalog, SCAN, (0, 1, 2, 4), 5)


def test_several_acquisitions(directory: Path, tree: RawTree, catalog: Catalog) -> None:
    """The last file of each is short: three lines of five frames, two files each."""
    for line in range(3):
        for half, count in ((0, 3), (1, 2)):
            name = lima_name("eiger", 2 * line + half)
            frames = frames_from(5 * line + 3 * half, count)
            write_lima(directory / name, frames, announced=5, allocated=3)
    assert_frames(tree, catalog, SCAN, range(15), 15)


@pytest.mark.parametrize("announced", [0, 3])
def test_files_are_counted_where_nothing_says_how_many(
    directory: Path, tree: RawTree, catalog: Catalog, announced: int
) -> None:
    """A series without end, or acquisitions that were appended to one dataset."""
    for number, count in enumerate((4, 5, 1)):
        frames = frames_from((0, 4, 9)[number], count)
        write_lima(directory / lima_name("eiger", number), frames, announced=announced)
    assert_frames(tree, catalog, SCAN, range(10), 10)


def test_a_file_that_is_none(directory: Path, tree: RawTree, catalog: Catalog) -> None:
    write_camera(directory, frames_from(0, 10), 4)
    (directory / "eiger_0000.h5").write_bytes(b"")
    assert_frames(tree, catalog, SCAN, range(4, 10), 10)
    assert catalog.scan(SCAN).problems == ("eiger_0000.h5 is not an HDF5 file",)


@pytest.mark.parametrize("pixel_m", [75.0, 0.0, float("nan")])
def test_a_pixel_size_in_no_known_unit(directory: Path, catalog: Catalog, pixel_m: float) -> None:
    write_lima(directory / "eiger_0000.h5", frames_from(0, 1), announced=1, pixel_m=pixel_m)
    assert catalog.scan(SCAN).metadata["pixel_m"] is None
