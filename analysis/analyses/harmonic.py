"""Harmonic: the direction of scattering, each count with the same weight wherever it lies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.centred import per_count
from analysis.definition import Additive, Analysis, Channel, Settings, errors_of
from analysis.parameters import CORRECTED
from analysis.products import DIRECTIONS, sums_of

N, C2, S2, C4, S4 = range(5)
"""Columns of the values of the pass: sum_S I times 1, cosine, sine of 2 phi, and of 4 phi."""


def finish(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """Values of n frames, float64 (n, 13), or of products, to angle, strength, float64 (2, n)."""
    angle, strength = of_parts(parts(values, settings), settings)
    return np.stack([angle, np.minimum(strength, 1)])


def parts(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """The same values to sums of I, I cos 2 phi, I sin 2 phi, float64 (n, 3)."""
    del settings
    return np.array(values[:, [N, C2, S2]])


def of_parts(parts: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """Such sums (n, 3) to angle, strength, float64 (2, n).

    NaN without counts; the angle also where the strength is 0, for then there is no direction.
    After a subtraction the strength may exceed 1.
    """
    del settings
    c, s = per_count(parts[:, 1], parts[:, 0]), per_count(parts[:, 2], parts[:, 0])
    strength = np.hypot(c, s)
    angle = np.degrees(np.arctan2(s, c)) / 2
    angle = np.where(angle < 0, angle + 180, angle)
    angle = np.where(angle >= 180, 0, angle)
    return np.stack([np.where(strength > 0, angle, np.nan), strength])


def error_parts(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """The same values to those sums; N, C2, S2, C4, S4 as variances; the counts as they are."""
    del settings
    sums, variances, counts = sums_of(values, DIRECTIONS)
    return np.concatenate([sums[:, :C4], variances[:, : S4 + 1], counts[:, None]], axis=1)


def of_error_parts(parts: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """Such parts (n, 9) to sigma_angle (degrees), sigma_strength, float64 (2, n).

    With Z = sum I e^{2 i phi} / sum I = A2 e^{2 i a}, one more count at phi changes Z by
    (e^{2 i phi} - Z) / sum I: along Z by cos(2 phi - 2 a) - A2, across it by sin(2 phi - 2 a).
    NaN with fewer than two counts, and where the strength is 0.
    """
    del settings
    n, c2, s2, v, v_c2, v_s2, v_c4, v_s4, raw = parts.T
    n = np.where((n > 0) & (raw > 1), n, np.nan)
    strength = np.hypot(c2, s2) / n
    strength = np.where(strength > 0, strength, np.nan)
    c, s = c2 / (n * strength), s2 / (n * strength)
    once, twice = v_c2 * c + v_s2 * s, v_c4 * (c * c - s * s) + v_s4 * 2 * c * s
    along = (v + twice) / 2 - 2 * strength * once + strength**2 * v
    across = (v - twice) / 2
    angle = np.degrees(np.sqrt(np.maximum(across, 0)) / (2 * strength * n))
    return np.stack([angle, np.sqrt(np.maximum(along, 0)) / n])


def reference(
    frame: NDArray[Any], valid: NDArray[np.bool_], cx: float, cy: float
) -> NDArray[np.float64]:
    """angle, strength, float64 (2,), of one frame; `valid` is S, sentinel left out. Plain numpy."""
    rows, columns = np.nonzero(valid)
    counts = frame[valid].astype(np.float64)
    total = counts.sum()
    if total == 0:
        return np.full(2, np.nan)
    dx, up = columns - cx, cy - rows
    away = dx**2 + up**2 >= 1e-12
    turned = np.where(away, np.exp(2j * np.arctan2(up, dx)), 0)
    mean = (counts * turned).sum() / total
    angle = np.degrees(np.angle(mean)) / 2 % 180 % 180
    return np.array([angle if mean != 0 else np.nan, abs(mean)])


HARMONIC = errors_of(
    Analysis(
        name="harmonic",
        result="map",
        title="second harmonic of the direction",
        definition=(
            "A2 e^{2 i angle} = sum_S I e^{2 i phi} / sum_S I, phi = atan2(-dy, dx): unlike in"
            " orientation a count weighs the same at any distance from the beam; counts right at"
            " the beam centre have no direction and are in the divisor only"
        ),
        channels=(
            Channel(
                "angle",
                "degrees",
                "half the phase of the sum, counter-clockwise in [0, 180); NaN if A2 = 0",
            ),
            Channel("strength", "1", "A2, from 0 (isotropic) to 1 (all along one line)"),
        ),
        parameters=CORRECTED,
        reduction="directions",
        finish=finish,
        additive=Additive(("counts",) * 3, parts, of_parts),
        needs_centre=True,
    ),
    channels=(
        Channel(
            "sigma_angle",
            "degrees",
            "sqrt((1 - k) / (8 sum I)) / A2 in radians, k the mean of cos(4 phi - 4 angle)",
        ),
        Channel("sigma_strength", "1", "sqrt(((1 + k) / 2 - A2^2) / sum I)"),
    ),
    additive=Additive((*("counts",) * 3, *("variance",) * 5, "fixed"), error_parts, of_error_parts),
)
