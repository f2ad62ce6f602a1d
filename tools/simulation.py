"""The farm as it is, with computers and a clock that are not: how well it keeps a cluster busy.

One job reads a scan from begin to end as a program reads a map through the mount. The computers
differ in speed, some die, and now and then a patch takes ten times as long as it should.
"""

from __future__ import annotations

import argparse
import gc
import logging
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import trio
from trio.testing import MockClock

from analysis.plan import Plan
from dadafs.cache.memory import MemoryCache
from dadafs.cache.values import PatchValues
from dadafs.client.farming.farm import Farm
from dadafs.client.farming.tickets import Job, Values, Wanted
from dadafs.config import MEMORY_BYTES
from dadafs.errors import Unreachable
from dadafs.planning import PATCH_FRAMES
from dadafs.scans.model import FrameSlice

PLAN = Plan("moments", "1", 2070, 2167, "<u2")
SHAPE = (6,)  # of the moments of a frame
DTYPE = np.dtype("<u8")
READ_PATCHES = 256  # the kernel reads 128 KiB of a map of float64
STRAGGLER = 10.0  # times as long


@dataclass(frozen=True)
class Setting:
    """What is simulated."""

    peers: int
    threads: int = 1
    """Of each peer."""
    frames: int = 1_000_000
    patch_s: float = 0.5
    """A patch takes on a thread of mean speed."""
    spread: float = 3.0
    """The fastest peer's speed over the slowest's."""
    dying: float = 0.05
    """Share of the peers that die during the job."""
    stragglers: float = 0.02
    """Share of the patches that take ten times as long on the computer that has them first."""
    seed: int = 1


@dataclass
class Outcome:
    """What came of it."""

    share: float
    """Of the patches that the living peers could have computed in the time, each thread at the
    speed it had: on a straggler, a tenth."""
    share_nominal: float
    """The same, as if stragglers did not slow their threads."""
    twice: float
    """Share of the work that was done for patches that another computer had done before."""
    doubled: float
    """Share of the patches that were given to two computers."""
    lost: float
    """Share of the work that died with peers."""
    seconds: float
    """That the job took."""
    ideal_s: float
    """That it would have taken with no thread ever idle."""
    tickets: int
    """The most there were at a time."""
    held_bytes: int
    """The most that the farm and its memory of values held."""
    cpu_s: float
    """Of this process, all in all: farm, clock and simulated computers."""
    farm_cpu_s: float = 0.0
    """Of that, what is not needed where every thread takes the next patch by itself."""
    counters: dict[str, int] = field(default_factory=dict)


class Meter:
    """Sums up what the computers do."""

    def __init__(self) -> None:
        self.slowed = 0.0
        """Work that threads did not do for being on a straggler."""
        self.useful = self.wasted = self.lost = 0.0
        self.finished: set[int] = set()


class SimulatedComputer:
    """Threads that sleep as long as a patch takes."""

    def __init__(self, name: str, speed: float, setting: Setting, meter: Meter) -> None:
        self.name = name
        self.slots = setting.threads + 1
        self.speed = speed
        self.began = trio.current_time()
        self.dead = trio.Event()
        self.died = float("inf")
        self._threads = trio.CapacityLimiter(setting.threads)
        self._setting = setting
        self._meter = meter

    async def compute(self, plan: Plan, frames: FrameSlice) -> bytes:
        """The values of a patch, after a while."""
        if self.dead.is_set():
            raise Unreachable(f"{self.name} does not answer")
        encoded: bytes | None = None
        async with trio.open_nursery() as nursery:

            async def work() -> None:
                nonlocal encoded
                async with self._threads:
                    encoded = await self._reduce(frames)
                nursery.cancel_scope.cancel()

            async def die() -> None:
                await self.dead.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(work)
            nursery.start_soon(die)
        if encoded is None:
            raise Unreachable(f"{self.name} broke the connection")
        return encoded

    async def _reduce(self, frames: FrameSlice) -> bytes:
        number = frames.first // PATCH_FRAMES
        slow = STRAGGLER if straggles(self._setting, number, self.name) else 1.0
        meter, began = self._meter, trio.current_time()
        try:
            await trio.sleep(self._setting.patch_s * slow / self.speed)
        finally:
            work = (trio.current_time() - began) * self.speed / self._setting.patch_s
            meter.slowed += work * (1 - 1 / slow)
            work /= slow
            if self.dead.is_set():
                meter.lost += work
            elif number in meter.finished:
                meter.wasted += work
            else:
                meter.useful += work
        meter.finished.add(number)
        return encoded_values(number, frames)

    async def ping(self) -> object:
        """Unless it is dead."""
        await trio.lowlevel.checkpoint()
        if self.dead.is_set():
            raise Unreachable(f"{self.name} does not answer")
        return self.name

    def capacity(self, until: float) -> float:
        """The patches it could have computed."""
        seconds = max(0.0, min(until, self.died) - self.began)
        return seconds * self.speed * self._setting.threads / self._setting.patch_s


