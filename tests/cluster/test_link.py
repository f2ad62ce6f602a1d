"""What the server said is believed for a while, and longer while it is away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from analysis.plan import Plan
from dadafs.cache.memory import MemoryCache
from dadafs.cache.store import Store
from dadafs.client.farming import farm as farm_module
from dadafs.client.farming.farm import Farm
from dadafs.client.farming.tickets import Job, Wanted
from dadafs.client.upstream.link import GRACE_S, Link
from dadafs.errors import NoSuchPath, Stalled, Unreachable
from dadafs.rpc.messages import List, Resolve
from dadafs.scans.model import Attributes, Entry, FrameSlice, Resolved

FRESH_S = 5.0
FILE = Attributes("file", 3, 0, 0o644, 0, 0, 1)
DIRECTORY = Attributes("directory", 4096, 0, 0o755, 0, 0, 2)


class FakeServer:
    """A pool that answers from a tree of one file, unless the server is away."""

    def __init__(self) -> None:
        self.calls = 0
        self.away = False

    async def call(self, request: Any) -> tuple[Any, memoryview]:
        await trio.lowlevel.checkpoint()
        self.calls += 1
        if self.away:
            raise Unreachable("the server does not answer")
        match request:
            case List(b""):
                return (Entry(b"f", FILE),), memoryview(b"")
            case Resolve(b""):
                return Resolved("directory", b"", DIRECTORY), memoryview(b"")
            case Resolve(b"f"):
                return Resolved("file", b"f", FILE), memoryview(b"")
            case _:
                raise NoSuchPath("does not exist")


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def link(server: FakeServer) -> Link:
    return Link(server, FRESH_S)  # type: ignore[arg-type]


@pytest.mark.trio
async def test_answers_are_believed_for_a_while(
    server: FakeServer, link: Link, autojump_clock: MockClock
) -> None:
    for _ in range(3):
        assert (await link.resolve(b"f")).kind == "file"
    assert server.calls == 1
    await trio.sleep(FRESH_S + 0.1)
    await link.resolve(b"f")
    assert server.calls == 2


@pytest.mark.trio
async def test_that_there_is_nothing_is_believed_too(
    server: FakeServer, link: Link, autojump_clock: MockClock
) -> None:
    for _ in range(3):
        with pytest.raises(NoSuchPath):
            await link.resolve(b"nothing")
    assert server.calls == 1
    await trio.sleep(FRESH_S + 0.1)
    with pytest.raises(NoSuchPath):
        await link.resolve(b"nothing")
    assert server.calls == 2


@pytest.mark.trio
async def test_listing_answers_for_its_names(server: FakeServer, link: Link) -> None:
    await link.list(b"")
    assert (await link.resolve(b"f")).attributes == FILE
    assert server.calls == 1


@pytest.mark.trio
async def test_old_answers_while_the_server_is_away(
    server: FakeServer, link: Link, autojump_clock: MockClock
) -> None:
    await link.list(b"")
    await link.resolve(b"f")
    server.away = True
    await trio.sleep(1000)
    began = trio.current_time()
    for _ in range(100):
        assert (await link.resolve(b"f")).kind == "file"
        assert len(await link.list(b"")) == 1
    assert trio.current_time() - began < 2 * GRACE_S + 0.5
    with pytest.raises(Unreachable):
        await link.resolve(b"g")
    server.away = False
    await trio.sleep(GRACE_S + 0.1)
    with pytest.raises(NoSuchPath):
        await link.resolve(b"g")


class Deaf:
    """A computer that never ends."""

    name = "deaf"
    slots = 2

    async def compute(self, plan: Plan, frames: FrameSlice) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async def ping(self) -> object:
        return 1


@pytest.mark.trio
@pytest.mark.parametrize("computers", [0, 1])
async def test_reader_waits_for_a_minute_of_stall_and_no_longer(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, computers: int
) -> None:
    results = Store(tmp_path, 1 << 22)
    farm = Farm(results, MemoryCache(1 << 20))
    plan = Plan("moments", "1", 4, 4, "<u2")
    wanted = Wanted(b"k" * 32, plan, FrameSlice(0, 1, ()), (1, 6), np.dtype("<u8"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(farm.crew.serve)
        for _ in range(computers):
            farm.crew.join(Deaf())
        began = trio.current_time()
        with pytest.raises(Stalled, match="try again later"):
            await farm.values(Job(), [wanted])
        assert trio.current_time() - began == pytest.approx(farm_module.STALL_S, abs=1)
        nursery.cancel_scope.cancel()
    results.close()
