"""Every reduction against plain numpy, to the last count: any frame, mask, limits and codec."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401, registers the filters
import numpy as np
import pytest
from chunkmaking import DTYPES, KINDS, codec_of, encode, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import analysis.reference
from analysis.codec import Codec, Filter
from analysis.plan import Geometry, Plan, Roi
from analysis.reductions import REDUCTIONS
from analysis.reductions.patterns import PreparedPattern, merge
from analysis.reductions.profiles import edges
from analysis.selection import radius, scattering_vector, selected

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "vac_007_data_000001.h5"
PASSES = (
    *("moments", "counts", "radial", "azimuthal", "patterns"),
    *("placed", "directions", "above"),
)
GEOMETRY = Geometry(distance_m=0.2, wavelength_nm=0.1, pixel_m=75e-6)


def moments_reference(frame: NDArray[Any], valid: NDArray[np.bool_]) -> list[int]:
    """In Python's integers, modulo 2^64."""
    rows, columns = (axis.astype(object) for axis in np.nonzero(valid))
    counts = frame[valid].astype(object)
    x, y = columns, rows
    return [int((counts * w).sum()) % 2**64 for w in (1, x, y, x * x, x * y, y * y)]


def position(plan: Plan) -> NDArray[np.float64]:
    """What a profile is over."""
    assert plan.cx is not None
    assert plan.cy is not None
    if plan.reduction == "azimuthal":
        rows, columns = np.mgrid[: plan.height, : plan.width]
        phi = np.degrees(np.arctan2(plan.cy - rows, columns - plan.cx)) % 360
        return np.where(phi == 360, 0, phi)
    r = radius(plan.shape, plan.cx, plan.cy)
    return r if plan.geometry is None else scattering_vector(r, plan.geometry)


