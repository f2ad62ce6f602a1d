"""Equal work is done once; work that was lost is taken over."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dadafs.client.upstream.once import Once

pytestmark = pytest.mark.trio


class Work:
    """Work whose results are kept, and which ends when it is told to."""

    def __init__(self) -> None:
        self.once: Once[str, str] = Once()
        self.kept: dict[str, str] = {}
        self.begun: Counter[str] = Counter()
        self.within: Counter[str] = Counter()
        self.may_end = trio.Event()
        self.failures = 0

    async def get(self, key: str) -> str:
        return await self.once.get(key, lambda: self.kept.get(key), lambda: self.make(key))

    async def make(self, key: str) -> str:
        self.begun[key] += 1
        self.within[key] += 1
        assert self.within[key] == 1
        try:
            await self.may_end.wait()
        finally:
            self.within[key] -= 1
        if self.failures:
            self.failures -= 1
            raise OSError("as told")
        self.kept[key] = key.upper()
        return self.kept[key]


async def test_what_is_there_is_not_made() -> None:
    work = Work()
    work.kept["a"] = "known"
    assert await work.get("a") == "known"
    assert not work.begun


async def test_many_who_want_the_same_wait_for_one() -> None:
    work = Work()
    got: list[str] = []

    async def want(key: str) -> None:
        got.append(await work.get(key))

    async with trio.open_nursery() as nursery:
        for key in "aaaabb":
            nursery.start_soon(want, key)
        await wait_all_tasks_blocked()
        assert work.within == {"a": 1, "b": 1}
        work.may_end.set()
    assert sorted(got) == ["A"] * 4 + ["B"] * 2
    assert work.begun == {"a": 1, "b": 1}
    assert work.once._flying == {}


async def test_failure_is_for_the_one_who_made_it() -> None:
    work = Work()
    work.failures = 2
    ends: Counter[str] = Counter()

    async def want() -> None:
        try:
            ends[await work.get("a")] += 1
        except OSError as exc:
            ends[str(exc)] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(want)
        await wait_all_tasks_blocked()
        work.may_end.set()
    assert ends == {"as told": 2, "A": 3}
    assert work.begun["a"] == 3
    assert work.once._flying == {}


async def test_cancelled_work_is_taken_over() -> None:
    work = Work()
    got: list[str] = []

    async def want(scope: trio.CancelScope) -> None:
        with scope:
            got.append(await work.get("a"))

    scopes = [trio.CancelScope() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(want, scopes[0])
        await wait_all_tasks_blocked()
        nursery.start_soon(want, scopes[1])
        nursery.start_soon(want, scopes[2])
        await wait_all_tasks_blocked()
        scopes[0].cancel()
        await wait_all_tasks_blocked()
        assert work.begun["a"] == 2
        assert work.within["a"] == 1
        work.may_end.set()
    assert got == ["A", "A"]
    assert work.begun["a"] == 2


async def test_cancelled_waiter_leaves_the_work_alone() -> None:
    work = Work()
    waiter = trio.CancelScope()

    async def wait() -> None:
        with waiter:
            await work.get("a")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work.get, "a")
        await wait_all_tasks_blocked()
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        waiter.cancel()
        await wait_all_tasks_blocked()
        work.may_end.set()
    assert work.kept == {"a": "A"}
    assert work.begun["a"] == 1


async def test_what_is_not_kept_is_made_again_by_each() -> None:
    work = Work()
    work.may_end.set()
    assert await work.get("a") == "A"
    work.kept.clear()
    assert await work.get("a") == "A"
    assert work.begun["a"] == 2
