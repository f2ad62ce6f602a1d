"""Max: the brightest a pixel gets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.definition import Analysis, Channel, Settings
from analysis.parameters import PLANE


def finish(values: NDArray[Any], settings: Settings) -> NDArray[Any]:
    """Sum, max, valid frames, (3, rows, columns), uint64 or, of products, float64, to counts of the
    same dtype, (1, rows, columns)."""
    del settings
    return values[1:2].copy()


def reference(frames: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Max over valid frames, uint64 (rows, columns); `frames`, `valid` are (n, rows, columns)."""
    return np.asarray(np.where(valid, frames, 0).max(axis=0, initial=0), np.uint64)


MAX = Analysis(
    name="max",
    result="pattern",
    title="maximum of frames",
    definition="largest counts of each pixel in any frame; 0 where it is masked",
    channels=(Channel("counts", "counts", "maximum over the frames"),),
    parameters=PLANE,
    reduction="patterns",
    finish=finish,
    uncorrected="the largest counts of single frames do not add up; take average",
    dtype="<u8",
)
