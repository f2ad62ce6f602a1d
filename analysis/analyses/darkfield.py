"""Darkfield: how much a point scatters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.definition import Additive, Analysis, Channel, Settings, errors_of
from analysis.parameters import CORRECTED
from analysis.products import MOMENTS, sums_of


def finish(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """Moments of n frames, uint64 (n, 6), or of products, to counts, float64 (1, n)."""
    del settings
    return values[:, 0].astype(np.float64)[None]


def parts(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """The same values to counts, float64 (n, 1)."""
    del settings
    return values[:, :1].astype(np.float64)


def of_parts(parts: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """Counts (n, 1) to counts (1, n)."""
    del settings
    return parts.T


def error_parts(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """The same values to the variance of the counts, float64 (n, 1)."""
    del settings
    return np.array(sums_of(values, MOMENTS).variances[:, :1])


def of_variance(parts: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """That variance, which is the counts as long as they are raw, to sigma (1, n)."""
    del settings
    return np.sqrt(parts.T)


def reference(frame: NDArray[Any], valid: NDArray[np.bool_]) -> float:
    """sum_S I of one frame (height, width), plain numpy; `valid` is S, sentinel left out."""
    return float(np.sum(frame[valid], dtype=np.uint64))


DARKFIELD = errors_of(
    Analysis(
        name="darkfield",
        result="map",
        title="scattered counts",
        definition="sum of the counts over the selected valid pixels: sum_S I",
        channels=(Channel("counts", "counts", "sum_S I"),),
        parameters=CORRECTED,
        reduction="moments",
        finish=finish,
        additive=Additive(("counts",), parts, of_parts),
    ),
    channels=(Channel("sigma", "counts", "sqrt(sum_S I)"),),
    additive=Additive(("variance",), error_parts, of_variance),
)
