"""Which patch for which computer: rendezvous, turns, medians, limits."""

from __future__ import annotations

import statistics
import time
from collections import Counter

import pytest
from farming import check, key_of, values_of, wanted
from hypothesis import given, settings
from hypothesis import strategies as st

from dadafs.client.farming.choosing import Queues, Rendezvous, look_ahead
from dadafs.client.farming.durations import LATE_S, Haste, Typical, haste, may_double
from dadafs.client.farming.tickets import Job, Ticket
from dadafs.errors import BadData


def tickets(count: int, job: Job | None = None) -> list[Ticket]:
    job = job or Job()
    return [Ticket(one, job) for one in wanted(*range(count))]


def rendezvous(count: int, weight: float = 2.0) -> Rendezvous:
    made = Rendezvous()
    for number in range(count):
        made.add(f"peer {number}", weight)
    return made


def test_nobody_wins_where_nobody_is() -> None:
    made = rendezvous(2)
    made.leave_out("peer 0")
    made.leave_out("peer 1")
    assert made.winner(7) is None
    assert Rendezvous().winner(7) is None


def test_patches_spread_evenly_and_by_weight() -> None:
    made = rendezvous(9)
    made.add("large", 6.0)
    found = Counter(made.winner(ticket.number) for ticket in tickets(4000))
    assert 800 < found["large"] < 1200  # 6 of 24
    assert all(260 < found[f"peer {number}"] < 410 for number in range(9))


@pytest.mark.parametrize("by", ["leave_out", "remove"])
def test_who_goes_moves_only_what_preferred_him(by: str) -> None:
    made = rendezvous(8)
    numbers = [ticket.number for ticket in tickets(500)]
    before = [made.winner(number) for number in numbers]
    getattr(made, by)("peer 3")
    after = [made.winner(number) for number in numbers]
    assert "peer 3" not in after
    assert all(a == b for a, b in zip(after, before, strict=True) if b != "peer 3")
    if by == "leave_out":
        made.take_back("peer 3")
    else:
        made.add("peer 3", 2.0)
    assert [made.winner(number) for number in numbers] == before


def test_a_thousand_computers_and_sixteen_thousand_patches_cost_little() -> None:
    made = rendezvous(1000)
    began = time.process_time()
    for number in range(16_000):
        made.winner(number * 0x9E3779B97F4A7C15 % 2**64)
    assert time.process_time() - began < 3  # 0.6 s on an idle core


def take(
    queues: Queues, name: str, *, steal: bool = True, refuse: set[Ticket] | None = None
) -> tuple[Ticket, bool] | None:
    def may(ticket: Ticket) -> bool:
        return ticket not in (refuse or set())

    found = queues.find(name, may, (lambda _: True) if steal else None)
    if found is not None:
        queues.take(found[0])
    return found


def test_own_tickets_first_then_the_oldest_of_others() -> None:
    queues = Queues()
    a, b, c, d = tickets(4)
    for ticket, prefers in ((a, "x"), (b, "y"), (c, "x"), (d, "y")):
        queues.put(ticket, prefers, now=True)
    assert take(queues, "y") == (b, False)
    assert take(queues, "y") == (d, False)
    assert take(queues, "y", steal=False) is None
    assert take(queues, "y") == (a, True)
    assert len(queues) == 1
    assert c in queues
    assert a not in queues


def test_what_is_wanted_now_goes_before_what_is_wanted_later() -> None:
    queues = Queues()
    a, b, c = tickets(3)
    queues.put(a, "x", now=False)
    queues.put(b, "x", now=False)
    queues.put(c, "y", now=True)
    queues.hasten(b)
    assert [take(queues, "x"), take(queues, "x"), take(queues, "x")] == [
        (b, False),
        (c, True),
        (a, False),
    ]


