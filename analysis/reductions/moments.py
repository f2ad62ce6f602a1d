"""The moment family: counts and their first and second moments in one pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.codec import Codec
from analysis.plan import Plan
from analysis.selection import selected
from analysis.version import code_version

COLUMNS = ("sum", "x", "y", "xx", "xy", "yy")
"""Columns of the values: sum_S I times 1, x, y, x^2, x y, y^2, x and y the pixel's indices."""


class PreparedMoments:
    """Moments of the pixels in one selection, uint64 (6,), exact modulo 2^64.

    They are taken about pixel (0, 0) in integers, so that the beam centre is no part of the pass:
    moving the origin by integers stays exact modulo 2^64, hence the centred moments are exact
    whenever they themselves fit 64 bits.
    """

    value_shape = (len(COLUMNS),)
    value_dtype = np.dtype(np.uint64)

    def __init__(self, plan: Plan) -> None:
        self._sentinel = plan.sentinel
        self._selected = selected(plan)
        self._x = np.arange(plan.width, dtype=np.uint64)
        self._y = np.arange(plan.height, dtype=np.uint64)

    def frame(self, frame: NDArray[Any], out: NDArray[Any]) -> None:
        """Reduce a decoded frame (height, width) into `out` (6,)."""
        counts = np.where(self._selected & (frame != self._sentinel), frame, 0).astype(np.uint64)
        x, y = self._x, self._y
        columns = counts.sum(axis=0, dtype=np.uint64)
        rows = counts.sum(axis=1, dtype=np.uint64)
        rows_x = counts @ x
        out[0] = rows.sum(dtype=np.uint64)
        out[1] = columns @ x
        out[2] = rows @ y
        out[3] = columns @ (x * x)
        out[4] = rows_x @ y
        out[5] = rows @ (y * y)

    def fuses(self, codec: Codec) -> bool:
        """No codec is reduced without decoding."""
        return False

    def chunk(self, chunk: bytes, codec: Codec, out: NDArray[Any]) -> bool:
        """Not reached: `fuses` is False."""
        raise NotImplementedError(f"no fused moments for {codec}")


class Moments:
    """The pass that serves darkfield, dpc and orientation."""

    name = "moments"
    version = code_version("analysis.reductions.moments", "analysis.selection")
    uses: frozenset[str] = frozenset()

    def prepare(self, plan: Plan) -> PreparedMoments:
        """Build the selection of `plan`."""
        return PreparedMoments(plan)
