"""The passes over counts that are multiplied with a flat field: general, in float64.

Counts times real factors are no integers, so these passes take decoded frames and numpy. They add
in an order that depends on nothing but the frame: results are the same to the bit on every peer.
They are several times slower than the fused ones. Patterns need none of them: the factor of a
pixel is the same in all frames, so it multiplies what the counts have added up to.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis import products, reductions
from analysis.codec import Codec
from analysis.healing import Healing
from analysis.plan import Plan, Roi
from analysis.plugins import PluginReduction, PreparedPlugin
from analysis.reductions.base import Prepared
from analysis.reductions.frames import frame_values

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

PROFILES = ("radial", "azimuthal", "placed")
AT_ONCE = 1 << 14  # pixels: 128 kB of float64, so that some ten arrays of them stay in the cache
AT_BEAM_PX2 = 1e-12
"""r^2 of a pixel that has no direction."""


def flat_values(plan: Plan) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of the values of one frame. ValueError for a pass that has none.

    With J the products: moments about (cx, cy), or (0, 0), directions: `analysis.products`. above:
    sum of the J that are above, their number, variance of the sum. radial, azimuthal: sums of J and
    of its variance, and pixels, by bin; placed: and centres. frame: squares. Plug-ins: their own.
    """
    reduction = reductions.REDUCTIONS.get(plan.reduction)
    shape: tuple[int, ...]
    if isinstance(reduction, PluginReduction):
        shape = reduction.plugin.value_shape()
    elif plan.reduction == "moments":
        shape = (products.length(products.MOMENTS),)
    elif plan.reduction == "directions":
        shape = (products.length(products.DIRECTIONS),)
    elif plan.reduction == "above":
        shape = (3,)
    elif plan.reduction in PROFILES:
        if plan.bins is None:
            raise ValueError(f"{plan.reduction} needs a number of bins")
        shape = (4 if plan.reduction == "placed" else 3, plan.bins)
    elif plan.reduction == "frame" and plan.bin is not None:
        shape = frame_values(plan)[0]
    else:
        raise ValueError(f"the pass {plan.reduction!r} knows no flat field")
    return shape, np.dtype(np.float64)


def prepared_for(plan: Plan, factors: Floats | None) -> Prepared:
    """The pass of a plan over counts, or over products with these factors (height, width).

    ValueError where the plan is none.
    """
    if factors is None:
        return reductions.REDUCTIONS[plan.reduction].prepare(plan)
    return PreparedFlat(plan, factors)


