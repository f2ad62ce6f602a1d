"""Computers that are not, and patches for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import trio

from analysis.plan import Plan
from dadafs.cache.memory import MemoryCache
from dadafs.cache.values import PatchValues
from dadafs.client.farming.farm import Farm
from dadafs.client.farming.tickets import Job, Values, Wanted
from dadafs.errors import Unreachable
from dadafs.scans.model import FrameSlice

PLAN = Plan("moments", "1", 8, 8, "<u2")
DTYPE = np.dtype("<u8")
FRAMES = 4


def key_of(number: int) -> bytes:
    return blake2b(number.to_bytes(8, "little"), digest_size=32).digest()


def wanted(*numbers: int) -> list[Wanted]:
    """These patches."""
    return [
        Wanted(key_of(n), PLAN, FrameSlice(n * FRAMES, FRAMES, ()), (FRAMES, 2), DTYPE)
        for n in numbers
    ]


def values_of(number: int) -> PatchValues:
    """What a computer makes of a patch."""
    frames = np.arange(number * FRAMES, (number + 1) * FRAMES, dtype=DTYPE)
    return PatchValues(np.zeros(FRAMES, np.uint8), np.stack([frames, frames**2], axis=1))


def check(found: Sequence[Values], numbers: Sequence[int]) -> None:
    """These are the values of just these patches, in order."""
    assert len(found) == len(numbers)
    for values, number in zip(found, numbers, strict=True):
        assert isinstance(values, PatchValues)
        np.testing.assert_array_equal(values.values, values_of(number).values)


class Stored(dict[bytes, bytes]):
    """A store in memory."""

    def put(self, key: bytes, value: bytes) -> None:
        self[key] = value


@dataclass(eq=False)
class FakeComputer:
    """Computes with threads that sleep; it can be killed, stopped, and made to misbehave."""

    name: str
    slots: int = 3
    seconds: float = 1.0
    alive: bool = True
    life: int = 1
    slow: Callable[[int], float] = lambda number: 1.0
    before: Callable[[int], None] = lambda number: None
    """Called when a patch is begun; may raise."""
    damage: bool = False
    begun: list[int] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    within: int = 0
    most: int = 0
    pings: int = 0

    def __post_init__(self) -> None:
        self._died = trio.Event()
        self._goes_on = trio.Event()
        self._goes_on.set()
        self._threads = trio.CapacityLimiter(max(1, self.slots - 1))

    def kill(self) -> None:
        """All that it is at breaks."""
        self.alive = False
        self._died.set()

    def restart(self) -> None:
        self.alive = True
        self.life += 1
        self._died = trio.Event()

    def stop(self) -> None:
        """As SIGSTOP: nothing answers, nothing breaks."""
        self._goes_on = trio.Event()

    def go_on(self) -> None:
        self._goes_on.set()

    async def compute(self, plan: Plan, frames: FrameSlice) -> bytes:
        number = frames.first // FRAMES
        if not self.alive:
            raise Unreachable(f"{self.name} does not answer")
        self.begun.append(number)
        self.within += 1
        self.most = max(self.most, self.within)
        try:
            encoded = await self._until_killed(number)
        finally:
            self.within -= 1
        await self._goes_on.wait()
        return encoded

    async def _until_killed(self, number: int) -> bytes:
        self.before(number)
        died, done = self._died, False
        async with trio.open_nursery() as nursery:

            async def work() -> None:
                nonlocal done
                async with self._threads:
                    await trio.sleep(self.seconds * self.slow(number))
                await self._goes_on.wait()
                done = True
                nursery.cancel_scope.cancel()

            async def die() -> None:
                await died.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(work)
            nursery.start_soon(die)
        if not done:
            raise Unreachable(f"{self.name} broke the connection")
        self.finished.append(number)
        encoded = values_of(number).encode(key_of(number))
        return encoded[:-1] + b"?" if self.damage else encoded

    async def ping(self) -> object:
        self.pings += 1
        await trio.sleep(0.001)
        await self._goes_on.wait()
        if not self.alive:
            raise Unreachable(f"{self.name} does not answer")
        return self.life


def new_farm(*, keep: bool = False, memory_bytes: int = 1 << 20) -> Farm:
    memory: MemoryCache[bytes, Values] = MemoryCache(memory_bytes)
    return Farm(Stored(), memory, keep=keep)  # type: ignore[arg-type]


@asynccontextmanager
async def serving(*computers: FakeComputer, keep: bool = False) -> AsyncIterator[Farm]:
    """A farm with these computers; afterwards nothing is left in it."""
    farm = new_farm(keep=keep)
    for computer in computers:
        farm.crew.join(computer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(farm.crew.serve)
        yield farm
        await trio.sleep(0.01)
        assert_at_rest(farm)
        nursery.cancel_scope.cancel()
    for computer in computers:
        assert computer.most <= computer.slots


def assert_at_rest(farm: Farm) -> None:
    """All gauges are at zero."""
    assert farm.in_flight == 0
    assert farm.jobs == []
    assert all(gauges["busy"] == 0 for gauges in farm.crew.gauges().values())
    assert len(farm.crew._queues) == 0
    assert not farm.crew._runs


async def read(farm: Farm, numbers: Sequence[int], job: Job | None = None) -> float:
    """Read these patches and check them; how long it took."""
    began = trio.current_time()
    check(await farm.values(job or Job(), wanted(*numbers)), numbers)
    return trio.current_time() - began


def shares(*computers: FakeComputer) -> dict[int, str]:
    """Who computed which patch."""
    return {number: one.name for one in computers for number in one.finished}


def times_begun(*computers: FakeComputer) -> Counter[int]:
    return Counter(number for one in computers for number in one.begun)
