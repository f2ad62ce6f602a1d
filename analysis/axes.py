"""What the bins of a profile stand for: the axis that goes with a stack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.plan import Plan


@dataclass(frozen=True, slots=True)
class Axis:
    """The coordinate of the last axis of a stack."""

    name: str
    """`q`, `r` or `phi`."""
    unit: str
    values: NDArray[np.float64]
    """Centre of each bin (bins,)."""


def profile_axis(plan: Plan) -> Axis:
    """The axis of the profile that `plan` computes; each bin is labelled at its centre.

    Without both limits the ends of a radial profile come from the selected pixels, which takes
    about as long as preparing the pass: ask once for a result, not for each patch.
    ValueError where the plan makes no profile.
    """
    if plan.reduction == "azimuthal":
        if plan.bins is None:
            raise ValueError("an azimuthal profile needs a number of bins")
        middle = np.linspace(0, 360, plan.bins, endpoint=False) + 180 / plan.bins
        return Axis("phi", "degrees", middle)
    if plan.reduction != "radial":
        raise ValueError(f"the pass {plan.reduction!r} makes no profile")
    from analysis.reductions.profiles import centres  # loads numba, which most callers never need

    middle = centres(plan)
    return Axis("r", "px", middle) if plan.geometry is None else Axis("q", "1/nm", middle)
