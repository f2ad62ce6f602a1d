"""How long a user waits for a command."""

from __future__ import annotations

import subprocess
import time
from statistics import median

import pytest
from mounting import COMMAND, Site

pytestmark = pytest.mark.mount


def test_help_is_there_at_once() -> None:
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        told = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - began)
        assert "dadafs mount /data /mnt/dada" in told.stdout
    assert median(seconds) < 0.6  # 0.3 s on a quiet machine


def test_a_mount_is_ready_within_seconds(unmounted: Site) -> None:
    began = time.perf_counter()
    unmounted.mount()
    assert (unmounted.mnt / "README.txt").read_text()
    assert time.perf_counter() - began < 5
    unmounted.unmount()
