"""Orientation: where a point scatters to, and how much more than elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.centred import about_beam, centred, per_count
from analysis.definition import Additive, Analysis, Channel, Settings, errors_of
from analysis.parameters import CORRECTED
from analysis.products import DIRECTIONS, sums_of


def finish(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """Moments of n frames, uint64 (n, 6), to angle, anisotropy, l1, l2, float64 (4, n).

    M = C + m m^T, with C the covariance about the centre of mass and m the latter's distance
    from the beam. Its eigenvalues are T / 2 +- h, T the trace and h = hypot of the half difference
    and the mixed term. The smaller one is det(M) / l1 with det(M) = det(C) + m^T adj(C) m, two
    terms that are never negative: it keeps its digits for a spot far from the beam, where
    T / 2 - h has none left. Its error is below 1e-14 of the larger eigenvalue of C: only streaks
    thinner than 1 : 10 (l2 : l1 of C below 1 : 100) have it less precise than 1e-12.

    All NaN without counts. Where l1 = l2 the direction does not exist: angle is NaN. With all
    counts in the pixel of the beam centre l1 = l2 = 0, and anisotropy is NaN as well.
    """
    moments = centred(values, settings)
    x, up = moments.x, -moments.y
    cxx, cxu, cuu = moments.xx, -moments.xy, moments.yy
    xx, xu, uu = cxx + x * x, cxu + x * up, cuu + up * up
    trace = xx + uu
    difference = (xx - uu) / 2
    radius = np.hypot(difference, xu)
    l1 = trace / 2 + radius
    spread = np.maximum(cxx * cuu - cxu * cxu, 0)
    shifted = np.maximum(x * x * cuu - 2 * x * up * cxu + up * up * cxx, 0)
    some = l1 > 0
    l2 = np.where(some, (spread + shifted) / np.where(some, l1, 1), l1)
    l2 = np.minimum(l2, l1)
    anisotropy = np.minimum(2 * radius / np.where(some, trace, np.nan), 1)
    return np.stack([_angle(xu, difference, radius), anisotropy, l1, l2])


def _angle(
    xu: NDArray[np.float64], difference: NDArray[np.float64], radius: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Of the first eigenvector, degrees in [0, 180); NaN where there is no direction."""
    angle = np.degrees(np.arctan2(xu, difference)) / 2
    angle = np.where(angle < 0, angle + 180, angle)
    angle = np.where(angle >= 180, 0, angle)
    return np.where(radius > 0, angle, np.nan)


