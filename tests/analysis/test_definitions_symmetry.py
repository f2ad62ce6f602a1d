"""Symmetry: synthetic patterns give their order; gaps, noise and emptiness do what is promised."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import judged
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from analysis.analyses import azimuthal, symmetry
from analysis.definition import Settings

EDGE, CX, CY = 241, 120.4, 119.7
RING = {"cx": CX, "cy": CY, "rmin": 60, "rmax": 110}
FOLDS = range(2, 13)


def phi_of(edge: int = EDGE) -> NDArray[np.float64]:
    rows, columns = np.indices((edge, edge))
    return np.asarray(np.arctan2(CY - rows, columns - CX))


def waves(fold: int, turn: float, depth: float) -> NDArray[np.uint32]:
    """Counts that go up and down `fold` times around the beam, a maximum at `turn` degrees."""
    wave = 1 + depth * np.cos(fold * (phi_of() - np.radians(turn)))
    return np.rint(1e6 * wave).astype("<u4")


def rings(profiles: NDArray[Any], pixels: int | NDArray[Any] = 1) -> NDArray[np.uint64]:
    """Values of the pass, uint64 (n, 2, bins), of sums by bin."""
    return np.stack([profiles, np.broadcast_to(pixels, profiles.shape)], axis=1).astype(np.uint64)


def of_fold(fold: int) -> Settings:
    return Settings(extra=(("fold", float(fold)),))


@pytest.mark.parametrize("fold", [2, 3, 4, 6, 12])
def test_a_pattern_has_its_order_and_no_other(fold: int) -> None:
    frame = waves(fold, 7, 0.5)
    for order in FOLDS:
        found = judged("symmetry", frame, **RING, fold=order)
        if order == fold:
            assert found["strength"] == pytest.approx(0.5**2 / 4, rel=0.01)
            assert found["angle"] == pytest.approx(7, abs=0.1)
        else:
            assert abs(found["strength"]) < 1e-5


@pytest.mark.parametrize("turn", [0.2, 10, 29.5, 44, 59])
def test_turning_a_pattern_turns_its_angle(turn: float) -> None:
    found = judged("symmetry", waves(6, turn, 0.4), **RING, fold=6)
    assert found["angle"] == pytest.approx(turn, abs=0.1)


def test_gaps_are_no_symmetry() -> None:
    """The cross of a detector's gaps repeats itself four times; what lies in it is not counted."""
    gaps = np.zeros((EDGE, EDGE), np.bool_)
    gaps[110:135] = gaps[:, 100:122] = True
    flat = judged("symmetry", np.full((EDGE, EDGE), 50, "<u2"), gaps, **RING, fold=4)
    assert abs(flat["strength"]) < 1e-3
    frame = waves(6, 11, 0.5)
    frame[gaps] = 0
    found = judged("symmetry", frame, gaps, **RING, fold=6)
    assert found["strength"] == pytest.approx(0.5**2 / 4, rel=0.1)
    assert found["angle"] == pytest.approx(11, abs=0.1)
    assert abs(judged("symmetry", frame, gaps, **RING, fold=4)["strength"]) < 0.006


