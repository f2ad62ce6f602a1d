"""Scan commands, as SPEC and Sardana write them into their logs. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from dadafs.scans.model import Axis

MAX_POINTS = 10_000_000  # ten times the largest scans; a typo must not make a file of TBs
MAX_WORDS = 64
MESHES = frozenset({"mesh", "amesh", "dmesh", "cmesh", "acmesh", "dcmesh", "cdmesh"})
LINES = {
    **dict.fromkeys(("ascan", "dscan", "lup", "cscan", "acscan", "dcscan", "cdscan"), 1),
    **dict.fromkeys(("ascanc", "dscanc", "ascanct", "dscanct"), 1),
    **{f"{kind}{number}scan": number for kind in "ad" for number in (2, 3, 4, 5)},
}
SNAKE = frozenset({"true", "snake", "bidirectional", "bidir"})


class Moved(msgspec.Struct, frozen=True, array_like=True):
    """One motor of a command."""

    motor: str
    start: float
    end: float
    intervals: int
    """One less than the points."""


class Command(msgspec.Struct, frozen=True, array_like=True):
    """A scan that was commanded."""

    text: str
    name: str
    fast: tuple[Moved, ...]
    """Moved along a line, together."""
    slow: tuple[Moved, ...] = ()
    """Moved from line to line; none in a scan of one line."""
    snake: bool = False

    @property
    def relative(self) -> bool:
        """Positions count from where the motors were before."""
        return self.name.startswith("d") or self.name in ("lup", "cdmesh", "cdscan")

    @property
    def continuous(self) -> bool:
        """The fast motor does not stop at points: there may be as many frames as intervals."""
        return "c" in self.name.replace("scan", "", 1)

    @property
    def horz(self) -> int:
        """Points per line."""
        return self.fast[0].intervals + 1

    @property
    def vert(self) -> int:
        """Lines."""
        return self.slow[0].intervals + 1 if self.slow else 1

    def axes(self, before: Mapping[str, float]) -> tuple[Axis, ...]:
        """The motors that move; `before` is where they were when a relative scan began."""
        made = []
        for direction, motors in (("horz", self.fast), ("vert", self.slow)):
            for one in motors:
                origin = before.get(one.motor) if self.relative else 0.0
                at = origin or 0.0
                made.append(
                    Axis(
                        one.motor,
                        at + one.start,
                        at + one.end,
                        direction=direction,  # type: ignore[arg-type]
                        relative=origin is None,
                    )
                )
        return tuple(made)

    def shape_for(self, frames: int) -> tuple[int, int]:
        """Points per line and lines.

        A continuous scan of N intervals records N or N + 1 frames a line, as its trigger is wired:
        the number of frames tells which.
        """
        if self.continuous and frames == self.fast[0].intervals * self.vert:
            return self.fast[0].intervals, self.vert
        return self.horz, self.vert


def parse(text: str) -> Command | None:
    """The command of a line such as `mesh x 0 10 254 y 0 4 9 0.02`.

    None where it is none that makes a raster. ValueError, one line, for one that is known and does
    not make sense.
    """
    words = text.replace(",", " ").split()[:MAX_WORDS]
    if not words:
        return None
    name = words[0].lower()
    if name in MESHES:
        if len(words) < 9:
            raise ValueError(f"{name} takes two motors with start, end and intervals: {text!r}")
        fast, slow = (moved(words[at], words[at + 1 : at + 4], text) for at in (1, 5))
        command = Command(" ".join(words), name, (fast,), (slow,), _snake(words[9:]))
    elif name in LINES:
        count = LINES[name]
        if len(words) < 2 + 3 * count:
            raise ValueError(f"{name} takes motor, start, end and intervals: {text!r}")
        intervals = words[1 + 3 * count]
        motors = tuple(
            moved(words[at], [*words[at + 1 : at + 3], intervals], text)
            for at in range(1, 1 + 3 * count, 3)
        )
        command = Command(" ".join(words), name, motors)
    else:
        return None
    return believed(command, text)


def believed(command: Command, text: str) -> Command:
    """The command that `text` says. ValueError, one line, where it has too many points."""
    if command.horz * command.vert > MAX_POINTS:
        raise ValueError(f"{command.horz} x {command.vert} points are not believed: {text!r}")
    return command


def moved(motor: str, words: list[str], text: str, *, points: bool = False) -> Moved:
    """A motor with start, end and intervals, or else `points`. ValueError, one line, names the
    words that are none."""
    fewest = 1 if points else 0
    try:
        start, end, number = map(float, words)
    except ValueError:
        raise ValueError(f"{' '.join(words)!r} are no three numbers: {text!r}") from None
    if not (math.isfinite(start) and math.isfinite(end) and fewest <= number <= MAX_POINTS):
        raise ValueError(f"{' '.join(words)!r} is no range: {text!r}")
    if not number.is_integer():
        kind = "points" if points else "intervals"
        raise ValueError(f"{words[-1]} is no number of {kind}: {text!r}")
    return Moved(motor, start, end, int(number) - fewest)


def _snake(words: list[str]) -> bool:
    """What follows the exposure time: Sardana's `bidirectional`, or the word itself."""
    return any(word.lower() in SNAKE for word in words) or words[1:2] == ["1"]
