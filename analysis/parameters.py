"""The detector-plane parameters of analyses: names, ranges, units, and what to say about them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from analysis.plan import Roi

MAX_OFFSET_PX = 100_000.0  # 40 times the edge of a 4M detector: a direct beam far off its side
MAX_BINS = 4096  # more than the pixels from the centre to any corner of the detectors in use


@dataclass(frozen=True, slots=True)
class Parameter:
    """One `NAME=VALUE` of a path."""

    name: str
    kind: Literal["int", "float", "roi", "choice", "file", "name", "frames"]
    """`file`: the name of a file, no path; `frames`: a range such as 0..99, or a scan's name."""
    minimum: float | None
    """Smallest value allowed; None for what is no number, or no bound."""
    maximum: float | None
    unit: str
    meaning: str
    choices: tuple[str, ...] = ()
    """All values of a choice; the endings that a file may have."""

    def check(self, value: int | float | Roi) -> None:
        """ValueError, one line, where `value` is out of the range of this parameter."""
        if isinstance(value, Roi):
            if value.x < 0 or value.y < 0 or value.w < 1 or value.h < 1:
                raise ValueError(
                    f"{self.name}={value.x},{value.y},{value.w},{value.h}:"
                    " x and y must be at least 0, w and h at least 1"
                )
            return
        if not math.isfinite(value):
            raise ValueError(f"{self.name}={value}: must be finite")
        if self.minimum is not None and value < self.minimum:
            raise ValueError(f"{self.name}={value:g}: must be at least {self.minimum:g}")
        if self.maximum is not None and value > self.maximum:
            raise ValueError(f"{self.name}={value:g}: must be at most {self.maximum:g}")


PARAMETERS: dict[str, Parameter] = {
    parameter.name: parameter
    for parameter in (
        Parameter(
            "roi",
            "roi",
            None,
            None,
            "px",
            "x,y,w,h: only the w columns from x and the h rows from y of the detector",
        ),
        Parameter(
            "bin", "int", 1, 4096, "px", "sum squares of this many pixels by this many into one"
        ),
        Parameter("cx", "float", -MAX_OFFSET_PX, MAX_OFFSET_PX, "px", "column of the beam centre"),
        Parameter(
            "cy",
            "float",
            -MAX_OFFSET_PX,
            MAX_OFFSET_PX,
            "px",
            "row of the beam centre, from the top",
        ),
        Parameter(
            "rmin", "float", 0, None, "px", "only pixels at least this far from the beam centre"
        ),
        Parameter(
            "rmax", "float", 0, None, "px", "only pixels at most this far from the beam centre"
        ),
        Parameter(
            "qmin", "float", 0, None, "1/nm", "only pixels of at least this scattering vector"
        ),
        Parameter(
            "qmax", "float", 0, None, "1/nm", "only pixels of at most this scattering vector"
        ),
        Parameter("bins", "int", 1, MAX_BINS, "", "number of equal bins of a profile"),
        Parameter(
            "heal", "int", 0, 1, "", "1: masked pixels take what is opposite to them (Friedel)"
        ),
        Parameter(
            "flat", "int", 0, 1, "", "1: counts times the flat field, if the detector has not"
        ),
    )
}
"""Every detector-plane parameter by its name, in the order of listings."""

SELECTION = ("roi", "cx", "cy", "rmin", "rmax", "qmin", "qmax")
"""Parameters of every analysis that works on a selection S of pixels."""

CORRECTED = (*SELECTION, "heal", "flat")
"""The same, and what is done to the frames before."""

PLANE = ("roi", "cx", "cy", "heal", "flat")
"""Parameters of an analysis that keeps the pixels apart; only healing needs the beam centre."""
