"""How long patches take, and when one takes too long. Pure: no clock, no I/O."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from enum import IntEnum

from analysis.plan import Plan
from dadafs.client.farming.tickets import Wanted
from dadafs.scans.frames.slices import listed

SAMPLES = 501  # durations that the median is of: many against what is left at the end of a job
UNKNOWN_S = 1.0  # a patch takes 0.06 to 4 s
LATE_S, LATE = 1.0, 1.5  # given to a second computer after so long, times what was to be expected
LAST_S, LAST = 0.25, 1.1  # the same while there is a computer that would idle
AWAITED = 1.25  # the same, when a reader waits for it
SOONER = 1.0  # or when an idle one would have it done in less than the rest, by this factor
LATE_SHARE, LAST_SHARE = 0.06, 0.06  # of all patches, given to two computers for the one reason
TWICE_FREE = 16  # or the other, and so many at the beginning; half as much work is done twice
MIN_S = 1e-6  # what is divided by


class Typical:
    """The running median of durations, or of ratios of such."""

    def __init__(self, samples: int = SAMPLES, guess: float = UNKNOWN_S) -> None:
        self._guess = guess
        self._recent: deque[float] = deque(maxlen=samples)
        self._sorted: list[float] = []

    def add(self, seconds: float) -> None:
        """Take one more into account, and the oldest out."""
        if len(self._recent) == self._recent.maxlen:
            del self._sorted[bisect_left(self._sorted, self._recent[0])]
        self._recent.append(seconds)
        insort(self._sorted, seconds)

    @property
    def seconds(self) -> float:
        """The median; a guess while there is none."""
        return self._sorted[len(self._sorted) // 2] if self._sorted else self._guess


class Durations:
    """What patches took a thread that had nothing else to do, by pass."""

    def __init__(self) -> None:
        self._patches: dict[str, Typical] = {}
        self._pixels: dict[str, Typical] = {}

    def add(self, wanted: Wanted, seconds: float) -> float:
        """Take a patch into account; what it took as a multiple of what was typical before."""
        plan = wanted.plan
        typical = self._patches.setdefault(plan.reduction, Typical())
        pace = seconds / max(MIN_S, typical.seconds)
        typical.add(seconds)
        if pixels := listed(wanted.frames) * plan.height * plan.width:
            self._pixels.setdefault(plan.reduction, Typical()).add(seconds / pixels)
        return pace

    def typical_s(self, wanted: Wanted) -> float:
        """What such a patch takes; a guess while there was none."""
        typical = self._patches.get(wanted.plan.reduction)
        return UNKNOWN_S if typical is None else typical.seconds

    def expected_s(self, plan: Plan, frames: int) -> float | None:
        """What so many frames take, None where there were none of this pass."""
        typical = self._pixels.get(plan.reduction)
        return None if typical is None else frames * plan.height * plan.width * typical.seconds


class Haste(IntEnum):
    """How much a patch that is being computed needs another computer."""

    NONE = 0
    SOONER = 1
    """An idle one would have it done before."""
    OVERDUE = 2
    """It should be done by now, and a computer is idle, or a reader waits for it."""
    LATE = 3
    """Something may be wrong."""


def haste(age_s: float, expected_s: float, idle_s: float | None, *, awaited: bool) -> Haste:
    """How much a patch needs another computer, that was given out `age_s` ago to take
    `expected_s` there, or `idle_s` at a computer that is idle, if there is one."""
    if age_s > max(LATE_S, LATE * expected_s):
        return Haste.LATE
    if awaited and age_s > max(LAST_S, AWAITED * expected_s):
        return Haste.OVERDUE
    if idle_s is None:
        return Haste.NONE
    if age_s > max(LAST_S, LAST * expected_s):
        return Haste.OVERDUE
    if expected_s - age_s > max(LAST_S, SOONER * idle_s):
        return Haste.SOONER
    return Haste.NONE


def may_double(doubled: int, farmed: int, *, late: bool) -> bool:
    """Whether so few patches were given to two computers that one more may be, which is `late`
    or only one of the last."""
    return doubled < TWICE_FREE + (LATE_SHARE if late else LAST_SHARE) * farmed
