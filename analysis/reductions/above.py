"""Counts of the pixels above a threshold, and their number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.healing import opposite, pixels
from analysis.kernels import COMMON
from analysis.plan import Plan
from analysis.reductions.base import Prepared
from analysis.reductions.fused import PreparedFused, added
from analysis.reductions.healed import Healed
from analysis.selection import selected
from analysis.version import code_version

COLUMNS = ("sum", "pixels")
"""Of the values: sum of the counts that are above the threshold, number of their pixels."""


class Above:
    """The pass behind `crystal`: uint64 (2,), exact."""

    name = "above"
    version = code_version(
        "analysis.reductions.above",
        "analysis.reductions.fused",
        "analysis.selection",
        "analysis.healing",
        "analysis.reductions.healed",
        "analysis.reductions.flattened",
        "analysis.kernels.above",
        *COMMON,
    )
    uses: frozenset[str] = frozenset({"extra"})

    def prepare(self, plan: Plan) -> Prepared:
        """Build the selection of `plan`. ValueError where it has no threshold."""
        from analysis.kernels import above  # loads numba, which only those who compute need

        threshold = dict(plan.extra).get("threshold")
        if threshold is None:
            raise ValueError(f"the pass {self.name!r} needs a threshold")
        kernels = above.above_of_blocks, above.above_of_stream, above.above_of_pixels
        tables = (np.uint64(min(threshold, plan.sentinel)),)  # nothing valid is above that

        def over(chosen: NDArray[np.bool_]) -> PreparedFused:
            shape, dtype = (len(COLUMNS),), np.dtype(np.uint64)
            return PreparedFused(plan, chosen, kernels, tables, shape, dtype)

        _, sources = opposite(plan)
        own = over(selected(plan))
        return Healed(own, over(pixels(plan, sources)), added) if sources.size else own