class PreparedFlat:
    """A pass and a flat field. A pixel whose factor is not positive and finite is invalid."""

    def __init__(self, plan: Plan, factors: Floats) -> None:
        """`factors` are (height, width)."""
        self.value_shape, self.value_dtype = flat_values(plan)
        self._plan = plan
        self._healing = Healing(plan)
        factors = self._healing.plane(factors)
        self._usable = usable(factors)
        self._factors = np.where(self._usable, factors, 0.0)
        extra = dict(plan.extra)
        if plan.reduction == "above" and "threshold" not in extra:
            raise ValueError(f"the pass {plan.reduction!r} needs a threshold")
        self._threshold = extra.get("threshold", 0.0)
        reduction = reductions.REDUCTIONS.get(plan.reduction)
        self._plugin: PreparedPlugin | None = None
        if isinstance(reduction, PluginReduction):
            self._plugin = PreparedPlugin(reduction.plugin, plan, self._usable)
        if plan.reduction in PROFILES:
            from analysis.reductions.profiles import bin_table, centres

            covered = self._healing.covered
            self._inside, self._table, _ = bin_table(plan, covered)
            self._centres = centres(plan, covered) if plan.reduction == "placed" else None

    def frame(self, frame: NDArray[Any], out: NDArray[Any]) -> None:
        """Reduce a decoded frame (height, width) into `out`."""
        counts, good = self._healing.frame(frame)
        good &= self._usable
        if self._plugin is not None:
            self._plugin.take(np.where(good, counts * self._factors, 0.0), out)
            return
        match self._plan.reduction:
            case "frame":
                out[...] = self._squares(np.where(good, counts * self._factors, 0.0), good)
            case "above":
                out[...] = self._above(counts, good)
            case "moments" | "directions":
                out[...] = self._sums(counts, good)
            case _:
                self._profile(counts, good, out)

    def _lit(self, counts: NDArray[Any], good: Bools) -> tuple[NDArray[np.intp], Floats, Floats]:
        """The pixels that have counts, in order: their places, these counts, and factors."""
        at = np.flatnonzero(good & (counts > 0))
        return at, counts.reshape(-1)[at].astype(np.float64), self._factors.reshape(-1)[at]

    def _sums(self, counts: NDArray[Any], good: Bools) -> Floats:
        plan = self._plan
        weights_of = _moments if plan.reduction == "moments" else _directions
        totals = np.zeros(self.value_shape)
        pixels = self._lit(counts, good)
        for begin in range(0, pixels[0].size, AT_ONCE):
            at, lit, factors = (one[begin : begin + AT_ONCE] for one in pixels)
            rows, columns = np.divmod(at, plan.width)
            weights = weights_of(columns - (plan.cx or 0.0), rows - (plan.cy or 0.0))
            one = lit * factors
            variance = one * factors
            sums = [(of * weight).sum() for of in (one, variance) for weight in weights]
            totals += [*sums, lit.sum()]
        return totals

    def _above(self, counts: NDArray[Any], good: Bools) -> list[float]:
        _, lit, factors = self._lit(counts, good)
        above = lit * factors
        bright = above > self._threshold
        above = above[bright]
        return [above.sum(), above.size, (above * factors[bright]).sum()]

    def _profile(self, counts: NDArray[Any], good: Bools, out: NDArray[Any]) -> None:
        good &= self._inside
        at, lit, factors = self._lit(counts, good)
        bins, count = self._table.reshape(-1)[at], out.shape[1]
        lit *= factors
        out[0] = np.bincount(bins, lit, count)
        out[1] = np.bincount(bins, lit * factors, count)
        out[2] = np.bincount(self._table[good], None, count)
        if self._centres is not None:
            out[3] = self._centres

    def _squares(self, products: Floats, good: Bools) -> Floats:
        edge = self._plan.bin
        assert edge is not None
        rows, columns = self.value_shape
        top, left = (0, 0) if self._plan.roi is None else (self._plan.roi.y, self._plan.roi.x)
        window = np.s_[top : top + rows * edge, left : left + columns * edge]
        split = (rows, edge, columns, edge)
        sums = products[window].reshape(split).sum(axis=(1, 3))
        return np.where(good[window].reshape(split).any(axis=(1, 3)), sums, np.nan)

    def fuses(self, codec: Codec) -> bool:
        """Never."""
        return False

    def chunk(self, chunk: bytes, codec: Codec, out: NDArray[Any]) -> bool:
        """Not reached: `fuses` is False."""
        raise NotImplementedError(f"no fused pass over products for {codec}")


def flat_layers(plan: Plan, layers: NDArray[np.uint64], factors: Floats) -> Floats:
    """The layers of a pattern over counts, (3, rows, columns), as those of the products.

    `factors` are (height, width). One product a pixel: no sum of products is rounded, whatever the
    order of the frames. A pixel that counts in no frame is NaN, and valid in 0 frames.
    """
    roi = plan.roi or Roi(0, 0, plan.width, plan.height)
    healed = Healing(plan).plane(factors)[roi.y : roi.y + roi.h, roi.x : roi.x + roi.w]
    there = usable(healed) & (layers[2] > 0)
    factor = np.where(there, healed, np.nan)
    return np.stack([layers[0] * factor, layers[1] * factor, np.where(there, layers[2], 0.0)])


def usable(factors: Floats) -> Bools:
    """Which factors can be used: pixels with other ones do not count."""
    return np.isfinite(factors) & (factors > 0)


def _moments(dx: Floats, dy: Floats) -> tuple[Floats | float, ...]:
    """The weights of the pass `moments`."""
    return 1.0, dx, dy, dx * dx, dx * dy, dy * dy


def _directions(dx: Floats, dy: Floats) -> tuple[Floats | float, ...]:
    """Those of `directions`: 1, 2nd and 4th harmonic; r^2 and its 2nd; r^4, its 2nd and 4th."""
    up = -dy
    r2 = dx * dx + up * up
    at_beam = r2 < AT_BEAM_PX2
    inverse = np.where(at_beam, 0.0, 1 / np.where(at_beam, 1.0, r2))
    c2, s2 = (dx * dx - up * up) * inverse, 2 * dx * up * inverse
    second, fourth = (c2, s2), (c2 * c2 - s2 * s2, 2 * c2 * s2)
    r4 = r2 * r2
    return (
        *(1.0, *second, *fourth),
        *(r2, *(r2 * wave for wave in second)),
        *(r4, *(r4 * wave for wave in (*second, *fourth))),
    )
