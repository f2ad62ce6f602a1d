"""The farm: patches wanted by readers, computed by whichever peer is idle."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import trio

from analysis.plan import Plan
from dadafs.cache.memory import MemoryCache
from dadafs.cache.store import Store
from dadafs.cache.values import PatchValues, PatternValues
from dadafs.errors import BadData, ComputationFailed, DadaError, Stalled, Unreachable
from dadafs.scans.model import FrameSlice

log = logging.getLogger(__name__)

STALL_S = 60.0  # a reader gives up when no patch of its job was finished for that long
PATCH_DEADLINE_S = 45.0  # a patch takes 0.06 to 4 s; a peer that needs longer is taken for lost
ATTEMPTS = 4  # a patch that kills its peer each time must not be tried for ever
RETRY_S = 0.1  # while a peer restarts

Values: TypeAlias = PatchValues | PatternValues


class Computer(Protocol):
    """Whoever computes patches: the seam to peers, or one day to a site's batch system."""

    name: str
    slots: int
    """Patches it likes to have at once: one a thread and one to go on with."""

    async def compute(self, plan: Plan, frames: FrameSlice) -> bytes | memoryview:
        """The encoded values of a patch. Cancellable; Unreachable when it went away."""


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

    def decode(self, encoded: bytes | memoryview) -> Values:
        """Values in the promised shape; BadData when they are not."""
        if self.per_frame:
            return PatchValues.decode(self.key, encoded, self.frames.count, self.shape, self.dtype)
        return PatternValues.decode(self.key, encoded, self.frames.count, self.shape)


@dataclass(eq=False, slots=True)
class Job:
    """All that one reader waits for; peers are shared fairly between jobs."""

    name: str = ""
    """The path that is read."""
    progressed: float = 0.0
    """When a patch of it was last finished, or begun to be waited for."""
    began: float = 0.0
    """When it first had to wait."""
    wanted: int = 0
    """Patches that had to be computed."""
    done: int = 0
    """Of these, finished."""
    queue: deque[Ticket] = field(default_factory=deque)
    ahead: dict[bytes, Ticket] = field(default_factory=dict)
    """Tickets that it holds itself, before any read waits for them."""


@dataclass(eq=False, slots=True)
class Ticket:
    """A patch on its way.

    Invariant: it is in `Farm._tickets` until it is done, and done exactly once.
    """

    wanted: Wanted
    job: Job
    done: trio.Event = field(default_factory=trio.Event)
    values: Values | None = None
    error: DadaError | None = None
    waiters: int = 0
    attempts: int = 0
    scope: trio.CancelScope | None = None
    """Of the call to the peer, while there is one."""


