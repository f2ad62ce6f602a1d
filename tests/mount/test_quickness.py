"""How long a user waits for a command."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from statistics import median

import pytest
from mounting import COMMAND, Site, contents

pytestmark = pytest.mark.mount


def processor_s() -> float:
    """Time of processors that ended children have used: no more on a machine that is busy."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_is_there_at_once() -> None:
    seconds = []
    for _ in range(5):
        began = processor_s()
        told = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True)
        seconds.append(processor_s() - began)
        assert "dadafs mount /data /mnt/dada" in told.stdout
    assert median(seconds) < 0.3  # 0.1 s, and it waits for nothing else


def test_a_mount_is_ready_within_seconds(unmounted: Site) -> None:
    began = time.perf_counter()
    unmounted.mount()
    assert (unmounted.mnt / "README.txt").read_text()
    assert time.perf_counter() - began < 5
    unmounted.unmount()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may widen the kernel's read-ahead")
def test_raw_files_are_read_in_large_requests(shared: Site) -> None:
    data = os.urandom(16 << 20)
    (shared.raw / "large.bin").write_bytes(data)
    before = shared.stats()["mount"].get("reads", 0)
    assert contents(shared.mnt / "large.bin") == data
    reads = shared.stats()["mount"]["reads"] - before
    assert reads < len(data) / (256 << 10)  # 128 requests of 128 KiB are what the kernel would send
