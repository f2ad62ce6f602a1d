"""Real detector frames through a real mount."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from mounting import Site
from numpy.testing import assert_allclose, assert_array_equal

pytestmark = [pytest.mark.mount, pytest.mark.realdata]

DATA = Path(__file__).resolve().parents[3] / "shared/data/vac_007_data_000001.h5"


@pytest.fixture(scope="module")
def vac(shared: Site) -> str:
    if not DATA.exists():
        pytest.skip(f"{DATA} is not here")
    shutil.copy(DATA, shared.raw)
    return "vac_007"


def test_darkfield(shared: Site, vac: str) -> None:
    assert_array_equal(shared.load(f"{vac}/darkfield/full.npy"), [[137689.0, 137435.0]])


def test_dpc_from_a_given_centre(shared: Site, vac: str) -> None:
    truth = np.array([[1650.2585754853, 1653.6630916433], [1543.7969336694, 1550.6996252774]])
    result = shared.load(f"{vac}/dpc/cx=2449.94/cy=823.25.npy")
    assert_allclose(result[:, 0], truth - [[2449.94], [823.25]], atol=1e-7)


def test_sum_and_max_leave_the_sentinel_out(shared: Site, vac: str) -> None:
    total = shared.load(f"{vac}/sum/full.npy")
    assert total.sum() == 137689 + 137435
    assert shared.load(f"{vac}/max/full.npy").max() == 22
    assert np.count_nonzero(np.isnan(shared.load(f"{vac}/average/full.npy"))) == 664805
