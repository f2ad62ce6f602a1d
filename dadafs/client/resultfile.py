"""A result as a file: ranges of bytes to numbers and back."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.reductions import Status
from dadafs.client.farm import Farm, Job, Wanted
from dadafs.client.locator import Locator
from dadafs.containers import Shell
from dadafs.keys import patch_key
from dadafs.requests import Result
from dadafs.scans.model import FrameSlice

log = logging.getLogger(__name__)


class ResultFile(ABC):
    """A result in its container.

    It belongs to the content its scan had when the file was opened. Once a file of the scan is
    another, reads fail with Stale rather than mix contents; opening again gives the new one.
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

    @abstractmethod
    async def _has(self, start: int, stop: int) -> bool:
        """Whether the numbers `[start, stop)` need no computing."""

    @abstractmethod
    async def _numbers(self, start: int, stop: int) -> NDArray[Any]:
        """The numbers `[start, stop)` of the array, flat in C order."""

    async def at_hand(self, offset: int, size: int) -> bool:
        """Whether this range can be read without computing."""
        start, stop = self._items(offset, size)
        return start >= stop or await self._has(start, stop)

    async def read(self, offset: int, size: int) -> bytes:
        """A piece of the file, computed if need be."""
        shell = self._shell
        stop = min(offset + size, shell.size)
        array_start = len(shell.prefix)
        array_stop = array_start + shell.array_bytes
        data = shell.prefix[offset:stop]
        first, last = self._items(offset, size)
        if first < last:
            array = shell.encode(await self._numbers(first, last))
            begin = max(offset - array_start, 0) - first * shell.item_bytes
            data += array[begin : begin + min(stop, array_stop) - max(offset, array_start)]
        if stop > array_stop:
            data += shell.suffix[max(offset - array_stop, 0) : stop - array_stop]
        return data

    @abstractmethod
    async def ahead(self, offset: int) -> None:
        """What lies behind `offset` will be read: have it computed."""

    def close(self) -> None:
        """Give up what was to be computed for this file alone."""
        self._farm.drop(self._job)

    def _items(self, offset: int, size: int) -> tuple[int, int]:
        """The items of the array that a range of bytes touches."""
        begin = offset - len(self._shell.prefix)
        end = min(begin + size, self._shell.array_bytes)
        item = self._shell.item_bytes
        return max(begin, 0) // item, max(-(-end // item), 0)

    def _want(self, frames: FrameSlice, *, per_frame: bool) -> Wanted:
        result = self._result
        shape = (frames.count, *result.value_shape) if per_frame else result.value_shape
        key = patch_key(self._digest, frames)
        return Wanted(key, result.plan, frames, shape, result.value_dtype, per_frame)

    def _report(self, frames: NDArray[np.int64], status: NDArray[np.uint8], what: str) -> None:
        """Log which frames are not there, whether just found or remembered by a cache."""
        if not status.any():
            return
        scan = os.fsdecode(self._result.scan.path)
        for kind in (Status.MISSING, Status.CORRUPT):
            bad = frames[status == kind].tolist()
            if bad:
                log.warning("%s: %s %s: %s", scan, spans(bad), kind.name.lower(), what)


def spans(numbers: list[int]) -> str:
    """`frame 3`, `frames 3-7`, `frames 3-7, 9`: sorted numbers as a person writes them."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    text = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
    return f"frame{'s' if len(numbers) > 1 else ''} {text}"
