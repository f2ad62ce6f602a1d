"""Friedel healing: pixels that are masked take what was counted opposite to them.

Scattering of a thin sample is the same at q and -q (Friedel's law), so what falls into a gap of the
detector can be taken from the pixel that the beam centre mirrors it to. Its centre is
(2 cx - x, 2 cy - y), rounded to the nearest pixel, halves up: with a centre that is not on a pixel
or between two, the counts are those of a place up to half a pixel away in each direction.

A masked pixel in S takes the counts of the opposite pixel if that is on the detector and not masked
itself, wherever it lies; else it stays masked. So does, in a single frame, one whose opposite holds
the sentinel there. Pixels that only hold the sentinel are not healed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.plan import Plan
from analysis.selection import area, selected


def opposite(plan: Plan) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The masked pixels of S that are healed, and the pixels they take, flat indices (n,) each.

    Empty where the plan heals nothing. No pixel is taken twice. ValueError without a beam centre.
    """
    if not plan.heal:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    mirror_x, mirror_y = mirror(plan)
    invalid = plan.invalid()
    rows, columns = np.nonzero(invalid & area(plan))
    there_rows, there_columns = mirror_y - rows, mirror_x - columns
    inside = (there_rows >= 0) & (there_rows < plan.height)
    inside &= (there_columns >= 0) & (there_columns < plan.width)
    targets = (rows * plan.width + columns)[inside]
    sources = (there_rows * plan.width + there_columns)[inside]
    valid = ~invalid.reshape(-1)[sources]
    return targets[valid], sources[valid]


class Healing:
    """What a plan takes of decoded frames: S, and what is healed of it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.targets, self.sources = opposite(plan)
        """As `opposite` tells them."""
        chosen = selected(plan)
        self.counted = chosen | pixels(plan, self.sources)
        """S with the pixels that stand in, bool (height, width)."""
        self.covered = chosen | pixels(plan, self.targets)
        """S with what is healed of it, bool (height, width)."""

    def plane(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Numbers of pixels (height, width), healed: a copy, unless there is nothing to heal."""
        if not self.targets.size:
            return plane
        healed = plane.copy()
        healed.reshape(-1)[self.targets] = plane.reshape(-1)[self.sources]
        return healed

    def frame(self, frame: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Counts (height, width), healed, and which of them are valid."""
        healed = self.plane(frame)
        return healed, self.covered & (healed != self._plan.sentinel)


def mirror(plan: Plan) -> tuple[int, int]:
    """2 cx and 2 cy as whole numbers: pixel x lies opposite to 2 cx - x."""
    if plan.cx is None or plan.cy is None:
        raise ValueError("healing needs the beam centre: give cx= and cy=")
    return int(np.floor(2 * plan.cx + 0.5)), int(np.floor(2 * plan.cy + 0.5))


def pixels(plan: Plan, flat: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Pixels by their flat indices as a selection, bool (height, width)."""
    chosen = np.zeros(plan.height * plan.width, np.bool_)
    chosen[flat] = True
    return chosen.reshape(plan.shape)
