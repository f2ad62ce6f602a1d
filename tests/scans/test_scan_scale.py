"""Large directories and large scans stay cheap."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from scanfiles import frames_from, write_data, write_master

from dadafs.cache.store import Store
from dadafs.scans.catalog import Catalog
from dadafs.scans.tree import RawTree

SCANS = 10_000
FILES = 10_000
FRAMES = 100  # of each


def fastest(work: Callable[[], object], times: int = 3) -> float:
    best = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


def plain(root: Path) -> list[tuple[str, os.stat_result]]:
    """What `ls -l` does."""
    return sorted((entry.name, entry.stat()) for entry in os.scandir(root))


@pytest.fixture
def ten_thousand(root: Path) -> Path:
    for number in range(SCANS):
        for name in (f"scan{number}_master.h5", f"scan{number}_data_000001.h5"):
            os.close(os.open(root / name, os.O_CREAT | os.O_WRONLY))
    os.utime(root, ns=(0, 1_000_000_000_000_000_000))  # not just changed
    return root


@pytest.mark.slow
def test_ten_thousand_scans_list_and_resolve(
    ten_thousand: Path, tree: RawTree, store: Store
) -> None:
    catalog = Catalog(tree, store)
    assert len(catalog.list(b"")) == SCANS
    scale = fastest(lambda: plain(ten_thousand))
    assert fastest(lambda: catalog.list(b"")) < 6 * scale  # 2 to 3 as a rule
    catalog.resolve(b"scan0")

    def resolve() -> None:
        for number in range(0, SCANS, 100):
            assert catalog.resolve(b"scan%d/darkfield" % number).kind == "scan"

    # a hundred scans; each would take as long as this if it read the directory anew
    assert fastest(resolve, 1) < 2 * scale


@pytest.mark.slow
def test_ten_thousand_images_list_and_index(root: Path, tree: RawTree, store: Store) -> None:
    content = (
        b"{\nByteOrder = LowByteFirst ;\nDataType = UnsignedShort ;\nDim_1 = 2 ;\nDim_2 = 2 ;\n}\n"
    )
    for number in range(FILES):
        (root / f"scan_{number:05}.edf").write_bytes(content + bytes(8))
    os.utime(root, ns=(0, 1_000_000_000_000_000_000))
    catalog = Catalog(tree, store)
    assert [entry.name for entry in catalog.list(b"")] == [b"scan"]
    scale = fastest(lambda: plain(root))
    assert fastest(lambda: catalog.list(b"")) < 4 * scale  # 1.5 as a rule
    assert catalog.scan(b"scan").frames == FILES
    # a block of the locator, for which no file is opened
    assert fastest(lambda: catalog.slice(b"scan", 4096, 4096)) < 4 * scale
    assert len(catalog.slice(b"scan", 4096, 64).runs) == 64


MEASURE = """
import re, sys
from pathlib import Path
from dadafs.scans.catalog import Catalog
from dadafs.cache.store import Store
from dadafs.scans.tree import RawTree

def peak():  # of this process only, unlike ru_maxrss, which begins with its parent's
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) >> 10

store = Store(Path(sys.argv[2]), 1 << 30)
catalog = Catalog(RawTree(Path(sys.argv[1])), store)
catalog.slice(b"small", 0, 1)
before = peak()
frames = catalog.scan(b"large").frames
found = 0
for first in range(0, frames, 4096):
    part = catalog.slice(b"large", first, min(4096, frames - first))
    found += sum(len(run.lengths) // 4 for run in part.runs)
store.close()
print(frames, found, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("announced", [FILES * FRAMES, 0])
def test_a_million_frames_index_in_little_memory(
    root: Path, tmp_path: Path, announced: int
) -> None:
    write_data(root / "small_data_1.h5", frames_from(0, FRAMES, (2, 3)), options={})
    names = [f"large_data_{number:06}.h5" for number in range(1, FILES + 1)]
    for name in names:
        os.link(root / "small_data_1.h5", root / name)
    write_master(root / "large_master.h5", names, nimages=announced)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, os.fspath(root), os.fspath(tmp_path / "index")],
        capture_output=True,
        text=True,
        check=True,
    )
    frames, found, grown_mb = map(int, done.stdout.split())
    assert frames == found == FILES * FRAMES
    assert 1 < grown_mb < 100  # 30 as a rule; nothing at all would mean it is not measured
