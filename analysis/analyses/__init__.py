"""The analyses, each a small module: definition, channels, units."""

from __future__ import annotations

from analysis.analyses.average import AVERAGE
from analysis.analyses.azimuthal import AZIMUTHAL
from analysis.analyses.composite import COMPOSITE
from analysis.analyses.crystal import CRYSTAL
from analysis.analyses.darkfield import DARKFIELD
from analysis.analyses.dpc import DPC
from analysis.analyses.exponent import EXPONENT
from analysis.analyses.harmonic import HARMONIC
from analysis.analyses.max import MAX
from analysis.analyses.orientation import ORIENTATION
from analysis.analyses.radial import RADIAL
from analysis.analyses.sum import SUM
from analysis.analyses.symmetry import SYMMETRY
from analysis.definition import Analysis

ANALYSES: dict[str, Analysis] = {
    analysis.name: analysis
    for analysis in (
        DARKFIELD,
        DPC,
        ORIENTATION,
        HARMONIC,
        SYMMETRY,
        CRYSTAL,
        EXPONENT,
        RADIAL,
        AZIMUTHAL,
        SUM,
        MAX,
        AVERAGE,
        COMPOSITE,
    )
}
"""Every analysis by its name, in the order of listings."""
