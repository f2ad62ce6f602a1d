"""What an analysis is: its name, its result, and how values become channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from analysis.parameters import Parameter
from analysis.plan import Geometry, Roi

ResultKind = Literal["map", "stack", "pattern", "image"]


class Settings(msgspec.Struct, frozen=True):
    """The detector-plane parameters of a request, defaults of scan and analysis filled in."""

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
    heal: int | None = None
    flat: int | None = None
    extra: tuple[tuple[str, float], ...] = ()
    height: int | None = None
    """Rows of the detector: bounds the moments where there is no roi."""
    width: int | None = None
    """Columns of the detector."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One quantity of a result."""

    name: str
    unit: str
    meaning: str


Role = Literal["counts", "variance", "fixed"]


@dataclass(frozen=True, slots=True)
class Additive:
    """How an analysis follows from numbers that can be scaled and subtracted, frame by frame.

    A part is proportional to the counts, or a variance of such a part, or neither. What is done to
    the parts is in `analysis.corrections`.
    """

    roles: tuple[Role, ...]
    """Of each part."""
    parts: Callable[[NDArray[Any], Settings], NDArray[np.float64]]
    """Values of the pass to float64 (n, parts, *cell), a frame a row; n is 1 for a pattern, whose
    parts are means over its frames. NaN where a part is undefined; an empty frame has zeros."""
    finish: Callable[[NDArray[np.float64], Settings], NDArray[np.float64]]
    """Parts to channels, of the shape that `Analysis.finish` gives. Sums need not be positive."""
    linear: bool = True
    """The parts of a sum of frames are the sums of their parts: a background can be subtracted."""


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
    finish: Callable[[NDArray[Any], Settings], NDArray[Any]]
    """Values of the pass to channels, in a new array of `dtype`; numpy only.

    - map: (n, *value_shape), a row a frame, to (channels, n);
    - stack: (n, *value_shape) to (channels, n, bins);
    - image: (n, rows, columns), a tile a frame, to (1, n, rows, columns);
    - pattern: sum, max and number of valid frames over all frames, uint64 (3, rows, columns),
      to (1, rows, columns).

    With `flat` values are float64, as `analysis.reductions.flattened` tells.

    A quantity that is undefined for a frame or pixel is NaN. Each frame is finished by itself:
    the numbers do not depend on which other frames come along. ValueError where `Settings`
    lack what the formula needs.
    """
    needs_centre: bool = False
    """Undefined without a beam centre, whatever the other parameters are."""
    defaults: tuple[tuple[str, float], ...] = ()
    """Values of parameters that neither the request nor the scan gives."""
    own: tuple[Parameter, ...] = ()
    """Those of `parameters` that only this analysis knows."""
    additive: Additive | None = None
    """What normalisation and background act on; None where they have no meaning."""
    uncorrected: str = ""
    """Why they have none, or why there is no background."""
    dtype: str = "<f8"
    """Of the result's numbers: float64, or uint64 for counts."""
    check: Callable[[Settings], None] | None = None
    """ValueError, one line, where parameters that are each in range make no sense together."""
    errors: Analysis | None = None
    """Of a map: the analysis of the same name whose channels are the Poisson errors of this one.
    They are in no file but those that ask for one of them by `channel=`."""

    @property
    def result_dtype(self) -> np.dtype[Any]:
        """`dtype` as numpy's."""
        return np.dtype(self.dtype)

    def with_channel(self, name: str) -> tuple[Analysis, int]:
        """The analysis that has this channel, itself or `errors`, and its number there."""
        for analysis in (self, self.errors):
            for number, channel in enumerate(analysis.channels if analysis is not None else ()):
                if channel.name == name:
                    assert analysis is not None
                    return analysis, number
        raise ValueError(f"{self.name} has no channel {name!r}")

    @property
    def every_channel(self) -> tuple[Channel, ...]:
        """Those of its files, and the errors."""
        return self.channels + (self.errors.channels if self.errors is not None else ())


def errors_of(
    analysis: Analysis,
    channels: tuple[Channel, ...],
    additive: Additive,
    reduction: str | None = None,
) -> Analysis:
    """`analysis`, with its Poisson errors, which `additive` makes of the values of `reduction`.

    The counts of a pixel are Poisson, so the variance of a count is the count, and what a formula
    f makes of all of them has to first order the variance sum_S I (df/dI)^2. The parts of
    `additive` are what f needs and the sums of variances: so the errors are those of what is
    normalised, and less a background, too; products with a flat field f have the variance f^2 I.
    """

    def finish(values: NDArray[Any], settings: Settings) -> NDArray[np.float64]:
        return additive.finish(additive.parts(values, settings), settings)

    errors = replace(
        analysis,
        channels=channels,
        finish=finish,
        additive=additive,
        reduction=analysis.reduction if reduction is None else reduction,
        title=f"{analysis.title}, Poisson error",
    )
    return replace(analysis, errors=errors)


def beam_centre(settings: Settings) -> tuple[float, float]:
    """(cx, cy) of `settings`. ValueError where the centre is unknown."""
    if settings.cx is None or settings.cy is None:
        raise ValueError("the beam centre is unknown: give cx= and cy=")
    return settings.cx, settings.cy


def own_parameter(settings: Settings, name: str) -> float:
    """A parameter that only this analysis knows. ValueError where `settings` lack it."""
    value = dict(settings.extra).get(name)
    if value is None:
        raise ValueError(f"give {name}=")
    return value
