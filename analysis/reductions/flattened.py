"""The passes over counts that are multiplied with a flat field: general, in float64.

Counts times real factors are no integers, so these passes take decoded frames and numpy. They add
in an order that depends on nothing but the shape of the frame: results are the same to the bit on
every peer. They are several times slower than the fused ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.codec import Codec
from analysis.healing import covered, opposite
from analysis.plan import Plan
from analysis.reductions.frames import frame_values
from analysis.selection import offsets, selected


def flat_values(plan: Plan) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of the values of one frame. ValueError for a pass that has none.

    moments: sums of J times 1, dx, dy, dx^2, dx dy, dy^2 about (cx, cy), or (0, 0), with J the
    products. radial, azimuthal: sums of J and of its variance, and pixels, by bin. frame: squares.
    """
    match plan.reduction:
        case "moments":
            return (6,), np.dtype(np.float64)
        case "radial" | "azimuthal":
            if plan.bins is None:
                raise ValueError(f"{plan.reduction} needs a number of bins")
            return (3, plan.bins), np.dtype(np.float64)
        case "frame" if plan.bin is not None:
            return frame_values(plan)[0], np.dtype(np.float64)
    raise ValueError(f"the pass {plan.reduction!r} knows no flat field")


class PreparedFlat:
    """A pass and a flat field. A pixel whose factor is not positive and finite is invalid."""

    def __init__(self, plan: Plan, factors: NDArray[np.float64]) -> None:
        """`factors` are (height, width)."""
        self.value_shape, self.value_dtype = flat_values(plan)
        self._plan = plan
        usable = np.isfinite(factors) & (factors > 0)
        self._factors = np.where(usable, factors, 0.0)
        self._usable = usable
        self._selected = selected(plan) & usable
        self._healed, self._opposite = opposite(plan)
        if plan.reduction in ("radial", "azimuthal"):
            from analysis.reductions.profiles import bin_table

            self._inside, self._table, _ = bin_table(plan, covered(plan))

    def frame(self, frame: NDArray[Any], out: NDArray[Any]) -> None:
        """Reduce a decoded frame (height, width) into `out`."""
        products = frame * self._factors
        variances = products * self._factors
        valid = frame != self._plan.sentinel
        good = self._selected & valid
        if self._healed.size:
            there = (valid & self._usable).reshape(-1)[self._opposite]
            good.reshape(-1)[self._healed] = there
            for plane in (products, variances):
                plane.reshape(-1)[self._healed] = plane.reshape(-1)[self._opposite]
        match self._plan.reduction:
            case "moments":
                out[...] = self._moments(np.where(good, products, 0.0))
            case "frame":
                out[...] = self._squares(products, good)
            case _:
                chosen = good & self._inside
                bins, count = self._table[chosen], out.shape[1]
                for row, weights in enumerate((products[chosen], variances[chosen], None)):
                    out[row] = np.bincount(bins, weights, count)

    def _moments(self, products: NDArray[np.float64]) -> list[float]:
        plan = self._plan
        dx, dy = offsets(plan.shape, plan.cx or 0.0, plan.cy or 0.0)
        columns, rows = products.sum(axis=0), products.sum(axis=1)
        mixed = (products * dx).sum(axis=1)
        sums = (rows, columns * dx, rows * dy, columns * dx**2, mixed * dy, rows * dy**2)
        return [float(one.sum()) for one in sums]

    def _squares(
        self, products: NDArray[np.float64], good: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        roi, edge = self._plan.roi, self._plan.bin
        assert edge is not None
        rows, columns = self.value_shape
        top, left = (0, 0) if roi is None else (roi.y, roi.x)
        window = np.s_[top : top + rows * edge, left : left + columns * edge]
        split = (rows, edge, columns, edge)
        sums = np.where(good, products, 0.0)[window].reshape(split).sum(axis=(1, 3))
        return np.where(good[window].reshape(split).any(axis=(1, 3)), sums, np.nan)

    def fuses(self, codec: Codec) -> bool:
        """Never."""
        return False

    def chunk(self, chunk: bytes, codec: Codec, out: NDArray[Any]) -> bool:
        """Not reached: `fuses` is False."""
        raise NotImplementedError(f"no fused pass over products for {codec}")
