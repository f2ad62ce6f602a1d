"""Sum: all counts of a pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.analyses.average import parts
from analysis.definition import Additive, Analysis, Channel, Settings
from analysis.parameters import PLANE


def finish(values: NDArray[Any], settings: Settings) -> NDArray[Any]:
    """Sum, max, valid frames, (3, rows, columns), uint64 or, of products, float64, to counts of the
    same dtype, (1, rows, columns)."""
    del settings
    return values[:1].copy()


def of_parts(parts: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """Means and valid frames (1, 2, rows, columns) to sums (1, rows, columns); NaN where masked."""
    del settings
    return parts[:, 0] * parts[:, 1]


def reference(frames: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Sum over valid frames, uint64 (rows, columns); `frames`, `valid` are (n, rows, columns)."""
    return np.asarray(np.where(valid, frames, 0).sum(axis=0, dtype=np.uint64))


SUM = Analysis(
    name="sum",
    result="pattern",
    title="sum of frames",
    definition="sum of the counts of each pixel over all frames; 0 where it is masked",
    channels=(Channel("counts", "counts", "sum over the frames"),),
    parameters=PLANE,
    reduction="patterns",
    finish=finish,
    additive=Additive(("counts", "fixed"), parts, of_parts),
    dtype="<u8",
)
