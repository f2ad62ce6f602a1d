"""Who computes, as the farm sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import trio

from analysis.plan import Plan
from dadafs.client.farming.durations import MIN_S, Typical
from dadafs.client.farming.tickets import Ticket
from dadafs.scans.model import FrameSlice

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0  # between two looks at a computer in trouble
PROOF_S = 2.0  # a computer that was silent for longer is asked whether it is there
OWN_SAMPLES = 15


class Computer(Protocol):
    """Whoever computes patches: the seam to peers, or one day to a site's batch system."""

    name: str
    slots: int
    """Patches it likes to have at once: one a thread and one to go on with."""

    async def compute(self, plan: Plan, frames: FrameSlice) -> bytes | bytearray | memoryview:
        """The encoded values of a patch. Cancellable; Unreachable when it went away."""

    async def ping(self) -> object:
        """Returns when it answers, Unreachable when it does not.

        What it returns is equal while it lives and another when it was restarted: so it is told
        whether a patch was lost with it. None where that is not known.
        """


@dataclass(eq=False, slots=True)
class Run:
    """A ticket at a computer."""

    ticket: Ticket
    member: Member
    began: float
    crowd: float
    """Patches that its threads have to share, for each: with that it takes longer."""
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)


@dataclass(eq=False, slots=True)
class Lost:
    """A call that ended without values, until it is known whose fault that is."""

    ticket: Ticket
    cause: str
    slow: bool
    """It took too long; else the computer went away, or could not be reached."""


@dataclass(eq=False, slots=True)
class Member:
    """A computer in the farm.

    Invariants: at most `computer.slots` runs; takes no ticket while it is examined; in trouble
    only while it is examined; what is `lost` is judged by the next ping.
    """

    computer: Computer
    runs: dict[Run, None] = field(default_factory=dict)
    lost: list[Lost] = field(default_factory=list)
    gone: bool = False
    """It has left, or another has its name."""
    examined: bool = False
    """A task asks whether it is there."""
    trouble: bool = False
    heard: float = float("-inf")
    """When it last answered."""
    life: object = None
    """What its last answer to a ping was."""
    pause: float = 0.0
    """Before it is trusted again; 0 after values that were good."""
    done: int = 0
    failed: int = 0
    typical: Typical = field(default_factory=lambda: Typical(OWN_SAMPLES))
    """Seconds a patch takes here."""
    pace: Typical = field(default_factory=lambda: Typical(OWN_SAMPLES, 1.0))
    """Of the same, as a multiple of what is typical everywhere."""

    @property
    def name(self) -> str:
        """Of the computer."""
        return self.computer.name

    @property
    def threads(self) -> int:
        """Patches it works at; one slot is for the next."""
        return max(1, self.computer.slots - 1)

    @property
    def speed(self) -> float:
        """Of all its threads, as a multiple of a typical one."""
        return self.threads / max(MIN_S, self.pace.seconds)

    @property
    def crowd(self) -> float:
        """Patches for each thread, one more taken in."""
        return max(1.0, (len(self.runs) + 1) / self.threads)

    @property
    def free(self) -> bool:
        """Whether it has a slot for another ticket."""
        return not self.examined and not self.gone and len(self.runs) < self.computer.slots

    @property
    def idle(self) -> bool:
        """Whether it has a thread for another ticket."""
        return self.free and len(self.runs) < self.threads

    @property
    def usable(self) -> bool:
        """Whether tickets that wait may count on it."""
        return not self.trouble and not self.gone

    def longer_pause(self) -> None:
        """It failed once more."""
        self.pause = min(max(FIRST_PAUSE_S, 2 * self.pause), LONGEST_PAUSE_S)

    def gauges(self) -> dict[str, Any]:
        """Plain values, for people."""
        return {
            "slots": self.computer.slots,
            "busy": len(self.runs),
            "done": self.done,
            "failed": self.failed,
            "trouble": self.trouble,
            "typical_s": round(self.typical.seconds, 3) if self.done else None,
        }
