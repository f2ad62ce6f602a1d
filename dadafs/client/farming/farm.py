"""The farm: patches wanted by readers, computed by whichever computer is idle.

Which patch goes to which computer is decided in `choosing`; here are the calls, what becomes of
them, and the readers that wait.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from math import ceil
from typing import Any

import trio

from analysis.plan import Plan
from dadafs.cache.memory import MemoryCache
from dadafs.cache.store import Store
from dadafs.client.farming.choosing import (
    Haste,
    Queues,
    Rendezvous,
    Typical,
    haste,
    look_ahead,
    may_double,
)
from dadafs.client.farming.computers import PROOF_S, Computer, Lost, Member, Run
from dadafs.client.farming.tickets import Job, Ticket, Values, Wanted
from dadafs.errors import (
    BadData,
    ComputationFailed,
    DadaError,
    ProtocolError,
    Stalled,
    Unforeseen,
    Unreachable,
)
from dadafs.scans.frames.slices import listed

__all__ = ["Computer", "Farm", "Job", "Ticket", "Values", "Wanted"]

log = logging.getLogger(__name__)

STALL_S = 60.0  # a reader gives up when no patch of its job was finished for that long
PATCH_DEADLINE_S = 45.0  # a patch takes 0.06 to 4 s; a peer that needs longer is taken for lost
ATTEMPTS = 4  # a patch that kills its peer each time must not be tried for ever
WATCH_S = 0.1  # between two looks for patches that take too long
ASK_S = 1.0  # an idle computer answers in a millisecond
ASK_BUSY_S = 2.0  # one that would lose what it is at is given more time
PING_S = 5.0  # one in trouble may be starting
AT_MOST = 3  # computers that have a patch at a time
UNKNOWN = Typical()
MIN_PACE = 1e-6  # what is divided by
KEEP_BYTES = 1 << 20  # larger values, frames, would push thousands of others out of the store


class Farm:
    """Gives out patches to computers and their values to readers.

    Invariants: a key has at most one ticket; a ticket that is not done and that somebody waits
    for is queued, or running, or both while a second computer is sought for it; nothing is queued
    that an idle computer may take; a ticket that nobody waits for is ended.
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
        self._queues = Queues()
        self._rendezvous = Rendezvous()
        self._members: dict[str, Member] = {}
        self._idle: dict[Member, None] = {}
        self._asking = 0
        self._runs: dict[str, dict[Run, None]] = {}
        self._typical: dict[str, Typical] = {}
        self._per_pixel: dict[str, Typical] = {}
        """Seconds that a thread takes for a pixel, by pass."""
        self._doubled: Counter[bool] = Counter()
        """Patches given out again because they were late, or else among the last."""
        self._begun = trio.lowlevel.ParkingLot()
        self._nursery: trio.Nursery | None = None
        self.counters: Counter[str] = Counter()

    async def serve(self) -> None:
        """Keep the computers busy until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._watch)
                for member in self._members.values():
                    if member.trouble or member.lost:
                        self._examine(member)
                self._dispatch()
        finally:
            self._nursery = None

    def join(self, computer: Computer) -> None:
        """Give patches to this computer from now on, in place of one that has its name."""
        member = self._members.get(computer.name)
        if member is not None and member.computer is computer:
            return
        self.leave(computer.name)
        member = self._members[computer.name] = Member(computer)
        self._rendezvous.add(computer.name, computer.slots)
        self._idle[member] = None
        self._dispatch()

    def leave(self, name: str) -> None:
        """Give no more to the computer of this name. What it is at it may end, if it answers."""
        member = self._members.pop(name, None)
        if member is None:
            return
        member.gone = True
        self._idle.pop(member, None)
        self._rendezvous.remove(name)
        self._queues.prefer(name, self._preferred)
        if member.runs:
            self._examine(member)
        self._dispatch()

    def computers(self) -> dict[str, dict[str, Any]]:
        """Gauges of each computer, by its name."""
        return {name: member.gauges() for name, member in self._members.items()}

    @property
    def slots(self) -> int:
        """Patches that can be under way at once."""
        return sum(member.computer.slots for member in self._members.values() if member.usable)

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

    def expected_s(self, plan: Plan, frames: int) -> float | None:
        """How long so many frames take all computers that answer, by what they took so far.

        None where nothing of this pass was computed yet, or nobody answers.
        """
        typical = self._per_pixel.get(plan.reduction)
        usable = [member for member in self._members.values() if member.usable]
        if typical is None or not usable:
            return None
        speed = sum(member.threads / max(MIN_PACE, member.pace.seconds) for member in usable)
        return frames * plan.height * plan.width * typical.seconds / speed

    def look_ahead(self, patch_bytes: int) -> int:
        """How many patches with values of so many bytes a reader may have computed ahead."""
        return look_ahead(self.slots, patch_bytes, self._memory.max_bytes, len(self._waiting))

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
        self.counters["patches_at_hand"] += sum(values is not None for values in found)
        missing = [one for one, values in zip(wanted, found, strict=True) if values is None]
        if not missing:
            return [values for values in found if values is not None]
        tickets: dict[bytes, Ticket] = {}
        for one in missing:
            if one.key not in tickets:
                ticket = tickets[one.key] = self._join(job, one, now=True)
                ticket.readers += 1
        self._dispatch()
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
                ticket.readers -= 1
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
                job.ahead[one.key] = self._join(job, one, now=False)
        for key, ticket in list(job.ahead.items()):
            if ticket.done.is_set():
                del job.ahead[key]
        self._dispatch()

    def drop(self, job: Job) -> None:
        """Nobody reads for this job any more: what only it holds is given up."""
        while job.ahead:
            self._leave(job.ahead.popitem()[1])

    # Readers and their tickets

    def _join(self, job: Job, wanted: Wanted, *, now: bool) -> Ticket:
        ticket = self._tickets.get(wanted.key)
        if ticket is None:
            ticket = self._tickets[wanted.key] = Ticket(wanted, job)
            self._queues.put(ticket, self._preferred(ticket), now=now)
        elif now:
            self._queues.hasten(ticket)
        if ticket.jobs and job not in ticket.jobs:
            self.counters["patches_joined"] += 1
        if job not in ticket.jobs:
            ticket.jobs.add(job)
            job.wanted += 1
        ticket.waiters += 1
        return ticket

    def _leave(self, ticket: Ticket) -> None:
        ticket.waiters -= 1
        if ticket.waiters == 0 and not ticket.done.is_set():
            self.counters["patches_abandoned"] += 1
            self._close(ticket)

    async def _wait(self, job: Job, ticket: Ticket) -> None:
        while not ticket.done.is_set():
            deadline = job.progressed + STALL_S
            if trio.current_time() >= deadline:
                self.counters["stalls"] += 1
                nobody = not any(member.usable for member in self._members.values())
                why = "no peer answers" if nobody else "no patch was finished"
                raise Stalled(f"{why} for {STALL_S:.0f} s; try again later")
            with trio.move_on_at(deadline):
                await ticket.done.wait()
        if ticket.error is not None:
            raise type(ticket.error)(str(ticket.error))

    def _settle(self, ticket: Ticket, outcome: Values | DadaError) -> None:
        """The first outcome is that of the ticket; another computer that has it may stop."""
        if ticket.done.is_set():
            return
        if isinstance(outcome, DadaError):
            ticket.error = outcome
        else:
            ticket.values = outcome
        for job in ticket.jobs:
            job.progressed = trio.current_time()
            job.done += 1
        ticket.done.set()
        self._close(ticket)

    def _close(self, ticket: Ticket) -> None:
        """It is not to be computed any more."""
        self._queues.discard(ticket)
        for scope in ticket.running.values():
            scope.cancel()
        ticket.jobs.clear()
        if self._tickets.get(ticket.wanted.key) is ticket:
            del self._tickets[ticket.wanted.key]

    def _remember(self, wanted: Wanted, values: Values) -> None:
        if wanted.per_frame:
            self._memory.put(wanted.key, values, values.nbytes)

    # Who gets what

    def _preferred(self, ticket: Ticket) -> str | None:
        return self._rendezvous.winner(ticket.number)

    def _may(self, member: Member, ticket: Ticket) -> bool:
        """Whether it may have the ticket: not twice at a time, and not after it failed at it
        while there is another."""
        if member.name in ticket.running:
            return False
        if member.name not in ticket.shunned:
            return True
        names = ticket.shunned | ticket.running.keys()
        return not any(other.usable and other.name not in names for other in self._members.values())

    def _spare(self, name: str | None) -> bool:
        """Whether others may take what prefers this computer: not when it is about to do so."""
        member = None if name is None else self._members.get(name)
        if member is None or member.trouble:
            return True
        return len(member.runs) >= (member.computer.slots if self._plenty else member.threads)

    @property
    def _plenty(self) -> bool:
        """Whether so much waits that computers may take more than they can work at: what the
        last few would so wait for at a slow one, another could do meanwhile."""
        return len(self._queues) > len(self._members)

    def _dispatch(self) -> None:
        """Idle computers take what is urgent, the fastest first, then what they prefer, then what
        is left."""
        if not self._queues or not self._idle:
            return
        if self._queues.urgent:
            for member in sorted(self._idle, key=lambda member: member.pace.seconds):
                if not self._queues.urgent:
                    break
                self._feed(member, steal=False)
        for name in self._queues.preferred():
            preferred = self._members.get(name)
            if preferred in self._idle:
                self._feed(preferred, steal=False)
        for member in list(self._idle):
            if len(self._queues) <= self._asking or not self._feed(member, steal=True):
                break

    def _feed(self, member: Member, *, steal: bool) -> bool:
        """Let it take tickets, if it was heard of lately; else ask it first.

        False when there was nothing for it, though it had room.
        """
        if self._nursery is None or not member.usable:
            return True
        may = partial(self._may, member)
        while member.free if self._plenty else member.idle:
            found = self._queues.find(member.name, may, self._spare if steal else None)
            if found is None:
                return False
            if not member.runs and trio.current_time() - member.heard > PROOF_S:
                self._examine(member)
                return True
            ticket, stolen = found
            self._queues.take(ticket)
            self.counters["patches_stolen"] += stolen
            self.counters["patches_duplicated"] += bool(ticket.running)
            self._start(member, ticket)
        return True

    def _start(self, member: Member, ticket: Ticket) -> None:
        assert self._nursery is not None
        run = Run(ticket, member, trio.current_time(), member.crowd)
        member.runs[run] = None
        ticket.running[member.name] = run.scope
        self._runs.setdefault(ticket.wanted.plan.reduction, {})[run] = None
        if not member.free:
            self._idle.pop(member, None)
        self._begun.unpark()
        self._nursery.start_soon(self._run, run)

    # What becomes of it

    async def _run(self, run: Run) -> None:
        ticket, member = run.ticket, run.member
        outcome: Values | DadaError | None = None
        try:
            with run.scope:
                outcome = await self._outcome(run)
        finally:
            del member.runs[run]
            del self._runs[ticket.wanted.plan.reduction][run]
            if ticket.running.get(member.name) is run.scope:
                del ticket.running[member.name]
            if outcome is not None:
                self._settle(ticket, outcome)
            else:
                ticket.shunned.add(member.name)
                self._resume(ticket)
        if self._queues.urgent:
            self._dispatch()
        self._freed(member)

    def _resume(self, ticket: Ticket) -> None:
        """It goes elsewhere: at once when it was lost for the first time, else when it is known
        whether it has killed the computers that had it."""
        if ticket.done.is_set() or not ticket.waiters:
            return
        if ticket.running or ticket in self._queues:
            return
        if ticket.unjudged and ticket.attempts + ticket.unjudged > 1:
            return
        self.counters["patches_retried"] += 1
        self._queues.put_urgent(ticket)

    def _freed(self, member: Member) -> None:
        if member.free and member.usable:
            self._idle[member] = None
            self._feed(member, steal=True)

    async def _outcome(self, run: Run) -> Values | DadaError | None:
        """What a call comes to; None where it is the computer's fault, which is noted."""
        wanted, member = run.ticket.wanted, run.member
        try:
            with trio.fail_after(PATCH_DEADLINE_S):
                encoded = await member.computer.compute(wanted.plan, wanted.frames)
            values = wanted.decode(encoded)
        except Unreachable as exc:
            self._failed(member, Lost(run.ticket, str(exc), slow=False))
        except trio.TooSlowError:
            line = f"{member.name} took more than {PATCH_DEADLINE_S:.0f} s for a patch"
            self._failed(member, Lost(run.ticket, line, slow=True))
        except (BadData, ProtocolError, Unforeseen) as exc:
            self._failed(member, Lost(run.ticket, str(exc), slow=False), at_once=True)
        except DadaError as exc:
            member.heard = trio.current_time()
            return exc
        except Exception as exc:
            log.exception("%s: a patch failed unexpectedly", member.name)
            return ComputationFailed(f"{member.name}: {exc!r}")
        else:
            self._succeeded(run, values, encoded)
            return values
        return None

    def _succeeded(self, run: Run, values: Values, encoded: bytes | bytearray | memoryview) -> None:
        wanted, member = run.ticket.wanted, run.member
        now = trio.current_time()
        member.heard = now
        member.pause = 0.0
        member.done += 1
        seconds = (now - run.began) / run.crowd
        typical = self._typical.setdefault(wanted.plan.reduction, Typical())
        member.typical.add(now - run.began)
        member.pace.add(seconds / max(MIN_PACE, typical.seconds))
        typical.add(seconds)
        if pixels := listed(wanted.frames) * wanted.plan.height * wanted.plan.width:
            per_pixel = self._per_pixel.setdefault(wanted.plan.reduction, Typical())
            per_pixel.add(seconds / pixels)
        self.counters["patches_farmed"] += 1
        self._remember(wanted, values)
        if self._keep and wanted.per_frame and len(encoded) <= KEEP_BYTES:
            self._results.put(wanted.key, bytes(encoded))

    def _failed(self, member: Member, lost: Lost, *, at_once: bool = False) -> None:
        """A call came to nothing; whether that counts against the patch is known at once, or
        when it turns out what has become of the computer."""
        member.failed += 1
        if not member.pause:
            log.warning("%s is in trouble: %s", member.name, lost.cause)
        member.longer_pause()
        if at_once:
            self._count(lost)
        else:
            lost.ticket.unjudged += 1
            member.lost.append(lost)
        self._trouble(member)
        self._examine(member)

    def _count(self, lost: Lost) -> None:
        ticket = lost.ticket
        ticket.attempts += 1
        log.warning("patch lost, attempt %d of %d: %s", ticket.attempts, ATTEMPTS, lost.cause)
        if ticket.attempts >= ATTEMPTS:
            line = f"a patch failed {ATTEMPTS} times: {lost.cause}"
            self._settle(ticket, ComputationFailed(line))

    # Computers in doubt and in trouble

    def _trouble(self, member: Member) -> None:
        """It takes no tickets, and those that prefer it prefer others, until it answers."""
        if member.usable:
            member.trouble = True
            self._idle.pop(member, None)
            self._rendezvous.leave_out(member.name)
            self._queues.prefer(member.name, self._preferred)

    def _examine(self, member: Member) -> None:
        """Have it asked whether it is there; until it answers it takes no ticket."""
        if not member.examined and self._nursery is not None:
            member.examined = True
            self._asking += 1
            self._idle.pop(member, None)
            self._nursery.start_soon(self._until_it_answers, member)

    async def _until_it_answers(self, member: Member) -> None:
        try:
            try:
                if not await self._ping(member, ASK_BUSY_S if member.runs else ASK_S):
                    self._trouble(member)
                    for run in member.runs:
                        run.scope.cancel()
            finally:
                self._asking -= 1
            while member.trouble and not member.gone:
                self._dispatch()
                await trio.sleep(member.pause)
                if await self._ping(member, PING_S):
                    self._rendezvous.take_back(member.name)
                    member.trouble = False
                else:
                    member.longer_pause()
        finally:
            member.examined = False
        if member.gone:
            if member.lost:
                self._examine(member)
        elif member.free:
            self._idle[member] = None
            self._dispatch()

    async def _ping(self, member: Member, patience_s: float) -> bool:
        """Whether it answers; judges what was lost with it.

        A call that broke counts against its patch where the computer broke with it; one that took
        too long, where the computer is there.
        """
        before = member.life
        answered = alive = False
        try:
            with trio.fail_after(patience_s):
                member.life = await member.computer.ping()
            member.heard = trio.current_time()
            answered = True
            alive = member.life is not None and member.life == before
        except trio.TooSlowError:
            log.info("%s does not answer", member.name)
        except DadaError as exc:
            log.info("%s does not answer: %s", member.name, exc)
        lost, member.lost = member.lost, []
        for one in lost:
            one.ticket.unjudged -= 1
            if answered if one.slow else not alive:
                self._count(one)
            self._resume(one.ticket)
        if lost:
            self._dispatch()
        return answered

    # Patches that take too long

    async def _watch(self) -> None:
        while True:
            if not any(self._runs.values()):
                await self._begun.park()
            await trio.sleep(WATCH_S)
            self._look()

    def _look(self) -> None:
        """Give what takes too long to a second computer, and ask the first if it is there."""
        now = trio.current_time()
        paces = [] if self._queues else [m.pace.seconds for m in self._idle if m.idle]
        for reduction, runs in self._runs.items():
            typical_s = self._typical.get(reduction, UNKNOWN).seconds
            idle_s = min(paces) * typical_s if paces else None
            needs: dict[Ticket, list[Haste]] = {}
            for run in list(runs):
                member, age_s, awaited = run.member, now - run.began, run.ticket.readers > 0
                expected_s = typical_s * member.pace.seconds * ceil(run.crowd)
                need = haste(age_s, expected_s, idle_s, awaited=awaited)
                if need is Haste.LATE and now - member.heard > PROOF_S:
                    self._examine(member)
                if need:
                    needs.setdefault(run.ticket, []).append(need)
            for ticket, each in needs.items():
                least = min(each)
                at_most = AT_MOST if least >= Haste.OVERDUE else 2
                if len(ticket.running) == len(each) < at_most:
                    self._give_again(ticket, late=least is Haste.LATE)
        if self._queues.urgent:
            self._dispatch()

    def _give_again(self, ticket: Ticket, *, late: bool) -> None:
        farmed = self.counters["patches_farmed"]
        allowed = may_double(self._doubled[late], farmed, late=late)
        if allowed and ticket not in self._queues:
            members = self._members.values()
            if any(m.usable and m.name not in ticket.running for m in members):
                self._queues.put_urgent(ticket)
                self._doubled[late] += 1


def _outcome(ticket: Ticket) -> Values:
    assert ticket.values is not None
    return ticket.values
