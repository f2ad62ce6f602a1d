"""Reading whole files of a mount past the kernel: for `dadafs get` and `dadafs warm`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import trio

from dadafs.client.asking.asking import line_to, silence
from dadafs.client.telling.control import PART_BYTES
from dadafs.errors import DadaError, Stale, Unreachable
from dadafs.rpc.messages import AskFile, AskJobs, FileFacts, ReadPart
from dadafs.rpc.pool import Pool

SMALLEST_PART = 64 << 10  # the values of 128 patches of a map: enough for many peers
PARTS = 256  # of a file, so that progress is seen
AT_ONCE = 4  # parts under way: peers are busy while one is written
LOOK_S = 1.0  # between two looks at how far it is
SILENCE_S = 10.0  # a mount that computes answers in milliseconds


@dataclass(frozen=True, slots=True)
class Progress:
    """How far reading a file is."""

    bytes_done: int
    bytes_total: int
    """0 where it is not known."""
    patches_done: int = 0
    patches_wanted: int = 0
    patches_per_s: float = 0.0


class _Jobs(msgspec.Struct, frozen=True):
    jobs: list[_Job]


class _Job(msgspec.Struct, frozen=True):
    path: str
    patches_wanted: int
    patches_done: int
    patches_per_s: float


Write = Callable[[int, memoryview], None]
Tell = Callable[[Progress], None]


def facts(mountpoint: Path, path: bytes) -> FileFacts:
    """What is known of a file. NoSuchPath; Unreachable."""

    async def call() -> FileFacts:
        pool = line_to(mountpoint)
        try:
            with trio.fail_after(SILENCE_S):
                return (await pool.call(AskFile(path)))[0]
        except trio.TooSlowError as exc:
            raise Unreachable(silence(mountpoint)) from exc
        finally:
            pool.close()

    return trio.run(call)


def fetch(
    mountpoint: Path, path: bytes, about: FileFacts, start: int, write: Write, tell: Tell
) -> None:
    """Hand the file from `start` on to `write`, in order, and say now and then how far it is.

    There is no limit on its duration: a file may take an hour to compute. Unreachable when the
    mount falls silent, Stalled when it makes no progress, Stale when the file has changed.
    """
    try:
        trio.run(_fetch, mountpoint, path, about, start, write, tell)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from group


async def _fetch(
    mountpoint: Path, path: bytes, about: FileFacts, start: int, write: Write, tell: Tell
) -> None:
    pool = line_to(mountpoint)
    progress = Progress(start, 0 if about.live else about.size)

    def told(bytes_done: int) -> None:
        nonlocal progress
        progress = replace(progress, bytes_done=bytes_done)
        tell(progress)

    async def look() -> None:
        nonlocal progress
        name = path.decode(errors="surrogateescape")
        while True:
            await trio.sleep(LOOK_S)
            try:
                with trio.fail_after(SILENCE_S):
                    answer, _ = await pool.call(AskJobs())
            except trio.TooSlowError as exc:
                raise Unreachable(silence(mountpoint)) from exc
            jobs = [job for job in msgspec.json.decode(answer, type=_Jobs).jobs if job.path == name]
            progress = replace(
                progress,
                patches_done=sum(job.patches_done for job in jobs),
                patches_wanted=sum(job.patches_wanted for job in jobs),
                patches_per_s=sum(job.patches_per_s for job in jobs),
            )
            tell(progress)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            if about.live:
                _, payload = await pool.call(ReadPart(path, 0, PART_BYTES))
                write(0, payload)
            else:
                await _parts(pool, path, about, start, write, told)
                await _unchanged(pool, path, about)
            nursery.cancel_scope.cancel()
    finally:
        pool.close()


async def _parts(
    pool: Pool,
    path: bytes,
    about: FileFacts,
    start: int,
    write: Write,
    told: Callable[[int], None],
) -> None:
    """Ask for a few parts at a time; write them in order."""
    part = min(PART_BYTES, max(SMALLEST_PART, math.ceil(about.size / PARTS / 4096) * 4096))
    offsets = iter(range(start, about.size, part))
    came: dict[int, memoryview] = {}
    due = start

    async def read_on() -> None:
        nonlocal due
        for offset in offsets:
            wanted = min(part, about.size - offset)
            _, payload = await pool.call(ReadPart(path, offset, wanted))
            if len(payload) != wanted:
                raise Stale(f"/{path.decode(errors='replace')} became shorter; start again")
            came[offset] = payload
            while due in came:
                write(due, came.pop(due))
                due = min(due + part, about.size)
                told(due)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(read_on)


async def _unchanged(pool: Pool, path: bytes, about: FileFacts) -> None:
    try:
        now, _ = await pool.call(AskFile(path))
    except DadaError as exc:
        raise Stale(f"/{path.decode(errors='replace')} is gone: {exc}") from exc
    if now != about:
        raise Stale(f"/{path.decode(errors='replace')} changed while it was read; start again")
