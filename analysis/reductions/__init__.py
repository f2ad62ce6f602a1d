"""Reductions: the passes over frames whose values are cached and shared by analyses."""

from __future__ import annotations

from analysis.reductions.base import Prepared, Reduction, Status
from analysis.reductions.moments import Moments

REDUCTIONS: dict[str, Reduction] = {Moments.name: Moments()}
"""Every pass by its name."""

__all__ = ["REDUCTIONS", "Prepared", "Reduction", "Status"]
