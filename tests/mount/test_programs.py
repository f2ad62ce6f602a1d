"""Programs that know nothing of us, over a whole scan directory."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import plain
import pytest
from mounting import Site, contents, forget_pages
from numpy.testing import assert_array_equal

from tools.scan_maker import ScanMade, make_scan

pytestmark = pytest.mark.mount


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def whole(shared: Site) -> ScanMade:
    return make_scan(shared.raw, name="whole", horz=6, vert=4, detector="70x64", images_per_file=10)


@pytest.fixture(scope="module")
def copied(shared: Site, whole: ScanMade, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole scan directory as `cp -r` copies it, results that are computed meanwhile."""
    target = tmp_path_factory.mktemp("copied")
    run("cp", "-r", shared.mnt / "whole", target)
    return target / "whole"


def test_cp_copies_results_frames_and_raw_files(
    shared: Site, whole: ScanMade, copied: Path
) -> None:
    results = np.load(copied / "darkfield/full.npy")
    assert_array_equal(results, whole.sums[None])
    for number in range(24):
        frame = np.load(copied / f"frames/{number:06}.npy")
        assert_array_equal(frame, whole.frames[whole.which[number]])
    for path in whole.data_files:
        run("cmp", path, copied / "raw" / path.name)
    run("diff", "-r", copied, shared.mnt / "whole")


@pytest.mark.parametrize("bs", ["1M", "1000"])
@pytest.mark.parametrize("name", ["radial/bins=50/full.npy", "composite/horz=6.tif"])
def test_dd_and_cmp(shared: Site, whole: ScanMade, tmp_path: Path, name: str, bs: str) -> None:
    here = shared.mnt / "whole" / name
    run("dd", f"if={here}", f"of={tmp_path / 'there'}", f"bs={bs}")
    run("cmp", here, tmp_path / "there")
    assert contents(here) == (tmp_path / "there").read_bytes()


def test_dd_past_the_page_cache(shared: Site, whole: ScanMade, tmp_path: Path) -> None:
    """O_DIRECT requests are what a reader wants, however large they are."""
    for name in ("azimuthal/bins=90/horz=6.npy", "frames/000003.npy", "max/full.npy"):
        here, there = shared.mnt / "whole" / name, tmp_path / "there"
        run("dd", f"if={here}", f"of={there}", "bs=1M", "iflag=direct")
        assert there.read_bytes() == contents(here)


def test_rsync_finds_no_difference(shared: Site, copied: Path, tmp_path: Path) -> None:
    source = f"{shared.mnt / 'whole'}/"
    run("rsync", "-a", "--checksum", source, tmp_path / "synced")
    run("diff", "-r", copied, tmp_path / "synced")
    again = run("rsync", "-a", "--checksum", "--itemize-changes", source, tmp_path / "synced")
    assert [line for line in again.splitlines() if line.startswith(">")] == []


def test_tar(shared: Site, copied: Path, tmp_path: Path) -> None:
    run("tar", "-cf", tmp_path / "scan.tar", "whole", cwd=shared.mnt)
    with tarfile.open(tmp_path / "scan.tar") as archive:
        files = [member for member in archive if member.isfile()]
        assert len(files) > 50
        for member in files:
            stored = archive.extractfile(member)
            assert stored is not None
            assert stored.read() == (copied.parent / member.name).read_bytes()


def test_md5sum_of_raw_files(shared: Site, whole: ScanMade, tmp_path: Path) -> None:
    assert whole.master is not None
    lines = [
        f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in (whole.master, *whole.data_files)
    ]
    (tmp_path / "sums").write_text("".join(lines))
    run("md5sum", "-c", "--strict", tmp_path / "sums", cwd=shared.mnt / "whole/raw")


def test_md5sum_of_results(shared: Site, whole: ScanMade) -> None:
    """The numbers lie after one page of header, little endian and C-ordered, as NEP 1 says."""
    path = shared.mnt / "whole/darkfield/horz=6/vert=4.npy"
    numbers = plain.folded(whole.sums, 6, 4).astype("<f8").tobytes()
    digest = run("sh", "-c", f"tail -c +4097 {path} | md5sum").split()[0]
    assert digest == hashlib.md5(numbers).hexdigest()


@pytest.mark.parametrize(
    "name",
    [
        "darkfield/horz=37.npy",
        "darkfield/horz=41.tif",
        "dpc/horz=50.npy",
        "orientation/horz=29/rmin=2.tif",
        "radial/bins=33/horz=20.npy",
        "composite/bin=3/horz=100.tif",
        "sum/horz=7.npy",
        "average/horz=7.tif",
        "frames/bin=2/000011.tif",
        "frames/roi=3,5,31,21/001000.npy",
        "raw/seeks_data_000001.h5",
    ],
)
def test_reads_at_odd_places_are_slices_of_the_whole(shared: Site, name: str) -> None:
    """The first reads are of what is not computed yet, where read-ahead may be declined."""
    if not (shared.raw / "seeks_master.h5").exists():
        make_scan(
            shared.raw, name="seeks", frames=2000, detector="40x36", unique=8, horz=50, vert=40
        )
    path = shared.mnt / "seeks" / name
    size = path.stat().st_size
    dice = random.Random(name)
    places = [(size - 1, 10), (size, 1), (size + 5, 9), (0, 1), (4090, 20), (4095, 4098), (1, size)]
    places += [
        (dice.randrange(size), 1 + dice.randrange(1 << dice.randrange(1, 18))) for _ in range(40)
    ]
    dice.shuffle(places)
    fd = os.open(path, os.O_RDONLY)
    try:
        pieces = [os.pread(fd, length, offset) for offset, length in places]
    finally:
        os.close(fd)
    forget_pages(path)
    data = contents(path)
    for (offset, length), piece in zip(places, pieces, strict=True):
        assert piece == data[offset : offset + length], (offset, length)
