"""What a pass leaves of one frame, known without preparing it."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.plan import Plan
from analysis.reductions.frames import frame_values


def value_type(plan: Plan) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of the values of one frame. ValueError for a pass that is not per frame."""
    if plan.reduction == "moments":
        return (6,), np.dtype(np.uint64)
    if plan.reduction == "frame":
        return frame_values(plan)
    if plan.reduction in ("radial", "azimuthal"):
        if plan.bins is None:
            raise ValueError(f"{plan.reduction} needs a number of bins")
        return (2, plan.bins), np.dtype(np.uint64)
    raise ValueError(f"the pass {plan.reduction!r} has no values per frame")
