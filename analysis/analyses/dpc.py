"""Differential phase contrast: how far a point deflects the beam."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.centred import about_beam, centred, per_count
from analysis.definition import Additive, Analysis, Channel, Settings, errors_of
from analysis.parameters import CORRECTED


def finish(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """Moments of n frames, uint64 (n, 6), to mean deflections in pixels, float64 (2, n)."""
    moments = centred(values, settings)
    return np.stack([moments.x, moments.y])


def parts(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """Moments of n frames, (n, 6), to sums of I, I dx and I dy, float64 (n, 3)."""
    return about_beam(values, settings).sums[:, :3]


def of_parts(parts: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """Such sums (n, 3) to mean deflections (2, n)."""
    del settings
    counts, x, y = parts.T
    return np.stack([per_count(x, counts), per_count(y, counts)])


def error_parts(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """The same values to those sums, the variances I, I dx, I dy, I dx^2, I dy^2, the counts (n, 9)

    The last are the counts as they are, for who has too few of them.
    """
    sums, variances, counts = about_beam(values, settings)
    return np.concatenate([sums[:, :3], variances[:, [0, 1, 2, 3, 5]], counts[:, None]], axis=1)


def of_error_parts(parts: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """Such parts to sigma_x, sigma_y in pixels, float64 (2, n).

    One more count at dx moves the mean by (dx - x) / sum I: the error is the spread of the counts
    over the root of their number. NaN with fewer than two counts, which have no spread.
    """
    del settings
    counts, x, y, v, vx, vy, vxx, vyy, raw = parts.T
    counts = np.where((counts > 0) & (raw > 1), counts, np.nan)
    x, y = x / counts, y / counts
    squares = np.stack([vxx - 2 * x * vx + x * x * v, vyy - 2 * y * vy + y * y * v])
    return np.asarray(np.sqrt(np.maximum(squares, 0)) / counts)


ERRORS = Additive((*("counts",) * 3, *("variance",) * 5, "fixed"), error_parts, of_error_parts)


def reference(
    frame: NDArray[Any], valid: NDArray[np.bool_], cx: float, cy: float
) -> NDArray[np.float64]:
    """Deflections, float64 (2,), of one frame; `valid` is S, sentinel left out. Plain numpy."""
    rows, columns = np.nonzero(valid)
    counts = frame[valid].astype(np.float64)
    total = counts.sum()
    if total == 0:
        return np.full(2, np.nan)
    return np.array([counts @ (columns - cx) / total, counts @ (rows - cy) / total])


DPC = errors_of(
    Analysis(
        name="dpc",
        result="map",
        title="deflection of the beam",
        definition=(
            "mean distance of the counts from the beam centre:"
            " x = sum_S I dx / sum_S I, y = sum_S I dy / sum_S I; y points down;"
            " NaN for a point without counts"
        ),
        channels=(
            Channel("x", "px", "sum_S I dx / sum_S I"),
            Channel("y", "px", "sum_S I dy / sum_S I, positive downwards"),
        ),
        parameters=CORRECTED,
        reduction="moments",
        finish=finish,
        additive=Additive(("counts",) * 3, parts, of_parts),
        needs_centre=True,
    ),
    channels=(
        Channel("sigma_x", "px", "sqrt(sum_S I (dx - x)^2) / sum_S I"),
        Channel("sigma_y", "px", "sqrt(sum_S I (dy - y)^2) / sum_S I"),
    ),
    additive=ERRORS,
)
