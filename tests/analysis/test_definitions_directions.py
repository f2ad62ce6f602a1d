"""Harmonic, crystal, exponent: closed-form truths, references, edges of definedness."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import judged
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from analysis.analyses import ANALYSES, crystal, exponent, harmonic
from analysis.definition import Settings
from analysis.plan import Geometry, Roi
from analysis.planning import plan_for
from analysis.reductions import REDUCTIONS
from analysis.selection import scattering_vector

GEOMETRY = Geometry(distance_m=0.3, wavelength_nm=0.09, pixel_m=75e-6)


@st.composite
def masked_frames(draw: st.DrawFn) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A frame of 16 or 32 bits with sentinels, and a mask with gaps."""
    dtype = draw(st.sampled_from(("<u2", "<u4")))
    shape = draw(st.tuples(st.integers(3, 30), st.integers(3, 90)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    frame = rng.poisson(draw(st.sampled_from((0.02, 0.6, 40))), shape).astype(dtype)
    frame[rng.random(shape) < 0.03] = np.iinfo(dtype).max
    frame[rng.random(shape) < 0.01] = np.iinfo(dtype).max - 1
    invalid = rng.random(shape) < draw(st.sampled_from((0.0, 0.1, 1.0)))
    invalid[shape[0] // 2] = True
    return frame, invalid


def valid_of(frame: NDArray[Any], invalid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return ~invalid & (frame != np.iinfo(frame.dtype).max)


def polar(edge: int, cx: float, cy: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """r and phi (radians, counter-clockwise) of a square frame."""
    rows, columns = np.indices((edge, edge))
    return np.hypot(columns - cx, rows - cy), np.arctan2(cy - rows, columns - cx)


# --- harmonic


@given(masked_frames(), st.floats(-3, 60), st.floats(-3, 30))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_harmonic_is_its_definition(sample: Any, cx: float, cy: float) -> None:
    frame, invalid = sample
    found = judged("harmonic", frame, invalid, cx=cx, cy=cy)
    angle, strength = harmonic.reference(frame, valid_of(frame, invalid), cx, cy)
    assert_allclose(found["strength"], strength, atol=1e-12)
    if strength > 1e-6:
        assert abs((found["angle"] - angle + 90) % 180 - 90) < 1e-6
        assert 0 <= found["angle"] < 180


@pytest.mark.parametrize("turn", [0.0, 1.0, 44.5, 90.0, 133.0, 179.5])
def test_turning_a_pattern_turns_its_angle(turn: float) -> None:
    r, phi = polar(161, 80.3, 79.6)
    frame = np.rint(2000 * (1 + 0.6 * np.cos(2 * phi - 2 * np.radians(turn)))).astype("<u2")
    found = judged("harmonic", frame, r > 75, cx=80.3, cy=79.6)
    assert abs((found["angle"] - turn + 90) % 180 - 90) < 0.1
    assert found["strength"] == pytest.approx(0.3, abs=2e-3)


def test_a_line_through_the_beam_has_strength_one() -> None:
    frame = np.zeros((41, 41), "<u4")
    for step in range(-15, 16):
        frame[20 - step, 20 + step] = 7
    found = judged("harmonic", frame, cx=20.0, cy=20.0)
    assert found["angle"] == pytest.approx(45, abs=1e-12)
    assert found["strength"] == pytest.approx(30 / 31)  # the beam's own pixel has no direction
    far = judged("harmonic", frame, cx=20.0, cy=20.0, rmin=3)
    assert (far["strength"], far["sigma_strength"]) == (pytest.approx(1), pytest.approx(0))


def test_an_isotropic_pattern_has_no_direction() -> None:
    r, _ = polar(161, 80, 80)
    found = judged("harmonic", np.full(r.shape, 9, "<u2"), r > 75, cx=80.0, cy=80.0)
    assert found["strength"] < 1e-12


@pytest.mark.parametrize("counts", [0, 1])
def test_without_counts_nothing_is_known(counts: int) -> None:
    frame = np.zeros((5, 5), "<u2")
    frame[1, 3] = counts
    found = judged("harmonic", frame, cx=2.0, cy=2.0)
    unknown = {name for name, value in found.items() if np.isnan(value)}
    errors = {"sigma_angle", "sigma_strength"}
    assert unknown == (errors if counts else errors | {"angle", "strength"})


def test_counts_at_the_beam_have_no_direction() -> None:
    frame = np.zeros((5, 5), "<u2")
    frame[2, 2] = 4
    found = judged("harmonic", frame, cx=2.0, cy=2.0)
    assert found["strength"] == 0
    assert np.isnan(found["angle"])
    assert np.isnan(found["sigma_angle"])


# --- crystal


@given(masked_frames(), st.sampled_from((0, 1, 2, 40, 65533, 65534, 2**32 - 1)))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_crystal_is_its_definition(sample: Any, threshold: int) -> None:
    frame, invalid = sample
    found = judged("crystal", frame, invalid, threshold=threshold)
    wanted = crystal.reference(frame, valid_of(frame, invalid), threshold)
    assert [found["counts"], found["pixels"]] == wanted.tolist()
    assert found["sigma_counts"] == np.sqrt(wanted[0])


def test_the_threshold_itself_is_not_above() -> None:
    frame = np.array([[0, 9, 10, 11, 65534, 65535]], "<u2")
    found = judged("crystal", frame)
    assert (found["counts"], found["pixels"]) == (11 + 65534, 2)
    assert judged("crystal", frame, roi=Roi(0, 0, 4, 1), threshold=9)["counts"] == 21


def test_the_largest_counts_fit() -> None:
    frame = np.full((300, 700), 2**32 - 2, "<u4")
    assert judged("crystal", frame)["counts"] == float(210_000 * (2**32 - 2))


# --- exponent


@given(masked_frames(), st.sampled_from((3, 11, 60)), st.sampled_from((None, GEOMETRY)))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_exponent_is_its_definition(sample: Any, bins: int, geometry: Geometry | None) -> None:
    frame, invalid = sample
    settings = {"cx": 4.3, "cy": 2.1, "bins": bins, "geometry": geometry}
    lo, hi = 1.0, 50.0
    if geometry is None:
        limits = {"rmin": lo, "rmax": hi}
    else:
        lo, hi = scattering_vector(np.array([lo, hi]), geometry).tolist()
        limits = {"qmin": lo, "qmax": hi}
    found = judged("exponent", frame, invalid, **settings, **limits)
    rows, columns = np.indices(frame.shape)
    r = np.hypot(columns - 4.3, rows - 2.1)
    place = r if geometry is None else scattering_vector(r, geometry)
    valid = valid_of(frame, invalid) & (place >= lo) & (place <= hi)
    wanted = exponent.reference(frame, valid, Settings(**settings), lo, hi)
    assert_allclose(list(found.values()), wanted, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("power", [0.0, 1.0, 2.5, 4.0])
@pytest.mark.parametrize("geometry", [None, GEOMETRY])
def test_a_known_power_law_is_found(power: float, geometry: Geometry | None) -> None:
    r, _ = polar(301, 150.3, 149.2)
    x, name = (r, "r") if geometry is None else (scattering_vector(r, geometry), "q")
    lo, hi = (20, 140) if geometry is None else (0.35, 2.4)
    frame = np.rint(2e9 * (np.maximum(x, 0.9 * lo) / lo) ** -power).astype("<u4")
    limits = {f"{name}min": lo, f"{name}max": hi}
    centre = {"cx": 150.3, "cy": 149.2, "geometry": geometry}
    found = judged("exponent", frame, r < 5, **centre, **limits)
    assert found["exponent"] == pytest.approx(power, abs=2e-3)
    assert found["prefactor"] == pytest.approx(2e9 * lo**power, rel=0.01)
    assert 0 < found["sigma"] < 1e-5


def test_the_error_of_an_exponent_is_its_scatter() -> None:
    """Of 200 noisy frames: the standard deviation, known itself to 5 %."""
    rng = np.random.default_rng(5)
    r, _ = polar(101, 50, 50)
    plan = plan_for(
        ANALYSES["exponent"],
        Settings(cx=50.0, cy=50.0, rmin=10, rmax=48, bins=12),
        *(101, 101, "<u2", b""),
    )
    prepared = REDUCTIONS["placed"].prepare(plan)
    values = np.zeros((200, *prepared.value_shape))
    for row in values:
        frame = rng.poisson(8 * (np.maximum(r, 1) / 10) ** -2.0).astype("<u2")
        prepared.frame(frame, row)
    exponents, sigmas, _ = exponent.finish(values, Settings())
    assert sigmas.mean() == pytest.approx(exponents.std(), rel=0.2)
    assert exponents.mean() == pytest.approx(2, abs=0.03)


def test_few_bins_make_no_power_law() -> None:
    frame = np.zeros((9, 40), "<u2")
    frame[4, [3, 20]] = 5
    assert all(map(np.isnan, judged("exponent", frame, cx=0.0, cy=4.0, bins=9).values()))
    frame[4, 33] = 1
    assert not any(map(np.isnan, judged("exponent", frame, cx=0.0, cy=4.0, bins=9).values()))
    with pytest.raises(ValueError, match="bins=2: a power law needs at least 3 bins"):
        judged("exponent", frame, cx=0.0, cy=4.0, bins=2)
