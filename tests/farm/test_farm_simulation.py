"""How well the farm keeps a simulated cluster busy, smaller than `tools/simulate` does it."""

from __future__ import annotations

import logging

import pytest

from dadafs.config import MEMORY_BYTES
from tools.simulation import Setting, run


@pytest.mark.parametrize(
    ("setting", "share"),
    [
        (Setting(24, frames=100_000), 0.95),
        (Setting(24, threads=4, frames=400_000), 0.95),
        (Setting(200, frames=200_000), 0.87),  # 16 patches for each peer: the end is a tenth
    ],
    ids=["24", "24 of 4 threads", "200"],
)
def test_a_cluster_is_kept_busy(
    setting: Setting, share: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    found = run(setting)
    assert found.share >= share
    assert found.twice <= 0.05
    assert found.lost <= 0.01
    assert found.held_bytes <= 2 * MEMORY_BYTES
    assert found.cpu_s < 2e-3 * setting.frames / 64 * 3
    if setting.peers == 24:
        assert found.tickets <= 1300
