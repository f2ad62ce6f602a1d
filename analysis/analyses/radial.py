"""Radial profile: how scattering falls off with distance from the beam."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.analyses.profile import ADDITIVE, PROFILE_CHANNELS, finish
from analysis.analyses.profile import reference as binned
from analysis.definition import Analysis, Settings, beam_centre
from analysis.parameters import CORRECTED


def reference(
    frame: NDArray[Any], valid: NDArray[np.bool_], settings: Settings, lo: float, hi: float
) -> NDArray[np.float64]:
    """Intensity, sigma, pixels, float64 (3, bins), of one frame over [lo, hi] of q or r.

    `valid` is S, sentinel left out. q where `settings` have a geometry. Plain numpy.
    """
    cx, cy = beam_centre(settings)
    rows, columns = np.nonzero(valid)
    position = np.sqrt((columns - cx) ** 2 + (rows - cy) ** 2)
    if settings.geometry is not None:
        geometry = settings.geometry
        two_theta = np.arctan2(position * geometry.pixel_m, geometry.distance_m)
        position = 4 * np.pi * np.sin(two_theta / 2) / geometry.wavelength_nm
    assert settings.bins is not None
    return binned(frame[valid], position, settings.bins, lo, hi)


RADIAL = Analysis(
    name="radial",
    result="stack",
    title="radial profile",
    definition=(
        "mean of the counts over the selected valid pixels in equal bins of q,"
        " or of r in pixels where the geometry is unknown, between the limits given"
        " (else the smallest and largest selected); labelled at the bin's centre"
    ),
    channels=PROFILE_CHANNELS,
    parameters=(*CORRECTED, "bins"),
    reduction="radial",
    finish=finish,
    additive=ADDITIVE,
    needs_centre=True,
    defaults=(("bins", 200),),  # 7 px wide from the centre to the corner of an Eiger 4M
)
