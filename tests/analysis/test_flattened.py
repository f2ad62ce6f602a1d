"""Flat fields: every pass over products, and patterns and plug-ins, against plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from chunkmaking import encode, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import judged
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scenes import SHAPE, scenes

from analysis.analyses import ANALYSES, crystal, dpc, exponent, harmonic, orientation
from analysis.definition import Settings
from analysis.plan import Plan, Roi
from analysis.planning import plan_for
from analysis.plugins import PluginReduction, frame_analysis
from analysis.reductions import REDUCTIONS
from analysis.reductions.flattened import PreparedFlat, flat_layers, flat_values
from analysis.reductions.patterns import merge
from analysis.reductions.profiles import edges
from analysis.reductions.shapes import value_type
from analysis.reference import reference, scale

CX, CY = 33.3, 14.1
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def field(seed: int, shape: tuple[int, int] = SHAPE) -> Floats:
    """Factors, a few of them of no use."""
    rng = np.random.default_rng(seed)
    factors = rng.uniform(0.5, 1.5, shape)
    for bad in (np.nan, np.inf, 0.0, -1.0):
        factors[rng.random(shape) < 0.01] = bad
    return factors


FACTORS = st.integers(0, 2**32 - 1).map(field)


@pytest.mark.parametrize(
    "name", ["moments", "radial", "azimuthal", "placed", "directions", "above"]
)
@settings(deadline=None, max_examples=40)
@given(scene=scenes(("|u1", "<u2", "<u4")), factors=FACTORS, heal=st.sampled_from((None, 1)))
def test_every_pass(
    name: str, scene: tuple[NDArray[Any], Bools, dict[str, Any]], factors: Floats, heal: int | None
) -> None:
    frame, mask, more = scene
    more |= {"flat": 1, "heal": heal}
    more |= {"bins": 6} if name in ("radial", "azimuthal", "placed") else {}
    more |= {"extra": (("threshold", 2.5),)} if name == "above" else {}
    _, codec = encode(frame, "none")
    plan = plan_of(name, codec, mask, **more)
    prepared = PreparedFlat(plan, factors)
    assert (prepared.value_shape, prepared.value_dtype) == value_type(plan)
    found = np.zeros(prepared.value_shape)
    prepared.frame(frame, found)
    expected = reference(plan, frame, factors)
    assert expected is not None
    assert expected.shape == found.shape
    assert (abs(found - expected) <= 1e-11 * scale(plan, expected) + 1e-300).all()


def test_a_field_of_ones_changes_nothing() -> None:
    """But for rounding: what is multiplied by 1 is raw."""
    rng = np.random.default_rng(2)
    frame = rng.poisson(3, SHAPE).astype("<u2")
    frame[3, 4:8] = 65535
    mask = rng.random(SHAPE) < 0.1
    for name in ("darkfield", "dpc", "orientation", "harmonic", "symmetry", "crystal", "exponent"):
        own = {"threshold": 4} if name == "crystal" else {}
        for heal in (0, 1):
            more = {"cx": CX, "cy": CY, "heal": heal, **own}
            raw = judged(name, frame, mask, **more)
            flat = judged(name, frame, mask, np.ones(SHAPE), **more)
            assert list(flat) == list(raw)
            assert_allclose(list(flat.values()), list(raw.values()), rtol=1e-9, err_msg=name)


def test_maps_against_their_numpy_references() -> None:
    rng = np.random.default_rng(5)
    frame, mask = rng.poisson(3, SHAPE).astype("<u2"), rng.random(SHAPE) < 0.1
    factors = field(5)
    usable = np.isfinite(factors) & (factors > 0)
    valid = ~mask & usable
    products = frame * np.where(usable, factors, 0)

    def channels(name: str, **more: Any) -> list[float]:
        found = judged(name, frame, mask, factors, cx=CX, cy=CY, **more)
        return [found[channel.name] for channel in ANALYSES[name].channels]

    assert_allclose(channels("darkfield"), [products[valid].sum()], rtol=1e-12)
    assert_allclose(channels("dpc"), dpc.reference(products, valid, CX, CY), rtol=1e-9)
    expected = orientation.reference(products, valid, CX, CY)
    assert_allclose(channels("orientation"), expected, rtol=1e-9)
    assert_allclose(channels("harmonic"), harmonic.reference(products, valid, CX, CY), rtol=1e-9)
    bright = products[valid & (products > 4)]
    assert_allclose(channels("crystal", threshold=4), [bright.sum(), bright.size], rtol=1e-12)
    found = judged("crystal", frame, mask, factors, threshold=4)["sigma_counts"]
    variances = (products * np.where(usable, factors, 0))[valid & (products > 4)]
    assert found == pytest.approx(np.sqrt(variances.sum()), rel=1e-12)
    assert crystal.reference(frame, valid, 4)[1] != bright.size


def test_a_power_law_weighs_bins_by_their_propagated_errors() -> None:
    rows, columns = np.indices(SHAPE)
    rng = np.random.default_rng(6)
    frame = rng.poisson(3000 / (1 + np.hypot(columns - CX, rows - CY))).astype("<u2")
    factors = field(6)
    usable = np.isfinite(factors) & (factors > 0)
    plan = plan_for(
        ANALYSES["exponent"], Settings(cx=CX, cy=CY, bins=9, rmin=3, flat=1), *SHAPE, "<u2", b""
    )
    ends = edges(plan)
    r = np.hypot(columns - CX, rows - CY)
    bins = np.where(r >= 3, np.minimum(np.searchsorted(ends, r, side="right") - 1, 8), 9)
    chosen = usable & (bins < 9)
    each = frame * np.where(usable, factors, 0)
    sums, variances, pixels = (
        np.bincount(bins[chosen], one[chosen], 9)
        for one in (each, each * np.where(usable, factors, 0), np.ones(SHAPE))
    )
    line, covariance = np.polyfit(
        np.log((ends[1:] + ends[:-1]) / 2),
        np.log(sums / pixels),
        1,
        w=sums / np.sqrt(variances),
        cov="unscaled",
    )
    found = judged("exponent", frame, None, factors, cx=CX, cy=CY, bins=9, rmin=3)
    assert found["exponent"] == pytest.approx(-line[0], rel=1e-9)
    assert found["sigma"] == pytest.approx(np.sqrt(covariance[0, 0]), rel=1e-9)
    assert exponent.FEWEST_BINS < 9


@pytest.mark.parametrize("name", ["sum", "max", "average"])
def test_the_plan_of_a_pattern_is_that_of_the_counts(name: str) -> None:
    plans = [
        plan_for(ANALYSES[name], Settings(cx=3, cy=4, flat=flat), *SHAPE, "<u2", b"")
        for flat in (None, 1)
    ]
    assert plans[0] == plans[1]
    with pytest.raises(ValueError, match="knows no flat field"):
        flat_values(Plan("patterns", "", *SHAPE, "<u2", flat=1))
    with pytest.raises(ValueError, match="needs a threshold"):
        PreparedFlat(Plan("above", "", *SHAPE, "<u2", flat=1), np.ones(SHAPE))


@pytest.mark.parametrize("heal", [None, 1])
def test_patterns_are_exact_and_know_no_order(heal: int | None) -> None:
    rng = np.random.default_rng(8)
    frames = rng.poisson(3, (12, *SHAPE)).astype("<u2")
    frames[rng.random(frames.shape) < 0.05] = 65535
    frames[:, 5, 30] = 65535
    mask, factors = rng.random(SHAPE) < 0.1, field(8)
    _, codec = encode(frames[0], "none")
    plan = plan_of("patterns", codec, mask, roi=Roi(5, 3, 50, 20), cx=CX, cy=CY, heal=heal)
    prepared = REDUCTIONS["patterns"].prepare(plan)

    def layers(order: list[int]) -> Floats:
        totals = np.zeros(prepared.value_shape, np.uint64)
        for number in order:
            one = np.zeros_like(totals)
            prepared.frame(frames[number], one)
            merge(totals, list(one))
        return flat_layers(plan, totals, factors)

    found = layers(list(range(12)))
    assert_array_equal(found, layers(rng.permutation(12).tolist()))
    window = np.s_[3:23, 5:55]
    y, x = np.indices(SHAPE)
    if heal:
        y, x = (
            np.where(mask, mirrored, own)
            for mirrored, own in ((round(2 * CY) - y, y), (round(2 * CX) - x, x))
        )
    there = (y >= 0) & (y < SHAPE[0]) & (x >= 0) & (x < SHAPE[1])
    y, x = np.where(there, y, 0), np.where(there, x, 0)
    factor = np.where(there & ~mask[y, x], factors[y, x], np.nan)
    usable = np.isfinite(factor) & (factor > 0)
    counts = frames[:, y, x]
    valid = (usable & (counts != 65535))[:, window[0], window[1]]
    products = (counts * np.where(usable, factor, 0))[:, window[0], window[1]]
    n = valid.sum(axis=0)
    assert_array_equal(found[2], n)
    some = n > 0
    largest = np.where(valid, products, -1).max(axis=0)
    assert_array_equal(found[1][some], largest[some])
    total = np.where(valid, products, 0).sum(axis=0)
    assert_allclose(found[0][some], total[some], rtol=1e-14)
    assert np.isnan(found[:2, ~some]).all()
    assert (~some).sum() > 20
    for name, expected in (("sum", found[0]), ("max", found[1]), ("average", found[0] / n)):
        with np.errstate(invalid="ignore"):
            finished = ANALYSES[name].finish(found, Settings())
        assert finished.dtype == np.float64
        assert_array_equal(finished[0][some], expected[some])
        assert np.isnan(finished[0][~some]).all()


def test_plugins_are_given_corrected_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    @frame_analysis(title="t", channels={"a": ""}, needs_centre=True)
    def look(frame: Any, geometry: Any, params: Any) -> Any:
        seen.append((frame, geometry.selected))
        return frame.sum()

    @look.fused()
    def visit(totals, counts, dx, dy, params):  # type: ignore[no-untyped-def]
        totals[0] += counts

    frame = np.array([[1, 2, 3], [4, 65535, 6], [7, 8, 9]], "<u2")
    mask = np.zeros((3, 3), np.bool_)
    mask[0, 0] = mask[0, 2] = True
    factors = np.array([[9, 2, 9], [2, 2, np.nan], [3, 2, 0.5]])
    chunk, codec = encode(frame, "bitshuffle-lz4")
    reduction = PluginReduction(look)
    monkeypatch.setitem(REDUCTIONS, reduction.name, reduction)
    for more, expected in (
        ({}, [[0, 2, 0], [4, 0, 6], [7, 8, 9]]),
        ({"heal": 1}, [[9, 2, 7], [4, 0, 6], [7, 8, 9]]),
        ({"flat": 1}, [[0, 4, 0], [8, 0, 0], [21, 16, 4.5]]),
        ({"flat": 1, "heal": 1}, [[4.5, 4, 21], [8, 0, 0], [21, 16, 4.5]]),
    ):
        plan = plan_of("plugin:look", codec, mask, cx=1.0, cy=1.0, **more)
        prepared = PreparedFlat(plan, factors) if "flat" in more else reduction.prepare(plan)
        assert prepared.fuses(codec) is (not more)
        out = np.zeros(prepared.value_shape)
        assert (prepared.value_shape, prepared.value_dtype) == value_type(plan)
        seen.clear()
        prepared.frame(frame, out)
        assert out.tolist() == [[np.sum(expected)]]
        if more:
            ((given, selected),) = seen
            assert given.tolist() == expected
            assert given.dtype == (np.float64 if "flat" in more else frame.dtype)
            assert not given.flags.writeable
            missing = [[0, 0] if "heal" not in more else [], [1, 2] if "flat" in more else []]
            assert all(not selected[tuple(one)] for one in missing if one)
            assert selected[1, 1]
    assert chunk
