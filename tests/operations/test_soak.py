"""What readers, killed readers and indexers leave behind in the processes of a mount: nothing."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from mounting import fuse_missing

from tools.soaking import Held, Soaked, soaking, table

PAGE = Path(__file__).resolve().parents[2] / "docs/operations.md"
DESCRIPTORS = 8  # more: connections that are kept to be used again, not one a reader
GROWTH_BYTES = 64 << 20  # caches fill


@pytest.mark.mount
@pytest.mark.slow
def test_a_soak_leaves_nothing_behind() -> None:
    if reason := fuse_missing():
        pytest.skip(reason)
    if shutil.which("file") is None:
        pytest.skip("file is missing: `apt install file`")
    with soaking(scans=2, horz=8, vert=6) as soak:
        told = soak.run(seconds=8, round_s=4)
    assert (told.wrong, told.done["errors"]) == ([], 0)
    assert told.rounds >= 2
    assert told.done["opens"] > 100
    assert told.done["copies"] > 2
    assert told.done["killed"] > 2
    assert told.done["walked"] > 200
    assert told.done["identified"] > 200
    assert told.computed["readers"] > 0
    assert told.computed["walk"] == told.computed["file"] == 0
    for role in ("mount", "server", "peer"):
        first, last = told.first[role], told.last[role]
        assert last.pid == first.pid, role
        assert last.descriptors <= first.descriptors + DESCRIPTORS, role
        assert last.memory_bytes <= first.memory_bytes + GROWTH_BYTES, role


def test_table_tells_what_went_wrong() -> None:
    told = Soaked(60.0, 3, Counter(opens=7, errors=1), Counter(walk=5))
    told.first = {"mount": Held(1, 20, 5, 100 << 20)}
    told.last = {"mount": Held(2, 30, 5, 130 << 20)}
    told.wrong = ["scan1 is not what it was"]
    lines = table(told).splitlines()
    assert lines[0].startswith("1.0 min, 3 rounds")
    assert [line.split()[-1] for line in lines if "walked" in line] == ["5"]
    (row,) = (line.split() for line in lines if line.startswith("mount"))
    assert row == ["mount", "20", "30", "100", "130", "(another", "process)"]
    assert lines[-1] == "scan1 is not what it was"
    page = PAGE.read_text(encoding="utf-8")
    assert [line for line in lines[2:8] if f"    {line[:30]}" not in page] == []
