"""What a pass leaves of frames, known without preparing it."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis import reductions
from analysis.plan import Plan
from analysis.plugins import PluginReduction
from analysis.reductions.flattened import flat_values
from analysis.reductions.frames import frame_values


def value_type(plan: Plan) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of the values: of one frame, or of many where not `is_per_frame`."""
    if plan.flat:
        return flat_values(plan)
    if plan.reduction in ("moments", "counts"):
        return (6 if plan.reduction == "moments" else 1,), np.dtype(np.uint64)
    if plan.reduction in ("frame", "tiles"):
        return frame_values(plan)
    if plan.reduction == "patterns":
        height, width = plan.shape if plan.roi is None else (plan.roi.h, plan.roi.w)
        return (3, height, width), np.dtype(np.uint64)
    if plan.reduction in ("radial", "azimuthal", "placed"):
        if plan.bins is None:
            raise ValueError(f"{plan.reduction} needs a number of bins")
        if plan.reduction == "placed":
            return (3, plan.bins), np.dtype(np.float64)
        return (2, plan.bins), np.dtype(np.uint64)
    if plan.reduction == "directions":
        return (13,), np.dtype(np.float64)
    if plan.reduction == "above":
        return (2,), np.dtype(np.uint64)
    reduction = reductions.REDUCTIONS.get(plan.reduction)
    if isinstance(reduction, PluginReduction):
        return reduction.plugin.value_shape(), np.dtype(np.float64)
    raise ValueError(f"the pass {plan.reduction!r} is not known")


def is_per_frame(plan: Plan) -> bool:
    """Whether the pass leaves values of each frame, and not of all frames together."""
    return plan.reduction != "patterns"
