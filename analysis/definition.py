"""What an analysis is: its name, its result, and how values become channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from analysis.plan import Geometry, Roi

ResultKind = Literal["map", "stack", "pattern", "image"]


class Settings(msgspec.Struct, frozen=True):
    """The detector-plane parameters of a request, defaults of the scan filled in."""

    cx: float | None = None
    """Beam centre, column, pixels."""
    cy: float | None = None
    """Beam centre, row, pixels."""
    roi: Roi | None = None
    rmin: float | None = None
    rmax: float | None = None
    qmin: float | None = None
    qmax: float | None = None
    geometry: Geometry | None = None
    bins: int | None = None
    bin: int | None = None
    extra: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Channel:
    """One quantity of a result."""

    name: str
    unit: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Analysis:
    """A named way to turn frames into a map, stack, pattern or image."""

    name: str
    result: ResultKind
    title: str
    """A few words for a listing."""
    definition: str
    """The formula, in the words of its documentation."""
    channels: tuple[Channel, ...]
    parameters: tuple[str, ...]
    """Names of detector-plane parameters it accepts, e.g. `roi`."""
    reduction: str
    """The pass whose values it reads: a key of `analysis.reductions.REDUCTIONS`."""
    finish: Callable[[NDArray[Any], Settings], NDArray[np.float64]]
    """Values of n frames, (n, *value_shape), to float64 (channels, n) for a map and
    (channels, n, bins) for a stack; numpy only, elementwise in frames. A quantity that is
    undefined for a frame is NaN."""
