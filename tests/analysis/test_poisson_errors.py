"""The error channels of maps against brute force: every count changed a little."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from judging import judged, propagated
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from analysis.analyses import ANALYSES, azimuthal, dpc, harmonic, orientation, symmetry
from analysis.definition import Settings

CX, CY = 10.3, 7.8
Formula = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def sample(seed: int, dtype: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A streak with noise, sentinels and a gap."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((17, 21))
    along, across = columns - CX + rows - CY, columns - CX - rows + CY
    frame = rng.poisson(30 * np.exp(-(along**2) / 200 - across**2 / 40)).astype(dtype)
    frame[rng.random(frame.shape) < 0.05] = np.iinfo(dtype).max
    invalid = np.zeros(frame.shape, np.bool_)
    invalid[:, 4:6] = True
    return frame, invalid


def formulas(valid: NDArray[np.bool_]) -> dict[str, Formula]:
    """Quantities as functions of the counts, by the references."""

    def profile(counts: NDArray[np.float64]) -> NDArray[np.float64]:
        settings = Settings(cx=CX, cy=CY, bins=20)
        intensity, _, pixels = azimuthal.reference(counts, valid, settings)
        return symmetry.reference(intensity, np.sqrt(intensity / np.maximum(pixels, 1)), 3)

    return {
        "darkfield": lambda counts: counts[valid].sum()[None],
        "dpc": lambda counts: dpc.reference(counts, valid, CX, CY),
        "orientation": lambda counts: orientation.reference(counts, valid, CX, CY),
        "harmonic": lambda counts: harmonic.reference(counts, valid, CX, CY),
        "symmetry": profile,
    }


@pytest.mark.parametrize("name", ["darkfield", "dpc", "orientation", "harmonic", "symmetry"])
@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
@pytest.mark.parametrize("flat", [False, True])
def test_errors_are_propagated_counts(name: str, dtype: str, flat: bool) -> None:
    for seed in range(4):
        frame, invalid = sample(seed, dtype)
        factors = np.random.default_rng(seed).uniform(0.5, 1.5, frame.shape) if flat else None
        each = np.ones(frame.shape) if factors is None else factors
        valid = ~invalid & (frame != np.iinfo(dtype).max)
        more = {"bins": 20, "fold": 3} if name == "symmetry" else {}
        found = judged(name, frame, invalid, factors, cx=CX, cy=CY, **more)
        formula = formulas(valid)[name]
        wanted = propagated(
            lambda counts, of=formula, each=each: of(counts * each), np.where(valid, frame, 0)
        )
        names = [channel.name for channel in ANALYSES[name].channels]
        sigmas = [found["sigma" if name == "darkfield" else f"sigma_{one}"] for one in names]
        if name == "symmetry":  # to second order: its test is the scatter of noise
            assert sigmas[0] == pytest.approx(wanted[0], rel=0.2)
            sigmas, wanted = sigmas[1:], wanted[1:]
        assert_allclose(sigmas, wanted, rtol=1e-5)


@pytest.mark.parametrize("name", ["dpc", "orientation", "harmonic"])
def test_the_errors_are_the_scatter(name: str) -> None:
    """Of 300 noisy frames: standard deviations, known themselves to 4 %."""
    rng = np.random.default_rng(9)
    rows, columns = np.indices((41, 41))
    dx, up = columns - 20.2, 19.9 - rows
    mean = 6 * np.exp(-((dx + up) ** 2) / 300 - (dx - up) ** 2 / 80)
    found = [judged(name, rng.poisson(mean).astype("<u2"), cx=20.2, cy=19.9) for _ in range(300)]
    for channel in ANALYSES[name].channels:
        values = np.array([one[channel.name] for one in found])
        sigma = np.mean([one[f"sigma_{channel.name}"] for one in found])
        assert sigma == pytest.approx(values.std(), rel=0.2)


@pytest.mark.parametrize("name", ["dpc", "orientation", "harmonic"])
@pytest.mark.parametrize("counts", [0, 1])
def test_one_count_has_no_spread(name: str, counts: int) -> None:
    frame = np.zeros((9, 9), "<u2")
    frame[2, 6] = counts
    found = judged(name, frame, cx=4.0, cy=4.0)
    errors = [value for key, value in found.items() if key.startswith("sigma_")]
    assert errors
    assert np.isnan(errors).all()


def test_no_counts_have_no_error_of_their_sum() -> None:
    assert judged("darkfield", np.zeros((9, 9), "<u2"))["sigma"] == 0