def straggles(setting: Setting, number: int, name: str) -> bool:
    """Whether this patch takes long on this computer, for no fault of either."""
    digest = blake2b(f"{setting.seed} {number} {name}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") < setting.stragglers * 2**32


def key_of(number: int) -> bytes:
    """Of the patch of that number."""
    return blake2b(number.to_bytes(8, "little"), digest_size=32).digest()


def encoded_values(number: int, frames: FrameSlice) -> bytes:
    """Values that tell which frames they are of."""
    numbers = np.arange(frames.first, frames.first + frames.count, dtype=DTYPE)
    values = numbers[:, None] * np.arange(1, SHAPE[0] + 1, dtype=DTYPE)
    return PatchValues(np.ones(frames.count, np.uint8), values).encode(key_of(number))


class NoStore:
    """Results that were never computed before."""

    def get(self, key: bytes) -> bytes | None:
        """None."""
        return None

    def put(self, key: bytes, value: bytes) -> None:
        """Forget it."""


def wanted_patches(frames: int, first: int, stop: int) -> Iterator[Wanted]:
    """The patches of that number, as a file wants them."""
    for number in range(first, stop):
        begin = number * PATCH_FRAMES
        count = min(PATCH_FRAMES, frames - begin)
        piece = FrameSlice(begin, count, ())
        yield Wanted(key_of(number), PLAN, piece, (count, *SHAPE), DTYPE)


