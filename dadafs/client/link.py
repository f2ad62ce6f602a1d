"""The client's line to the server: calls with deadlines, answers remembered for a moment."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import trio

from dadafs.client.once import Once
from dadafs.errors import DadaError, Unreachable
from dadafs.rpc.calls import Request
from dadafs.rpc.messages import (
    AskReport,
    Describe,
    List,
    ListDataFiles,
    ListRaw,
    Locate,
    Report,
    Resolve,
)
from dadafs.rpc.pool import Pool
from dadafs.scans.model import DataFile, Entry, FrameSlice, Resolved, Scan

R = TypeVar("R")
FRESH_S = 1.0  # how long an answer about the raw tree is believed; the kernel's own timeout too
REMEMBERED = 4096
DEADLINE_S = 60.0  # the stall deadline of a read; indexing 1000 frames takes milliseconds
RETRY_S = 0.1  # while the server restarts


@dataclass(frozen=True, slots=True)
class _Answer:
    value: Any
    error: DadaError | None
    until: float


class Link:
    """Questions to the server.

    Invariants: equal questions in flight are one call; `_fresh` holds whole answers only, errors
    the server gave among them; what the line itself does wrong is never remembered.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._fresh: OrderedDict[Request[Any], _Answer] = OrderedDict()
        self._once: Once[Request[Any], _Answer] = Once()

    async def resolve(self, path: bytes) -> Resolved:
        """What a path of the mount leads to. NoSuchPath, NotPermitted."""
        return await self._remembered(Resolve(path))

    async def list(self, path: bytes) -> tuple[Entry, ...]:
        """The entries of a raw directory."""
        return await self._remembered(List(path))

    async def raw_files(self, path: bytes) -> tuple[Entry, ...]:
        """The files of the scan at `path`."""
        return await self._remembered(ListRaw(path))

    async def scan(self, path: bytes) -> Scan:
        """All about the scan at `path`. NoSuchScan."""
        return await self._remembered(Describe(path))

    async def data_files(self, path: bytes) -> tuple[DataFile, ...]:
        """The data files of the scan at `path`."""
        return await self._remembered(ListDataFiles(path))

    async def locate(self, scan: Scan, first: int, count: int) -> FrameSlice:
        """Where frames of a scan lie, asked afresh. Stale where it is of another version now."""
        return await self._call(Locate(scan.path, first, count, scan.version))

    async def report(self) -> Report:
        """The server's own counters."""
        return await self._call(AskReport())

    def forget(self, path: bytes) -> None:
        """Believe nothing about the scan at `path` any more: a file of it has changed."""
        self._fresh.pop(Describe(path), None)
        self._fresh.pop(ListRaw(path), None)

    async def _remembered(self, request: Request[R]) -> R:
        answer = await self._once.get(
            request, partial(self._look, request), partial(self._fetch, request)
        )
        if answer.error is not None:
            raise type(answer.error)(str(answer.error))
        value: R = answer.value
        return value

    def _look(self, request: Request[Any]) -> _Answer | None:
        answer = self._fresh.get(request)
        return answer if answer is not None and trio.current_time() < answer.until else None

    async def _fetch(self, request: Request[Any]) -> _Answer:
        value, error = None, None
        try:
            value = await self._call(request)
        except Unreachable:
            raise
        except DadaError as exc:
            error = exc
        answer = _Answer(value, error, trio.current_time() + FRESH_S)
        self._fresh[request] = answer
        self._fresh.move_to_end(request)
        while len(self._fresh) > REMEMBERED:
            self._fresh.popitem(last=False)
        return answer

    async def _call(self, request: Request[R]) -> R:
        """Ask, and while the server is away ask again, until the deadline."""
        deadline = trio.current_time() + DEADLINE_S
        while True:
            try:
                with trio.fail_at(deadline):
                    value, _ = await self._pool.call(request)
                    return value
            except Unreachable:
                if trio.current_time() + RETRY_S > deadline:
                    raise
                await trio.sleep(RETRY_S)
            except trio.TooSlowError as exc:
                line = f"the server did not answer {type(request).__name__} in {DEADLINE_S:.0f} s"
                raise Unreachable(line) from exc
