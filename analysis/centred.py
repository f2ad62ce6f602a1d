"""Moments of a frame about its own centre of mass, from those about pixel (0, 0).

The pass leaves integer moments about pixel (0, 0), exact modulo 2^64. A spot of 1 px^2 at column
2000 has a second moment of 4 000 000 px^2 there: subtracting in float64 would lose 7 of 16 digits.
So the origin first moves, in wrapping integers and hence exactly, to the pixel nearest to the
frame's centre of mass; what is left to do in float64 is a shift by at most half a pixel, and then
the shift to the beam, which only adds terms of one sign.

The centre of mass, not the beam, is the pivot because moments about it are the smallest there
are: it depends on nothing but the counts and the extent of the pixels whether they fit 64 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.definition import Settings, beam_centre
from analysis.products import MOMENTS, Sums, sums_of

SUM, X, Y, XX, XY, YY = range(6)
"""Columns of the values: sum_S I times 1, x, y, x^2, x y, y^2."""
_WORD = 2**64


@dataclass(frozen=True, slots=True)
class Centred:
    """First and second moments of n frames, per count; NaN for a frame without counts.

    Rows point down. `x`, `y` are NaN where the counts exceed `exact_counts(..., order=1)`, the
    second moments where they exceed `exact_counts(..., order=2)`.
    """

    x: NDArray[np.float64]
    """Centre of mass minus beam centre, columns, pixels (n,). Error below 1e-15 (|x| + 1)."""
    y: NDArray[np.float64]
    xx: NDArray[np.float64]
    """Variance of the columns about the centre of mass, px^2 (n,). Relative error below 1e-14."""
    xy: NDArray[np.float64]
    """Covariance about the centre of mass. Error below 1e-14 sqrt(xx yy)."""
    yy: NDArray[np.float64]


def extent(settings: Settings) -> tuple[int, int, int, int]:
    """First column, first row, columns, rows of the rectangle that holds all selected pixels.

    ValueError where `settings` have neither a roi nor the detector's shape.
    """
    if settings.roi is not None:
        return settings.roi.x, settings.roi.y, settings.roi.w, settings.roi.h
    if settings.width is None or settings.height is None:
        raise ValueError("moments cannot be bounded without a roi or the detector's height, width")
    return 0, 0, settings.width, settings.height


def exact_counts(columns: int, rows: int, order: int) -> int:
    """The most counts a frame may have for its moments of `order` (1 or 2) to be exact. Pure.

    With e the longer edge: first moments about the corner are at most counts (e - 1), and stay
    below 2^64 with room for rounding where counts * e < 2^64. Second moments about the pixel
    nearest to the centre of mass are at most counts ((e - 1)^2 / 4 + 1 / 4) (Popoviciu's bound
    on the variance plus half a pixel squared), which is below 2^63 where counts * e^2 < 2^65;
    the mixed moment follows by Cauchy-Schwarz. For an Eiger 4M: 7.8e12 counts in a frame, 27
    times more than all its pixels can hold in uint16, 1.7 million counts in every pixel in uint32.
    """
    edge = max(columns, rows)
    limit = (_WORD - 1) // edge if order == 1 else (2 * _WORD - 1) // edge**2
    return min(limit, _WORD - 1)


def centred(values: NDArray[Any], settings: Settings) -> Centred:
    """Moments about centre of mass and beam of n frames.

    Parameters
    ----------
    values : uint64 (n, 6), the moments about pixel (0, 0), exact modulo 2^64; or float64, those of
        products about the beam, `analysis.products`.
    settings : gives the beam centre, and the roi or the detector's shape.

    Frames with more counts than `exact_counts` give NaN: their moments do not fit 64 bits, and
    nothing in them tells by how much they wrapped.
    """
    if values.dtype.kind == "f":
        return _centred_products(values)
    cx, cy = beam_centre(settings)
    x0, y0, columns, rows = extent(settings)
    moments = values.astype(np.uint64, copy=False)
    counts = moments[:, SUM]
    px = _nearest_pixel(counts, moments[:, X], x0)
    py = _nearest_pixel(counts, moments[:, Y], y0)
    x = (moments[:, X] - px * counts).view(np.int64)
    y = (moments[:, Y] - py * counts).view(np.int64)
    xx = moments[:, XX] - np.uint64(2) * px * moments[:, X] + px * px * counts
    yy = moments[:, YY] - np.uint64(2) * py * moments[:, Y] + py * py * counts
    xy = moments[:, XY] - px * moments[:, Y] - py * moments[:, X] + px * py * counts
    first = _divisor(counts, exact_counts(columns, rows, 1))
    second = _divisor(counts, exact_counts(columns, rows, 2))
    fx, fy = x / first, y / first  # within half a pixel
    return Centred(
        x=(px.astype(np.float64) - cx) + fx,
        y=(py.astype(np.float64) - cy) + fy,
        xx=np.maximum(xx / second - fx * fx, 0),
        xy=xy.view(np.int64) / second - fx * fy,
        yy=np.maximum(yy / second - fy * fy, 0),
    )


def _centred_products(values: NDArray[Any]) -> Centred:
    """From sums about the beam; they were taken in floating point, and their digits are lost."""
    counts, x, y, xx, xy, yy = sums_of(values, MOMENTS).sums.T
    x, y, xx, xy, yy = (per_count(one, counts) for one in (x, y, xx, xy, yy))
    return Centred(x, y, xx=np.maximum(xx - x * x, 0), xy=xy - x * y, yy=np.maximum(yy - y * y, 0))


def about_beam(values: NDArray[Any], settings: Settings) -> Sums:
    """sum I times 1, dx, dy, dx^2, dx dy, dy^2 about the beam, (n, 6), dy downwards, from the same
    values as `centred`."""
    if values.dtype.kind == "f":
        return sums_of(values, MOMENTS)
    counts = values[:, SUM].astype(np.float64)
    one = centred(values, settings)
    means = (one.x, one.y, one.xx + one.x**2, one.xy + one.x * one.y, one.yy + one.y**2)
    sums = np.stack([counts, *(total(counts, mean) for mean in means)], axis=1)
    return Sums(sums, sums, counts)


def total(counts: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts times a mean over them (n,): 0 for a frame without counts, whose mean is NaN."""
    return np.where(counts > 0, counts * mean, 0.0)


def per_count(total: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inverse (n,); NaN where the counts are not positive, as they may be after subtraction."""
    return total / np.where(counts > 0, counts, np.nan)


def _nearest_pixel(
    counts: NDArray[np.uint64], first: NDArray[np.uint64], origin: int
) -> NDArray[np.uint64]:
    """The index nearest to the centre of mass; `first` moments are about index 0."""
    corner = np.uint64(origin)
    about_corner = first - corner * counts
    half = counts // np.uint64(2)
    return np.asarray(corner + (about_corner + half) // np.maximum(counts, np.uint64(1)))


def _divisor(counts: NDArray[np.uint64], limit: int) -> NDArray[np.float64]:
    """The counts to divide by; NaN where there are none or too many."""
    usable = (counts > 0) & (counts <= np.uint64(limit))
    return np.where(usable, counts.astype(np.float64), np.nan)
