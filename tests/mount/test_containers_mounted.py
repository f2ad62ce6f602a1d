"""Containers on a real mount: any range of bytes, what is listed, and what stat says."""

from __future__ import annotations

import io
import os
import random
import subprocess
import time
from pathlib import Path

import h5py
import imageio.v3 as imageio
import numpy as np
import pytest
from mounting import Site, contents, forget_pages
from numpy.testing import assert_array_equal

from tools.scan_maker import ScanMade, make_scan

pytestmark = pytest.mark.mount

EVERY = {"npy", "tif", "h5", "mat", "png", "csv"}


@pytest.fixture(scope="module")
def boxes(shared: Site) -> ScanMade:
    """2000 small frames: 50 x 40 points."""
    return make_scan(
        shared.raw, name="boxes", frames=2000, detector="40x36", unique=8, horz=50, vert=40
    )


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "name",
    [
        "darkfield/rmin=1/horz=41.h5",
        "dpc/rmin=1/horz=50.mat",
        "darkfield/rmin=2/horz=37.csv",
        "orientation/rmin=1/horz=50.png",
        "radial/bins=11/horz=20.h5",
        "radial/bins=13/horz=20.mat",
        "azimuthal/bins=5/horz=20.csv",
        "sum/horz=7/region=0,0,3,3.mat",
        "average/horz=7/region=0,0,3,3.png",
        "composite/bin=3/horz=100.mat",
        "composite/bin=4/horz=100.csv",
        "frames/bin=2/000011.h5",
        "frames/roi=3,5,31,21/001000.mat",
    ],
)
def test_reads_at_odd_places_are_slices_of_the_whole(
    shared: Site, boxes: ScanMade, name: str
) -> None:
    """The first reads are of what is not computed yet, where read-ahead may be declined."""
    path = shared.mnt / "boxes" / name
    size = path.stat().st_size
    dice = random.Random(name)
    places = [(size - 1, 10), (size, 1), (size + 5, 9), (0, 1), (4090, 20), (4095, 4098), (1, size)]
    places += [
        (dice.randrange(size), 1 + dice.randrange(1 << dice.randrange(1, 18))) for _ in range(30)
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


def test_opening_an_h5_and_reading_its_axes_computes_nothing(shared: Site, boxes: ScanMade) -> None:
    with shared.computing(frames=0):
        path = shared.mnt / "boxes/radial/bins=100/rmin=3/horz=50.h5"
        with h5py.File(path, "r") as file:
            assert file["entry/result/q"][0] >= 0
            assert file["entry/result/intensity"].shape == (40, 50, 100)
            parameters = file["entry/process/parameters"]
            assert parameters["rmin"][()] == 3
            assert parameters["rmin"].attrs["source"] == "path"
            assert parameters["order"].attrs["source"] == "default"
            assert parameters["cx"].attrs["source"].endswith("beam_center_x")
            assert parameters["distance_m"].attrs["source"].endswith("detector_distance")


def test_directories_list_the_containers_that_make_sense(shared: Site, boxes: ScanMade) -> None:
    def listed(directory: str) -> set[str]:
        found = os.listdir(shared.mnt / "boxes" / directory)
        return {name.removeprefix("full.") for name in found if name.startswith("full.")}

    with shared.computing(frames=0):
        plain = EVERY - {"png"}  # of which a file manager would make thumbnails
        assert listed("darkfield") == listed("orientation/rmin=3") == listed("sum") == plain
        assert listed("radial") == plain
        assert listed("darkfield/cmap=gray") == {"png"}
        gray = os.listdir(shared.mnt / "boxes/frames/cmap=gray")
        assert "000000.png" in gray
        assert "000000.npy" not in gray


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("radial/full.png", "profiles are no picture"),
        ("darkfield/vmin=3/full.npy", "vmin= colours a picture"),
    ],
)
def test_what_makes_no_sense_is_not_there_and_the_log_says_why(
    shared: Site, boxes: ScanMade, name: str, reason: str
) -> None:
    with pytest.raises(FileNotFoundError):
        (shared.mnt / "boxes" / name).stat()
    assert reason in shared.errors()
    assert reason in shared.run("explain", shared.mnt / "boxes" / name).stderr


