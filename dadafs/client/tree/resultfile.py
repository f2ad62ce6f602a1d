"""A result as a file: ranges of bytes to numbers and back."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import trio
from msgspec.structs import replace
from numpy.typing import NDArray

from analysis.reductions import Status
from dadafs.client.farming.farm import Farm
from dadafs.client.farming.tickets import Job, Values, Wanted
from dadafs.client.upstream.locator import Locator
from dadafs.client.upstream.once import Once
from dadafs.containers import Items, Shell
from dadafs.containers.base import Extract
from dadafs.contents import is_settled
from dadafs.corrections import Chosen
from dadafs.errors import ComputationFailed, Stale
from dadafs.keys import patch_key
from dadafs.planning import runs
from dadafs.requests import Result, shell_of
from dadafs.scans.model import FrameSlice, Scan

SLICE_NUMBERS = 1 << 20  # of a result that is made as a whole

log = logging.getLogger(__name__)


class ResultFile(ABC):
    """A result in its container.

    It belongs to the content its scan had when the file was opened. Once a file of the scan is
    another, reads fail with Stale rather than mix contents; opening again gives the new one.

    Invariants: the size of the shell never changes; its bytes do once, when coordinates that
    follow from the pixels are known, which is before the first of its own bytes is given out.
    """

    def __init__(
        self, name: str, result: Result, shell: Shell, farm: Farm, locator: Locator
    ) -> None:
        self._result = result
        self._shell = shell
        self._farm = farm
        self._locator = locator
        self._job = Job(name)
        self._digest = result.plan.digest()
        self._settled = is_settled(result.content)
        self._body: bytes | None = None
        """All items, where each depends on the whole array."""
        self._files: bytes | None = None
        """The table of the scan's files, once it was read."""
        self._once: Once[str, bool] = Once()

    @abstractmethod
    async def _has(self, start: int, stop: int) -> bool:
        """Whether the numbers `[start, stop)`, in the order of the file, need no computing."""

    @abstractmethod
    async def _numbers(self, start: int, stop: int) -> NDArray[Any]:
        """The numbers `[start, stop)` in the order of the file: C order, unless the shell has one
        of its own."""

    @abstractmethod
    async def _has_status(self, number: int, start: int, stop: int) -> bool:
        """Whether `_status` of the same needs no computing."""

    @abstractmethod
    async def _status(self, number: int, start: int, stop: int) -> NDArray[np.uint8]:
        """What became of the frames `[start, stop)`, counted within that run of the provenance's
        frames: `Status`, or UNUSED."""

    async def at_hand(self, offset: int, size: int) -> bool:
        """Whether this range can be read without computing."""
        start, stop = self._range(offset, size)
        if start < stop and self._body is None and not await self._has(start, stop):
            return False
        parts = self._shell.parts(offset, offset + size)
        extracts = [part for part in parts if isinstance(part, Extract)]
        return all([await self._has_extract(one) for one in extracts])

    async def read(self, offset: int, size: int) -> bytes:
        """A piece of the file, computed if need be."""
        pieces = []
        for part in self._shell.parts(offset, min(offset + size, self._shell.size)):
            if isinstance(part, Items):
                pieces.append(await self._encoded(part))
            elif isinstance(part, Extract):
                pieces.append(await self._extract(part))
            elif self._settled:
                pieces.append(part)
            else:
                await self._once.get("settle", lambda: self._settled or None, self._settle)
                return await self.read(offset, size)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _encoded(self, part: Items) -> bytes:
        shell = self._shell
        if shell.whole:
            if self._body is None:
                await self._once.get("make", lambda: self._body is not None or None, self._make)
            assert self._body is not None
            return self._body[part.start : part.stop]
        items = shell.encode(await self._numbers(part.start, part.stop), part.start)
        return items if len(items) == part.size else items[part.skip : part.skip + part.size]

    async def _has_extract(self, part: Extract) -> bool:
        number = part.annex.frames
        return number is None or await self._has_status(number, part.start, part.stop)

    async def _extract(self, part: Extract) -> bytes:
        if part.annex.frames is not None:
            return (await self._status(part.annex.frames, part.start, part.stop)).tobytes()
        if self._files is None:
            table = self._result.content.provenance.files
            assert table is not None
            self._files = table.encode(await self._locator.files(self._result.scan))
        return self._files[part.start : part.stop]

    async def _make(self) -> bool:
        """All items, in a thread: a large picture takes a second."""
        count, step = self._result.content.count, self._slice_numbers()
        parts = [
            await self._numbers(start, min(start + step, count)) for start in range(0, count, step)
        ]
        numbers = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self._body = await trio.to_thread.run_sync(self._shell.encode, numbers, 0)
        return True

    def _slice_numbers(self) -> int:
        """How many numbers are asked for at once where all are needed."""
        return SLICE_NUMBERS

    async def _settle(self) -> bool:
        """The coordinates that follow from the pixels."""
        try:
            result = await trio.to_thread.run_sync(self._result.settled)
        except ValueError as exc:
            raise ComputationFailed(str(exc)) from exc
        shell = shell_of(result)
        assert shell.size == self._shell.size
        self._shell, self._settled = shell, True
        return True

    @abstractmethod
    async def ahead(self, offset: int) -> None:
        """What lies behind `offset` will be read: have it computed."""

    def close(self) -> None:
        """Give up what was to be computed for this file alone."""
        self._farm.drop(self._job)

    @cached_property
    def _chosen(self) -> list[Chosen]:
        """The frames of the result, and those of its background where it has one; with factors,
        which are worked out once, not for each range."""
        return self._result.chosen

    def _range(self, offset: int, size: int) -> tuple[int, int]:
        """The numbers, in the order of the file, that a range of bytes needs."""
        shell = self._shell
        start, stop = shell.items(offset, min(offset + size, shell.size))
        return (0, self._result.content.count) if shell.whole and start < stop else (start, stop)

    def _want(self, frames: FrameSlice, *, per_frame: bool) -> Wanted:
        return want(self._result, self._digest, frames, per_frame=per_frame)

    async def _values(self, wanted: Sequence[Wanted]) -> list[Values]:
        """The values of patches or portions. Stale when a scan whose frames this is made of has
        changed; then what is known of them is dropped."""
        try:
            return await self._farm.values(self._job, wanted)
        except Stale:
            for one in self._chosen:
                self._locator.forget(one.scan)
            raise

    def _report(
        self,
        frames: NDArray[np.int64],
        status: NDArray[np.uint8],
        what: str,
        of: Scan | None = None,
    ) -> None:
        """Log which frames are not there, whether just found or remembered by a cache."""
        if not status.any():
            return
        scan = os.fsdecode((of or self._result.scan).path)
        for kind in (Status.MISSING, Status.CORRUPT):
            bad = frames[status == kind].tolist()
            if bad:
                log.warning("%s: %s %s: %s", scan, spans(bad), kind.name.lower(), what)


def want(result: Result, digest: bytes, frames: FrameSlice, *, per_frame: bool) -> Wanted:
    """A patch or portion of `result`, whose plan has this digest."""
    if result.plan.flat:
        frames = replace(frames, flat=result.flat_tiles)
    shape = (frames.count, *result.value_shape) if per_frame else result.value_shape
    key = patch_key(digest, frames)
    return Wanted(key, result.plan, frames, shape, result.value_dtype, per_frame)


def spans(numbers: list[int]) -> str:
    """`frame 3`, `frames 3-7`, `frames 3-7, 9`: sorted numbers as a person writes them."""
    ends = [(run.first, run.first + run.count - 1) for run in runs(np.asarray(numbers, np.int64))]
    text = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ends)
    return f"frame{'s' if len(numbers) > 1 else ''} {text}"