def parts(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """Moments of n frames, (n, 6), to sums of I, I dx^2, I dx up, I up^2, float64 (n, 4)."""
    sums = about_beam(values, settings).sums
    return np.stack([sums[:, 0], sums[:, 3], -sums[:, 4], sums[:, 5]], axis=1)


def of_parts(parts: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """Such sums (n, 4) to angle, anisotropy, l1, l2 (4, n).

    After a subtraction M need not be positive: l2 is what it is, and anisotropy may exceed 1; it is
    NaN where l1 + l2 is not positive.
    """
    del settings
    counts = parts[:, 0]
    xx, xu, uu = (per_count(parts[:, column], counts) for column in (1, 2, 3))
    trace, difference = xx + uu, (xx - uu) / 2
    radius = np.hypot(difference, xu)
    anisotropy = 2 * radius / np.where(trace > 0, trace, np.nan)
    l1, l2 = trace / 2 + radius, trace / 2 - radius
    return np.stack([_angle(xu, difference, radius), anisotropy, l1, l2])


def error_parts(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
    """Sums over directions, float64 (n, 13), or of products, to the parts of errors (n, 14).

    Of `analysis.reductions.directions.COLUMNS`: n, r2, r2_c2, r2_s2; as variances these and the
    five with r4; the counts, as they are.
    """
    del settings
    sums, variances, counts = sums_of(values, DIRECTIONS)
    second = [0, 5, 6, 7]
    wide = [*second, *range(8, DIRECTIONS)]
    return np.concatenate([sums[:, second], variances[:, wide], counts[:, None]], axis=1)


def of_error_parts(parts: NDArray[np.float64], settings: Settings) -> NDArray[np.float64]:
    """Such parts to the errors of the channels, float64 (4, n).

    With u, v the coordinates of a pixel along the eigenvectors, one more count changes l1 by
    (u^2 - l1) / sum I, l2 by (v^2 - l2) / sum I, the angle by u v / ((l1 - l2) sum I) and the
    anisotropy by 2 (l2 u^2 - l1 v^2) / ((l1 + l2)^2 sum I); Anderson, Ann. Math. Statist. 34
    (1963) 122. NaN with fewer than two counts and where l1 = l2.
    """
    del settings
    n, r2, c2, s2, v, v2, v2_c2, v2_s2, v4, v4_c2, v4_s2, v4_c4, v4_s4, raw = parts.T
    n = np.where((n > 0) & (raw > 1), n, np.nan)
    half = np.hypot(c2, s2) / (2 * n)
    half = np.where(half > 0, half, np.nan)
    c, s = c2 / (2 * n * half), s2 / (2 * n * half)  # of twice the angle
    l1, l2 = r2 / (2 * n) + half, r2 / (2 * n) - half
    u2, w2 = (v2 + (v2_c2 * c + v2_s2 * s)) / 2, (v2 - (v2_c2 * c + v2_s2 * s)) / 2
    twice, once = v4_c4 * (c * c - s * s) + v4_s4 * 2 * c * s, v4_c2 * c + v4_s2 * s
    u4, w4 = (3 * v4 + 4 * once + twice) / 8, (3 * v4 - 4 * once + twice) / 8
    uw = (v4 - twice) / 8
    squares = [
        uw / (l1 - l2) ** 2,
        4 * (l2**2 * u4 - 2 * l1 * l2 * uw + l1**2 * w4) / (l1 + l2) ** 4,
        u4 - 2 * l1 * u2 + l1**2 * v,
        w4 - 2 * l2 * w2 + l2**2 * v,
    ]
    out = np.sqrt(np.maximum(np.stack(squares), 0)) / n
    out[0] = np.degrees(out[0])
    return np.asarray(out)


ERRORS = Additive((*("counts",) * 4, *("variance",) * 9, "fixed"), error_parts, of_error_parts)


def reference(
    frame: NDArray[Any], valid: NDArray[np.bool_], cx: float, cy: float
) -> NDArray[np.float64]:
    """angle, anisotropy, l1, l2, float64 (4,), of one frame by numpy's eigenvectors of M.

    `valid` is S, sentinel left out. Plain numpy, the definition word by word.
    """
    rows, columns = np.nonzero(valid)
    counts = frame[valid].astype(np.float64)
    total = counts.sum()
    if total == 0:
        return np.full(4, np.nan)
    position = np.stack([columns - cx, cy - rows])
    l2_l1, vectors = np.linalg.eigh((position * counts) @ position.T / total)
    l2, l1 = l2_l1
    angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1])) % 180
    return np.array(
        [
            angle % 180 if l1 > l2 else np.nan,
            (l1 - l2) / (l1 + l2) if l1 > 0 else np.nan,
            l1,
            l2,
        ]
    )


ORIENTATION = errors_of(
    Analysis(
        name="orientation",
        result="map",
        title="direction of strongest scattering",
        definition=(
            "eigenvalues l1 >= l2 and eigenvectors of the second moments about the beam centre:"
            " M = 1 / sum_S I [[sum I dx^2, sum I dx up], [sum I dx up, sum I up^2]], up = -dy;"
            " a fibre lies at right angles to the angle; NaN for a point without counts"
        ),
        channels=(
            Channel(
                "angle",
                "degrees",
                "of l1's eigenvector, counter-clockwise in [0, 180); NaN if l1 = l2",
            ),
            Channel("anisotropy", "1", "(l1 - l2) / (l1 + l2), from 0 to 1"),
            Channel("l1", "px^2", "larger eigenvalue of M"),
            Channel("l2", "px^2", "smaller eigenvalue of M"),
        ),
        parameters=CORRECTED,
        reduction="moments",
        finish=finish,
        additive=Additive(("counts",) * 4, parts, of_parts),
        needs_centre=True,
    ),
    channels=(
        Channel(
            "sigma_angle", "degrees", "sqrt(<u^2 v^2> / sum_S I) / (l1 - l2), u, v along l1, l2"
        ),
        Channel(
            "sigma_anisotropy",
            "1",
            "2 sqrt(<(l2 u^2 - l1 v^2)^2> / sum_S I) / (l1 + l2)^2",
        ),
        Channel("sigma_l1", "px^2", "sqrt((<u^4> - l1^2) / sum_S I)"),
        Channel("sigma_l2", "px^2", "sqrt((<v^4> - l2^2) / sum_S I)"),
    ),
    reduction="directions",
    additive=ERRORS,
)
