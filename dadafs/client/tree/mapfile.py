"""Maps, stacks, frames and composites as files: every frame has its own values."""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

import numpy as np
import trio
from numpy.typing import NDArray

from analysis.corrections import MeanParts, corrected, parts_of
from analysis.reductions import Status
from dadafs.cache.values import PatchValues
from dadafs.client.farming.tickets import Wanted
from dadafs.client.tree.resultfile import ResultFile
from dadafs.client.tree.seen import SeenFrames
from dadafs.client.upstream.once import Once
from dadafs.errors import BadData
from dadafs.planning import (
    NO_FRAME,
    PATCH_FRAMES,
    Patch,
    Piece,
    frames_in,
    piece,
    piece_of,
    stitch,
)
from dadafs.scans.model import Scan

SLICE_BYTES = 48 << 20  # of values on the way: those of a map of 10^6 points by their moments
FINISHED_BYTES = 4 << 20  # of values made quantities at a time: 15 ms of the dearest, symmetry
BACKGROUND_BYTES = 64 << 20  # of values that are averaged at a time


class MapFile(ResultFile):
    """A result whose array has a cell for each point: a number, a profile, or a frame."""

    _latest: tuple[int, int, Piece, list[Wanted]] | None = None
    """The last range that was asked for, and what it needs."""
    _asked: tuple[int, int] = (0, 0)
    """The range that is computed ahead."""
    _subtrahend: NDArray[np.float64] | None = None
    """The mean parts of the background, when they are known."""
    _averaging: Once[None, NDArray[np.float64]]

    def __init__(self, *about: Any) -> None:
        super().__init__(*about)
        self._averaging = Once()

    async def _has(self, start: int, stop: int) -> bool:
        if len(self._chosen) > 1 and self._subtrahend is None:
            return False
        _, wanted = await self._needs(start, stop)
        return all(self._farm.at_hand(one) is not None for one in wanted)

    async def _numbers(self, start: int, stop: int) -> NDArray[Any]:
        need, wanted = await self._needs(start, stop)
        background = await self._background()
        values = cast(list[PatchValues], await self._values(wanted))
        finished, status = [], []
        at_once = self._patches_in(FINISHED_BYTES)
        for begin in range(0, max(len(values), 1), at_once):
            batch = slice(begin, begin + at_once)
            raw, good = joined(values[batch], self._result.value_shape, self._result.value_dtype)
            finished.append(self._finish(need.patches[batch], raw, good, background))
            status.append(good)
            await trio.lowlevel.checkpoint()
        good = np.concatenate(status)
        self._report_needed(need, good)
        self._see(0, need.patches, good)
        whole = finished[0] if len(finished) == 1 else np.concatenate(finished, axis=1)
        return stitch(need, whole)

    async def _has_status(self, number: int, start: int, stop: int) -> bool:
        patches = self._seen.unseen(number, start, stop)
        wanted = await self._wanted(self._chosen[number].scan, patches) if patches else []
        return all(self._farm.at_hand(one) is not None for one in wanted)

    async def _status(self, number: int, start: int, stop: int) -> NDArray[np.uint8]:
        """Who reads all of a file has seen the frames with their numbers."""
        patches = self._seen.unseen(number, start, stop)
        at_once = self._patches_in(SLICE_BYTES)
        for begin in range(0, len(patches), at_once):
            batch = patches[begin : begin + at_once]
            wanted = await self._wanted(self._chosen[number].scan, batch)
            values = cast(list[PatchValues], await self._values(wanted))
            self._seen.add(number, batch, np.concatenate([one.status for one in values]))
        return self._seen.of(number)[start:stop]

    def _slice_numbers(self) -> int:
        """So many that the values they are made of take no more than SLICE_BYTES."""
        frames = self._patches_in(SLICE_BYTES) * PATCH_FRAMES
        return min(super()._slice_numbers(), frames * self._result.layout.cell_size)

    def _patches_in(self, size_bytes: int) -> int:
        """Patches whose values take that much, one at least."""
        value_bytes = int(np.prod(self._result.value_shape)) * self._result.value_dtype.itemsize
        return max(1, size_bytes // (PATCH_FRAMES * value_bytes))

    async def ahead(self, offset: int) -> None:
        """Have the next patches computed, so that peers are busy between two reads."""
        value_bytes = int(np.prod(self._result.value_shape)) * self._result.value_dtype.itemsize
        patches = self._farm.look_ahead(PATCH_FRAMES * value_bytes)
        start, end = self._range(offset, self._shell.size)
        if start == end:  # no numbers follow
            return
        stop = start + patches * PATCH_FRAMES * self._result.layout.cell_size
        stop = min(stop, self._result.content.count)
        first, last = self._asked
        if not first <= start <= last:
            first = last = start
        if last < stop and self._body is None:
            self._asked = first, stop
            _, wanted = await self._plan(last, stop)
            self._farm.ahead(self._job, wanted[:patches])

    async def _needs(self, start: int, stop: int) -> tuple[Piece, list[Wanted]]:
        """As `_plan`, remembered: each range is asked for twice."""
        if self._latest is None or self._latest[:2] != (start, stop):
            self._latest = (start, stop, *await self._plan(start, stop))
        return self._latest[2], self._latest[3]

    async def _plan(self, start: int, stop: int) -> tuple[Piece, list[Wanted]]:
        order = self._shell.order
        if order is None:
            need = piece(self._result.layout, start, stop)
        else:
            need = piece_of(self._result.layout, order(start, stop))
        return need, await self._wanted(self._result.scan, need.patches)

    async def _wanted(self, scan: Scan, patches: list[Patch]) -> list[Wanted]:
        slices = await self._locator.slices(scan, patches)
        return [self._want(one, per_frame=True) for one in slices]

    def _finish(
        self,
        patches: list[Patch],
        raw: NDArray[Any],
        status: NDArray[np.uint8],
        background: NDArray[np.float64] | None,
    ) -> NDArray[Any]:
        """Values to quantities, (channel, frame, *cell); NaN where a frame has none."""
        result = self._result
        if result.analysis is None:
            if (status != Status.OK).any():
                raise BadData(f"frame {result.request.frame} is missing or corrupt")
            return raw[None]
        if result.correction is None:
            finished = result.analysis.finish(raw, result.settings)
        else:
            parts = self._parts(raw, frames_in(patches), self._chosen[0].factors)
            assert result.analysis.additive is not None
            finished = corrected(result.analysis.additive, parts, result.settings, background)
        finished[:, status != Status.OK] = np.nan
        return finished

    def _see(self, number: int, patches: list[Patch], status: NDArray[np.uint8]) -> None:
        """Note what became of the frames of some patches, for containers that tell it."""
        if self._shell.tail:
            self._seen.add(number, patches, status)

    @cached_property
    def _seen(self) -> SeenFrames:
        return SeenFrames(self._chosen, self._result.content.provenance.frames)

    def _parts(
        self, raw: NDArray[Any], frames: NDArray[np.int64], factors: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        """What the quantities are made of, each frame scaled by its factor."""
        analysis = self._result.analysis
        assert analysis is not None
        assert analysis.additive is not None
        chosen = None if factors is None else factors[frames]
        return parts_of(analysis.additive, raw, self._result.settings, chosen)

    async def _background(self) -> NDArray[np.float64] | None:
        """The mean parts of the background, computed by who reads first; None without one."""
        if len(self._chosen) == 1:
            return None
        return await self._averaging.get(None, lambda: self._subtrahend, self._mean)

    async def _mean(self) -> NDArray[np.float64]:
        """Over the frames of a background, those left out that cannot be used. BadData if all."""
        analysis = self._result.analysis
        assert analysis is not None
        assert analysis.additive is not None
        background = self._chosen[1]
        every, factors = background.layout.used, background.factors
        mean = MeanParts(analysis.additive)
        at_once = self._patches_in(BACKGROUND_BYTES)
        patches = background.layout.patches_of(every)
        for begin in range(0, len(patches), at_once):
            batch = patches[begin : begin + at_once]
            wanted = await self._wanted(background.scan, batch)
            values = cast(list[PatchValues], await self._values(wanted))
            raw, status = joined(values, self._result.value_shape, self._result.value_dtype)
            self._see(1, batch, status)
            frames = frames_in(batch)
            asked = (frames >= every[0]) & (frames <= every[-1])
            self._report(
                frames[asked], status[asked], "left out of the background", background.scan
            )
            used = asked & (status == Status.OK)
            if factors is not None:
                used &= ~np.isnan(factors[frames])
            if used.any():
                mean.add(self._parts(raw[used], frames[used], factors))
        self._subtrahend = mean.value()
        if self._subtrahend is None:
            raise BadData("none of the frames of the background can be used")
        return self._subtrahend

    def _report_needed(self, need: Piece, status: NDArray[np.uint8]) -> None:
        if not status.any():
            return
        frames = frames_in(need.patches)
        asked = np.isin(frames, need.frame[need.frame != NO_FRAME])
        self._report(frames[asked], status[asked], "NaN there")


class CompositeFile(MapFile):
    """Frames side by side: a line of the raster is a row of tiles, whose pixel rows interleave."""

    async def _has(self, start: int, stop: int) -> bool:
        return await super()._has(*self._lines(start, stop))

    async def _numbers(self, start: int, stop: int) -> NDArray[Any]:
        first, last = self._lines(start, stop)
        cells = await super()._numbers(first, last)
        _, _, points, _ = self._result.layout.window
        rows, columns = self._result.layout.cell
        tiles = cells.reshape(-1, points, rows, columns).transpose(0, 2, 1, 3)
        return np.asarray(tiles.reshape(-1)[start - first : stop - first])

    async def ahead(self, offset: int) -> None:
        """A row of tiles is work enough."""

    def _lines(self, start: int, stop: int) -> tuple[int, int]:
        """The numbers of the whole lines that this range touches."""
        layout = self._result.layout
        line = layout.window[2] * layout.cell_size
        return start // line * line, -(-stop // line) * line


def joined(
    values: list[PatchValues], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """The values and statuses of patches one after another; no copy where there is one."""
    if len(values) == 1:
        return values[0].values, values[0].status
    if not values:
        return np.zeros((0, *shape), dtype), np.zeros(0, np.uint8)
    return (
        np.concatenate([one.values for one in values]),
        np.concatenate([one.status for one in values]),
    )
