"""What results must be, in plain numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.plan import Roi
from tools.scan_maker import ScanMade

Bools = NDArray[np.bool_]


def selection(
    made: ScanMade,
    *,
    roi: tuple[int, int, int, int] | None = None,
    rmin: float = 0,
    rmax: float = np.inf,
    cx: float | None = None,
    cy: float | None = None,
) -> Bools:
    """The pixels that count, bool (height, width), without regard to the sentinel."""
    rows, columns = np.indices(made.detector.shape)
    cx = made.geometry.cx if cx is None else cx
    cy = made.geometry.cy if cy is None else cy
    r = np.sqrt((columns - cx) ** 2 + (rows - cy) ** 2)
    chosen = ~made.mask & (r >= rmin) & (r <= rmax)
    if roi is not None:
        x, y, w, h = roi
        chosen &= (columns >= x) & (columns < x + w) & (rows >= y) & (rows < y + h)
    return np.asarray(chosen)


def valid(made: ScanMade, chosen: Bools | None = None) -> Bools:
    """The valid pixels of each distinct frame, bool (unique, height, width)."""
    chosen = selection(made) if chosen is None else chosen
    return np.asarray(chosen & (made.frames != np.iinfo(made.frames.dtype).max))


def each(
    made: ScanMade, value: Callable[[NDArray[Any], Bools], Any], chosen: Bools | None = None
) -> NDArray[np.float64]:
    """A quantity of every recorded frame, (frames, ...), from that of the distinct ones."""
    pairs = zip(made.frames, valid(made, chosen), strict=True)
    return np.array([value(frame, good) for frame, good in pairs], np.float64)[made.which]


def counts(made: ScanMade, chosen: Bools | None = None) -> NDArray[np.float64]:
    """Sum over the valid pixels of every recorded frame."""
    return each(made, lambda frame, good: frame[good].sum(dtype=np.int64), chosen)


def folded(values: NDArray[Any], horz: int, vert: int, first: int = 0) -> NDArray[np.float64]:
    """Values of frames (frames, ...) as (line, point, ...), NaN beyond the last frame."""
    out = np.full((horz * vert, *values.shape[1:]), np.nan)
    there = values[first : first + horz * vert]
    out[: len(there)] = there
    return out.reshape(vert, horz, *values.shape[1:])


def cut(array: NDArray[Any], roi: Roi) -> NDArray[Any]:
    """A rectangle of the last two axes."""
    return array[..., roi.y : roi.y + roi.h, roi.x : roi.x + roi.w]
