"""Average: the mean counts of a pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.definition import Additive, Analysis, Channel, Settings
from analysis.parameters import PLANE


def finish(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """Sum, max, valid frames, uint64 (3, rows, columns), to means, float64 (1, rows, columns)."""
    del settings
    total, valid = values[:1].astype(np.float64), values[2:].astype(np.float64)
    return np.asarray(total / np.where(valid > 0, valid, np.nan))


def parts(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """Sum, max, valid frames, uint64 (3, rows, columns), to mean and valid frames (1, 2, ...)."""
    return np.concatenate([finish(values, settings), values[2:].astype(np.float64)])[None]


def of_parts(parts: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """Means and valid frames (1, 2, rows, columns) to means (1, rows, columns)."""
    del settings
    return parts[:, 0]


def reference(frames: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean over valid frames, float64 (rows, columns); `frames`, `valid` are (n, rows, columns)."""
    rows, columns = frames.shape[1:]
    out = np.full((rows, columns), np.nan)
    for row, column in np.argwhere(valid.any(axis=0)):
        out[row, column] = frames[valid[:, row, column], row, column].astype(np.float64).mean()
    return out


AVERAGE = Analysis(
    name="average",
    result="pattern",
    title="mean of frames",
    definition=(
        "mean counts of each pixel over the frames in which it is valid; NaN where it is masked"
    ),
    channels=(Channel("intensity", "counts", "mean over the frames"),),
    parameters=PLANE,
    reduction="patterns",
    finish=finish,
    additive=Additive(("counts", "fixed"), parts, of_parts),
)