def profile_reference(plan: Plan, frame: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[Any]:
    """Bin by bin between the edges, the last with both ends."""
    ends = edges(plan)
    assert plan.bins is not None
    assert len(ends) == plan.bins + 1
    places = np.searchsorted(ends, position(plan), side="right") - 1
    places[position(plan) == ends[-1]] = plan.bins - 1
    out = np.zeros((2, plan.bins), np.uint64)
    for index in range(plan.bins):
        inside = valid & (places == index)
        out[:, index] = frame[inside].sum(dtype=np.uint64), inside.sum()
    return out


def pattern_reference(plan: Plan, frame: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[Any]:
    """Sum and max are the counts of the one frame."""
    roi = plan.roi or Roi(0, 0, plan.width, plan.height)
    window = slice(roi.y, roi.y + roi.h), slice(roi.x, roi.x + roi.w)
    counts = np.where(valid, frame, 0)[window]
    return np.stack([counts, counts, valid[window]]).astype(np.uint64)


def directions_reference(
    plan: Plan, frame: NDArray[Any], valid: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Harmonics by their angles."""
    assert plan.cx is not None
    assert plan.cy is not None
    rows, columns = np.nonzero(valid)
    counts, dx, up = frame[valid].astype(float), columns - plan.cx, plan.cy - rows
    r2, phi = dx**2 + up**2, np.arctan2(up, dx)
    away = r2 >= 1e-12
    terms = [np.ones_like(phi)]
    terms += [wave(n * phi) * away for n in (2, 4) for wave in (np.cos, np.sin)]
    terms += [r2, r2 * np.cos(2 * phi), r2 * np.sin(2 * phi), r2**2]
    terms += [r2**2 * wave(n * phi) for n in (2, 4) for wave in (np.cos, np.sin)]
    return np.array([(counts * term).sum() for term in terms])


def placed_reference(
    plan: Plan, frame: NDArray[Any], valid: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The profile, and the middle of each bin."""
    counts, pixels = profile_reference(plan, frame, valid)
    ends = edges(plan)
    return np.stack([counts, pixels, ends[:-1] + np.diff(ends) / 2]).astype(float)


def above_reference(plan: Plan, frame: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[Any]:
    """Sum and number of the pixels above."""
    bright = frame[valid & (frame > dict(plan.extra)["threshold"])]
    return np.array([bright.sum(dtype=np.uint64), bright.size], np.uint64)


def reference(plan: Plan, frame: NDArray[Any]) -> NDArray[Any]:
    """The values of one frame, by numpy."""
    valid = selected(plan) & (frame != plan.sentinel)
    if plan.reduction == "moments":
        return np.array(moments_reference(frame, valid), np.uint64)
    if plan.reduction == "counts":
        return frame[valid].sum(dtype=np.uint64)[None]
    if plan.reduction == "above":
        return above_reference(plan, frame, valid)
    if plan.reduction == "directions":
        return directions_reference(plan, frame, valid)
    if plan.reduction == "placed":
        return placed_reference(plan, frame, valid)
    if plan.reduction == "patterns":
        return pattern_reference(plan, frame, valid)
    return profile_reference(plan, frame, valid)


def check(plan: Plan, codec: Codec, chunk: bytes, frame: NDArray[Any]) -> None:
    """Chunk and decoded frame both give the reference's values: integers to the last count."""
    prepared = REDUCTIONS[plan.reduction].prepare(plan)
    wanted = reference(plan, frame)
    shipped = analysis.reference.reference(plan, frame)
    assert shipped is not None
    agree(shipped, wanted)
    assert wanted.shape == prepared.value_shape
    assert prepared.fuses(codec)
    out = np.zeros(prepared.value_shape, prepared.value_dtype)
    assert prepared.chunk(chunk, codec, out)
    agree(out, wanted)
    again = np.zeros_like(out)
    prepared.frame(frame, again)
    assert again.tobytes() == out.tobytes()


def agree(found: NDArray[Any], wanted: NDArray[Any]) -> None:
    """To the bit if integers, else to rounding, beside the largest where terms of both signs add
    up."""
    if found.dtype.kind == "u":
        np.testing.assert_array_equal(found, wanted)
    else:
        scale = np.nanmax(np.abs(wanted), initial=0)
        np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-12 * scale)


@st.composite
def frames(draw: st.DrawFn) -> NDArray[Any]:
    """Frames of any size and dtype: empty, sparse, full, at the limit, with sentinels."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 150)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    top = int(np.iinfo(dtype).max)
    kind = draw(st.sampled_from(("empty", "sparse", "smooth", "any", "top", "sentinel")))
    frame = {
        "empty": lambda: np.zeros(shape),
        "sparse": lambda: rng.poisson(0.05, shape) * rng.integers(1, 9, shape),
        "smooth": lambda: rng.poisson(3, shape),
        "any": lambda: rng.integers(0, top + 1, shape),
        "top": lambda: np.full(shape, top - 1),
        "sentinel": lambda: np.full(shape, top),
    }[kind]().astype(dtype)
    if draw(st.booleans()):
        frame[rng.random(shape) < 0.1] = top
    if draw(st.booleans()):
        frame[:, shape[1] // 2 :][:, :9] = top
    return frame


@st.composite
def masks(draw: st.DrawFn, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
    """No mask, some pixels, some rows, or all."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    share = draw(st.sampled_from((None, 0.0, 0.3, 1.0)))
    if share is None:
        return None
    whole_rows = draw(st.booleans())
    return np.broadcast_to(rng.random((shape[0], 1) if whole_rows else shape) < share, shape)


@pytest.mark.parametrize("reduction", PASSES)
@given(data=st.data())
@settings(max_examples=120, deadline=None, derandomize=True)
def test_any_frame_in_any_codec_is_reduced_to_the_last_count(reduction: str, data: Any) -> None:
    frame = data.draw(frames())
    height, width = frame.shape
    more: dict[str, Any] = {}
    if data.draw(st.booleans()):
        x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
        w, h = data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y))
        more["roi"] = Roi(x, y, w, h)
    centred = reduction in ("radial", "azimuthal", "placed", "directions")
    if centred or data.draw(st.booleans()):
        more["cx"] = data.draw(st.floats(-20, 170))
        more["cy"] = data.draw(st.floats(-20, 60))
        more["rmin"] = data.draw(st.sampled_from((None, 0.0, 2.5)))
        more["rmax"] = data.draw(st.sampled_from((None, 7.25, 100.0)))
    if centred:
        more["bins"] = data.draw(st.sampled_from((1, 2, 7, 300)))
    if reduction == "above":
        top = int(np.iinfo(frame.dtype).max)
        threshold = data.draw(st.sampled_from((0, 1, 2, 3, 7, 100, top - 2, top - 1, top, 2**32)))
        more["extra"] = (("threshold", float(threshold)),)
    if reduction in ("radial", "placed"):
        more["geometry"] = data.draw(st.sampled_from((None, GEOMETRY)))
    chunk, codec = encode(frame, data.draw(st.sampled_from(sorted(KINDS))))
    check(plan_of(reduction, codec, data.draw(masks(frame.shape)), **more), codec, chunk, frame)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_frames(dtype: str, kind: str) -> None:
    """Many blocks, and more bytes than the window of an LZ4 chunk holds, some incompressible."""
    rng = np.random.default_rng(7)
    shape = (300, 1030)
    frame = rng.poisson(np.exp(-np.arange(1030) / 100) * 20, shape).astype(dtype)
    frame[100:180] = rng.integers(0, 250, (80, 1030))
    frame[50:60] = frame[:, 300:310] = np.iinfo(dtype).max
    frame[200:290, 500:] = 0
    invalid = frame == np.iinfo(dtype).max
    chunk, codec = encode(frame, kind)
    for reduction in ("moments", "counts", "patterns"):
        check(plan_of(reduction, codec, invalid), codec, chunk, frame)
        check(plan_of(reduction, codec, None), codec, chunk, frame)
    for name in ("radial", "placed", "directions"):
        check(plan_of(name, codec, None, cx=17.3, cy=90.1, bins=20), codec, chunk, frame)
    for threshold in (0.0, 4.0, 200.0):
        own = (("threshold", threshold),)
        check(plan_of("above", codec, invalid, extra=own), codec, chunk, frame)


def test_moments_wrap_at_64_bits() -> None:
    frame = np.full((3000, 2), 2**32 - 2, "<u4")
    frame[:, 0] = 2**32 - 3
    chunk, codec = encode(frame, "bitshuffle-lz4")
    plan = plan_of("moments", codec, None)
    rows = np.arange(3000, dtype=object)
    assert (rows * rows * (2**33 - 5)).sum() > 2**64
    check(plan, codec, chunk, frame)


@pytest.mark.parametrize("kind", ["bitshuffle-lz4", "lz4", "none"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_counts_in_long_rows_fit_the_sums(dtype: str, kind: str) -> None:
    """Vectors add up many pixels in lanes of 32 bits: 4096 words of them, or 64 with factors."""
    frame = np.full((2, 140_001), np.iinfo(dtype).max - 1, dtype)
    chunk, codec = encode(frame, kind)
    count, width = int(frame[0, 0]), 140_001
    x, xx = width * (width - 1) // 2, (width - 1) * width * (2 * width - 1) // 6
    wanted = [count * n % 2**64 for n in (2 * width, 2 * x, width, 2 * xx, x, width)]
    for reduction in ("counts", "moments"):
        prepared = REDUCTIONS[reduction].prepare(plan_of(reduction, codec, None))
        out = np.zeros(prepared.value_shape, np.uint64)
        assert prepared.chunk(chunk, codec, out)
        assert out.tolist() == wanted[: out.size]
        out[:] = 0
        prepared.frame(frame, out)
        assert out.tolist() == wanted[: out.size]


def test_frames_of_other_shape_or_dtype_are_refused() -> None:
    prepared = REDUCTIONS["moments"].prepare(Plan("moments", "", 2, 3, "<u2"))
    out = np.zeros(6, np.uint64)
    for wrong in (np.zeros((3, 2), "<u2"), np.zeros((2, 3), "<u4"), np.zeros(6, "<u2")):
        with pytest.raises(ValueError, match="a frame"):
            prepared.frame(wrong, out)
    prepared.frame(np.asfortranarray(np.ones((2, 3), "<u2")), out)
    assert list(out) == [6, 6, 3, 10, 3, 3]


@pytest.mark.parametrize(
    "codec",
    [
        Codec(2, 3, "<u4", (Filter(32008, (0, 4, 4, 0, 2)),)),
        Codec(3, 2, "<u2", (Filter(32008, (0, 4, 2, 0, 2)),)),
        Codec(2, 3, ">u2", (Filter(32008, (0, 4, 2, 0, 2)),)),
        Codec(2, 3, "<u2", (Filter(32008, (0, 4, 2, 0, 3, 9)),)),
        Codec(2, 3, "<u2", (Filter(32008, (0, 4, 4, 0, 2)),)),
        Codec(2, 3, "<u2", (Filter(32008, (0, 4, 2, 12, 2)),)),
        Codec(2, 3, "<u2", (Filter(1, (6,)),)),
        Codec(2, 3, "<u2", (Filter(2), Filter(32004))),
        Codec(2, 3, "<i2"),
    ],
)
def test_other_codecs_are_left_to_hdf5(codec: Codec) -> None:
    for name in PASSES:
        own = (("threshold", 1.0),)
        plan = Plan(name, "", 2, 3, "<u2", cx=0.0, cy=0.0, bins=2, extra=own)
        prepared = REDUCTIONS[name].prepare(plan)
        assert not prepared.fuses(codec)
        with pytest.raises(NotImplementedError, match="no fused"):
            prepared.chunk(b"", codec, np.zeros(prepared.value_shape, np.uint64))


def radial_plan(**more: Any) -> Plan:
    return Plan("radial", "", 20, 30, "<u2", cx=5.0, cy=5.0, bins=10, **more)


def test_edges_are_limits_or_what_the_selection_spans() -> None:
    assert edges(radial_plan(rmin=1.0, rmax=6.0)) == pytest.approx(np.linspace(1, 6, 11))
    assert edges(radial_plan())[[0, -1]] == pytest.approx([0, np.hypot(24, 14)])
    assert edges(radial_plan(rmax=9.0))[[0, -1]] == pytest.approx([0, 9])
    assert edges(radial_plan(roi=Roi(8, 5, 3, 1)))[[0, -1]] == pytest.approx([3, 5])
    assert edges(radial_plan(roi=Roi(8, 5, 1, 1)))[[0, -1]] == pytest.approx([2.5, 3.5])
    q = scattering_vector(np.array([1.0, 6.0]), GEOMETRY)
    spanned = radial_plan(geometry=GEOMETRY, rmin=1.0, rmax=6.0)
    assert edges(spanned)[[0, -1]] == pytest.approx(q)
    limited = radial_plan(geometry=GEOMETRY, qmin=0.1, qmax=0.2)
    assert edges(limited)[[0, -1]] == pytest.approx([0.1, 0.2])
    nothing = radial_plan(rmin=50.0)
    assert edges(nothing)[[0, -1]] == pytest.approx([50, 51])
    turn = Plan("azimuthal", "", 4, 4, "<u2", cx=1.0, cy=1.0, bins=4)
    assert list(edges(turn)) == [0, 90, 180, 270, 360]


def test_a_pixel_at_the_upper_limit_is_in_the_last_bin() -> None:
    plan = radial_plan(rmin=0.0, rmax=10.0)
    prepared = REDUCTIONS["radial"].prepare(plan)
    frame = np.zeros((20, 30), "<u2")
    frame[5, 15], frame[5, 14], frame[5, 16] = 1, 2, 4  # at 10, 9 and 11 pixels
    out = np.zeros((2, 10), np.uint64)
    prepared.frame(frame, out)
    assert list(out[0]) == [0] * 9 + [3]


@pytest.mark.parametrize(
    ("field", "value"), [("bins", None), ("bins", 0), ("bins", 1 << 16), ("cx", None), ("cy", None)]
)
def test_profiles_need_bins_and_a_centre(field: str, value: Any) -> None:
    for name in ("radial", "azimuthal", "placed"):
        given = {"cx": 1.0, "cy": 1.0, "bins": 4} | {field: value}
        with pytest.raises(ValueError, match=r"a profile needs"):
            REDUCTIONS[name].prepare(Plan(name, "", 4, 4, "<u2", **given))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("frames", "bright"), [(9, 0.0), (90, 0.3)], ids=["faint", "beyond what planes hold"]
)
def test_patterns_accumulate_and_merge_exactly(
    kind: str, dtype: str, frames: int, bright: float
) -> None:
    """Mostly faint; bright pixels have all of their bits used, and their sums more than 16."""
    rng = np.random.default_rng(3)
    sentinel = np.iinfo(dtype).max
    stack = rng.poisson(0.4, (frames, 33, 70)).astype(dtype)
    spots = rng.random(stack.shape[1:]) < bright
    stack[:, spots] = rng.integers(sentinel, size=(frames, spots.sum()), dtype=dtype)
    stack[rng.random(stack.shape) < 0.05] = sentinel
    invalid = rng.random(stack.shape[1:]) < 0.1
    encoded = [encode(frame, kind) for frame in stack]
    prepared = PreparedPattern(plan_of("patterns", encoded[0][1], invalid))
    whole, parts = prepared.new(), [prepared.new() for _ in range(3)]
    valid = ~invalid & (stack != sentinel)
    counts = np.where(valid, stack, 0)

    def wanted(of: slice) -> NDArray[Any]:
        layers = counts[of].sum(0, np.uint64), counts[of].max(0), valid[of].sum(0)
        return np.stack(layers).astype(np.uint64)

    for index, (chunk, codec) in enumerate(encoded):
        assert prepared.accumulate(chunk, codec, whole)
        assert not prepared.accumulate(chunk[:-1], codec, whole)
        assert prepared.accumulate(chunk, codec, parts[index % 3])
        if index == frames // 2:  # to look at it changes nothing
            np.testing.assert_array_equal(prepared.values(whole), wanted(np.s_[: index + 1]))
    np.testing.assert_array_equal(prepared.values(whole), wanted(np.s_[:]))
    merged = prepared.values(parts[2])
    for part in parts[:2]:
        merge(merged, prepared.values(part))
    np.testing.assert_array_equal(merged, wanted(np.s_[:]))


@pytest.mark.realdata
def test_real_frames() -> None:
    """Sums that numpy gives for two frames of an Eiger2 9M without a mask file."""
    if not REAL.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{REAL} is needed here")
        pytest.skip(f"no {REAL}")
    with h5py.File(REAL) as file:
        dataset = file["entry/data/data"]
        codec = codec_of(dataset)
        moments = REDUCTIONS["moments"].prepare(plan_of("moments", codec, None))
        counts = REDUCTIONS["counts"].prepare(plan_of("counts", codec, None))
        centre = ((1650.2585754853, 1543.7969336694), (1653.6630916433, 1550.6996252774))
        for index, total in enumerate((137689, 137435)):
            chunk = dataset.id.read_direct_chunk((index, 0, 0))[1]
            six, one = np.zeros(6, np.uint64), np.zeros(1, np.uint64)
            assert moments.chunk(chunk, codec, six)
            assert counts.chunk(chunk, codec, one)
            assert (six[0], one[0]) == (total, total)
            assert (six[1:3] / total).tolist() == pytest.approx(centre[index], abs=1e-9)
