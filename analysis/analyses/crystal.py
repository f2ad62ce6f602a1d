"""Crystal: counts in the pixels that stand out, as those of Bragg reflections do."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.definition import Additive, Analysis, Channel, Settings, errors_of
from analysis.parameters import CORRECTED, Parameter

THRESHOLD = Parameter(
    "threshold", "int", 0, 2**32 - 1, "counts", "only pixels with more counts than this"
)


def finish(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """Sum and number of the pixels above, uint64 (n, 2), to counts, pixels, float64 (2, n).

    Of products, float64 (n, 3): the variance of the sum is the third.
    """
    del settings
    return np.array(values[:, :2].T, np.float64)


def parts(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """The same values to counts, pixels, float64 (n, 2)."""
    del settings
    return values[:, :2].astype(np.float64)


def of_parts(parts: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """Parts (n, 2) to channels (2, n)."""
    del settings
    return parts.T


def error_parts(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """The same values to the variance of the counts, float64 (n, 1): of raw ones, the counts."""
    del settings
    return values[:, [0 if values.shape[1] == 2 else 2]].astype(np.float64)


def of_variance(parts: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """That variance to sigma_counts, float64 (1, n)."""
    del settings
    return np.sqrt(parts.T)


def reference(
    frame: NDArray[Any], valid: NDArray[np.bool_], threshold: float
) -> NDArray[np.float64]:
    """counts, pixels, float64 (2,), of one frame; `valid` is S, sentinel left out. Plain numpy."""
    bright = frame[valid & (frame > threshold)]
    return np.array([np.sum(bright, dtype=np.uint64), bright.size], np.float64)


CRYSTAL = errors_of(
    Analysis(
        name="crystal",
        result="map",
        title="counts in bright pixels",
        definition=(
            "sum of the counts over the selected valid pixels that have more than threshold"
            " counts, sum_S I [I > threshold], and the number of them, sum_S [I > threshold]"
        ),
        channels=(
            Channel("counts", "counts", "sum_S I [I > threshold]"),
            Channel("pixels", "px", "sum_S [I > threshold]"),
        ),
        parameters=(*CORRECTED, "threshold"),
        reduction="above",
        finish=finish,
        additive=Additive(("counts", "fixed"), parts, of_parts, linear=False),
        uncorrected="what is above a threshold in single frames does not add up; take darkfield",
        defaults=(("threshold", 10),),  # what diffuse scattering seldom puts in a pixel in 20 ms
        own=(THRESHOLD,),
    ),
    channels=(
        Channel(
            "sigma_counts", "counts", "sqrt(counts): of the pixels that are above, as they are"
        ),
    ),
    additive=Additive(("variance",), error_parts, of_variance, linear=False),
)