class Farm:
    """Gives out patches to computers and their values to readers.

    Invariants: a key has at most one ticket; a ticket that nobody waits for is not begun, and
    ended if begun; jobs with queued tickets stand in `_turns`, the next to be served first.
    """

    def __init__(
        self, results: Store, memory: MemoryCache[bytes, Values], *, keep: bool = False
    ) -> None:
        """With `keep`, values that come from computers are also put into `results`."""
        self._results = results
        self._keep = keep
        self._computers: dict[str, Computer] = {}
        self._scopes: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._memory = memory
        self._tickets: dict[bytes, Ticket] = {}
        self._turns: OrderedDict[int, Job] = OrderedDict()
        self._idle = trio.lowlevel.ParkingLot()
        self._waiting: Counter[Job] = Counter()
        self.counters: Counter[str] = Counter()

    async def serve(self) -> None:
        """Keep the computers busy until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for computer in self._computers.values():
                nursery.start_soon(self._employ, computer)
            await trio.sleep_forever()

    def join(self, computer: Computer) -> None:
        """Give patches to this computer from now on."""
        self.leave(computer.name)
        self._computers[computer.name] = computer
        if self._nursery is not None:
            self._nursery.start_soon(self._employ, computer)

    def leave(self, name: str) -> None:
        """Give it no more, and what it had to others."""
        self._computers.pop(name, None)
        scope = self._scopes.pop(name, None)
        if scope is not None:
            scope.cancel()

    async def _employ(self, computer: Computer) -> None:
        with trio.CancelScope() as scope:
            self._scopes[computer.name] = scope
            async with trio.open_nursery() as nursery:
                for _ in range(computer.slots):
                    nursery.start_soon(self._slot, computer)

    @property
    def jobs(self) -> list[Job]:
        """Those that somebody waits for."""
        return list(self._waiting)

    @property
    def in_flight(self) -> int:
        """Patches that are queued or being computed."""
        return len(self._tickets)

    def at_hand(self, wanted: Wanted) -> Values | None:
        """Values that need no computing: from memory, else from the store."""
        values = self._memory.get(wanted.key)
        if values is not None:
            return values
        encoded = self._results.get(wanted.key)
        if encoded is None:
            return None
        try:
            values = wanted.decode(encoded)
        except BadData as exc:
            log.warning("a stored result was bad and is computed again: %s", exc)
            return None
        self.counters["patches_from_store"] += 1
        self._remember(wanted, values)
        return values

    async def values(self, job: Job, wanted: Sequence[Wanted]) -> list[Values]:
        """The values of all these patches, in order.

        Stalled when nothing of the job was finished for the stall deadline; the patches are
        computed all the same, for whoever asks again. Otherwise what the peers report.
        """
        found = [self.at_hand(one) for one in wanted]
        self.counters["patches_at_hand"] += sum(values is not None for values in found)
        missing = [one for one, values in zip(wanted, found, strict=True) if values is None]
        if not missing:
            return [values for values in found if values is not None]
        tickets = {one.key: self._join(job, one) for one in missing}
        job.progressed = trio.current_time()
        job.began = job.began or job.progressed
        self._waiting[job] += 1
        try:
            for ticket in tickets.values():
                await self._wait(job, ticket)
        except Stalled:
            for ticket in tickets.values():
                ticket.waiters += 1  # for the farm itself: the job goes on
            raise
        finally:
            for ticket in tickets.values():
                self._leave(ticket)
            self._waiting[job] -= 1
            if not self._waiting[job]:
                del self._waiting[job]
        return [
            values if values is not None else _outcome(tickets[one.key])
            for one, values in zip(wanted, found, strict=True)
        ]

    def ahead(self, job: Job, wanted: Sequence[Wanted]) -> None:
        """Have these patches computed for a job that will want them, until `drop` is called."""
        for one in wanted:
            if one.key not in job.ahead and self.at_hand(one) is None:
                job.ahead[one.key] = self._join(job, one)
        for key, ticket in list(job.ahead.items()):
            if ticket.done.is_set():
                del job.ahead[key]

    def drop(self, job: Job) -> None:
        """Nobody reads for this job any more: what only it holds is given up."""
        while job.ahead:
            self._leave(job.ahead.popitem()[1])

    def _join(self, job: Job, wanted: Wanted) -> Ticket:
        ticket = self._tickets.get(wanted.key)
        if ticket is None:
            ticket = self._tickets[wanted.key] = Ticket(wanted, job)
            job.wanted += 1
            self._enqueue(ticket)
        else:
            self.counters["patches_joined"] += 1
        ticket.waiters += 1
        return ticket

    def _leave(self, ticket: Ticket) -> None:
        ticket.waiters -= 1
        if ticket.waiters == 0 and not ticket.done.is_set():
            self.counters["patches_abandoned"] += 1
            del self._tickets[ticket.wanted.key]
            if ticket.scope is not None:
                ticket.scope.cancel()

    async def _wait(self, job: Job, ticket: Ticket) -> None:
        while not ticket.done.is_set():
            deadline = max(job.progressed, ticket.job.progressed) + STALL_S
            if trio.current_time() >= deadline:
                self.counters["stalls"] += 1
                raise Stalled(f"no patch was finished for {STALL_S:.0f} s; try again later")
            with trio.move_on_at(deadline):
                await ticket.done.wait()
        if ticket.error is not None:
            raise type(ticket.error)(str(ticket.error))

    def _enqueue(self, ticket: Ticket) -> None:
        ticket.job.queue.append(ticket)
        self._turns.setdefault(id(ticket.job), ticket.job)
        self._idle.unpark()

    def _next(self) -> Ticket | None:
        """The next ticket that somebody waits for, the jobs taking turns."""
        while self._turns:
            turn, job = self._turns.popitem(last=False)
            while job.queue:
                ticket = job.queue.popleft()
                if ticket.waiters:
                    if job.queue:
                        self._turns[turn] = job
                    return ticket
        return None

    async def _slot(self, computer: Computer) -> None:
        while True:
            ticket = self._next()
            if ticket is None:
                await self._idle.park()
                continue
            if not await self._attempt(computer, ticket):
                await trio.sleep(RETRY_S)

    async def _attempt(self, computer: Computer, ticket: Ticket) -> bool:
        """Have one patch computed; False when the computer is in trouble."""
        wanted = ticket.wanted
        trouble: DadaError | None = None
        with trio.CancelScope() as ticket.scope:
            try:
                with trio.fail_after(PATCH_DEADLINE_S):
                    encoded = await computer.compute(wanted.plan, wanted.frames)
                ticket.values = wanted.decode(encoded)
                self.counters["patches_farmed"] += 1
                self._remember(wanted, ticket.values)
            except (Unreachable, BadData) as exc:
                trouble = exc
            except trio.TooSlowError:
                line = f"{computer.name} took more than {PATCH_DEADLINE_S:.0f} s for a patch"
                trouble = Unreachable(line)
            except DadaError as exc:
                ticket.error = exc
        abandoned = ticket.scope.cancelled_caught
        ticket.scope = None
        if abandoned:
            return True
        if trouble is not None:
            ticket.attempts += 1
            self.counters["patches_retried"] += 1
            log.warning("patch lost, attempt %d of %d: %s", ticket.attempts, ATTEMPTS, trouble)
            if ticket.attempts < ATTEMPTS:
                if ticket.waiters:
                    self._enqueue(ticket)
                return False
            ticket.error = ComputationFailed(f"a patch failed {ATTEMPTS} times: {trouble}")
        ticket.job.progressed = trio.current_time()
        ticket.job.done += 1
        if self._tickets.get(wanted.key) is ticket:
            del self._tickets[wanted.key]
        ticket.done.set()
        return trouble is None

    def _remember(self, wanted: Wanted, values: Values) -> None:
        if wanted.per_frame:
            self._memory.put(wanted.key, values, values.nbytes)


def _outcome(ticket: Ticket) -> Values:
    assert ticket.values is not None
    return ticket.values
