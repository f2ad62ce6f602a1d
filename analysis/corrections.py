"""Normalisation and background, on the parts of which an analysis is made. Pure.

With f the factor of a frame (the mean monitor over the monitor of the frame), a part p that is
proportional to the counts becomes f p - b, with b the mean of f p over the background's frames, and
its variance v becomes f^2 v + sum(f^2 v) / n^2 over the n frames of the background.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.definition import Additive, Settings


def factors(monitor: NDArray[np.float64], mean: float) -> NDArray[np.float64]:
    """mean / monitor (n,); NaN where the monitor is NaN or not positive, never infinite."""
    return mean / np.where(monitor > 0, monitor, np.nan)


def parts_of(
    additive: Additive,
    values: NDArray[Any],
    settings: Settings,
    factor: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """The parts of n frames, (n, parts, *cell), each scaled by its factor (n,)."""
    parts = additive.parts(values, settings)
    if factor is not None:
        each = factor.reshape(-1, *(1,) * (parts.ndim - 2))
        for number, role in enumerate(additive.roles):
            if role != "fixed":
                parts[:, number] *= each if role == "counts" else each**2
    return parts


class MeanParts:
    """The mean over the frames of a background, number by number over those that have it."""

    def __init__(self, additive: Additive) -> None:
        self._roles = additive.roles
        self._sums: NDArray[np.float64] | None = None
        self._counted: NDArray[np.int64] | None = None

    def add(self, parts: NDArray[np.float64]) -> None:
        """Add n frames, (n, parts, *cell)."""
        there = ~np.isnan(parts)
        sums, counted = np.where(there, parts, 0).sum(axis=0), there.sum(axis=0)
        if self._sums is None or self._counted is None:
            self._sums, self._counted = sums, counted
        else:
            self._sums += sums
            self._counted += counted

    def value(self) -> NDArray[np.float64] | None:
        """(parts, *cell), a variance that of the mean; NaN where no frame has the number. None
        where there were no frames."""
        if self._sums is None or self._counted is None:
            return None
        mean = self._sums / np.where(self._counted > 0, self._counted, np.nan)
        for number, role in enumerate(self._roles):
            if role == "variance":
                mean[number] /= np.maximum(self._counted[number], 1)
        return mean


def corrected(
    additive: Additive,
    parts: NDArray[np.float64],
    settings: Settings,
    background: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Parts (n, parts, *cell), less those of a background (parts, *cell), to channels."""
    if background is not None:
        parts = parts.copy()
        for number, role in enumerate(additive.roles):
            if role == "counts":
                parts[:, number] -= background[number]
            elif role == "variance":
                parts[:, number] += background[number]
    return additive.finish(parts, settings)
