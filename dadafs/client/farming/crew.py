"""The crew of a farm: its computers, who of them gets which ticket, and what becomes of it.

What follows from names, numbers and durations alone is decided in `choosing` and `durations`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from math import ceil
from typing import Any, TypeAlias

import trio

from analysis.plan import Plan
from dadafs.client.farming.choosing import Queues, Rendezvous
from dadafs.client.farming.computers import PROOF_S, Computer, Lost, Member, Run
from dadafs.client.farming.durations import Durations, Haste, haste, may_double
from dadafs.client.farming.tickets import Ticket, Values, Wanted
from dadafs.errors import (
    BadData,
    ComputationFailed,
    DadaError,
    ProtocolError,
    Unforeseen,
    Unreachable,
)

log = logging.getLogger(__name__)

PATCH_DEADLINE_S = 45.0  # a patch takes 0.06 to 4 s; a peer that needs longer is taken for lost
ATTEMPTS = 4  # a patch that kills its peer each time must not be tried for ever
WATCH_S = 0.1  # between two looks for patches that take too long
ASK_S = 1.0  # an idle computer answers in a millisecond
ASK_BUSY_S = 2.0  # one that would lose what it is at is given more time
PING_S = 5.0  # one in trouble may be starting
AT_MOST = 3  # computers that have a patch at a time

Receive: TypeAlias = Callable[[Wanted, bytes | bytearray | memoryview], Values]
Settle: TypeAlias = Callable[[Ticket, Values | DadaError], None]


class Crew:
    """Has tickets computed, each by whichever computer is idle.

    Invariants: a ticket that was put and neither settled nor withdrawn is queued, or running, or
    both while a second computer is sought for it; nothing is queued that an idle computer may
    take.
    """

    def __init__(self, receive: Receive, settle: Settle, counters: Counter[str]) -> None:
        """`receive` makes values of what a computer sent, BadData where it cannot; `settle` is
        told what a ticket comes to, which then has to be withdrawn."""
        self._receive = receive
        self._settle = settle
        self._counters = counters
        self._queues = Queues()
        self._rendezvous = Rendezvous()
        self._members: dict[str, Member] = {}
        self._idle: dict[Member, None] = {}
        self._asking = 0
        self._runs: dict[Run, None] = {}
        self._durations = Durations()
        self._doubled: Counter[bool] = Counter()
        """Patches given out again because they were late, or else among the last."""
        self._begun = trio.lowlevel.ParkingLot()
        self._nursery: trio.Nursery | None = None

    async def serve(self) -> None:
        """Keep the computers busy until cancelled."""
        try:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._watch)
                for member in self._members.values():
                    if member.trouble or member.lost:
                        self._examine(member)
                self.dispatch()
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
        self.dispatch()

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
        self.dispatch()

    def gauges(self) -> dict[str, dict[str, Any]]:
        """Of each computer, by its name."""
        return {name: member.gauges() for name, member in self._members.items()}

    @property
    def slots(self) -> int:
        """Patches that can be under way at once; 0 where no computer answers."""
        return sum(member.computer.slots for member in self._members.values() if member.usable)

    def expected_s(self, plan: Plan, frames: int) -> float | None:
        """How long so many frames take all computers that answer, by what they took so far.

        None where nothing of this pass was computed yet, or nobody answers.
        """
        thread_s = self._durations.expected_s(plan, frames)
        speed = sum(member.speed for member in self._members.values() if member.usable)
        return thread_s / speed if thread_s is not None and speed else None

    def put(self, ticket: Ticket, *, now: bool) -> None:
        """Have it computed, for a reader who waits now or else will. `dispatch` gives it out."""
        self._queues.put(ticket, self._preferred(ticket), now=now)

    def hasten(self, ticket: Ticket) -> None:
        """A reader waits for it now."""
        self._queues.hasten(ticket)

    def withdraw(self, ticket: Ticket) -> None:
        """It is not to be computed any more."""
        self._queues.discard(ticket)
        for scope in ticket.running.values():
            scope.cancel()

    def dispatch(self) -> None:
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
            self._counters["patches_stolen"] += stolen
            self._counters["patches_duplicated"] += bool(ticket.running)
            self._start(member, ticket)
        return True

    def _start(self, member: Member, ticket: Ticket) -> None:
        assert self._nursery is not None
        run = Run(ticket, member, trio.current_time(), member.crowd)
        member.runs[run] = None
        ticket.running[member.name] = run.scope
        self._runs[run] = None
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
            del self._runs[run]
            if ticket.running.get(member.name) is run.scope:
                del ticket.running[member.name]
            if outcome is not None:
                self._settle(ticket, outcome)
            else:
                ticket.shunned.add(member.name)
                self._resume(ticket)
        if self._queues.urgent:
            self.dispatch()
        if member.free and member.usable:
            self._idle[member] = None
            self._feed(member, steal=True)

    def _resume(self, ticket: Ticket) -> None:
        """It goes elsewhere: at once when it was lost for the first time, else when it is known
        whether it has killed the computers that had it."""
        if ticket.done.is_set() or not ticket.waiters:
            return
        if ticket.running or ticket in self._queues:
            return
        if ticket.unjudged and ticket.attempts + ticket.unjudged > 1:
            return
        self._counters["patches_retried"] += 1
        self._queues.put_urgent(ticket)

    async def _outcome(self, run: Run) -> Values | DadaError | None:
        """What a call comes to; None where it is the computer's fault, which is noted."""
        wanted, member = run.ticket.wanted, run.member
        try:
            with trio.fail_after(PATCH_DEADLINE_S):
                encoded = await member.computer.compute(wanted.plan, wanted.frames)
            values = self._receive(wanted, encoded)
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
            self._succeeded(run)
            return values
        return None

    def _succeeded(self, run: Run) -> None:
        wanted, member = run.ticket.wanted, run.member
        member.heard = trio.current_time()
        member.pause = 0.0
        member.done += 1
        seconds = member.heard - run.began
        member.typical.add(seconds)
        member.pace.add(self._durations.add(wanted, seconds / run.crowd))
        self._counters["patches_farmed"] += 1

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
                self.dispatch()
                await trio.sleep(member.pause)
                if not await self._ping(member, PING_S):
                    member.longer_pause()
                elif not member.gone:  # it may have left meanwhile, and another have its name
                    self._rendezvous.take_back(member.name)
                    member.trouble = False
        finally:
            member.examined = False
        if member.gone:
            if member.lost:
                self._examine(member)
        elif member.free:
            self._idle[member] = None
            self.dispatch()

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
            self.dispatch()
        return answered

    # Patches that take too long

    async def _watch(self) -> None:
        while True:
            if not self._runs:
                await self._begun.park()
            await trio.sleep(WATCH_S)
            self._look()

    def _look(self) -> None:
        """Give what takes too long to a second computer, and ask the first if it is there."""
        now = trio.current_time()
        paces = [m.pace.seconds for m in self._idle if m.idle and not self._queues]
        idle_pace = min(paces, default=None)
        needs: dict[Ticket, list[Haste]] = {}
        for run in self._runs:
            ticket, member = run.ticket, run.member
            typical_s = self._durations.typical_s(ticket.wanted)
            idle_s = None if idle_pace is None else idle_pace * typical_s
            expected_s = typical_s * member.pace.seconds * ceil(run.crowd)
            need = haste(now - run.began, expected_s, idle_s, awaited=ticket.readers > 0)
            if need is Haste.LATE and now - member.heard > PROOF_S:
                self._examine(member)
            if need:
                needs.setdefault(ticket, []).append(need)
        for ticket, each in needs.items():
            least = min(each)
            at_most = AT_MOST if least >= Haste.OVERDUE else 2
            if len(ticket.running) == len(each) < at_most:
                self._give_again(ticket, late=least is Haste.LATE)
        if self._queues.urgent:
            self.dispatch()

    def _give_again(self, ticket: Ticket, *, late: bool) -> None:
        farmed = self._counters["patches_farmed"]
        allowed = may_double(self._doubled[late], farmed, late=late)
        if allowed and ticket not in self._queues:
            members = self._members.values()
            if any(m.usable and m.name not in ticket.running for m in members):
                self._queues.put_urgent(ticket)
                self._doubled[late] += 1
