"""What a detector would count: a tissue-like sample, its small-angle scattering, Poisson noise.

Made to be measured against, so every frame has known truths: `Pattern` says how strongly and in
which direction the sample scatters and how far it refracts the beam. It shares no code with the
analyses, so that a mistake there cannot hide here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.unsignedinteger[Any]]  # uint16 or uint32

MODULE_ROWS, MODULE_COLUMNS = 514, 1030  # Eiger X: modules of this size,
GAP_ROWS, GAP_COLUMNS = 37, 10  # with this much nothing between them
GAP, DEAD, NOISY = 1, 2, 16  # bits of DECTRIS's pixel_mask
FULL_WIDTH = 2070  # of Eiger X 4M: lengths of the scattering below are pixels of that detector

# Peak counts and lengths, tuned for 280 kB a frame (bitshuffle-LZ4, 4M, uint16) on average over
# the phantom, which is what raw scans of tissue take.
CORE_COUNTS, CORE_PIXELS = 12.0, 90.0  # of the sample, falls with q^-4
HALO_COUNTS, HALO_PIXELS = 0.05, 330.0  # of its surroundings, falls with q^-2
AIR_COUNTS = 0.001  # everywhere
BEAM_COUNTS, BEAM_PIXELS = 260.0, 5.0  # the direct beam through a semi-transparent beamstop
NOISY_COUNTS = 3000.0


@dataclass(frozen=True, slots=True)
class Geometry:
    """Beam, distance and pixels, as rounded by the float32 of DECTRIS's files."""

    cx: float
    """Beam centre, column, pixels."""
    cy: float
    """Beam centre, row, pixels."""
    distance_m: float
    wavelength_nm: float
    pixel_m: float
    photon_energy_ev: float


@dataclass(frozen=True, slots=True)
class Pattern:
    """What the sample does to the beam at one point."""

    intensity: float
    """Of the sample's scattering; 0 without sample, about 1 at most."""
    anisotropy: float
    """In [0, 1): (l1 - l2) / (l1 + l2) of the scattering without noise, gaps and background."""
    angle_deg: float
    """Direction of the strongest scattering, [0, 180), counter-clockwise as displayed."""
    shift_x: float
    """Refraction of the whole pattern, columns on a 4M detector, in proportion on others."""
    shift_y: float
    """The same in rows, positive downwards."""


