"""The farm: patches wanted by readers, and the values that they get.

Readers hold tickets for the patches that have to be computed; the crew sees to that.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence

import trio

from dadafs.cache.memory import MemoryCache
from dadafs.cache.store import Store
from dadafs.client.farming.choosing import look_ahead
from dadafs.client.farming.crew import Crew
from dadafs.client.farming.tickets import Job, Ticket, Values, Wanted
from dadafs.errors import BadData, DadaError, Stalled

log = logging.getLogger(__name__)

STALL_S = 60.0  # a reader gives up when no patch of its job was finished for that long
KEEP_BYTES = 1 << 20  # larger values, frames, would push thousands of others out of the store


class Farm:
    """Gives readers the values of patches, computed by its crew where they are not at hand.

    Invariants: a key has at most one ticket; a ticket that is not done and that somebody waits
    for is with the crew; a ticket that nobody waits for is ended.
    """

    def __init__(
        self, results: Store, memory: MemoryCache[bytes, Values], *, keep: bool = False
    ) -> None:
        """With `keep`, values that come from computers are also put into `results`."""
        self._results = results
        self._memory = memory
        self._keep = keep
        self._tickets: dict[bytes, Ticket] = {}
        self._waiting: Counter[Job] = Counter()
        self.counters: Counter[str] = Counter()
        self.crew = Crew(self._receive, self._settle, self.counters)
        """Who computes."""

    @property
    def jobs(self) -> list[Job]:
        """Those that somebody waits for."""
        return list(self._waiting)

    @property
    def in_flight(self) -> int:
        """Patches that are queued or being computed."""
        return len(self._tickets)

    def under_way(self, keys: Iterable[bytes]) -> list[Ticket]:
        """The tickets of those of these patches that are queued or being computed."""
        return [self._tickets[key] for key in keys if key in self._tickets]

    def remembered(self, key: bytes) -> Values | None:
        """The values of a patch, where they are in memory."""
        return self._memory.get(key)

    def look_ahead(self, patch_bytes: int) -> int:
        """How many patches with values of so many bytes a reader may have computed ahead."""
        return look_ahead(self.crew.slots, patch_bytes, self._memory.max_bytes, len(self._waiting))

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

        Stalled when nothing the job waits for was finished for the stall deadline; the patches
        are computed all the same, for whoever asks again. Otherwise what the computers report.
        """
        found = [self.at_hand(one) for one in wanted]
        pairs = list(zip(wanted, found, strict=True))
        missing = {one.key: one for one, values in pairs if values is None}
        self.counters["patches_at_hand"] += sum(values is not None for values in found)
        computed = await self._computed(job, missing.values()) if missing else {}
        return [computed[one.key] if values is None else values for one, values in pairs]

    def ahead(self, job: Job, wanted: Sequence[Wanted]) -> None:
        """Have these patches computed for a job that will want them, until `drop` is called."""
        for one in wanted:
            if one.key not in job.ahead and self.at_hand(one) is None:
                job.ahead[one.key] = self._join(job, one, now=False)
        for key, ticket in list(job.ahead.items()):
            if ticket.done.is_set():
                del job.ahead[key]
        self.crew.dispatch()

    def drop(self, job: Job) -> None:
        """Nobody reads for this job any more: what only it holds is given up."""
        while job.ahead:
            self._leave(job.ahead.popitem()[1])

    # Readers and their tickets

    async def _computed(self, job: Job, wanted: Iterable[Wanted]) -> dict[bytes, Values]:
        """The values of patches that are not at hand, by key."""
        tickets = [self._join(job, one, now=True) for one in wanted]
        for ticket in tickets:
            ticket.readers += 1
        self.crew.dispatch()
        job.progressed = trio.current_time()
        job.began = job.began or job.progressed
        self._waiting[job] += 1
        try:
            return {ticket.wanted.key: await self._wait(job, ticket) for ticket in tickets}
        except Stalled:
            for ticket in tickets:
                ticket.waiters += 1  # for the farm itself: the job goes on
            raise
        finally:
            for ticket in tickets:
                ticket.readers -= 1
                self._leave(ticket)
            self._waiting[job] -= 1
            if not self._waiting[job]:
                del self._waiting[job]

    def _join(self, job: Job, wanted: Wanted, *, now: bool) -> Ticket:
        ticket = self._tickets.get(wanted.key)
        if ticket is None:
            ticket = self._tickets[wanted.key] = Ticket(wanted, job)
            self.crew.put(ticket, now=now)
        elif now:
            self.crew.hasten(ticket)
        if job not in ticket.jobs:
            self.counters["patches_joined"] += bool(ticket.jobs)
            ticket.jobs.add(job)
            job.wanted += 1
        ticket.waiters += 1
        return ticket

    def _leave(self, ticket: Ticket) -> None:
        ticket.waiters -= 1
        if ticket.waiters == 0 and not ticket.done.is_set():
            self.counters["patches_abandoned"] += 1
            self._close(ticket)

    async def _wait(self, job: Job, ticket: Ticket) -> Values:
        while ticket.outcome is None:
            deadline = job.progressed + STALL_S
            if trio.current_time() >= deadline:
                self.counters["stalls"] += 1
                why = "no patch was finished" if self.crew.slots else "no peer answers"
                raise Stalled(f"{why} for {STALL_S:.0f} s; try again later")
            with trio.move_on_at(deadline):
                await ticket.done.wait()
        if isinstance(ticket.outcome, DadaError):
            raise type(ticket.outcome)(str(ticket.outcome))
        return ticket.outcome

    def _close(self, ticket: Ticket) -> None:
        """It is not to be computed any more."""
        self.crew.withdraw(ticket)
        ticket.jobs.clear()
        if self._tickets.get(ticket.wanted.key) is ticket:
            del self._tickets[ticket.wanted.key]

    # What comes from computers

    def _receive(self, wanted: Wanted, encoded: bytes | bytearray | memoryview) -> Values:
        """The values that a computer sent, which are at hand from now on. BadData."""
        values = wanted.decode(encoded)
        self._remember(wanted, values)
        if self._keep and wanted.per_frame and len(encoded) <= KEEP_BYTES:
            self._results.put(wanted.key, bytes(encoded))
        return values

    def _remember(self, wanted: Wanted, values: Values) -> None:
        if wanted.per_frame:
            self._memory.put(wanted.key, values, values.nbytes)

    def _settle(self, ticket: Ticket, outcome: Values | DadaError) -> None:
        """The first outcome is that of the ticket; another computer that has it may stop."""
        if ticket.done.is_set():
            return
        ticket.outcome = outcome
        for job in ticket.jobs:
            job.progressed = trio.current_time()
            job.done += 1
        ticket.done.set()
        self._close(ticket)
