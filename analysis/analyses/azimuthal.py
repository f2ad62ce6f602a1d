"""Azimuthal profile: how scattering is spread over the directions around the beam."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.analyses.profile import ADDITIVE, PROFILE_CHANNELS, finish
from analysis.analyses.profile import reference as binned
from analysis.definition import Analysis, Settings, beam_centre
from analysis.parameters import CORRECTED


def reference(
    frame: NDArray[Any], valid: NDArray[np.bool_], settings: Settings
) -> NDArray[np.float64]:
    """Intensity, sigma, pixels, float64 (3, bins), of one frame over [0, 360) degrees.

    `valid` is S, sentinel left out. Plain numpy.
    """
    cx, cy = beam_centre(settings)
    rows, columns = np.nonzero(valid)
    phi = np.degrees(np.arctan2(cy - rows, columns - cx)) % 360
    phi[phi == 360] = 0  # what % gives for the smallest negative angles
    assert settings.bins is not None
    return binned(frame[valid], phi, settings.bins, 0, 360)


AZIMUTHAL = Analysis(
    name="azimuthal",
    result="stack",
    title="azimuthal profile",
    definition=(
        "mean of the counts over the selected valid pixels in equal bins of"
        " phi = atan2(-dy, dx) over [0, 360) degrees, counter-clockwise; labelled at the bin's"
        " centre"
    ),
    channels=PROFILE_CHANNELS,
    parameters=(*CORRECTED, "bins"),
    reduction="azimuthal",
    finish=finish,
    additive=ADDITIVE,
    needs_centre=True,
    defaults=(("bins", 72),),  # 5 degrees: the width of fibre reflections, a multiple of 4 and 6
)
