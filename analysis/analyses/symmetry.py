"""Symmetry: how strongly the pattern repeats itself when it is turned."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.analyses.profile import ADDITIVE, parts
from analysis.definition import Additive, Analysis, Channel, Settings, errors_of, own_parameter
from analysis.parameters import CORRECTED, Parameter

FOLD = Parameter(
    "fold", "int", 2, 12, "", "order of the symmetry: the pattern repeats every 360/fold"
)

_SINGULAR = 1e-6  # determinant of the fit's normal matrix for one bin; 1/4 for a full ring


def check(settings: Settings) -> None:
    """ValueError where the bins are too wide to show the repetition."""
    fold, bins = round(own_parameter(settings, "fold")), settings.bins
    if bins is not None and bins <= 2 * fold:
        raise ValueError(f"bins={bins}: fold={fold} needs more than {2 * fold} bins")


class _Gaps:
    """What follows from where a ring has pixels, for n frames; worked out once if it is the same.

    Mostly it is: a bin is a gap where all its pixels are masked.
    """

    def __init__(self, there: NDArray[np.bool_], fold: int) -> None:
        """`there`: which bins have pixels (n, bins)."""
        bins = there.shape[1]
        packed = np.packbits(there, axis=1)
        _, first, which = np.unique(
            packed.view(f"V{packed.shape[1]}").reshape(-1), return_index=True, return_inverse=True
        )
        rings = there[first].astype(np.float64)
        number = rings.sum(axis=1)
        pairs = np.rint(_correlated(rings))
        have = pairs > 0
        lags = have.sum(axis=1)
        turns = np.cos(2 * np.pi / bins * (fold * np.arange(bins) % bins))
        weights = np.where(have, turns, 0) / np.maximum(lags, 1)[:, None]
        self.number = number[which]
        """Of bins with pixels, (n,)."""
        self.known = (2 * lags >= bins)[which]
        """Whether there is enough of the ring, (n,)."""
        self.flat = weights.sum(axis=1)[which]
        """The coefficient of 1 at all lags that there are, (n,)."""
        self.weights = (weights / np.maximum(pairs, 1))[which]
        """Of the sum of products at each lag in the coefficient, (n, bins)."""
        phase = 2 * np.pi / bins * ((np.arange(bins) + 0.5) * fold % bins)
        self.waves = np.stack([np.ones(bins), np.cos(phase), np.sin(phase)])
        """What is fitted, (3, bins)."""
        products = self.waves[:, None] * self.waves[None, :]
        normal = np.array([(ring * products).sum(axis=-1) for ring in rings]).reshape(-1, 3, 3)
        singular = np.linalg.det(normal / np.maximum(number, 1)[:, None, None]) < _SINGULAR
        normal[singular] = np.eye(3)
        inverse = np.linalg.inv(normal)
        inverse[singular] = np.nan
        self.inverse = inverse[which]
        """Of the normal matrix of the fit, (n, 3, 3); NaN where it has none."""


class _Rings:
    """Profiles over phi of n frames, and their angular correlations."""

    def __init__(self, parts: NDArray[np.float64], settings: Settings) -> None:
        """`parts`: intensity, its variance, pixels by bin, (n, 3, bins)."""
        intensity, variance, _ = parts.swapaxes(0, 1)
        self.fold = round(own_parameter(settings, "fold"))
        self.there = np.isfinite(intensity)
        self.intensity = np.where(self.there, intensity, 0)
        self.variance = np.where(self.there, variance, 0)
        self.gaps = gaps = _Gaps(self.there, self.fold)
        total = self.intensity.sum(axis=1)
        usable = (total > 0) & gaps.known
        self.mean = np.where(usable, total, np.nan) / np.maximum(gaps.number, 1)
        products = _correlated(self.intensity)
        products[:, 0] -= self.variance.sum(axis=1)
        self.product = (gaps.weights * products).sum(axis=1)
        waves = [(self.intensity * wave).sum(axis=1) for wave in gaps.waves]
        _, c, s = (gaps.inverse * np.stack(waves, axis=1)[:, None, :]).sum(axis=-1).T
        self.c, self.s = (np.where(usable, one, np.nan) for one in (c, s))
        """Coefficients of cosine and sine of the fit, (n,) each."""

    def strength(self) -> NDArray[np.float64]:
        """The coefficient of the correlation, (n,)."""
        return np.asarray(self.product / self.mean**2 - self.gaps.flat)


def _correlated(rings: NDArray[np.float64]) -> NDArray[np.float64]:
    """sum_k f_k f_(k + j) around each ring, for every lag j, (n, bins)."""
    bins = rings.shape[1]
    return np.asarray(np.fft.irfft(np.abs(np.fft.rfft(rings, axis=1)) ** 2, bins, axis=1))


def finish(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """Sums and pixels by bin of n frames, uint64 (n, 2, bins), to strength, angle, (2, n)."""
    return of_parts(parts(values, settings), settings)


def of_parts(parts: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """Profiles (n, 3, bins) to strength, angle (degrees), float64 (2, n)."""
    rings = _Rings(parts, settings)
    c, s = rings.c, rings.s
    period = 360 / rings.fold
    angle = np.degrees(np.arctan2(s, c)) / rings.fold % period
    angle = np.where(angle >= period, 0, angle)
    return np.stack([rings.strength(), np.where((c != 0) | (s != 0), angle, np.nan)])


def of_error_parts(parts: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """Profiles (n, 3, bins) to sigma_strength, sigma_angle (degrees), float64 (2, n).

    The strength is |z|^2 of a coefficient z with noise of power w. Its variance is 2 |z|^2 w + w^2;
    propagating the counts to first order gives the first term with the noise in |z|^2, which is
    2 w^2 too much. What is left is never below w^2. NaN with fewer than two counts.
    """
    rings = _Rings(parts, settings)
    lit = rings.variance > 0
    counts = (np.where(lit, rings.intensity, 0) ** 2 / np.where(lit, rings.variance, 1)).sum(axis=1)
    own = np.where(lit & (rings.intensity > 0), rings.variance, 0) / np.where(
        lit & (rings.intensity > 0), rings.intensity, 1
    )
    gaps, mean = rings.gaps, rings.mean[:, None]
    neighbours = np.fft.irfft(
        np.fft.rfft(gaps.weights, axis=1).real * np.fft.rfft(rings.intensity, axis=1),
        parts.shape[2],
        axis=1,
    )
    slope = (2 * neighbours - gaps.weights[:, :1] * own) / mean**2
    slope -= 2 * rings.product[:, None] / (mean**3 * np.maximum(gaps.number, 1)[:, None])
    power = rings.variance.sum(axis=1) / (gaps.number * rings.mean) ** 2
    first_order = (slope**2 * rings.variance).sum(axis=1)
    strength = np.sqrt(np.maximum(first_order - power**2, power**2))
    c, s = rings.c, rings.s
    across = c[:, None] * gaps.inverse[:, 2] - s[:, None] * gaps.inverse[:, 1]
    turn = sum(across[:, [row]] * wave for row, wave in enumerate(gaps.waves))
    square = np.where((c != 0) | (s != 0), c * c + s * s, np.nan) * rings.fold
    angle = np.sqrt((turn**2 * rings.variance).sum(axis=1)) / square
    few = counts < 1.5  # whole, but for rounding, as long as they are raw
    return np.where(few, np.nan, np.stack([strength, np.degrees(angle)]))


def reference(
    intensity: NDArray[np.float64], sigma: NDArray[np.float64], fold: int
) -> NDArray[np.float64]:
    """strength, angle, float64 (2,), of an azimuthal profile (bins,); NaN for an empty bin.

    Lag by lag and by numpy's least squares. `sigma` is the Poisson error of the intensity.
    """
    bins = len(intensity)
    there = np.isfinite(intensity)
    mean = intensity[there].mean() if there.any() else 0.0
    if not mean > 0:
        return np.full(2, np.nan)
    terms = []
    for lag in range(bins):
        pairs = there & np.roll(there, lag)
        if not pairs.any():
            continue
        products = (intensity * np.roll(intensity, lag))[pairs]
        if lag == 0:
            products = products - sigma[pairs] ** 2
        correlation = products.mean() / mean**2 - 1
        terms.append(correlation * np.cos(2 * np.pi * fold * lag / bins))
    phi = (np.arange(bins) + 0.5) * 2 * np.pi / bins
    waves = np.stack([np.ones(bins), np.cos(fold * phi), np.sin(fold * phi)], axis=1)[there]
    if 2 * len(terms) < bins:
        return np.full(2, np.nan)
    strength = sum(terms) / len(terms)
    if np.linalg.det(waves.T @ waves / there.sum()) < _SINGULAR:
        return np.array([strength, np.nan])
    _, c, s = np.linalg.lstsq(waves, intensity[there], rcond=None)[0]
    angle = np.degrees(np.arctan2(s, c)) / fold % (360 / fold)
    return np.array([strength, angle if c or s else np.nan])


SYMMETRY = errors_of(
    Analysis(
        name="symmetry",
        result="map",
        title="strength of n-fold symmetry",
        definition=(
            "coefficient of order n = fold of the angular correlation of the profile I(phi) over"
            " `bins` bins: C(d) = <I(phi) I(phi + d)> / <I>^2 - 1 over the pairs of bins that have"
            " pixels, <I^2> less its Poisson noise; strength = mean over d of C(d) cos(n d)"
        ),
        channels=(
            Channel(
                "strength",
                "1",
                "0 on average if isotropic, a^2 / 4 for I ~ 1 + a cos(n phi), 1 for n sharp spots;"
                " NaN without counts",
            ),
            Channel(
                "angle",
                "degrees",
                "direction of a maximum in [0, 360/n): least-squares fit of"
                " a wave of order n to I(phi)",
            ),
        ),
        parameters=(*CORRECTED, "bins", "fold"),
        reduction="azimuthal",
        finish=finish,
        additive=Additive(ADDITIVE.roles, parts, of_parts),
        needs_centre=True,
        defaults=(("bins", 360), ("fold", 6)),  # 1 degree: 30 bins a period at fold=12
        own=(FOLD,),
        check=check,
    ),
    channels=(
        Channel(
            "sigma_strength",
            "1",
            "sqrt(max(sum (d strength / dI)^2 var I - w^2, w^2)), w = sum var I / (sum I)^2",
        ),
        Channel("sigma_angle", "degrees", "propagated through the fit to first order"),
    ),
    additive=Additive(ADDITIVE.roles, parts, of_error_parts),
)
