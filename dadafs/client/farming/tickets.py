"""What the farm deals in: patches that are wanted, tickets for them, jobs that wait."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import trio

from analysis.plan import Plan
from dadafs.cache.values import PatchValues, PatternValues
from dadafs.errors import DadaError
from dadafs.scans.model import FrameSlice

Values: TypeAlias = PatchValues | PatternValues


@dataclass(frozen=True, slots=True)
class Wanted:
    """A patch to be computed, as a plain value, and the shape of what comes back."""

    key: bytes
    plan: Plan
    frames: FrameSlice
    shape: tuple[int, ...]
    """Of the values: (frames, ...), or (layers, rows, columns) of a pattern."""
    dtype: np.dtype[Any]
    per_frame: bool = True
    """Else a pattern: large, and of no use to anybody but who merges it, so not remembered."""

    def decode(self, encoded: bytes | bytearray | memoryview) -> Values:
        """Values in the promised shape; BadData when they are not."""
        if self.per_frame:
            return PatchValues.decode(self.key, encoded, self.frames.count, self.shape, self.dtype)
        return PatternValues.decode(self.key, encoded, self.frames.count, self.shape)


@dataclass(eq=False, slots=True)
class Job:
    """All that one reader waits for; computers are shared fairly between jobs."""

    name: str = ""
    """The path that is read."""
    progressed: float = 0.0
    """When a patch that it waits for was last finished, or begun to be waited for."""
    began: float = 0.0
    """When it first had to wait."""
    wanted: int = 0
    """Patches that had to be computed, whether for it alone or not."""
    done: int = 0
    """Of these, finished."""
    ahead: dict[bytes, Ticket] = field(default_factory=dict)
    """Tickets that it holds itself, before any read waits for them."""


@dataclass(eq=False, slots=True)
class Ticket:
    """A patch on its way.

    Invariant: it is in `Farm._tickets` until it is done or nobody waits for it, and done once.
    """

    wanted: Wanted
    job: Job
    """Whose turn it takes."""
    jobs: set[Job] = field(default_factory=set)
    """All that have wanted it: when it is done, each of them has made progress."""
    done: trio.Event = field(default_factory=trio.Event)
    outcome: Values | DadaError | None = None
    """None until it is done."""
    waiters: int = 0
    readers: int = 0
    """Of those who wait, the ones that cannot go on without it."""
    attempts: int = 0
    """How often a computer came to grief over it."""
    unjudged: int = 0
    """How often it was lost, and it is not known yet whether that was its fault."""
    shunned: set[str] = field(default_factory=set)
    """Computers that did not bring it to an end: they get it again only if there is no other."""
    running: dict[str, trio.CancelScope] = field(default_factory=dict)
    """The calls under way, by computer: two where the first takes too long."""

    @property
    def number(self) -> int:
        """What rendezvous hashing takes for the key."""
        return int.from_bytes(self.wanted.key[:8], "little")