def test_the_urgent_goes_before_all() -> None:
    queues = Queues()
    a, b = tickets(2)
    queues.put(a, "x", now=True)
    queues.put_urgent(b)
    assert take(queues, "x", refuse={b}) == (a, False)
    assert take(queues, "x", refuse={b}) is None
    assert queues.urgent == len(queues) == 1
    assert take(queues, "x") == (b, False)
    assert len(queues) == 0


def test_jobs_take_turns() -> None:
    queues = Queues()
    many, few = Job("many"), Job("few")
    for ticket in tickets(6, many):
        queues.put(ticket, "x", now=True)
    for ticket in tickets(2, few):
        queues.put(ticket, "y", now=True)
    order = []
    while found := take(queues, "x"):
        order.append(found[0].job.name)
    assert order == ["many", "few", "many", "few", "many", "many", "many", "many"]


def test_what_preferred_one_prefers_another() -> None:
    queues = Queues()
    a, b, c = tickets(3)
    queues.put(a, "x", now=True)
    queues.put(b, "y", now=False)
    queues.put(c, "x", now=False)
    queues.prefer("x", lambda ticket: "y")
    assert take(queues, "x", steal=False) is None
    assert [take(queues, "y", steal=False) for _ in range(3)] == [
        (a, False),
        (b, False),
        (c, False),
    ]


def test_discarding_twice_is_fine() -> None:
    queues = Queues()
    a, b = tickets(2)
    queues.put(a, None, now=True)
    queues.put_urgent(b)
    for ticket in (a, b, a, b):
        queues.discard(ticket)
    assert len(queues) == 0
    assert take(queues, "x") is None


@settings(deadline=None, derandomize=True)
@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=80), st.integers(1, 20))
def test_the_running_median_is_a_median(durations: list[float], samples: int) -> None:
    typical = Typical(samples)
    for seconds in durations:
        typical.add(seconds)
    recent = durations[-samples:]
    assert typical.seconds == statistics.median_high(recent)


@pytest.mark.parametrize(
    ("age_s", "expected_s", "idle_s", "awaited", "found"),
    [
        (LATE_S, 0.01, None, False, Haste.NONE),
        (LATE_S * 1.01, 0.01, None, False, Haste.LATE),
        (5.9, 4.0, None, False, Haste.NONE),
        (6.1, 4.0, None, False, Haste.LATE),
        (5.1, 4.0, None, True, Haste.OVERDUE),
        (4.9, 4.0, None, True, Haste.NONE),
        (4.5, 4.0, 4.0, False, Haste.OVERDUE),  # should be done by now
        (1.0, 4.0, 1.0, False, Haste.SOONER),  # the idle one takes less than the rest
        (1.0, 1.9, 1.0, False, Haste.NONE),
        (0.01, 0.03, 0.001, False, Haste.NONE),  # too short to bother
    ],
)
def test_haste(
    age_s: float, expected_s: float, idle_s: float | None, awaited: bool, found: Haste
) -> None:
    assert haste(age_s, expected_s, idle_s, awaited=awaited) is found


def test_only_a_share_is_computed_twice() -> None:
    for late in (False, True):
        assert may_double(0, 0, late=late)
        assert may_double(60, 1000, late=late)
        assert not may_double(90, 1000, late=late)


def test_look_ahead_grows_with_the_farm_and_not_beyond_memory() -> None:
    assert look_ahead(0, 1000, 1 << 30, 1) == 128
    assert look_ahead(100, 1000, 1 << 30, 1) == 800
    assert look_ahead(100, 1 << 20, 100 << 20, 1) == 90
    assert look_ahead(100, 1 << 20, 100 << 20, 3) == 30
    assert look_ahead(100, 1 << 30, 1 << 20, 3) == 1


def test_values_of_another_patch_are_damaged() -> None:
    (one,) = wanted(1)
    encoded = values_of(1).encode(key_of(1))
    check([one.decode(encoded)], [1])
    with pytest.raises(BadData):
        one.decode(values_of(2).encode(key_of(2)))
