"""The analyses, each a small module: definition, channels, units."""

from __future__ import annotations

from analysis.analyses.darkfield import DARKFIELD
from analysis.definition import Analysis

ANALYSES: dict[str, Analysis] = {analysis.name: analysis for analysis in (DARKFIELD,)}
"""Every analysis by its name, in the order of listings."""
