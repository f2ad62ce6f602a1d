"""Nothing is computed that nobody reads, and nothing twice."""

from __future__ import annotations

import subprocess

import numpy as np
import plain
import pytest
from mounting import Site, contents, forget_pages
from numpy.testing import assert_array_equal

from tools.scan_maker import ScanMade, make_scan

pytestmark = pytest.mark.mount

HORZ, VERT = 256, 64  # 16384 frames, 256 patches; two lines are 4 KiB of the file and 8 patches


@pytest.fixture(scope="module")
def big(shared: Site) -> ScanMade:
    return make_scan(
        shared.raw,
        name="big",
        horz=HORZ,
        vert=VERT,
        detector="24x24",
        unique=8,
        images_per_file=HORZ * VERT,
    )


def test_two_lines_of_a_big_map_then_all_then_nothing(shared: Site, big: ScanMade) -> None:
    path = shared.mnt / f"big/darkfield/horz={HORZ}/vert={VERT}.npy"
    expected = plain.folded(big.sums, HORZ, VERT)
    with shared.computing(frames=2 * HORZ, patches=8):
        assert_array_equal(np.load(path, mmap_mode="r")[10:12], expected[10:12])
    with shared.computing(frames=(VERT - 2) * HORZ, patches=256 - 8):
        assert_array_equal(shared.load(f"big/darkfield/horz={HORZ}/vert={VERT}.npy"), expected)
    forget_pages(path)
    reads = shared.stats()["mount"]["reads"]
    with shared.computing(frames=0, patches=0):
        assert_array_equal(np.load(path), expected)
    assert shared.stats()["mount"]["reads"] > reads  # it did come through the mount again


def test_a_header_alone_computes_nothing(shared: Site, big: ScanMade) -> None:
    with shared.computing(frames=0):
        mapped = np.load(shared.mnt / "big/darkfield/rmax=5/horz=256.npy", mmap_mode="r")
        assert mapped.shape == (VERT, HORZ)


def test_views_of_one_pass_share_its_values(shared: Site) -> None:
    make_scan(shared.raw, name="family", horz=10, vert=10)
    with shared.computing(frames=100):
        shared.load("family/darkfield/horz=10.npy")
    with shared.computing(frames=0):
        shared.load("family/dpc/horz=10.npy")
        shared.load("family/orientation/horz=20/order=snake.npy")
        shared.load("family/dpc/cx=3/cy=4.5/channel=x.npy")
        contents(shared.mnt / "family/darkfield/full.tif")


def test_sum_max_and_average_are_one_computation(shared: Site) -> None:
    make_scan(shared.raw, name="patterns", horz=10, vert=10)
    with shared.computing(frames=100):
        shared.load("patterns/sum/full.npy")
    with shared.computing(frames=0):
        shared.load("patterns/average/horz=20.npy")
        shared.load("patterns/max/full.npy")
        contents(shared.mnt / "patterns/sum/full.tif")


def test_crawling_computes_nothing(shared: Site) -> None:
    make_scan(shared.raw / "crawled", name="one", horz=6, vert=5)
    make_scan(shared.raw / "crawled/deeper", name="two", horz=4, vert=5)
    top = shared.mnt / "crawled"
    farm = shared.stats()["farm"]
    with shared.computing(frames=0, patches=0):
        listing = subprocess.run(["ls", "-lR", top], capture_output=True, text=True, check=True)
        assert "average" in listing.stdout
        assert "000019.npy" not in listing.stdout.split("two/frames")[0]
        stat = ["find", str(top), "-type", "f", "-exec", "stat", "--format=%s", "{}", "+"]
        sizes = subprocess.run(stat, capture_output=True, text=True, check=True).stdout.split()
        assert len(sizes) > 100
        assert all(int(size) > 0 for size in sizes)
        texts = [path for path in top.rglob("*") if path.name in ("README.txt", "scan.json")]
        assert len(texts) > 20
        for path in texts:
            assert contents(path)
    assert shared.stats()["farm"] == farm