@dataclass(frozen=True, slots=True)
class Detector:
    """The plane that counts."""

    height: int
    width: int
    pixel_mask: NDArray[np.uint32]
    """0 where a pixel counts, else the bits GAP, DEAD or NOISY."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    @property
    def scale(self) -> float:
        """Size relative to Eiger X 4M: patterns shrink with the detector."""
        return min(self.height, self.width) / FULL_WIDTH

    @property
    def geometry(self) -> Geometry:
        """Of the scans made here: the beam hits off the middle and between pixel centres."""
        energy_ev = _float32(13800.0)
        return Geometry(
            cx=_float32(0.54 * self.width + 0.3),
            cy=_float32(0.44 * self.height - 0.2),
            distance_m=_float32(5.1 * self.scale),
            wavelength_nm=_float32(12398.42 / energy_ev) / 10,
            pixel_m=_float32(75e-6),
            photon_energy_ev=energy_ev,
        )


def detector_named(name: str, *, seed: int = 0) -> Detector:
    """`eiger4m`, `small` (128 rows of 120, one gap) or `HEIGHTxWIDTH`. ValueError otherwise.

    Others than `small` have the gaps of Eiger modules, so none when smaller than a module.
    About one pixel in 50 000, two at least, is dead; as many are noisy.
    """
    if name == "small":
        height, width = 128, 120
        rows, columns = _gaps(height, 62, 4), _gaps(width, width, 0)
    else:
        height, width = _dimensions(name)
        rows = _gaps(height, MODULE_ROWS, GAP_ROWS)
        columns = _gaps(width, MODULE_COLUMNS, GAP_COLUMNS)
    bits = np.zeros((height, width), np.uint32)
    bits[rows, :] = GAP
    bits[:, columns] = GAP
    counting = np.flatnonzero(bits == 0)
    bad = min(2 * max(2, height * width // 50_000), counting.size // 2)
    chosen = np.random.default_rng([seed, 1]).choice(counting, bad, replace=False)
    bits.flat[chosen[::2]] = DEAD
    bits.flat[chosen[1::2]] = NOISY
    return Detector(height, width, bits)


def _dimensions(name: str) -> tuple[int, int]:
    if name == "eiger4m":
        return 2167, FULL_WIDTH
    height, _, width = name.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise ValueError(f"{name!r} is no detector: use eiger4m, small or e.g. 512x1030")
    return int(height), int(width)


def _gaps(size: int, module: int, gap: int) -> NDArray[np.bool_]:
    """Which of `size` rows (or columns) lie between modules."""
    return np.arange(size) % (module + gap) >= module


def _float32(value: float) -> float:
    return float(np.float32(value))


def phantom(horz: int, vert: int, *, seed: int = 0) -> list[Pattern]:
    """Tissue with wavy tubules about a canal, on `vert` lines of `horz` points, line by line.

    Scattering is strongest across a tubule; beside it the beam is refracted
    away from it. Outside the tissue there is next to nothing.
    """
    phase = np.random.default_rng([seed, 2]).uniform(0, 2 * np.pi, 3)

    def tubules(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
        wave = 0.05 * np.sin(2 * np.pi * (u + 0.6 * v) + phase[0])
        wave += 0.03 * np.sin(2 * np.pi * (0.7 * u - 1.3 * v) + phase[1])
        return np.asarray(np.hypot(u - 0.38, v - 0.57) + wave)

    def density(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
        ridge = np.cos(np.pi * 5 * tubules(u, v) + phase[2]) ** 4
        radius = np.hypot((u - 0.5) / 0.52, (v - 0.5) / 0.46)
        tissue = 1 / (1 + np.exp((radius - 0.92) / 0.04))
        return np.asarray(tissue * (0.25 + 0.75 * ridge) + 0.02)

    u, v = np.meshgrid((np.arange(horz) + 0.5) / horz, (np.arange(vert) + 0.5) / vert)
    step = 1e-4
    across_u = tubules(u + step, v) - tubules(u - step, v)
    across_v = tubules(u, v + step) - tubules(u, v - step)
    angle_deg = np.degrees(np.arctan2(-across_v, across_u)) % 180  # v runs down, angles up
    intensity = density(u, v)
    slope_u = (density(u + step, v) - density(u - step, v)) / (2 * step)
    slope_v = (density(u, v + step) - density(u, v - step)) / (2 * step)
    columns = (intensity, 0.75 * intensity, angle_deg, -0.6 * slope_u, -0.6 * slope_v)
    rows = np.stack([column.ravel() for column in columns], axis=1)
    return [Pattern(*map(float, row)) for row in rows]


def quantise(points: Sequence[Pattern], unique: int) -> tuple[list[Pattern], NDArray[np.intp]]:
    """At most `unique` patterns that stand for all `points`, and which one stands for each.

    Every returned pattern is used. Where there are no more points than that, each keeps its own.
    Else by k-means, begun with points far from each other, so that maps still show the picture.
    """
    if len(points) <= unique:
        return list(points), np.arange(len(points))
    features = np.array([_features(point) for point in points])
    features /= features.std(axis=0).max()  # directions keep their proportions to each other
    sample = features[:: max(1, len(points) // 20_000)]  # enough to place the centres
    centres = sample[:1]
    while len(centres) < unique:
        distances = _squared_distances(sample, centres).min(axis=1)
        centres = np.concatenate([centres, sample[[distances.argmax()]]])
    for _ in range(10):
        nearest = _squared_distances(sample, centres).argmin(axis=1)
        for index in range(unique):
            if (mine := nearest == index).any():
                centres[index] = sample[mine].mean(axis=0)
    nearest = _squared_distances(features, centres).argmin(axis=1)
    # The point nearest to each used centre stands for it: a pattern that really occurs.
    used, which = np.unique(nearest, return_inverse=True)
    chosen = []
    for index in used:
        mine = np.flatnonzero(nearest == index)
        chosen.append(mine[_squared_distances(features[mine], centres[[index]])[:, 0].argmin()])
    return [points[index] for index in chosen], which


def _features(point: Pattern) -> tuple[float, ...]:
    """Coordinates in which near means looks alike: an angle says little where all is isotropic."""
    turn = np.radians(2 * point.angle_deg)
    strength = 0.5 * point.anisotropy
    shifts = (0.012 * point.shift_x, 0.012 * point.shift_y)
    return (point.intensity, strength * np.cos(turn), strength * np.sin(turn), *shifts)


def _squared_distances(
    points: NDArray[np.float64], centres: NDArray[np.float64]
) -> NDArray[np.float64]:
    columns = [((points - centre) ** 2).sum(axis=1) for centre in centres]
    return np.stack(columns, axis=1)


def expected_counts(detector: Detector, pattern: Pattern, exposure: float) -> NDArray[np.float32]:
    """Mean counts of every pixel, as if the detector had neither gaps nor dead pixels.

    A core whose contours are ellipses, Guinier-like inside and q^-4 outside, an isotropic halo
    with q^-2, air and the direct beam.
    """
    geometry, scale = detector.geometry, detector.scale
    dx = np.arange(detector.width, dtype=np.float32)[None, :]
    dx = dx - np.float32(geometry.cx + scale * pattern.shift_x)
    up = np.arange(detector.height, dtype=np.float32)[:, None]
    up = np.float32(geometry.cy + scale * pattern.shift_y) - up
    r2 = dx * dx + up * up
    # Axes a and b of the ellipse with a b = 1 and (a^2 - b^2) / (a^2 + b^2) = anisotropy.
    turn = np.radians(pattern.angle_deg)
    long2 = np.exp(np.arctanh(pattern.anisotropy))
    along = np.float32(np.cos(turn)) * dx + np.float32(np.sin(turn)) * up
    across2 = r2 - along * along
    core_pixels2, halo_pixels2 = (scale * CORE_PIXELS) ** 2, (scale * HALO_PIXELS) ** 2
    s2 = along * along * np.float32(1 / (long2 * core_pixels2))
    s2 += across2 * np.float32(long2 / core_pixels2)
    counts = np.float32(pattern.intensity * CORE_COUNTS) / (1 + s2) ** 2
    counts += np.float32(HALO_COUNTS) / (1 + r2 * np.float32(1 / halo_pixels2))
    counts += np.float32(AIR_COUNTS)
    beam_pixels2 = max(1.0, scale * BEAM_PIXELS) ** 2
    transmission = 1 - 0.3 * pattern.intensity
    beam_x = np.exp(dx * dx * np.float32(-0.5 / beam_pixels2))
    beam_y = np.exp(up * up * np.float32(-0.5 / beam_pixels2))
    counts += beam_x * (beam_y * np.float32(transmission * BEAM_COUNTS))
    return np.asarray(counts * np.float32(exposure))


def make_frame(
    detector: Detector,
    pattern: Pattern,
    dtype: np.dtype[np.unsignedinteger[Any]],
    *,
    exposure: float = 1.0,
    seed: Sequence[int] = (0,),
) -> Frame:
    """One exposure. Gaps and dead pixels hold the dtype's maximum, noisy pixels nonsense.

    Noisy pixels look like counts: who ignores the pixel mask gets wrong numbers.
    """
    random = np.random.default_rng(seed)
    sentinel = np.iinfo(dtype).max
    counts = random.poisson(expected_counts(detector, pattern, exposure))
    bits = detector.pixel_mask
    noisy = bits == NOISY
    counts[noisy] = random.poisson(NOISY_COUNTS, np.count_nonzero(noisy))
    np.minimum(counts, sentinel - 1, out=counts)
    counts[(bits & (GAP | DEAD)) != 0] = sentinel
    return np.asarray(counts, dtype)
