"""Reductions: the passes over frames whose values are cached and shared by analyses."""

from __future__ import annotations

from analysis.reductions.above import Above
from analysis.reductions.base import Prepared, Reduction, Status
from analysis.reductions.directions import Directions
from analysis.reductions.frames import Frames, Tiles
from analysis.reductions.moments import Counts, Moments
from analysis.reductions.patterns import Patterns
from analysis.reductions.placed import Placed
from analysis.reductions.profiles import AZIMUTHAL, RADIAL

_PASSES: tuple[Reduction, ...] = (
    Moments(),
    Counts(),
    RADIAL,
    AZIMUTHAL,
    Placed(),
    Directions(),
    Above(),
    Patterns(),
    Frames(),
    Tiles(),
)

REDUCTIONS: dict[str, Reduction] = {reduction.name: reduction for reduction in _PASSES}
"""Every pass by its name."""

__all__ = ["REDUCTIONS", "Prepared", "Reduction", "Status"]
