"""Raw data that is damaged, lost or changing: NaN or an errno, a line in the log, no crash."""

from __future__ import annotations

import errno
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plain
import pytest
from mounting import Site, contents, until
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from analysis.analyses import sum
from tools.scan_maker import damage_chunk, make_scan, truncate

pytestmark = pytest.mark.mount


def alive(site: Site) -> None:
    assert (site.mnt / "README.txt").read_text().startswith("This is dadafs")


def eio(path: Path) -> None:
    with pytest.raises(OSError, match=r"Input/output") as caught:
        path.read_bytes()
    assert caught.value.errno == errno.EIO


def test_a_truncated_data_file(shared: Site) -> None:
    made = make_scan(shared.raw, name="cut", horz=10, vert=6, images_per_file=20)
    truncate(made.data_files[1], 0.5)
    expected = made.sums.astype(float)
    expected[20:40] = np.nan
    result = shared.load("cut/darkfield/horz=10.npy")
    assert_array_equal(result, plain.folded(expected, 10, 6))
    assert np.isnan(shared.load("cut/dpc/horz=10.npy"))[:, 2:4].all()
    assert "cut: frames 20-39 missing: NaN there" in shared.errors()
    eio(shared.mnt / "cut/frames/000020.npy")
    assert_array_equal(shared.load("cut/frames/000040.npy"), made.frames[made.which[40]])
    raw = made.data_files[1]
    assert contents(shared.mnt / "cut/raw" / raw.name) == raw.read_bytes()
    alive(shared)


def test_a_text_that_grows_is_never_cut(shared: Site) -> None:
    made = make_scan(shared.raw, name="told", horz=4, vert=2, images_per_file=4)
    truncate(made.data_files[1], 0.5)
    readme = shared.mnt / "told/README.txt"
    os.stat(shared.mnt / "told/darkfield")
    time.sleep(0.6)  # what the mount knows of the scan is to grow old before
    os.stat(readme)  # the size that the kernel is told now
    shared.load("told/darkfield/full.npy")  # finds the damage
    time.sleep(0.5)  # now the mount asks again, but the kernel does not

    def told() -> bool:
        text = readme.read_text()
        assert text.endswith("has a README.txt with its parameters.\n")
        return "problem: told_data_000002.h5" in text

    until(told, "the problem is told")


