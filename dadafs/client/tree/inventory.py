"""What results are made of: their patches, with keys, frames and bytes. Nothing is computed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import trio
from numpy.typing import NDArray

from dadafs.client.tree.resultfile import want
from dadafs.client.upstream.locator import Locator
from dadafs.corrections import Chosen
from dadafs.keys import pattern_key
from dadafs.planning import Patch, portions
from dadafs.requests import Result
from dadafs.scans.frames.slices import LENGTH_BYTES
from dadafs.scans.model import NO_CHUNK, FrameSlice, Scan

REMEMBERED = 8  # results that are asked about again and again; 2 MB each for 10^6 frames
AT_ONCE = 64  # patches between two checkpoints: 2 ms


@dataclass(frozen=True, slots=True)
class Part:
    """A patch of a map, or a portion of a pattern."""

    key: bytes
    first: int
    """Index of its first frame."""
    count: int
    """Frames from its first to its last."""
    frames: int
    """Of these, how many have a chunk that is read."""
    bytes: int
    """Size of these chunks."""


@dataclass(frozen=True, slots=True, eq=False)
class Need:
    """Frames of one scan that a result needs."""

    scan: Scan
    parts: tuple[Part, ...]
    whole: bytes | None
    """Key of a pattern that is merged: only that is kept of it. None for other results."""
    used: NDArray[np.int64]
    """The very frames, sorted."""
    missing: NDArray[np.int64]
    """Those of `used` that have no chunk."""
    blank: int
    """Points of the raster that lie beyond the last frame."""


class Inventories:
    """What results need: their own frames first, then those of their background.

    The last few are remembered as long as their scans are the same.
    """

    def __init__(self, locator: Locator) -> None:
        self._locator = locator
        self._known: OrderedDict[Hashable, tuple[Need, ...]] = OrderedDict()

    async def of(self, result: Result) -> tuple[Need, ...]:
        """What `result` is made of. Errors are those of the server."""
        chosen = result.chosen
        key = (result.plan.digest(), *map(_key, chosen))
        found = self._known.get(key)
        if found is None:
            self._known[key] = found = tuple([await self._need(result, one) for one in chosen])
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return found

    async def _need(self, result: Result, chosen: Chosen) -> Need:
        whole = result.analysis is not None and result.analysis.result == "pattern"
        used = chosen.layout.used
        blank = chosen.layout.points - len(used)
        if whole:
            runs = portions(chosen.layout, chosen.usable)
            used = used if chosen.usable is None else used[chosen.usable[used]]
        else:
            runs = [[patch] for patch in chosen.layout.patches_of(used)]
        digest = result.plan.digest()
        parts: list[Part] = []
        there = np.zeros(chosen.scan.frames, np.bool_)
        for number, patches in enumerate(runs):
            frames = await self._slice(chosen.scan, patches, whole=whole)
            numbers, size = _listed(frames)
            there[numbers] = True
            key = want(result, digest, frames, per_frame=not whole).key
            parts.append(Part(key, frames.first, frames.count, len(numbers), size))
            if number % AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        return Need(
            chosen.scan,
            tuple(parts),
            pattern_key(part.key for part in parts) if whole else None,
            used,
            used[~there[used]],
            blank,
        )

    async def slices(self, chosen: Chosen) -> tuple[FrameSlice, ...]:
        """All portions of a pattern over these frames."""
        runs = portions(chosen.layout, chosen.usable)
        return tuple([await self._slice(chosen.scan, one, whole=True) for one in runs])

    async def patch(self, need: Need, part: Part) -> FrameSlice:
        """Where the frames of a patch lie."""
        return await self._slice(need.scan, [Patch(part.first, part.count)], whole=False)

    async def _slice(self, scan: Scan, patches: list[Patch], *, whole: bool) -> FrameSlice:
        if whole:
            return await self._locator.portion(scan, patches)
        return (await self._locator.slices(scan, patches))[0]


def parts_of(needs: Sequence[Need]) -> list[Part]:
    """The parts of all needs, each once: a background may lie in the scan itself."""
    return list(dict.fromkeys(part for need in needs for part in need.parts))


def _key(chosen: Chosen) -> Hashable:
    """Equal for equal frames; all channels come from the same patches."""
    factors = b"" if chosen.factors is None else chosen.factors.tobytes()
    layout = replace(chosen.layout, channels=())
    return chosen.scan.path, chosen.scan.version, layout, factors


def _listed(frames: FrameSlice) -> tuple[NDArray[np.int64], int]:
    """The frames of a slice that have a chunk, and the size of these."""
    offsets = np.frombuffer(b"".join(run.offsets for run in frames.runs), "<u8")
    lengths = np.frombuffer(b"".join(run.lengths for run in frames.runs), "<u4")
    firsts = np.array([run.first for run in frames.runs], np.int64)
    counts = np.array([len(run.lengths) for run in frames.runs], np.int64) // LENGTH_BYTES
    numbers = np.arange(len(offsets)) + np.repeat(firsts - np.cumsum(counts) + counts, counts)
    there = offsets != NO_CHUNK
    return numbers[there], int(lengths[there].sum(dtype=np.int64))
