"""Pixels as counts: unsigned integers of at most 32 bits, the largest value for "not measured"."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.codec import Codec
from dadafs.errors import BadData


def counts_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What pixels of this dtype become; a function of nothing else. BadData for other things."""
    if dtype.kind in "ui" and dtype.itemsize <= 4:
        return np.dtype(f"<u{dtype.itemsize}")
    if dtype.kind in "uif" and dtype.itemsize <= 8:
        return np.dtype("<u4")
    if dtype.kind == "b":
        return np.dtype("u1")
    raise BadData(f"pixels of {dtype} are not supported: counts are whole numbers")


def counts_of(codec: Codec) -> str:
    """What its pixels become, e.g. `<u2`."""
    return counts_dtype(np.dtype(codec.dtype)).str


def as_counts(pixels: NDArray[Any]) -> NDArray[Any]:
    """The counts in an image.

    Detectors that store signed numbers mark gaps and dead pixels by negative ones: these become
    the largest value, as do NaN and the largest of 64 bits. BadData where a pixel is no whole
    number, or too large.
    """
    target = counts_dtype(pixels.dtype)
    largest = np.iinfo(target).max
    if pixels.dtype.kind in "ub" and pixels.dtype.itemsize <= 4:
        return np.ascontiguousarray(pixels, target)
    if pixels.dtype.kind == "i" and pixels.dtype.itemsize <= 4:
        signed = np.maximum(pixels, -1).astype(f"<i{pixels.dtype.itemsize}", copy=False)
        return np.ascontiguousarray(signed.view(target))  # -1 is the largest, seen as unsigned
    if pixels.dtype.kind == "f":
        invalid = np.isnan(pixels) | (pixels < 0)
        values = np.where(invalid, 0, pixels)
        odd = values != np.floor(values)
        if odd.any():
            example = float(values[odd][0])
            raise BadData(f"pixels are not whole numbers (e.g. {example:g}): counts are needed")
    else:
        unsigned = pixels.dtype.kind == "u"
        invalid = pixels == np.iinfo(pixels.dtype).max if unsigned else pixels < 0
        values = np.where(invalid, 0, pixels)
    if values.size and values.max() >= largest:
        raise BadData(f"a pixel of {float(values.max()):g} is more than {target} can hold")
    counts: NDArray[Any] = values.astype(target)
    counts[invalid] = largest
    return counts
