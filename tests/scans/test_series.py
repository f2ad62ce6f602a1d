"""Scans with files that are missing, damaged, or not as announced."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from scanfiles import (
    SHAPE,
    Clock,
    assert_frames,
    frames_from,
    write_data,
    write_master,
    write_scan,
)

from dadafs.errors import Stale
from dadafs.scans.catalog import Catalog
from dadafs.scans.frames import series
from dadafs.scans.frames.index import FrameIndexer
from dadafs.scans.frames.series import links_by_number
from dadafs.scans.metadata import masters
from dadafs.scans.names import ScanFiles
from dadafs.scans.tree import RawTree

S = b"scan42"


@pytest.mark.parametrize("low", [True, False])
@pytest.mark.parametrize(
    ("counts", "announced", "there", "total"),
    [
        ((4, 4, 2), 10, range(10), 10),
        ((4, 4, 1), 10, range(9), 10),  # aborted
        ((4, 3, None), 10, range(7), 10),
        ((4, None, 2), 10, [*range(4), 8, 9], 10),
        ((None, 4, 2), 10, range(4, 10), 10),
        ((4, 4), 100, range(8), 100),  # fewer links than announced
        ((4, 4), 0, range(8), 8),  # nothing announced
        ((4, 4, 4), 8, range(12), 12),  # more than announced
        ((10,), 5, range(10), 10),
        ((4, None), 0, range(4), 8),
        ((4, 0, 2), 10, [*range(4), 4, 5], 10),
    ],
)
def test_scans_that_are_not_whole(
    root: Path,
    tree: RawTree,
    catalog: Catalog,
    low: bool,
    counts: tuple[int | None, ...],
    announced: int,
    there: list[int],
    total: int,
) -> None:
    write_scan(root, counts=counts, low=low, announced=announced)
    assert_frames(tree, catalog, S, list(there), total)


def test_last_file_longer_than_announced(root: Path, tree: RawTree, catalog: Catalog) -> None:
    write_scan(root, counts=(4, 4, 4), announced=10)
    assert catalog.scan(S).frames == 10  # as long as the last file was not looked at
    catalog.slice(S, 8, 2)
    assert_frames(tree, catalog, S, range(12), 12)


def test_first_files_may_be_missing_when_the_others_say_where_they_are(
    root: Path, tree: RawTree, catalog: Catalog
) -> None:
    write_scan(root, counts=(4, 4, 2))
    (root / "scan42_data_000001.h5").unlink()
    (root / "scan42_data_000002.h5").unlink()
    assert_frames(tree, catalog, S, [8, 9], 10)


def test_all_files_missing(root: Path, catalog: Catalog) -> None:
    write_scan(root, counts=(None, None), announced=8)
    scan = catalog.scan(S)
    assert (scan.frames, scan.height, scan.width, scan.dtype) == (8, *SHAPE, "<u2")
    assert "2 of 2 data files are missing" in scan.problems[0]
    assert catalog.slice(S, 0, 8).runs == ()
    assert [one.state for one in catalog.data_files(S)] == ["missing"] * 2


def test_nothing_says_what_frames_are(root: Path, catalog: Catalog) -> None:
    write_scan(root, counts=(None,), x_pixels_in_detector=None)
    scan = catalog.scan(S)
    assert scan.frames == 0
    assert "no frames can be read" in scan.problems
    with pytest.raises(Stale):
        catalog.slice(S, 0, 1)


def test_contradiction_makes_all_files_be_counted(
    root: Path, tree: RawTree, catalog: Catalog
) -> None:
    write_scan(root, counts=(4, 4, 2))
    write_data(root / "scan42_data_000002.h5", frames_from(4, 3), low=6)  # frame 4 was lost
    write_data(root / "scan42_data_000003.h5", frames_from(8, 4), low=9)
    before = catalog.scan(S)
    assert before.frames == 10
    found = catalog.slice(S, 0, 10)
    assert [run.first for run in found.runs] == [0, 5, 8]
    after = catalog.scan(S)
    assert after.frames == 12
    assert after.version != before.version


def test_short_file_in_the_middle_that_does_not_say_where_it_is(
    root: Path, tree: RawTree, catalog: Catalog
) -> None:
    write_master(root / "s_master.h5", [f"s_data_{n}.h5" for n in (1, 2, 3)], nimages=10)
    for number, (first, count) in enumerate([(0, 4), (4, 3), (7, 2)], 1):
        write_data(root / f"s_data_{number}.h5", frames_from(first, count))
    assert_frames(tree, catalog, b"s", range(9), 10)


def test_overlapping_files_are_missing_rather_than_wrong(
    root: Path, tree: RawTree, catalog: Catalog
) -> None:
    write_scan(root, counts=(4, 4, 2))
    write_data(root / "scan42_data_000002.h5", frames_from(2, 4), low=3)
    catalog.slice(S, 0, 10)
    assert_frames(tree, catalog, S, [0, 1, 4, 5, 8, 9], 10)
    assert "frames 2 to 3 are claimed by more than one data file" in catalog.scan(S).problems


def test_absurd_image_number(root: Path, tree: RawTree, catalog: Catalog) -> None:
    write_scan(root, counts=(4, 4, 2))
    write_data(root / "scan42_data_000002.h5", frames_from(4, 4), low=2**31 - 2)
    catalog.slice(S, 0, 10)
    assert_frames(tree, catalog, S, [*range(4), 8, 9], 10)
    assert "begins at frame 2147483645" in catalog.scan(S).problems[0]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "scan42_data_000002.h5 is not an HDF5 file"),
        (b"garbage" * 500, "scan42_data_000002.h5 is not an HDF5 file"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 4000, "scan42_data_000002.h5 cannot be read as HDF5"),
    ],
)
def test_garbage_among_data_files(
    root: Path, tree: RawTree, catalog: Catalog, content: bytes, problem: str
) -> None:
    write_scan(root)
    (root / "scan42_data_000002.h5").write_bytes(content)
    assert_frames(tree, catalog, S, [*range(4), 8, 9], 10)
    assert catalog.data_files(S)[1].state.startswith(problem)
    assert any(line.startswith(problem) for line in catalog.scan(S).problems)


def test_truncated_data_file(root: Path, tree: RawTree, catalog: Catalog) -> None:
    write_scan(root)
    path = root / "scan42_data_000002.h5"
    os.truncate(path, path.stat().st_size // 2)
    assert_frames(tree, catalog, S, [*range(4), 8, 9], 10)
    assert "is truncated" in catalog.data_files(S)[1].state


@pytest.mark.parametrize(
    "frames",
    [
        np.ones((4, 5, 6), np.uint16),
        np.ones((4, *SHAPE), np.uint32),
        np.ones((3, *SHAPE), np.float32),
    ],
)
def test_frames_of_another_kind_are_missing(
    root: Path,
    tree: RawTree,
    catalog: Catalog,
    frames: np.ndarray[tuple[int, ...], np.dtype[np.uint16]],
) -> None:
    write_scan(root)
    write_data(root / "scan42_data_000002.h5", frames, low=5)
    assert_frames(tree, catalog, S, [*range(4), 8, 9], 10)
    assert "holds frames of" in catalog.data_files(S)[1].state
    assert any("in a scan of 6 x 5 <u2" in line for line in catalog.scan(S).problems)


def test_codecs_may_differ_between_files(root: Path, tree: RawTree, catalog: Catalog) -> None:
    write_scan(root)
    write_data(
        root / "scan42_data_000002.h5", frames_from(4, 4), low=5, options={"compression": "gzip"}
    )
    assert_frames(tree, catalog, S, range(10), 10)


def test_master_that_is_garbage_leaves_the_data(
    root: Path, tree: RawTree, catalog: Catalog
) -> None:
    write_scan(root, counts=(4, None, 2))
    (root / "scan42_master.h5").write_bytes(b"garbage")
    assert_frames(tree, catalog, S, [*range(4), 8, 9], 10)
    scan = catalog.scan(S)
    assert scan.problems[0] == "scan42_master.h5 is not an HDF5 file"
    assert (scan.geometry, scan.cx) == (None, None)


def test_only_garbage(root: Path, catalog: Catalog) -> None:
    (root / "scan42_master.h5").write_bytes(b"garbage")
    scan = catalog.scan(S)
    assert (scan.frames, scan.height) == (0, 0)
    assert scan.problems == ("scan42_master.h5 is not an HDF5 file", "no frames can be read")
    assert catalog.data_files(S) == []


def test_lone_data_file(root: Path, tree: RawTree, catalog: Catalog) -> None:
    write_data(root / "x_data_000001.h5", frames_from(0, 3))
    assert_frames(tree, catalog, b"x", range(3), 3)
    scan = catalog.scan(b"x")
    assert (scan.height, scan.width, scan.dtype, scan.problems) == (*SHAPE, "<u2", ())
    assert (scan.geometry, scan.cx, scan.cy, scan.mask) == (None, None, None, b"")


def test_frames_in_the_master_itself(root: Path, tree: RawTree, catalog: Catalog) -> None:
    write_data(root / "x_master.h5", frames_from(0, 3))
    assert_frames(tree, catalog, b"x", range(3), 3)


def test_renamed_scan_goes_by_numbers(root: Path, tree: RawTree, catalog: Catalog) -> None:
    write_scan(root, counts=(4, None, 2))
    for file in root.iterdir():
        shutil.move(file, root / file.name.replace("scan42", "renamed"))
    assert_frames(tree, catalog, b"renamed", [*range(4), 8, 9], 10)
    assert "taken by their numbers" in catalog.scan(b"renamed").problems[0]


def test_mask_of_another_shape_is_not_used(root: Path, catalog: Catalog) -> None:
    write_scan(root, mask=np.ones((7, 7), np.uint32))
    scan = catalog.scan(S)
    assert scan.mask == b""
    assert "mask" not in scan.sources
    assert "the pixel mask of 7 x 7 does not fit frames of 6 x 5" in scan.problems[0]


def test_beam_centre_is_held_to_the_frames_themselves(root: Path, catalog: Catalog) -> None:
    write_scan(root, beam_center_x=50.0, x_pixels_in_detector=100, y_pixels_in_detector=100)
    scan = catalog.scan(S)
    assert (scan.cx, scan.cy, scan.width) == (None, None, SHAPE[1])
    assert "outside the detector of 5 x 6" in scan.problems[0]


def test_dataset_elsewhere_than_linked(root: Path, tree: RawTree, catalog: Catalog) -> None:
    write_scan(root, counts=(4, 4, 2))
    write_data(root / "scan42_data_000002.h5", frames_from(4, 4), dataset="/other", low=5)
    assert_frames(tree, catalog, S, [*range(4), 8, 9], 10)
    assert "no dataset /entry/data/data in it" in catalog.data_files(S)[1].state


def test_many_files_are_not_opened_to_be_told(
    root: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scan(root, counts=(4, None, 2))
    (root / "scan42_data_000003.h5").write_bytes(b"garbage")
    monkeypatch.setattr(series, "MANY_FILES", 2)
    states = [(one.first, one.frames, one.state) for one in catalog.data_files(S)]
    assert states == [(0, 4, "present"), (4, 4, "missing"), (8, 2, "present")]


def test_regular_scan_opens_one_data_file(
    root: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scan(root)
    opened = []
    index = FrameIndexer.index

    def spy(self: FrameIndexer, path: bytes, dataset: bytes) -> object:
        opened.append(path)
        return index(self, path, dataset)

    monkeypatch.setattr(FrameIndexer, "index", spy)
    catalog.scan(S)
    assert opened == [b"scan42_data_000001.h5"]
    catalog.slice(S, 5, 2)
    assert opened[1:] == [b"scan42_data_000002.h5"]


def test_problems_do_not_grow_without_bound(root: Path, catalog: Catalog) -> None:
    write_scan(root, counts=(4,) * 40, announced=160)
    for number in range(2, 41):
        (root / f"scan42_data_{number:06}.h5").write_bytes(b"garbage")
    catalog.data_files(S)
    assert len(catalog.scan(S).problems) <= series.MAX_PROBLEMS + 1


def test_absurd_number_of_links(
    root: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masters, "MAX_LINKS", 2)
    write_scan(root)
    assert "3 links in /entry/data: not believed" in catalog.scan(S).problems


def test_links_by_number() -> None:
    files = ScanFiles(None, (b"s_data_02.h5", b"s_data_04.h5"))
    paths = [link.path for link in links_by_number(b"d", files, 5)]
    assert paths == [b"d/s_data_%02d.h5" % number for number in (1, 2, 3, 4, 5)]
    zero = ScanFiles(None, (b"s_data_0.h5", b"s_data_1.h5"))
    assert [link.path for link in links_by_number(b"", zero)] == list(zero.data)
    stamps = ScanFiles(None, (b"s_data_20250514.h5", b"s_data_20250601.h5"))
    assert [link.path for link in links_by_number(b"", stamps)] == list(stamps.data)


def test_changes_of_layout_are_seen(
    root: Path, tree: RawTree, catalog: Catalog, clock: Clock
) -> None:
    write_scan(root, counts=(4, 4, 2))
    assert_frames(tree, catalog, S, range(10), 10)
    for file in root.iterdir():
        file.unlink()
    write_scan(root, counts=(5, 5), announced=10)
    clock.now += 1.5
    assert_frames(tree, catalog, S, range(10), 10)
    with h5py.File(root / "scan42_master.h5") as file:
        assert len(file["/entry/data"].keys()) == 2
