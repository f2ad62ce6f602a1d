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
Values = NDArray[Any]

AT_THE_BEAM_PX2 = 1e-12
"""r^2 of a pixel that has no direction."""
SUMS = {"directions": (0, 0, 0, 0, 0, 5, 5, 5, 8, 8, 8, 8, 8)}
"""Of passes whose values are sums of positive and negative terms: the value, for each of them, that
is the sum of the same terms' sizes, or more."""


def reference(plan: Plan, frame: NDArray[Any]) -> Values | None:
    """The values of the pass over one decoded frame (height, width), in its shape.

    Integers are exact modulo 2^64, as the kernels' are; a pattern's values are those of this one
    frame. None for a pass that has no reference here.
    """
    compute = None if plan.flat else _PASSES.get(plan.reduction)
    return None if compute is None else compute(plan, *healed(plan, frame))


def scale(plan: Plan, values: NDArray[Any]) -> NDArray[Any]:
    """What the rounding of each value is relative to: its own size, or that of its terms."""
    sums = SUMS.get(plan.reduction)
    return np.asarray(np.abs(values if sums is None else values[..., list(sums)]))


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