@pytest.mark.parametrize("codec", ["bitshuffle", "lz4", "gzip"])
def test_a_corrupt_chunk(shared: Site, codec: str) -> None:
    name = f"corrupt_{codec}"
    made = make_scan(shared.raw, name=name, horz=8, vert=5, images_per_file=16, codec=codec)
    for number in (3, 20):
        damage_chunk(made.data_files[number // 16], number % 16)
    expected = made.sums.astype(float)
    expected[[3, 20]] = np.nan
    assert_array_equal(shared.load(f"{name}/darkfield/horz=8.npy"), plain.folded(expected, 8, 5))
    assert np.isnan(shared.load(f"{name}/radial/bins=9/horz=8.npy"))[0, 2, 4].all()
    assert f"{name}: frames 3, 20 corrupt: NaN there" in shared.errors()
    eio(shared.mnt / name / "frames/000003.npy")
    eio(shared.mnt / name / "frames/bin=4/000020.tif")
    good = np.setdiff1d(np.arange(40), [3, 20])
    which = made.which[good]
    total = sum.reference(made.frames[which], plain.valid(made)[which])
    assert_array_equal(shared.load(f"{name}/sum/full.npy"), total)
    assert f"{name}: frames 3, 20 corrupt: left out" in shared.errors()
    alive(shared)


def test_a_missing_data_file(shared: Site) -> None:
    made = make_scan(shared.raw, name="lost", horz=10, vert=3, images_per_file=10, leave_out=[2])
    expected = np.where(made.present, made.sums, np.nan)
    assert np.isnan(expected).sum() == 10
    assert_array_equal(shared.load("lost/darkfield/vert=3.npy"), plain.folded(expected, 10, 3))
    assert "lost: frames 10-19 missing: NaN there" in shared.errors()
    assert '"complete": false' in (shared.mnt / "lost/scan.json").read_text()
    eio(shared.mnt / "lost/frames/000015.npy")
    alive(shared)


def test_an_aborted_scan(shared: Site) -> None:
    made = make_scan(shared.raw, name="aborted", horz=10, vert=5, frames=33, images_per_file=10)
    expected = np.full(50, np.nan)
    expected[:33] = made.sums
    assert_array_equal(shared.load("aborted/darkfield/horz=10.npy"), expected.reshape(5, 10))
    assert "aborted: frames 33-49 missing" in shared.errors()


def test_a_raster_larger_than_the_scan(shared: Site) -> None:
    made = make_scan(shared.raw, name="short", horz=6, vert=5)
    result = shared.load("short/darkfield/horz=8/vert=7.npy")
    assert_array_equal(result, plain.folded(made.sums, 8, 7))
    assert np.isnan(result).sum() == 26
    assert "a raster of 56 points from frame 0 on, the scan has 30 frames: 26 points NaN" in (
        shared.errors()
    )


def test_files_that_are_no_hdf5(shared: Site) -> None:
    (shared.raw / "letter_master.h5").write_text("Dear diary,\n")
    (shared.raw / "noise_data_000001.h5").write_bytes(os.urandom(5000))
    (shared.raw / "empty_master.h5").touch()
    for name in ("letter", "noise", "empty"):
        assert "cannot be analysed" in (shared.mnt / name / "README.txt").read_text()
        contents(shared.mnt / name / "scan.json")
        with pytest.raises(FileNotFoundError):
            contents(shared.mnt / name / "darkfield/full.npy")
        assert "frames" not in os.listdir(shared.mnt / name)
    assert contents(shared.mnt / "letter/raw/letter_master.h5") == b"Dear diary,\n"
    alive(shared)


def one_of(path: Path, *allowed: NDArray[np.float64]) -> int:
    """Which of these a map that is opened anew is; -1 where it is refused as changing."""
    try:
        found = np.frombuffer(path.read_bytes()[4096:])
    except OSError as exc:
        if exc.errno == errno.ESTALE:
            return -1
        raise
    matches = [np.array_equal(found, one.ravel(), equal_nan=True) for one in allowed]
    assert any(matches), "a mixture, or something else"
    return matches.index(True)


def test_a_data_file_deleted_while_mounted(shared: Site) -> None:
    made = make_scan(shared.raw, name="gone", horz=8, vert=8, images_per_file=32)
    path = shared.mnt / "gone/darkfield/horz=8.npy"
    before = made.sums.astype(float)
    after = before.copy()
    after[32:] = np.nan
    assert one_of(path, before, after) == 0
    made.data_files[1].unlink()
    until(lambda: one_of(path, before, after) == 1, "the file is missed")
    assert "gone: frames 32-63 missing: NaN there" in shared.errors()
    alive(shared)


@dataclass
class Changing:
    """A scan, and another data file for it."""

    path: Path
    other: Path
    old: NDArray[np.float64]
    """What darkfield is at first,"""
    new: NDArray[np.float64]
    """and what afterwards."""

    def swap(self, how: str) -> None:
        if how.startswith("replaced"):
            os.replace(self.other, self.path)
        else:
            shutil.copyfile(self.other, self.path)


def changing(site: Site, name: str, frames: int) -> Changing:
    horz = frames // 50
    first, second = (
        make_scan(
            where, name=name, horz=horz, vert=50, detector="24x24", images_per_file=10**6, seed=seed
        )
        for where, seed in ((site.raw, 0), (site.base / "other", 1))
    )
    good = ~first.mask & (second.frames != 65535)
    sums = np.where(good, second.frames, 0).sum(axis=(1, 2), dtype=np.int64)[second.which]
    return Changing(
        first.data_files[0], second.data_files[0], first.sums.astype(float), sums.astype(float)
    )


@pytest.mark.parametrize("how", ["replaced", "rewritten"])
def test_a_data_file_that_changes_while_mounted(shared: Site, how: str) -> None:
    scan = changing(shared, how, 200)
    path = shared.mnt / how / "darkfield/horz=4.npy"
    assert one_of(path, scan.old, scan.new) == 0
    raw = shared.mnt / how / "raw" / scan.path.name
    held = contents(raw)
    scan.swap(how)
    until(lambda: one_of(path, scan.old, scan.new) == 1, "the new content is seen")
    truth = scan.path.read_bytes()
    assert truth != held
    until(lambda: raw.read_bytes() == truth, "the new raw file is seen")
    alive(shared)


@pytest.mark.parametrize("how", ["replaced_open", "rewritten_open"])
def test_an_open_result_never_mixes_contents(shared: Site, how: str) -> None:
    """Also beyond the frames whose place the mount has asked the server for when it was opened."""
    scan = changing(shared, how, 10_000)
    path = shared.mnt / how / "darkfield/horz=200.npy"
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        first = np.frombuffer(os.pread(fd, 4096, 4096))
        assert_array_equal(first, scan.old[:512])
        scan.swap(how)
        for page in (3, 10, 18):  # within the first block of the index, and beyond
            with pytest.raises(OSError, match="Stale") as caught:
                os.pread(fd, 4096, 4096 * page)
            assert caught.value.errno == errno.ESTALE
    finally:
        os.close(fd)
    until(lambda: one_of(path, scan.old, scan.new) == 1, "the new content is seen")
    assert "has changed" in shared.errors()
