"""The passes once more, in plain numpy: slow, and without the kernels, to verify values with."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.healing import opposite
from analysis.plan import Plan, Roi
from analysis.reductions.profiles import edges
from analysis.selection import radius, scattering_vector, selected

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Values = NDArray[Any]

AT_THE_BEAM_PX2 = 1e-12
"""r^2 of a pixel that has no direction."""
_DIRECTIONS = (0, 0, 0, 0, 0, 5, 5, 5, 8, 8, 8, 8, 8)
"""Of sums of positive and negative terms: the value, for each of them, that is the sum of the same
terms' sizes."""


def reference(
    plan: Plan, frame: NDArray[Any], factors: NDArray[np.float64] | None = None
) -> Values | None:
    """The values of the pass over one decoded frame (height, width), in its shape.

    Integers are exact modulo 2^64, as the kernels' are; a pattern's values are those of this one
    frame. `factors` are the flat field that `plan` asks for. None for a pass that has no reference
    here.
    """
    counts, valid = healed(plan, frame)
    if factors is None:
        compute = _PASSES.get(plan.reduction)
        return None if compute is None else compute(plan, counts, valid)
    of_products = _FLAT.get(plan.reduction)
    if of_products is None:
        return None
    factors = factors.copy()
    _, targets, sources = _selection(plan)
    factors.reshape(-1)[targets] = factors.reshape(-1)[sources]
    return of_products(plan, counts, factors, valid & np.isfinite(factors) & (factors > 0))


def scale(plan: Plan, values: NDArray[Any]) -> NDArray[Any]:
    """What the rounding of each value is relative to: its own size, or that of its terms."""
    sizes = np.abs(values)
    if plan.reduction == "directions":
        columns = [*_DIRECTIONS, *(13 + one for one in _DIRECTIONS), 26]
        sizes = sizes[..., columns[: sizes.shape[-1]]]
    elif plan.reduction == "moments" and plan.flat:
        n, xx, yy = ((sizes[..., [one, 6 + one]]) for one in (0, 3, 5))
        terms = n, np.sqrt(n * xx), np.sqrt(n * yy), xx, np.sqrt(xx * yy), yy  # Cauchy and Schwarz
        of_both = np.stack(terms, axis=-1).reshape(*sizes.shape[:-1], 12)
        sizes = np.concatenate([of_both, sizes[..., 12:]], axis=-1)
    return np.asarray(sizes)


def healed(plan: Plan, frame: NDArray[Any]) -> tuple[NDArray[Any], Bools]:
    """The frame with its gaps filled where the plan says so, and its valid pixels in S."""
    chosen, targets, sources = _selection(plan)
    valid = chosen & (frame != plan.sentinel)
    if targets.size:
        frame = frame.copy()
        counted = frame.reshape(-1)[sources] != plan.sentinel
        frame.reshape(-1)[targets[counted]] = frame.reshape(-1)[sources[counted]]
        valid.reshape(-1)[targets[counted]] = True
    return frame, valid


@lru_cache(1)
def _selection(plan: Plan) -> tuple[Bools, NDArray[np.intp], NDArray[np.intp]]:
    """S, and what is healed of it."""
    return selected(plan), *opposite(plan)


def _moments(plan: Plan, frame: NDArray[Any], valid: Bools) -> Values:
    """sum_S I times 1, x, y, x^2, x y, y^2."""
    counts = np.where(valid, frame, 0).astype(np.uint64)
    x, y = np.arange(plan.width, dtype=np.uint64), np.arange(plan.height, dtype=np.uint64)
    of_columns, of_rows = counts.sum(axis=0), counts.sum(axis=1)
    weighted = (counts * x).sum(axis=1)
    return np.array(
        [
            of_rows.sum(),
            (of_columns * x).sum(),
            (of_rows * y).sum(),
            (of_columns * x * x).sum(),
            (weighted * y).sum(),
            (of_rows * y * y).sum(),
        ],
        np.uint64,
    )


def _counts(plan: Plan, frame: NDArray[Any], valid: Bools) -> Values:
    return np.array([frame[valid].sum(dtype=np.uint64)])


def _pattern(plan: Plan, frame: NDArray[Any], valid: Bools) -> Values:
    """Sum, maximum, and whether the pixel is valid."""
    roi = plan.roi or Roi(0, 0, plan.width, plan.height)
    window = slice(roi.y, roi.y + roi.h), slice(roi.x, roi.x + roi.w)
    counts = np.where(valid, frame, 0)[window]
    return np.stack([counts, counts, valid[window]]).astype(np.uint64)


def _profile(plan: Plan, frame: NDArray[Any], valid: Bools) -> Values:
    """Counts and valid pixels by bin."""
    assert plan.bins is not None
    bins = _bins(plan)
    valid = valid & (bins >= 0)
    counts = frame[valid].astype(np.uint64)
    halves = counts & 0xFFFF, counts >> 16  # bincount adds floats, which are exact below 2^53
    low, high = (
        np.bincount(bins[valid], weights=half, minlength=plan.bins).astype(np.uint64)
        for half in halves
    )
    pixels = np.bincount(bins[valid], minlength=plan.bins).astype(np.uint64)
    return np.stack([low + (high << np.uint64(16)), pixels])


def _placed(plan: Plan, frame: NDArray[Any], valid: Bools) -> Values:
    """Counts and valid pixels by bin, and the middle of the bin."""
    ends = edges(plan)
    return np.stack([*_profile(plan, frame, valid), (ends[:-1] + ends[1:]) / 2]).astype(np.float64)


