"""What the radial and the azimuthal profile share: channels and arithmetic of binned counts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.definition import Additive, Channel, Settings

PROFILE_CHANNELS = (
    Channel("intensity", "counts/px", "mean of the counts over the pixels; NaN for an empty bin"),
    Channel("sigma", "counts/px", "its Poisson error: sqrt(sum of the counts) / pixels"),
    Channel("pixels", "px", "number of selected valid pixels of the bin"),
)


def finish(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """Sums and pixels of n frames, as in `parts`, to (3, n, bins) float64."""
    del settings
    sums, variance, pixels = (values[:, row].astype(np.float64) for row in (0, -2, -1))
    divisor = np.where(pixels > 0, pixels, np.nan)
    return np.stack([sums / divisor, np.sqrt(variance) / divisor, pixels])


def parts(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """Sums and pixels to intensity, its variance and pixels, float64 (n, 3, bins).

    `values` are uint64 (n, 2, bins), or float64 (n, 3, bins) after a flat field, with the variance
    of the sum in the middle: that of counts is the counts.
    """
    del settings
    sums, variance, pixels = (values[:, row].astype(np.float64) for row in (0, -2, -1))
    divisor = np.where(pixels > 0, pixels, np.nan)
    return np.stack([sums / divisor, variance / divisor**2, pixels], axis=1)


def of_parts(parts: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """Such parts (n, 3, bins) to (3, n, bins)."""
    del settings
    return np.stack([parts[:, 0], np.sqrt(parts[:, 1]), parts[:, 2]])


ADDITIVE = Additive(("counts", "variance", "fixed"), parts, of_parts)


def reference(
    counts: NDArray[Any], position: NDArray[np.float64], bins: int, lo: float, hi: float
) -> NDArray[np.float64]:
    """Intensity, sigma, pixels, float64 (3, bins), by numpy's histogram: hi is in the last bin."""
    total, _ = np.histogram(position, bins, (lo, hi), weights=counts.astype(np.float64))
    pixels, _ = np.histogram(position, bins, (lo, hi))
    out = np.full((3, bins), np.nan)
    out[2] = pixels
    for index in np.flatnonzero(pixels):
        out[0, index] = total[index] / pixels[index]
        out[1, index] = np.sqrt(total[index]) / pixels[index]
    return out
