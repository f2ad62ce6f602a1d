"""Counts times harmonics of their direction: where scattering goes, and how sure that is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.healing import mirror, opposite, pixels
from analysis.kernels import COMMON
from analysis.plan import Plan
from analysis.reductions.base import Prepared
from analysis.reductions.fused import PreparedFused, added
from analysis.reductions.healed import Healed
from analysis.selection import selected
from analysis.version import code_version

COLUMNS = (
    *("n", "c2", "s2", "c4", "s4"),
    *("r2", "r2_c2", "r2_s2", "r4", "r4_c2", "r4_s2", "r4_c4", "r4_s4"),
)
"""Of the values: sum_S I times 1, cos 2 phi, sin 2 phi, cos 4 phi, sin 4 phi; r^2, r^2 cos 2 phi,
r^2 sin 2 phi; r^4, r^4 cos 2 phi, and so on. r in pixels from the beam; a pixel right at the beam
has no direction and adds to n alone."""


class Directions:
    """The pass behind `harmonic`, and behind the errors of `orientation`: float64 (13,)."""

    name = "directions"
    version = code_version(
        "analysis.reductions.directions",
        "analysis.reductions.fused",
        "analysis.selection",
        "analysis.healing",
        "analysis.reductions.healed",
        "analysis.reductions.flattened",
        "analysis.kernels.directions",
        *COMMON,
    )
    uses: frozenset[str] = frozenset({"cx", "cy"})

    def prepare(self, plan: Plan) -> Prepared:
        """Build the selection of `plan`. ValueError where the beam centre is unknown.

        Seen from the mirror image of the beam centre, a pixel that stands in for another one has
        minus the offsets of that: all the sums are even in these.
        """
        from analysis.kernels import directions  # loads numba, which only those who compute need

        if plan.cx is None or plan.cy is None:
            raise ValueError("directions need the beam centre")
        kernels = (
            directions.directions_of_blocks,
            directions.directions_of_stream,
            directions.directions_of_pixels,
        )

        def over(chosen: NDArray[np.bool_], cx: float, cy: float) -> PreparedFused:
            tables, shape = (plan.width, float(cx), float(cy)), (len(COLUMNS),)
            return PreparedFused(plan, chosen, kernels, tables, shape, np.dtype(np.float64))

        own = over(selected(plan), plan.cx, plan.cy)
        _, sources = opposite(plan)
        if not sources.size:
            return own
        x, y = mirror(plan)
        other = over(pixels(plan, sources), x - plan.cx, y - plan.cy)
        return Healed(own, other, added)