@pytest.mark.parametrize("fold", FOLDS)
def test_sharp_spots_have_strength_one(fold: int) -> None:
    profile = np.zeros((1, 27720))
    profile[0, :: 27720 // fold] = 10**8
    strength, angle = symmetry.finish(rings(profile), of_fold(fold))[:, 0]
    assert strength == pytest.approx(1, abs=1e-6)
    assert angle == pytest.approx(180 / 27720, abs=1e-6)


def test_without_gaps_it_is_the_harmonic_of_the_profile() -> None:
    """|sum I e^{i n phi}|^2 / |sum I|^2, less the noise."""
    rng = np.random.default_rng(1)
    profile = rng.poisson(30, (1, 90)).astype(float)
    turns = np.exp(2j * np.pi * 5 * np.arange(90) / 90)
    power = abs(profile @ turns) ** 2
    strength = symmetry.finish(rings(profile, 3), of_fold(5))[0, 0]
    expected = (power - profile.sum()) / profile.sum() ** 2
    assert strength == pytest.approx(expected[0], abs=1e-15)


@st.composite
def masked_frames(draw: st.DrawFn) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    dtype = draw(st.sampled_from(("<u2", "<u4")))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    frame = rng.poisson(draw(st.sampled_from((0.05, 2, 300))), (40, 50)).astype(dtype)
    frame[rng.random(frame.shape) < 0.02] = np.iinfo(dtype).max
    invalid = rng.random(frame.shape) < draw(st.sampled_from((0.0, 0.4, 0.97, 1.0)))
    invalid[:, 20:23] = True
    return frame, invalid


@given(masked_frames(), st.sampled_from(FOLDS), st.sampled_from((25, 60, 72)))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_symmetry_is_its_definition(sample: Any, fold: int, bins: int) -> None:
    frame, invalid = sample
    given = {"cx": 24.31, "cy": 20.17, "bins": bins}
    found = judged("symmetry", frame, invalid, **given, fold=fold)
    valid = ~invalid & (frame != np.iinfo(frame.dtype).max)
    intensity, sigma, _ = azimuthal.reference(frame, valid, Settings(**given))
    strength, angle = symmetry.reference(intensity, sigma, fold)
    scale = np.nanmax(intensity, initial=0) ** 2 / max(np.nanmean([0, *intensity]), 1e-9) ** 2
    assert_allclose(found["strength"], strength, atol=1e-12 * max(scale, 1))
    if np.isfinite(angle):
        period = 360 / fold
        assert abs((found["angle"] - angle + period / 2) % period - period / 2) < 1e-4
    else:
        assert np.isnan(found["angle"])


def test_isotropic_noise_has_strength_zero_on_average() -> None:
    rng = np.random.default_rng(3)
    values = rings(rng.poisson(2.0, (4000, 60)))
    strengths = symmetry.finish(values, of_fold(6))[0]
    assert abs(strengths.mean()) < 4 * strengths.std() / np.sqrt(4000)
    assert strengths.std() < 0.01


@pytest.mark.parametrize("depth", [0.0, 0.2, 0.7])
@pytest.mark.parametrize("gap", [0, 9])
def test_the_errors_are_the_scatter(depth: float, gap: int) -> None:
    """Of 4000 noisy rings: standard deviations, known themselves to 2 %."""
    rng = np.random.default_rng(4)
    phi = (np.arange(60) + 0.5) * 2 * np.pi / 60
    mean = 40 * (1 + depth * np.cos(4 * phi - 1))
    pixels = np.where(np.arange(60) < gap, 0, 2)
    values = rings(rng.poisson(mean * (pixels > 0), (4000, 60)), pixels)
    strength, angle = symmetry.finish(values, of_fold(4))
    sigma_strength, sigma_angle = symmetry.SYMMETRY.errors.finish(values, of_fold(4))  # type: ignore[union-attr]
    root = np.sqrt((sigma_strength**2).mean())
    assert root == pytest.approx(strength.std(), rel=0.1 if depth else 0.4)
    if depth:
        assert sigma_angle.mean() == pytest.approx(angle.std(), rel=0.1)


@pytest.mark.parametrize(
    ("counts", "pixels"),
    [
        (np.zeros(60), np.ones(60)),  # no counts
        (np.zeros(60), np.zeros(60)),  # an empty ring
        (np.arange(60) < 10, np.arange(60) < 10),  # too little of a ring
    ],
)
def test_what_cannot_be_known_is_nan(counts: NDArray[Any], pixels: NDArray[Any]) -> None:
    for analysis in (symmetry.SYMMETRY, symmetry.SYMMETRY.errors):
        assert analysis is not None
        assert np.isnan(analysis.finish(rings(counts[None] * 9, pixels), of_fold(3))).all()


def test_a_single_count_has_no_symmetry() -> None:
    profile = np.zeros((1, 60))
    profile[0, 5] = 1
    assert symmetry.finish(rings(profile), of_fold(2))[0, 0] == pytest.approx(0, abs=1e-12)


def test_a_frame_is_finished_by_itself() -> None:
    rng = np.random.default_rng(7)
    values = rings(rng.poisson(5, (17, 360)), rng.integers(0, 3, (17, 360)))
    for analysis in (symmetry.SYMMETRY, symmetry.SYMMETRY.errors):
        assert analysis is not None
        together = analysis.finish(values, of_fold(6))
        apart = [analysis.finish(values[i : i + 1], of_fold(6)) for i in range(17)]
        assert together.tobytes() == np.concatenate(apart, axis=1).tobytes()
    assert symmetry.finish(values[:0], of_fold(6)).shape == (2, 0)


def test_bins_must_show_the_repetition() -> None:
    frame = np.ones((20, 20), "<u2")
    with pytest.raises(ValueError, match="bins=24: fold=12 needs more than 24 bins"):
        judged("symmetry", frame, cx=9.0, cy=9.0, bins=24, fold=12)
    judged("symmetry", frame, cx=9.0, cy=9.0, bins=25, fold=12)
