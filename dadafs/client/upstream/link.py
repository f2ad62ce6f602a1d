"""The client's line to the server: calls with deadlines, answers remembered for a moment."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import trio

from dadafs.client.upstream.once import Once
from dadafs.errors import DadaError, NoSuchPath, Stale, Unreachable
from dadafs.rpc.calls import Request
from dadafs.rpc.messages import (
    AskReport,
    Describe,
    Identify,
    List,
    ListDataFiles,
    ListRaw,
    Locate,
    ReadMask,
    ReadMonitor,
    Report,
    Resolve,
)
from dadafs.rpc.pool import Pool
from dadafs.scans.directories import instead
from dadafs.scans.model import (
    DataFile,
    Entry,
    FrameSlice,
    Mask,
    Monitor,
    Resolved,
    Scan,
    SourceFile,
)
from dadafs.scans.names import join, show

R = TypeVar("R")
FRESH_S = 1.0  # how long an answer about the raw tree is believed; the kernel's own timeout too
REMEMBERED = 20_000  # answers
LISTED = 200_000  # entries of all listings among them: about 100 MB
ENTRY_BYTES = 500
DEADLINE_S = 60.0  # the stall deadline of a read; indexing 1000 frames takes milliseconds
GREET_S = 20.0  # for the embedded server to start; one that is elsewhere should be there already
GRACE_S = 2.0  # how long a server is waited for where an old answer will do
RETRY_S = 0.1  # while the server restarts


@dataclass(frozen=True, slots=True)
class _Answer:
    value: Any
    error: DadaError | None
    until: float
    names: dict[bytes, Entry] = field(default_factory=dict)
    """Of a listing."""

    @property
    def weight(self) -> int:
        """What it takes of memory, in entries of a listing."""
        match self.value:
            case Mask(pixels=held) | Monitor(values=held):
                return len(held) // ENTRY_BYTES
            case tuple():
                return len(self.value)
            case _:
                return 0


class Link:
    """Questions to the server.

    Answers are believed for `fresh_s`. While the server is away, what it said last is believed
    longer: the tree can be walked and cached results read without it.

    Invariants: equal questions in flight are one call; `_known` holds whole answers only, errors
    the server gave among them; what the line itself does wrong is never remembered.
    """

    def __init__(self, pool: Pool, fresh_s: float = FRESH_S) -> None:
        self._pool = pool
        self._fresh_s = fresh_s
        self._known: OrderedDict[Request[Any], _Answer] = OrderedDict()
        self._listed = 0
        self._away_until = 0.0
        self._once: Once[Request[Any], _Answer] = Once()
        self.counters: Counter[str] = Counter()

    async def resolve(self, path: bytes) -> Resolved:
        """What a path of the mount leads to. NoSuchPath, NotPermitted."""
        derived = self._from_listings(path, self._look)
        if derived is not None:
            return derived
        return await self._remembered(Resolve(path))

    def _from_listings(
        self, path: bytes, look: Callable[[Request[Any]], _Answer | None]
    ) -> Resolved | None:
        """What the listings that `look` finds say of a path: no question for each name."""
        here = b""
        parts = path.split(b"/") if path else []
        for number, name in enumerate(parts):
            listing = look(List(here))
            entry = None if listing is None else listing.names.get(name)
            if entry is None or entry.attributes.kind == "symlink":
                return None
            at = join(here, name)
            rest = tuple(parts[number + 1 :])
            if entry.scan:
                return Resolved("scan", at, entry.attributes, rest)
            if not rest:
                return Resolved(entry.attributes.kind, at, entry.attributes)
            here = at
        return None

    async def list(self, path: bytes) -> tuple[Entry, ...]:
        """The entries of a raw directory."""
        return await self._remembered(List(path))

    async def raw_files(self, path: bytes) -> tuple[Entry, ...]:
        """The files of the scan at `path`."""
        return await self._remembered(ListRaw(path))

    async def raw_file(self, path: bytes, name: bytes) -> Entry:
        """One of them. NoSuchPath."""
        names = (await self._answer(ListRaw(path))).names
        if name not in names:
            near = instead(name, sorted(names))
            raise NoSuchPath(f"{show(path)} has no raw file {show(name)}{near}")
        return names[name]

    async def files(self, scan: Scan) -> tuple[SourceFile, ...]:
        """The files that a scan is made of. Stale where it is of another version now."""
        try:
            return await self._remembered(Identify(scan.path, scan.version))
        except Stale:
            self.forget(scan.path)
            raise

    async def scan(self, path: bytes) -> Scan:
        """All about the scan at `path`. NoSuchScan."""
        return await self._remembered(Describe(path))

    async def mask(self, path: bytes, name: str) -> Mask:
        """A mask beside the scan at `path`. NoSuchPath."""
        return await self._remembered(ReadMask(path, name))

    async def monitor(self, path: bytes, name: str) -> Monitor:
        """A column of the log of the scan at `path`. NoSuchPath."""
        return await self._remembered(ReadMonitor(path, name))

    async def data_files(self, scan: Scan) -> tuple[DataFile, ...]:
        """The data files of a scan."""
        return await self._remembered(ListDataFiles(scan.path, scan.version))

    async def locate(self, scan: Scan, first: int, count: int) -> FrameSlice:
        """Where frames of a scan lie, asked afresh. Stale where it is of another version now."""
        return await self._call(Locate(scan.path, first, count, scan.version))

    async def greet(self) -> None:
        """Make sure that there is a server. Unreachable says why not."""
        await self._call(AskReport(), GREET_S)

    async def report(self) -> Report:
        """The server's own counters."""
        return await self._call(AskReport())

    def forget(self, path: bytes) -> None:
        """Believe nothing about the scan at `path` any more: a file of it has changed."""
        directory = path.rpartition(b"/")[0]
        for request in (Describe(path), ListRaw(path), Resolve(path), List(directory)):
            self._drop(request)

    async def _remembered(self, request: Request[R]) -> R:
        value: R = (await self._answer(request)).value
        return value

    async def _answer(self, request: Request[Any]) -> _Answer:
        """What the server says, or said a moment ago; its errors are raised."""
        answer = await self._once.get(
            request, partial(self._look, request), partial(self._fetch, request)
        )
        if answer.error is not None:
            raise type(answer.error)(str(answer.error))
        return answer

    def _look(self, request: Request[Any]) -> _Answer | None:
        answer = self._known.get(request)
        if answer is None:
            return None
        now = trio.current_time()
        return answer if now < max(answer.until, self._away_until) else None

    async def _fetch(self, request: Request[Any]) -> _Answer:
        value, error = None, None
        old = self._known.get(request)
        if old is None and isinstance(request, Resolve):  # it may stand in an old listing
            derived = self._from_listings(request.path, self._known.get)
            old = None if derived is None else _Answer(derived, None, 0.0)
        try:
            value = await self._call(request, DEADLINE_S if old is None else GRACE_S)
        except Unreachable:
            if old is None:
                raise
            self._away_until = trio.current_time() + GRACE_S
            self.counters["old_answers"] += 1
            return old
        except DadaError as exc:
            error = exc
        until = trio.current_time() + self._fresh_s
        listed = value if isinstance(request, List | ListRaw) else None
        names = {one.name: one for one in listed or ()}
        self._drop(request)
        self._known[request] = answer = _Answer(value, error, until, names)
        self._listed += answer.weight
        while len(self._known) > REMEMBERED or (self._listed > LISTED and len(self._known) > 1):
            self._drop(next(iter(self._known)))
        return answer

    def _drop(self, request: Request[Any]) -> None:
        answer = self._known.pop(request, None)
        if answer is not None:
            self._listed -= answer.weight

    async def _call(self, request: Request[R], deadline_s: float = DEADLINE_S) -> R:
        """Ask, and while the server is away ask again, until the deadline."""
        deadline = trio.current_time() + deadline_s
        self.counters["calls"] += 1
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
                line = f"the server did not answer {type(request).__name__} in {deadline_s:.0f} s"
                raise Unreachable(line) from exc