def _above(plan: Plan, frame: NDArray[Any], valid: Bools) -> Values:
    """Sum and number of the pixels above the threshold."""
    bright = frame[valid & (frame > dict(plan.extra)["threshold"])]
    return np.array([bright.sum(dtype=np.uint64), bright.size], np.uint64)


def _directions(plan: Plan, frame: NDArray[Any], valid: Bools) -> Values:
    """sum_S I times 1, its 2nd and 4th harmonic; r^2 and its 2nd; r^4, its 2nd and 4th."""
    assert plan.cx is not None
    assert plan.cy is not None
    rows, columns = np.nonzero(valid & (frame > 0))
    counts = frame[rows, columns].astype(np.float64)
    dx, up = columns - plan.cx, plan.cy - rows
    r2, phi = dx**2 + up**2, np.arctan2(up, dx)
    directed = np.where(r2 < AT_THE_BEAM_PX2, 0, counts)
    second, fourth = ((np.cos(n * phi), np.sin(n * phi)) for n in (2, 4))
    terms = [counts, *(directed * wave for wave in (*second, *fourth))]
    terms += [counts * r2 * wave for wave in (1, *second)]
    terms += [counts * r2**2 * wave for wave in (1, *second, *fourth)]
    return np.array([term.sum() for term in terms])


@lru_cache(1)
def _bins(plan: Plan) -> NDArray[np.intp]:
    """The bin of each pixel (height, width), the last one with both ends; -1 for those in none."""
    ends = edges(plan)
    at = _positions(plan)
    bins = np.searchsorted(ends, at, side="right") - 1
    bins[at == ends[-1]] = len(ends) - 2
    bins[(at < ends[0]) | (at > ends[-1])] = -1
    return bins


def _positions(plan: Plan) -> NDArray[np.float64]:
    """What a profile is over: q, r or phi."""
    assert plan.cx is not None
    assert plan.cy is not None
    if plan.reduction == "azimuthal":
        rows, columns = np.mgrid[: plan.height, : plan.width]
        phi = np.degrees(np.arctan2(plan.cy - rows, columns - plan.cx)) % 360
        return np.where(phi == 360, 0, phi)
    r = radius(plan.shape, plan.cx, plan.cy)
    return r if plan.geometry is None else scattering_vector(r, plan.geometry)


_PASSES: dict[str, Callable[[Plan, NDArray[Any], Bools], Values]] = {
    "moments": _moments,
    "counts": _counts,
    "radial": _profile,
    "azimuthal": _profile,
    "patterns": _pattern,
    "placed": _placed,
    "above": _above,
    "directions": _directions,
}


def _flat_moments(plan: Plan, frame: NDArray[Any], factors: Floats, valid: Bools) -> Values:
    """sum_S J times 1, dx, dy, dx^2, dx dy, dy^2, the same of its variance, sum_S I."""
    rows, columns = np.nonzero(valid)
    dx, dy = columns - (plan.cx or 0.0), rows - (plan.cy or 0.0)
    weights = np.stack([np.ones(len(dx)), dx, dy, dx**2, dx * dy, dy**2])
    products, variances = _products(frame, factors, valid)
    counts = frame[valid].sum(dtype=np.uint64)
    return np.array([*weights @ products, *weights @ variances, counts], np.float64)


def _flat_directions(plan: Plan, frame: NDArray[Any], factors: Floats, valid: Bools) -> Values:
    """As `_directions` of J, the same of its variance, sum_S I."""
    factors = np.where(valid, factors, 0)
    products = frame * factors
    variances = products * factors
    counts = frame[valid].sum(dtype=np.uint64)
    of_both = (_directions(plan, one, valid) for one in (products, variances))
    return np.concatenate([*of_both, np.array([counts], np.float64)])


def _flat_above(plan: Plan, frame: NDArray[Any], factors: Floats, valid: Bools) -> Values:
    """Sum and number of the J above the threshold, variance of the sum."""
    products, variances = _products(frame, factors, valid)
    bright = products > dict(plan.extra)["threshold"]
    return np.array([products[bright].sum(), bright.sum(), variances[bright].sum()])


def _flat_profile(plan: Plan, frame: NDArray[Any], factors: Floats, valid: Bools) -> Values:
    """J, its variance and pixels by bin."""
    assert plan.bins is not None
    bins = _bins(plan)
    valid = valid & (bins >= 0)
    rows = (*_products(frame, factors, valid), np.ones(int(valid.sum())))
    return np.stack([np.bincount(bins[valid], row, plan.bins) for row in rows])


def _flat_placed(plan: Plan, frame: NDArray[Any], factors: Floats, valid: Bools) -> Values:
    """The same, and the middle of the bin."""
    ends = edges(plan)
    middle = (ends[:-1] + ends[1:]) / 2
    return np.stack([*_flat_profile(plan, frame, factors, valid), middle])


def _products(frame: NDArray[Any], factors: Floats, valid: Bools) -> tuple[Floats, Floats]:
    """J = f I and its variance f^2 I, of the valid pixels (n,)."""
    counts, chosen = frame[valid].astype(np.float64), factors[valid]
    return chosen * counts, chosen**2 * counts


_FLAT: dict[str, Callable[[Plan, NDArray[Any], Floats, Bools], Values]] = {
    "moments": _flat_moments,
    "directions": _flat_directions,
    "above": _flat_above,
    "radial": _flat_profile,
    "azimuthal": _flat_profile,
    "placed": _flat_placed,
}
