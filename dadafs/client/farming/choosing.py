"""Which patch for which computer. Pure: no clock, no I/O.

A patch prefers the computer that wins its rendezvous (highest random weight), so that whoever
asks for it again meets the caches of the computer that had it before, and a computer that joins
or leaves moves no other's patches. A computer takes what prefers it, and when there is no more of
that, the oldest of what prefers others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from itertools import islice
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from dadafs.client.farming.tickets import Job, Ticket

SEARCH = 64  # tickets looked through for one that may be taken: nearly always the first may
AHEAD_LEAST = 128  # patches: four for each thread of a small cluster
AHEAD_ROUNDS = 8  # for each slot: those behind a straggler, until it is given to another
AHEAD_MEMORY = 0.9  # of the memory for values, which must not push each other out of it


May: TypeAlias = Callable[[Ticket], bool]
Spare: TypeAlias = Callable[[str | None], bool]


class Rendezvous:
    """The computers that patches may prefer, by weight: one of 32 slots has twice the patches of
    one of 16."""

    def __init__(self) -> None:
        self._weights: dict[str, float] = {}
        self._left_out: set[str] = set()
        self._names: list[str] = []
        self._places: dict[str, int] = {}
        self._seeds: NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._scales: NDArray[np.float64] = np.zeros(0)

    def add(self, name: str, weight: float) -> None:
        """Take a computer in."""
        self._weights[name] = weight
        self._left_out.discard(name)
        self._names = []

    def remove(self, name: str) -> None:
        """Forget it."""
        self._weights.pop(name, None)
        self._left_out.discard(name)
        self._names = []

    def leave_out(self, name: str) -> None:
        """Let no patch prefer it for now."""
        self._left_out.add(name)
        if self._names:
            self._scales[self._places[name]] = np.inf

    def take_back(self, name: str) -> None:
        """Let patches prefer it again."""
        self._left_out.discard(name)
        if self._names:
            self._scales[self._places[name]] = 1 / self._weights[name]

    def winner(self, number: int) -> str | None:
        """The computer that the patch of this number prefers."""
        if len(self._left_out) == len(self._weights):
            return None
        if not self._names:
            self._rebuild()
        mixed = _mix(self._seeds ^ np.uint64(number))
        # Weighted rendezvous: the least exponential variate of rate `weight`.
        drawn = -np.log(((mixed >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52)
        return self._names[int(np.argmin(drawn * self._scales))]

    def _rebuild(self) -> None:
        self._names = list(self._weights)
        self._places = {name: place for place, name in enumerate(self._names)}
        digests = [blake2b(name.encode(), digest_size=8).digest() for name in self._names]
        self._seeds = np.frombuffer(b"".join(digests), "<u8").copy()
        self._scales = np.array(
            [
                np.inf if name in self._left_out else 1 / weight
                for name, weight in self._weights.items()
            ]
        )


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class _Line:
    """Tickets that wait, all of them and by the computer they prefer."""

    def __init__(self) -> None:
        self.all: OrderedDict[Ticket, str | None] = OrderedDict()
        self.by: dict[str | None, OrderedDict[Ticket, None]] = {}

    def put(self, ticket: Ticket, prefers: str | None) -> None:
        self.all[ticket] = prefers
        self.by.setdefault(prefers, OrderedDict())[ticket] = None

    def move(self, ticket: Ticket, prefers: str | None) -> None:
        """Where it stands among all, it prefers another now."""
        self._forget(ticket, self.all[ticket])
        self.put(ticket, prefers)

    def discard(self, ticket: Ticket) -> str | None:
        prefers = self.all.pop(ticket)
        self._forget(ticket, prefers)
        return prefers

    def _forget(self, ticket: Ticket, prefers: str | None) -> None:
        own = self.by[prefers]
        del own[ticket]
        if not own:
            del self.by[prefers]

    def find(self, name: str, may: May, spare: Spare | None) -> tuple[Ticket, bool] | None:
        for ticket in islice(self.by.get(name, ()), SEARCH):
            if may(ticket):
                return ticket, False
        if spare is not None:
            for ticket, prefers in islice(self.all.items(), SEARCH):
                if spare(prefers) and may(ticket):
                    return ticket, prefers is not None
        return None


class Queues:
    """Tickets that wait for a computer.

    What is urgent comes before all others. Then jobs take turns, each first with what a reader
    waits for now, then with what he will want next.

    Invariant: a ticket is urgent, or in one of the lines of its job, or nowhere; a job without
    tickets takes no turns.
    """

    def __init__(self) -> None:
        self._urgent: OrderedDict[Ticket, None] = OrderedDict()
        self._jobs: OrderedDict[Job, tuple[_Line, _Line]] = OrderedDict()
        self._in_lines = 0

    def __len__(self) -> int:
        return len(self._urgent) + self._in_lines

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._urgent or self._line(ticket) is not None

    @property
    def urgent(self) -> int:
        """How many are."""
        return len(self._urgent)

    def put(self, ticket: Ticket, prefers: str | None, *, now: bool) -> None:
        """At the end of a line of its job: for what is wanted now, or later."""
        lines = self._jobs.get(ticket.job)
        if lines is None:
            lines = self._jobs[ticket.job] = _Line(), _Line()
        lines[0 if now else 1].put(ticket, prefers)
        self._in_lines += 1

    def hasten(self, ticket: Ticket) -> None:
        """If it waits to be wanted later, it is wanted now."""
        lines = self._jobs.get(ticket.job)
        if lines is not None and ticket in lines[1].all:
            lines[0].put(ticket, lines[1].discard(ticket))

    def put_urgent(self, ticket: Ticket) -> None:
        """Before all others: it was begun once already."""
        self._urgent[ticket] = None

    def discard(self, ticket: Ticket) -> None:
        """It need not wait any more, if it does."""
        if ticket in self._urgent:
            del self._urgent[ticket]
        elif (line := self._line(ticket)) is not None:
            line.discard(ticket)
            self._in_lines -= 1
            if not any(line.all for line in self._jobs[ticket.job]):
                del self._jobs[ticket.job]

    def prefer(self, name: str, anew: Callable[[Ticket], str | None]) -> None:
        """Have those that prefer this computer prefer another."""
        for lines in self._jobs.values():
            for line in lines:
                for ticket in list(line.by.get(name, ())):
                    line.move(ticket, anew(ticket))

    def preferred(self) -> list[str]:
        """All computers that some ticket prefers."""
        lines = (line for lines in self._jobs.values() for line in lines)
        return list(dict.fromkeys(name for line in lines for name in line.by if name is not None))

    def find(self, name: str, may: May, spare: Spare | None) -> tuple[Ticket, bool] | None:
        """The next ticket for this computer, and whether it prefers another.

        `may` says whether it may have a ticket, `spare` whether it may have those that prefer a
        certain computer; None for no others'. The ticket stays where it is until `take`.
        """
        for ticket in islice(self._urgent, SEARCH):
            if may(ticket):
                return ticket, False
        for lines in self._jobs.values():
            for line in lines:
                found = line.find(name, may, spare)
                if found is not None:
                    return found
        return None

    def take(self, ticket: Ticket) -> None:
        """Take out what was found; the turn goes to the next job."""
        urgent = ticket in self._urgent
        self.discard(ticket)
        if not urgent and ticket.job in self._jobs:
            self._jobs.move_to_end(ticket.job)

    def _line(self, ticket: Ticket) -> _Line | None:
        for line in self._jobs.get(ticket.job, ()):
            if ticket in line.all:
                return line
        return None


def look_ahead(slots: int, patch_bytes: int, memory_bytes: int, jobs: int) -> int:
    """How many patches a job may have computed before they are read, one of so many jobs."""
    room = int(AHEAD_MEMORY * memory_bytes) // (max(1, jobs) * max(1, patch_bytes))
    return max(1, min(max(AHEAD_LEAST, AHEAD_ROUNDS * slots), room))
