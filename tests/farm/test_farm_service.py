"""The farm with computers that come, go, die, stop, lie and dawdle."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
import pytest
import trio
from farming import (
    FakeComputer,
    assert_at_rest,
    check,
    key_of,
    new_farm,
    read,
    serving,
    shares,
    times_begun,
    values_of,
    wanted,
)
from trio.testing import MockClock

from dadafs.client.farming.crew import Crew
from dadafs.client.farming.farm import STALL_S, Farm
from dadafs.client.farming.tickets import Job
from dadafs.errors import ComputationFailed, DadaError, Stale, Stalled, Unforeseen, Unreachable

pytestmark = pytest.mark.trio


def team(count: int, slots: int = 3, seconds: float = 1.0) -> list[FakeComputer]:
    return [FakeComputer(f"peer {n}", slots, seconds) for n in range(count)]


async def test_values_come_in_order_whatever_order_they_are_done_in(
    autojump_clock: MockClock,
) -> None:
    a, b = team(2)
    a.slow = b.slow = lambda number: 1 + (number * 7 % 5) / 20
    async with serving(a, b) as farm:
        await read(farm, [5, 3, 9, 1, 0, 2, 3, 17])
        assert set(times_begun(a, b)) == {5, 3, 9, 1, 0, 2, 17}


async def test_all_threads_are_used(autojump_clock: MockClock) -> None:
    computers = team(4)
    async with serving(*computers) as farm:
        assert farm.crew.slots == 12
        assert await read(farm, range(80)) < 10.5  # 80 patches for 8 threads


async def test_what_is_in_memory_is_not_computed_again(autojump_clock: MockClock) -> None:
    (a,) = team(1)
    async with serving(a) as farm:
        await read(farm, range(4))
        assert await read(farm, range(4)) == 0
        assert farm.counters["patches_farmed"] == 4
        assert farm.counters["patches_at_hand"] == 4


@pytest.mark.parametrize("keep", [False, True])
async def test_results_are_kept_where_they_are_to_be(keep: bool, autojump_clock: MockClock) -> None:
    (a,) = team(1)
    async with serving(a, keep=keep) as farm:
        await read(farm, [1])
        stored = farm._results.get(key_of(1))
        assert stored == (values_of(1).encode(key_of(1)) if keep else None)


async def test_tickets_wait_for_the_first_computer(autojump_clock: MockClock) -> None:
    (a,) = team(1)
    async with serving() as farm, trio.open_nursery() as nursery:
        nursery.start_soon(read, farm, range(4))
        await trio.sleep(5)
        farm.crew.join(a)
    assert sorted(a.finished) == [0, 1, 2, 3]


async def test_computers_join_and_leave_in_the_middle_of_a_job(autojump_clock: MockClock) -> None:
    a, b, c = team(3)
    async with serving(a) as farm, trio.open_nursery() as nursery:
        nursery.start_soon(read, farm, range(60))
        await trio.sleep(3.5)
        farm.crew.join(b)
        farm.crew.join(c)
        await trio.sleep(3.5)
        left = list(a.begun)
        farm.crew.leave("peer 0")
        farm.crew.leave("nobody")
        await trio.sleep(3)
        assert a.begun == left
        assert len(a.finished) >= len(left) - 2  # it may end what it was at
        assert set(farm.crew.gauges()) == {"peer 1", "peer 2"}
    assert 60 <= sum(times_begun(a, b, c).values()) <= 66


async def test_the_same_name_with_another_object_replaces_it(autojump_clock: MockClock) -> None:
    old, new = FakeComputer("peer"), FakeComputer("peer", slots=5)
    async with serving(old) as farm:
        await read(farm, [0])
        farm.crew.join(old)
        await read(farm, [1])
        farm.crew.join(new)
        assert farm.crew.slots == 5
        await read(farm, [2, 3])
    assert (old.finished, sorted(new.finished)) == ([0, 1], [2, 3])
    assert old.pings == 1


async def test_a_computer_that_dies_takes_nothing_with_it(autojump_clock: MockClock) -> None:
    computers = team(3)
    async with serving(*computers) as farm, trio.open_nursery() as nursery:
        nursery.start_soon(read, farm, range(60))
        await trio.sleep(4.5)
        computers[0].kill()
        await trio.sleep(0.1)
        assert farm.crew.gauges()["peer 0"]["trouble"]
        assert farm.crew.slots == 6
    assert farm.counters["patches_retried"] >= 1
    assert sum(len(one.finished) for one in computers) == 60


async def test_a_computer_that_comes_back_is_given_patches_again(autojump_clock: MockClock) -> None:
    a, b = team(2)
    async with serving(a, b) as farm, trio.open_nursery() as nursery:
        nursery.start_soon(read, farm, range(100))
        await trio.sleep(2.5)
        a.kill()
        await trio.sleep(5)
        begun = len(a.begun)
        a.restart()
        await trio.sleep(6)
        assert len(a.begun) > begun
        assert not farm.crew.gauges()["peer 0"]["trouble"]


async def test_who_cannot_be_reached_is_asked_ever_less_often_and_costs_nothing(
    autojump_clock: MockClock,
) -> None:
    a, b = team(2)
    a.kill()
    async with serving(a, b) as farm:
        await read(farm, range(200))
        assert a.begun == []
        assert farm.counters["patches_retried"] == 0
        pings = a.pings
        await trio.sleep(50)
        assert 9 <= a.pings - pings <= 11


async def test_a_patch_that_kills_computers_is_not_tried_for_ever(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    computers = team(6)

    def poisoned(computer: FakeComputer) -> None:
        def before(number: int) -> None:
            if number == 13:
                computer.kill()

        computer.before = before

    for one in computers:
        poisoned(one)
    async with serving(*computers) as farm:
        with pytest.raises(ComputationFailed, match=r"failed 4 times: peer . broke"):
            await farm.values(Job(), wanted(13))
        assert sum(one.begun.count(13) for one in computers) == 4
        assert sum(not one.alive for one in computers) == 4
        await read(farm, range(12))
    assert caplog.text.count("patch lost, attempt") == 4


async def test_a_patch_that_kills_the_only_computer_each_time_it_is_restarted(
    autojump_clock: MockClock,
) -> None:
    (a,) = team(1)

    def before(number: int) -> None:
        if number == 3:
            a.kill()
            nursery.start_soon(restart)

    async def restart() -> None:
        await trio.sleep(2)
        a.restart()

    a.before = before
    async with serving(a) as farm, trio.open_nursery() as nursery:
        with pytest.raises(ComputationFailed):
            await farm.values(Job(), wanted(3))
        assert a.begun == [3] * 4
        await trio.sleep(10)
        await read(farm, [1, 2])


async def test_trouble_that_peers_report_does_not_count_against_a_patch(
    autojump_clock: MockClock,
) -> None:
    a, b = team(2)
    until = 30.0

    def before(number: int) -> None:
        if trio.current_time() < until:
            raise Unreachable("the server gave no fragment")

    a.before = b.before = before
    async with serving(a, b) as farm:
        assert 30 <= await read(farm, range(4)) < 40
        assert len(a.begun) + len(b.begun) < 60  # not in a hot loop


async def test_a_patch_that_is_too_slow_for_everybody_fails(autojump_clock: MockClock) -> None:
    a, b = team(2)
    a.slow = b.slow = lambda number: 1000.0
    async with serving(a, b) as farm:
        with pytest.raises(Stalled):
            await farm.values(Job(), wanted(1))
        with pytest.raises(ComputationFailed, match="more than 45 s"):
            await farm.values(Job(), wanted(1))


async def test_damaged_values_are_not_accepted(autojump_clock: MockClock) -> None:
    a, b = team(2)
    a.damage = True
    async with serving(a, b) as farm:
        await read(farm, range(40))
        assert farm.crew.gauges()["peer 0"]["failed"] >= 1
        assert len(a.finished) < 20
        assert farm.crew.gauges()["peer 0"]["done"] == 0


async def test_damaged_values_everywhere_are_an_error(autojump_clock: MockClock) -> None:
    a, b = team(2)
    a.damage = b.damage = True
    async with serving(a, b) as farm:
        with pytest.raises(ComputationFailed, match="damaged"):
            await farm.values(Job(), wanted(1))


@pytest.mark.parametrize("error", [Stale("it has changed"), ComputationFailed("no")])
async def test_errors_that_every_computer_would_meet_come_at_once(
    error: DadaError, autojump_clock: MockClock
) -> None:
    a, b = team(2)

    def before(number: int) -> None:
        raise error

    a.before = b.before = before
    async with serving(a, b) as farm:
        with pytest.raises(type(error), match=str(error)):
            await farm.values(Job(), wanted(1))
        assert len(a.begun) + len(b.begun) == 1


async def test_a_patch_that_one_computer_fails_at_goes_to_another(
    autojump_clock: MockClock,
) -> None:
    a, b = team(2)

    def before(number: int) -> None:
        raise Unforeseen("its disk is broken")

    a.before = before
    async with serving(a, b) as farm:
        await read(farm, range(40))
        assert farm.crew.gauges()["peer 0"]["failed"] >= 1
        assert farm.crew.gauges()["peer 1"]["done"] == 40


async def test_a_patch_that_every_computer_fails_at_is_an_error(autojump_clock: MockClock) -> None:
    a, b = team(2)

    def before(number: int) -> None:
        raise Unforeseen("no room for its values")

    a.before = b.before = before
    async with serving(a, b) as farm:
        with pytest.raises(ComputationFailed, match="failed 4 times: no room for its values"):
            await farm.values(Job(), wanted(1))
        assert len(a.begun) + len(b.begun) == 4


async def test_a_mistake_in_a_computer_is_logged_and_ends_nothing(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    (a,) = team(1)

    def before(number: int) -> None:
        if number == 1:
            raise ZeroDivisionError("oops")

    a.before = before
    async with serving(a) as farm:
        with pytest.raises(ComputationFailed, match="oops"):
            await farm.values(Job(), wanted(1))
        await read(farm, [2])
    assert "ZeroDivisionError" in caplog.text


async def test_a_straggler_is_computed_by_a_second_computer(autojump_clock: MockClock) -> None:
    computers = team(4)
    victim: list[str] = []

    def slow_at(name: str) -> None:
        def slow(number: int) -> float:
            if number == 30 and (not victim or victim == [name]):
                victim[:] = [name]
                return 100.0
            return 1.0

        next(one for one in computers if one.name == name).slow = slow

    for one in computers:
        slow_at(one.name)
    async with serving(*computers) as farm:
        assert await read(farm, range(64)) < 14
        assert times_begun(*computers)[30] in (2, 3)
        assert farm.counters["patches_duplicated"] <= 8
        assert shares(*computers)[30] != victim[0]


async def test_a_lonely_slow_computer_is_helped_by_an_idle_one(autojump_clock: MockClock) -> None:
    a, b = team(2, slots=2)
    async with serving(a, b) as farm:
        await read(farm, range(30))
        a.slow = b.slow = lambda number: 20.0 if len(a.begun + b.begun) == 31 else 1.0
        assert await read(farm, [99]) < 4


async def test_one_computer_is_never_given_a_patch_twice_at_a_time(
    autojump_clock: MockClock,
) -> None:
    (a,) = team(1)
    a.slow = lambda number: 20.0 if number == 5 else 1.0
    async with serving(a) as farm:
        await read(farm, range(12))
        assert farm.counters["patches_duplicated"] == 0
        assert times_begun(a)[5] == 1


async def test_a_stopped_computer_delays_a_reader_by_seconds_at_most(
    autojump_clock: MockClock,
) -> None:
    computers = team(3)
    async with serving(*computers) as farm, trio.open_nursery() as nursery:
        await read(farm, range(100, 130))
        computers[1].stop()
        assert await read(farm, range(30)) < 30 / 4 + 5
        assert await read(farm, range(30, 60)) < 30 / 4 + 5
        assert farm.crew.gauges()["peer 1"]["trouble"]
        computers[1].go_on()
        await trio.sleep(6)
        begun = len(computers[1].begun)
        nursery.start_soon(read, farm, range(60, 90))
        await trio.sleep(2)
        assert len(computers[1].begun) > begun


async def test_a_stopped_computer_leaves_and_then_answers(autojump_clock: MockClock) -> None:
    """What the server forgot after 4 s goes on: its answer is that of nobody in the farm."""
    computers = team(3)
    stopped = computers[1]
    async with serving(*computers) as farm:
        await read(farm, range(30))
        stopped.stop()
        await read(farm, range(30, 60))
        assert farm.crew.gauges()[stopped.name]["trouble"]
        asked = stopped.pings
        while stopped.pings == asked:  # noqa: ASYNC110  # a step of the mock clock
            await trio.sleep(0.1)
        farm.crew.leave(stopped.name)
        await read(farm, [60, 61, 62])
        stopped.go_on()
        await read(farm, range(63, 90))
        assert stopped.pings == asked + 1
        assert stopped.name not in farm.crew.gauges()


async def test_computers_that_stop_together_and_the_one_that_is_left(
    autojump_clock: MockClock,
) -> None:
    computers = team(4)
    async with serving(*computers) as farm:
        await read(farm, range(100, 130))
        for one in computers[:3]:
            one.stop()
        assert await read(farm, range(12)) < 12 / 2 + 6
        for one in computers[:3]:
            one.go_on()
        await trio.sleep(6)


async def test_two_jobs_share_the_computers(autojump_clock: MockClock) -> None:
    computers = team(2)
    finished: dict[str, float] = {}
    async with serving(*computers) as farm:

        async def timed(name: str, numbers: range) -> None:
            await read(farm, numbers, Job(name))
            finished[name] = trio.current_time()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(timed, "large", range(1000, 1400))
            await trio.sleep(10)
            began = trio.current_time()
            nursery.start_soon(timed, "small", range(40))
    assert 19 <= finished["small"] - began <= 24  # 40 patches with half of four threads


async def test_the_same_patches_go_to_the_same_computers(autojump_clock: MockClock) -> None:
    computers = team(8)
    for one in computers:
        one.slow = lambda number: 1 + (number * 31 % 17) / 100
    async with serving(*computers) as farm:
        await read(farm, range(1600))
        first = shares(*computers)
        farm._memory.__init__(1 << 20)  # type: ignore[misc]
        for one in computers:
            one.finished.clear()
            one.slow = lambda number: 1 + (number * 13 % 19) / 100
        await read(farm, range(1600))
        second = shares(*computers)
    same = sum(first[number] == second[number] for number in range(1600))
    assert same >= 0.9 * 1600


async def test_single_patches_go_where_they_were_before(autojump_clock: MockClock) -> None:
    computers = team(8)
    async with serving(*computers) as farm:
        for number in range(60):
            await read(farm, [number])
        first = shares(*computers)
        assert len(set(first.values())) == 8
        farm._memory.__init__(1 << 20)  # type: ignore[misc]
        for number in range(59, -1, -1):
            await read(farm, [number])
        assert shares(*computers) == first
        assert farm.counters["patches_stolen"] == 0


async def test_equal_patches_in_flight_are_one_across_jobs(autojump_clock: MockClock) -> None:
    a, b = team(2)
    async with serving(a, b) as farm, trio.open_nursery() as nursery:
        jobs = [Job(str(n)) for n in range(5)]
        for job in jobs:
            nursery.start_soon(read, farm, range(8), job)
        await trio.sleep(0.5)
        assert farm.in_flight == 8
        assert len(farm.jobs) == 5
    assert farm.counters["patches_joined"] == 32
    assert farm.counters["patches_farmed"] == 8
    assert all((job.wanted, job.done) == (8, 8) for job in jobs)


async def test_what_nobody_waits_for_is_ended(autojump_clock: MockClock) -> None:
    a, b = team(2)
    async with serving(a, b) as farm:
        with trio.move_on_after(1.5):
            await read(farm, range(100))
        await trio.sleep(0.01)
        assert_at_rest(farm)
        begun = len(a.begun) + len(b.begun)
        assert farm.counters["patches_abandoned"] == 100 - len(a.finished) - len(b.finished)
        await trio.sleep(10)
        assert len(a.begun) + len(b.begun) == begun


async def test_who_is_left_waiting_gets_what_another_gave_up(autojump_clock: MockClock) -> None:
    (a,) = team(1)
    async with serving(a) as farm, trio.open_nursery() as nursery:

        async def impatient() -> None:
            with trio.move_on_after(1.5):
                await read(farm, range(20))

        nursery.start_soon(impatient)
        await trio.sleep(0.5)
        nursery.start_soon(read, farm, [17, 18])
        await trio.sleep(8)
    assert {17, 18} <= set(a.finished)
    assert len(a.begun) < 12


async def test_a_job_that_looks_ahead_and_stops(autojump_clock: MockClock) -> None:
    (a,) = team(1)
    async with serving(a) as farm:
        job = Job()
        farm.ahead(job, wanted(*range(10)))
        await trio.sleep(2.5)
        farm.ahead(job, wanted(*range(12)))
        assert farm.in_flight == 12 - len(a.finished) == len(job.ahead)
        farm.drop(job)
        await trio.sleep(0.01)
        assert_at_rest(farm)
        await read(farm, range(4))
        assert Counter(a.finished) == Counter(range(len(a.finished)))


async def test_a_read_overtakes_what_is_computed_ahead(autojump_clock: MockClock) -> None:
    (a,) = team(1)
    async with serving(a) as farm:
        job = Job()
        farm.ahead(job, wanted(*range(100)))
        await trio.sleep(0.5)
        assert await read(farm, [98, 99, 200], job) < 4
        farm.drop(job)


async def test_a_reader_stalls_and_the_job_goes_on(autojump_clock: MockClock) -> None:
    (a,) = team(1)
    a.stop()
    async with serving(a) as farm:
        job = Job()
        began = trio.current_time()
        with pytest.raises(Stalled, match="no peer answers for 60 s"):
            await farm.values(job, wanted(1, 2))
        assert trio.current_time() - began == pytest.approx(STALL_S)
        assert farm.in_flight == 2
        assert farm.counters["stalls"] == 1
        a.go_on()
        await trio.sleep(10)
        assert farm.in_flight == 0
        assert await read(farm, [1, 2]) == 0


async def test_any_progress_of_a_job_is_progress(autojump_clock: MockClock) -> None:
    (a,) = team(1, slots=2, seconds=20)
    async with serving(a) as farm, trio.open_nursery() as nursery:
        nursery.start_soon(read, farm, [0, 1, 2, 3], Job("first"))
        await trio.sleep(1)
        assert await read(farm, [3, 2, 1], Job("second")) > 75


async def test_serving_again_goes_on_where_it_ended(autojump_clock: MockClock) -> None:
    a, b = team(2)
    farm = new_farm()
    farm.crew.join(a)
    farm.crew.join(b)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, farm, range(20))
        with trio.move_on_after(2.5):
            await farm.crew.serve()
        assert farm.in_flight
        await trio.sleep(5)
        nursery.start_soon(farm.crew.serve)
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    assert_at_rest(farm)


async def test_gauges_tell_of_each_computer(autojump_clock: MockClock) -> None:
    a, b = team(2)
    b.seconds = 2.0
    async with serving(a, b) as farm:
        await read(farm, range(40))
        await trio.sleep(0.01)
        gauges = farm.crew.gauges()
        assert set(gauges) == {"peer 0", "peer 1"}
        assert sum(one["done"] for one in gauges.values()) == 40
        assert gauges["peer 1"]["typical_s"] >= gauges["peer 0"]["typical_s"] > 0.9
        assert not any(one["trouble"] or one["busy"] for one in gauges.values())


async def test_watching_costs_nothing_when_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    looks = 0
    look = Crew._look

    def counted(crew: Crew) -> None:
        nonlocal looks
        looks += 1
        look(crew)

    monkeypatch.setattr(Crew, "_look", counted)
    (a,) = team(1)
    async with serving(a) as farm:
        await read(farm, [1])
        await trio.sleep(1)
        before = looks
        await trio.sleep(1000)
        assert looks == before


@pytest.mark.parametrize("seed", range(12))
async def test_any_schedule_gives_the_same_values(
    seed: int, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.ERROR)
    chance = np.random.default_rng(seed)
    computers = team(int(chance.integers(2, 7)), int(chance.integers(1, 5)))
    for one in computers:
        one.seconds = float(chance.uniform(0.3, 1.5))
        one.slow = lambda number: 10.0 if chance.random() < 0.05 else 1.0
    spare = FakeComputer("spare")  # so that somebody always lives

    async def disturb(farm: Farm) -> None:
        while True:
            await trio.sleep(float(chance.exponential(2)))
            one = computers[chance.integers(len(computers))]
            match int(chance.integers(7)):
                case 0:
                    one.kill()
                case 1 if not one.alive:
                    one.restart()
                case 2:
                    one.stop()
                case 3 | 4:
                    one.go_on()
                case 5:
                    farm.crew.leave(one.name)
                case 6:
                    farm.crew.join(one)

    async def reader(farm: Farm) -> None:
        job = Job()
        for _ in range(6):
            first = int(chance.integers(0, 60))
            numbers = list(range(first, first + int(chance.integers(1, 25))))
            if chance.random() < 0.3:
                farm.ahead(job, wanted(*range(first + 25, first + 40)))
            with trio.move_on_after(float(chance.choice([2.0, 1000.0]))):
                check(await farm.values(job, wanted(*numbers)), numbers)
        farm.drop(job)

    async with serving(*computers, spare) as farm:
        async with trio.open_nursery() as disturbing:
            disturbing.start_soon(disturb, farm)
            async with trio.open_nursery() as reading:
                for _ in range(4):
                    reading.start_soon(reader, farm)
            disturbing.cancel_scope.cancel()
        for one in computers:
            one.go_on()
        await trio.sleep(20)