def test_points_without_frames_are_transparent(shared: Site, boxes: ScanMade) -> None:
    data = contents(shared.mnt / "boxes/darkfield/horz=60.png")
    image = imageio.imread(io.BytesIO(data), mode="RGBA")
    there = np.isfinite(shared.load("boxes/darkfield/horz=60.npy"))
    assert not there.all()
    assert_array_equal(image[..., 3] > 0, there)


RESULTS = [f"darkfield/full.{one}" for one in sorted(EVERY)] + ["sum/full.h5", "frames/000001.png"]


def test_stat_is_what_programs_expect(shared: Site, boxes: ScanMade) -> None:
    raw = max(path.stat().st_mtime_ns for path in [*boxes.data_files, boxes.master] if path)
    for name in RESULTS:
        about = (shared.mnt / "boxes" / name).stat()
        assert about.st_nlink == 1
        assert about.st_blksize == 4096  # what a buffered reader reads at least
        assert about.st_blocks == -(-about.st_size // 512)  # nothing looks sparse
        assert about.st_mtime_ns == about.st_ctime_ns == raw
        assert about.st_mode & 0o222 == 0


def test_du_counts_and_computes_nothing(shared: Site, boxes: ScanMade) -> None:
    sizes = [(shared.mnt / "boxes" / name).stat().st_size for name in RESULTS]
    with shared.computing(frames=0):
        out = run("du", "-b", *RESULTS, cwd=shared.mnt / "boxes")
        assert [int(line.split()[0]) for line in out.splitlines()] == sizes
        blocks = run("du", "--block-size=512", *RESULTS, cwd=shared.mnt / "boxes")
        assert [int(line.split()[0]) for line in blocks.splitlines()] == [
            -(-size // 512) for size in sizes
        ]


def test_cp_keeps_times_and_rsync_then_has_nothing_to_do(
    shared: Site, boxes: ScanMade, tmp_path: Path
) -> None:
    here = shared.mnt / "boxes/dpc"
    run("cp", "-a", here, tmp_path)
    run("cp", "--sparse=always", here / "full.h5", tmp_path / "sparse.h5")
    run("cmp", here / "full.h5", tmp_path / "sparse.h5")
    again = run("rsync", "-a", "--itemize-changes", f"{here}/", tmp_path / "dpc")
    assert [line for line in again.splitlines() if line.startswith(">")] == []
    run("tar", "-cf", tmp_path / "a.tar", "dpc", cwd=shared.mnt / "boxes")
    run("tar", "--compare", "-f", tmp_path / "a.tar", cwd=shared.mnt / "boxes")


def test_make_makes_once_and_again_when_raw_data_are_newer(own: Site, tmp_path: Path) -> None:
    made = make_scan(own.raw, name="made", horz=3, vert=2, detector="40x36")
    rule = f"out.csv: {own.mnt}/made/darkfield/full.csv\n\tcp $< $@\n"
    (tmp_path / "Makefile").write_text(rule)
    assert "cp" in run("make", cwd=tmp_path)
    assert "up to date" in run("make", cwd=tmp_path)
    find = ("find", own.mnt / "made/darkfield/full.csv", "-newer", tmp_path / "out.csv")
    assert run(*find) == ""
    newer = time.time() + 2
    os.utime(made.data_files[0], (newer, newer))

    deadline = time.monotonic() + 20
    while not run(*find):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    while "up to date" in run("make", cwd=tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_pv_and_dd_see_sizes(shared: Site, boxes: ScanMade, tmp_path: Path) -> None:
    path = shared.mnt / "boxes/radial/bins=20/full.mat"
    with (tmp_path / "copy").open("wb") as copy:
        done = subprocess.run(["pv", "-n", path], stdout=copy, stderr=subprocess.PIPE, timeout=60)
    assert done.stderr.split()[-1] == b"100"
    assert (tmp_path / "copy").read_bytes() == contents(path)
