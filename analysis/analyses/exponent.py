"""Exponent: how steeply scattering falls off, as a power of the scattering vector."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.analyses import radial
from analysis.definition import Additive, Analysis, Channel, Settings
from analysis.parameters import CORRECTED

FEWEST_BINS = 3


def check(settings: Settings) -> None:
    """ValueError where there are too few bins for a line and its error."""
    if settings.bins is not None and settings.bins < FEWEST_BINS:
        raise ValueError(f"bins={settings.bins}: a power law needs at least {FEWEST_BINS} bins")


def finish(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """Counts, pixels, centres by bin of n frames, (n, 3, bins), to the channels, float64 (3, n).

    Of products (n, 4, bins): the variance of the sum is the second.
    """
    return of_parts(parts(values, settings), settings)


def parts(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """The same values to intensity, its variance, and centres, float64 (n, 3, bins)."""
    del settings
    pixels, centres = values[:, -2], values[:, -1]
    each = 1 / np.where(pixels > 0, pixels, np.nan)
    return np.stack([values[:, 0] * each, values[:, -3] * each**2, centres], axis=1)


def of_parts(parts: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """Such profiles (n, 3, bins) to exponent, sigma, prefactor, float64 (3, n).

    The least-squares line through ln I over ln q. The variance of ln I is var I / I^2, which for
    raw counts is one over the counts of the bin; the weights are one over that (Bevington and
    Robinson, Data Reduction and Error Analysis, ch. 6, which also has the error of the slope).
    Bins whose I is not positive have no logarithm; fewer than three others make no fit.
    """
    del settings
    intensity, variance, centres = parts.swapaxes(0, 1)
    usable = (intensity > 0) & (centres > 0)
    weights = np.where(usable, intensity**2, 0) / np.where(usable, variance, 1)
    x, y = np.log(np.where(usable, centres, 1)), np.log(np.where(usable, intensity, 1))
    enough = usable.sum(axis=1) >= FEWEST_BINS
    total = np.where(enough, weights.sum(axis=1), np.nan)
    mean_x, mean_y = (weights * x).sum(axis=1) / total, (weights * y).sum(axis=1) / total
    offset = x - mean_x[:, None]
    spread = (weights * offset**2).sum(axis=1)
    slope = (weights * offset * y).sum(axis=1) / spread
    return np.stack([-slope, spread**-0.5, np.exp(mean_y - slope * mean_x)])


def reference(
    frame: NDArray[Any], valid: NDArray[np.bool_], settings: Settings, lo: float, hi: float
) -> NDArray[np.float64]:
    """exponent, sigma, prefactor, float64 (3,), of one frame over [lo, hi] of q or r.

    `valid` is S, sentinel left out. numpy's polyfit through the reference of the radial profile.
    """
    assert settings.bins is not None
    intensity, _, pixels = radial.reference(frame, valid, settings, lo, hi)
    centres = lo + (np.arange(settings.bins) + 0.5) * (hi - lo) / settings.bins
    usable = np.nan_to_num(intensity) > 0
    if usable.sum() < FEWEST_BINS:
        return np.full(3, np.nan)
    counts = intensity[usable] * pixels[usable]
    line, covariance = np.polyfit(
        np.log(centres[usable]), np.log(intensity[usable]), 1, w=np.sqrt(counts), cov="unscaled"
    )
    return np.array([-line[0], np.sqrt(covariance[0, 0]), np.exp(line[1])])


EXPONENT = Analysis(
    name="exponent",
    result="map",
    title="exponent of a power law",
    definition=(
        "exponent p of I = prefactor q^-p (r in pixels where the geometry is unknown):"
        " least-squares line through ln(mean counts) over ln(bin centre) of the radial profile"
        " between the limits given, each bin with the weight of its counts; bins without counts"
        " are left out, NaN where fewer than 3 are left"
    ),
    channels=(
        Channel("exponent", "1", "p: minus the slope of the line; 4 for smooth interfaces (Porod)"),
        Channel("sigma", "1", "Poisson error of p: 1 / sqrt(sum N (ln q - mean ln q)^2), N counts"),
        Channel("prefactor", "counts/px", "of the line at q = 1/nm (r = 1 px)"),
    ),
    parameters=(*CORRECTED, "bins"),
    reduction="placed",
    finish=finish,
    additive=Additive(("counts", "variance", "fixed"), parts, of_parts),
    needs_centre=True,
    defaults=(("bins", 100),),  # narrow against a decade, wide enough to hold counts
    check=check,
)
