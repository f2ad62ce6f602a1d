"""Maps, stacks, frames and composites as files: every frame has its own values."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from analysis.reductions import Status
from dadafs.cache.values import PatchValues
from dadafs.client.farm import Wanted
from dadafs.client.resultfile import ResultFile
from dadafs.errors import BadData, Stale
from dadafs.planning import NO_FRAME, PATCH_FRAMES, Piece, piece, piece_of, stitch


class MapFile(ResultFile):
    """A result whose array has a cell for each point: a number, a profile, or a frame."""

    _latest: tuple[int, int, Piece, list[Wanted]] | None = None
    """The last range that was asked for, and what it needs."""
    _asked: tuple[int, int] = (0, 0)
    """The range that is computed ahead."""

    async def _has(self, start: int, stop: int) -> bool:
        _, wanted = await self._needs(start, stop)
        return all(self._farm.at_hand(one) is not None for one in wanted)

    async def _numbers(self, start: int, stop: int) -> NDArray[Any]:
        need, wanted = await self._needs(start, stop)
        try:
            values = cast(list[PatchValues], await self._farm.values(self._job, wanted))
        except Stale:
            self._locator.forget(self._result.scan)
            raise
        raw, status = joined(values, self._result.value_shape, self._result.value_dtype)
        self._report_needed(need, status)
        return stitch(need, self._finish(raw, status))

    async def ahead(self, offset: int) -> None:
        """Have the next patches computed, so that peers are busy between two reads."""
        value_bytes = int(np.prod(self._result.value_shape)) * self._result.value_dtype.itemsize
        patches = self._farm.look_ahead(PATCH_FRAMES * value_bytes)
        start, _ = self._range(offset, 1)
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
        slices = await self._locator.slices(self._result.scan, need.patches)
        return need, [self._want(one, per_frame=True) for one in slices]

    def _finish(self, raw: NDArray[Any], status: NDArray[np.uint8]) -> NDArray[Any]:
        """Values to quantities, (channel, frame, *cell); NaN where a frame has none."""
        result = self._result
        if result.analysis is None:
            if (status != Status.OK).any():
                raise BadData(f"frame {result.request.frame} is missing or corrupt")
            return raw[None]
        finished = result.analysis.finish(raw, result.settings)
        finished[:, status != Status.OK] = np.nan
        return finished

    def _report_needed(self, need: Piece, status: NDArray[np.uint8]) -> None:
        if not status.any():
            return
        frames = np.concatenate([np.arange(p.first, p.first + p.count) for p in need.patches])
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
