"""Fragments of raw files, asked of the server and remembered, for nodes without the raw tree."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import trio

from dadafs.blocks import Blocks
from dadafs.cache.memory import MemoryCache
from dadafs.client.upstream.once import Once
from dadafs.errors import BadData, DadaError, Unreachable
from dadafs.fragments import FRAGMENT_BYTES, checksum, fragment_sizes
from dadafs.rpc.messages import ReadFragments
from dadafs.rpc.pool import Pool
from dadafs.scans.model import Identity

log = logging.getLogger(__name__)

AT_ONCE = 4  # of a call, 4 MiB: long against a round trip, short against a patch of 18 MB
CALLS = 6  # under way at a time
DEADLINE_S = 40.0
RETRY_S = 0.2


@dataclass(frozen=True, slots=True)
class Place:
    """A fragment of a raw file of one content."""

    path: bytes
    identity: Identity
    index: int


class FragmentCache:
    """Fragments by place, from RAM or else from the server, each verified.

    Invariants: equal fragments in flight are one call; what is held passed its checksum.
    """

    def __init__(self, server: Pool, max_bytes: int) -> None:
        self._server = server
        self._blocks = Blocks()
        self._held: MemoryCache[Place, memoryview] = MemoryCache(max_bytes)
        self._once: Once[tuple[Place, int], dict[int, memoryview]] = Once()
        self._calls = trio.CapacityLimiter(CALLS)
        self._coming: dict[Place, trio.Event] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Let fragments be fetched ahead, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            await trio.sleep_forever()

    def prefetch(self, path: bytes, identity: Identity, offset: int, size: int) -> None:
        """Have a range fetched that will be read soon, a whole call at a time."""
        first, last = _span(offset, max(0, min(size, identity.size - offset)))
        missing = [
            place
            for place in (Place(path, identity, index) for index in range(first, last))
            if place not in self._coming and self._held.get(place) is None
        ]
        at_end = last * FRAGMENT_BYTES >= identity.size
        if self._nursery is None or not missing or (len(missing) < AT_ONCE and not at_end):
            return
        landed = trio.Event()
        self._coming |= dict.fromkeys(missing, landed)
        self._nursery.start_soon(self._fetch_ahead, missing, landed)

    async def _fetch_ahead(self, places: list[Place], landed: trio.Event) -> None:
        try:
            one = places[0]
            await self.fetch(one.path, one.identity, [place.index for place in places])
        except DadaError as exc:  # whoever reads there will meet it, and say so
            log.debug("not fetched ahead: %s", exc)
        finally:
            for place in places:
                del self._coming[place]
            landed.set()

    def held(
        self, path: bytes, identity: Identity, offset: int, size: int
    ) -> bytes | memoryview | None:
        """A range of a file, if all of it is in RAM."""
        first, last = _span(offset, size)
        pieces = []
        for index in range(first, last):
            piece = self._held.get(Place(path, identity, index))
            if piece is None:
                return None
            pieces.append(piece)
        return cut(pieces, first, offset, size)

    async def fetch(
        self, path: bytes, identity: Identity, indices: Sequence[int]
    ) -> dict[int, memoryview]:
        """These fragments of a file. Stale when its content is another now; Unreachable."""
        found: dict[int, memoryview] = {}
        missing = []
        for index in indices:
            piece = self._held.get(Place(path, identity, index))
            if piece is None:
                missing.append(index)
            else:
                found[index] = piece
        error: list[DadaError] = []

        async def ask(first: int, count: int) -> None:
            key = Place(path, identity, first), count
            try:
                found.update(
                    await self._once.get(key, partial(self._look, *key), partial(self._ask, *key))
                )
            except DadaError as exc:
                error.append(exc)

        async with trio.open_nursery() as nursery:
            for first, count in grouped(missing):
                nursery.start_soon(ask, first, count)
        if error:
            raise error[0]
        return found

    async def read(
        self, path: bytes, identity: Identity, offset: int, size: int
    ) -> bytes | memoryview:
        """A range of a file; fewer bytes at its end."""
        size = max(0, min(size, identity.size - offset))
        if not size:
            return b""
        known = self.held(path, identity, offset, size)
        if known is not None:
            return known
        first, last = _span(offset, size)
        for index in range(first, last):
            coming = self._coming.get(Place(path, identity, index))
            if coming is not None:
                await coming.wait()
        found = await self.fetch(path, identity, range(first, last))
        return cut([found[index] for index in range(first, last)], first, offset, size)

    def _look(self, place: Place, count: int) -> dict[int, memoryview] | None:
        found = {}
        for index in range(place.index, place.index + count):
            piece = self._held.get(Place(place.path, place.identity, index))
            if piece is None:
                return None
            found[index] = piece
        return found

    async def _ask(self, place: Place, count: int) -> dict[int, memoryview]:
        """One call, repeated while the server is away, or once when a fragment was damaged."""
        deadline = trio.current_time() + DEADLINE_S
        damaged = False
        while True:
            try:
                async with self._calls:
                    with trio.fail_at(deadline):
                        return await self._call(place, count)
            except BadData:
                if damaged:
                    raise
                damaged = True
            except trio.TooSlowError as exc:
                raise Unreachable(f"the server gave no fragment in {DEADLINE_S:.0f} s") from exc
            except Unreachable:
                if trio.current_time() + RETRY_S > deadline:
                    raise
                await trio.sleep(RETRY_S)

    async def _call(self, place: Place, count: int) -> dict[int, memoryview]:
        sizes = fragment_sizes(place.identity.size, place.index, count)
        pieces = [self._blocks.take(size) for size in sizes]
        about, other = await self._server.call(
            ReadFragments(place.path, place.identity, place.index, count), pieces
        )
        if about.sizes != sizes or len(about.sums) != count or len(other):
            raise BadData("the server gave other fragments than were asked for")
        found = dict(zip(range(place.index, place.index + count), pieces, strict=True))
        if tuple(map(checksum, pieces)) != about.sums:
            log.warning("a fragment came damaged and is asked for again")
            raise BadData("a fragment of a raw file came damaged")
        for index, piece in found.items():
            self._held.put(Place(place.path, place.identity, index), piece, len(piece))
        return found


def grouped(indices: Sequence[int]) -> list[tuple[int, int]]:
    """Sorted indices as runs (first, count) of at most AT_ONCE. Pure."""
    runs: list[tuple[int, int]] = []
    for index in sorted(set(indices)):
        if runs and index == sum(runs[-1]) and runs[-1][1] < AT_ONCE:
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((index, 1))
    return runs


def cut(pieces: Sequence[memoryview], first: int, offset: int, size: int) -> bytes | memoryview:
    """The range of the file out of the fragments from `first` on. Pure."""
    begin = offset - first * FRAGMENT_BYTES
    if len(pieces) == 1:
        return pieces[0][begin : begin + size]
    return b"".join(pieces)[begin : begin + size]


def _span(offset: int, size: int) -> tuple[int, int]:
    """Indices of the fragments of a range, the last excluded."""
    return offset // FRAGMENT_BYTES, -(-(offset + size) // FRAGMENT_BYTES)