async def read_all(farm: Farm, frames: int, job: Job) -> int:
    """Read a map as `MapFile` does; the largest number of tickets."""
    patches = -(-frames // PATCH_FRAMES)
    most, asked = 0, 0
    for first in range(0, patches, READ_PATCHES):
        stop = min(first + READ_PATCHES, patches)
        ahead = min(stop + farm.look_ahead(PATCH_FRAMES * SHAPE[0] * DTYPE.itemsize), patches)
        begin = max(asked, stop)
        farm.ahead(job, list(wanted_patches(frames, begin, ahead)))
        asked = max(asked, ahead)
        most = max(most, farm.in_flight)
        found = await farm.values(job, list(wanted_patches(frames, first, stop)))
        for number, values in enumerate(found, first):
            assert isinstance(values, PatchValues)
            assert values.values[0, 0] == number * PATCH_FRAMES
    farm.drop(job)
    return most


async def simulate(setting: Setting) -> Outcome:
    """One job from begin to end. To be run under a MockClock."""
    chance = random.Random(setting.seed)
    meter = Meter()
    memory: MemoryCache[bytes, Values] = MemoryCache(MEMORY_BYTES)
    results: Any = NoStore()
    farm = Farm(results, memory)
    low, high = 2 / (1 + setting.spread), 2 * setting.spread / (1 + setting.spread)
    computers = [
        SimulatedComputer(f"peer {number}", chance.uniform(low, high), setting, meter)
        for number in range(setting.peers)
    ]
    patches = -(-setting.frames // PATCH_FRAMES)
    power = sum(one.speed for one in computers) * setting.threads
    ideal_s = patches * setting.patch_s / power
    doomed = chance.sample(computers, round(setting.dying * setting.peers))
    deaths = sorted((chance.uniform(0, ideal_s), number) for number in range(len(doomed)))

    async def kill() -> None:
        for when, number in deaths:
            await trio.sleep(began + when - trio.current_time())
            doomed[number].died = trio.current_time()
            doomed[number].dead.set()

    began, cpu = trio.current_time(), time.process_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(farm.crew.serve)
        for one in computers:
            farm.crew.join(one)
        nursery.start_soon(kill)
        most = await read_all(farm, setting.frames, Job("simulated"))
        ended = trio.current_time()
        nursery.cancel_scope.cancel()
    capacity = sum(one.capacity(ended) for one in computers)
    patch_bytes = PATCH_FRAMES * (SHAPE[0] * DTYPE.itemsize + 1)
    return Outcome(
        share=patches / (capacity - meter.slowed),
        share_nominal=patches / capacity,
        twice=meter.wasted / patches,
        doubled=farm.counters["patches_duplicated"] / patches,
        lost=meter.lost / patches,
        seconds=ended - began,
        ideal_s=ideal_s,
        tickets=most,
        held_bytes=memory.used_bytes + most * patch_bytes,
        cpu_s=time.process_time() - cpu,
        counters=dict(farm.counters),
    )


async def without_farm(setting: Setting) -> float:
    """CPU seconds for as many patches where nobody gives them out."""
    cpu = time.process_time()
    meter = Meter()
    patches = -(-setting.frames // PATCH_FRAMES)
    numbers = iter(wanted_patches(setting.frames, 0, patches))

    async def slot(computer: SimulatedComputer) -> None:
        for one in numbers:
            one.decode(await computer.compute(one.plan, one.frames))

    async with trio.open_nursery() as nursery:
        for number in range(setting.peers):
            computer = SimulatedComputer(f"peer {number}", 1.0, setting, meter)
            for _ in range(computer.slots):
                nursery.start_soon(slot, computer)
    return time.process_time() - cpu


def run(setting: Setting) -> Outcome:
    """Simulate, in as little time as it takes."""
    gc.collect()
    scheduler: Any = trio._core._run  # equal seeds give equal figures
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
    scheduler._r.seed(setting.seed)
    return trio.run(simulate, setting, clock=MockClock(autojump_threshold=0))


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    default = Setting(0)
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--peers", type=int, nargs="+", default=[24, 1000])
    parser.add_argument("--threads", type=int, default=default.threads, help="of each peer")
    parser.add_argument("--frames", type=int, default=default.frames)
    parser.add_argument("--patch-s", type=float, default=default.patch_s)
    parser.add_argument("--spread", type=float, default=default.spread)
    parser.add_argument("--dying", type=float, default=default.dying)
    parser.add_argument("--stragglers", type=float, default=default.stragglers)
    parser.add_argument("--seed", type=int, default=default.seed)
    options = vars(parser.parse_args(arguments))
    logging.getLogger("dadafs").setLevel(logging.ERROR)
    for peers in options.pop("peers"):
        setting = Setting(peers, **options)
        found = run(setting)
        clock = MockClock(autojump_threshold=0)
        found.farm_cpu_s = found.cpu_s - trio.run(without_farm, setting, clock=clock)
        print(f"{peers} peers of {setting.threads} threads, {setting.frames} frames")
        print(f"  share of ideal throughput   {found.share:.3f}")
        print(f"  as if nothing straggled     {found.share_nominal:.3f}")
        print(f"  work done twice             {found.twice:.3%}")
        print(f"  patches given out twice     {found.doubled:.3%}")
        print(f"  work lost with peers        {found.lost:.3%}")
        print(f"  time of the job             {found.seconds:.2f} s, ideal {found.ideal_s:.2f} s")
        print(f"  most tickets                {found.tickets}")
        print(f"  most memory                 {found.held_bytes / 1e6:.0f} MB")
        print(f"  CPU, simulation and all     {found.cpu_s:.1f} s")
        print(f"  CPU of the farm             {found.farm_cpu_s:.1f} s")
        print(f"  counters                    {found.counters}")
    return 0
