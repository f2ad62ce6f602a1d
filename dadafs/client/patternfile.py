"""Patterns as files: all frames of a region reduced to one detector plane."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import trio
from numpy.typing import NDArray

from analysis.reductions import Status
from analysis.reductions.patterns import merge, narrowed
from dadafs.cache.store import Store
from dadafs.cache.values import PatternValues
from dadafs.client.farm import Farm, Wanted
from dadafs.client.locator import Locator
from dadafs.client.once import Once
from dadafs.client.resultfile import ResultFile
from dadafs.containers import Shell
from dadafs.errors import BadData, Stale
from dadafs.keys import KEY_BYTES
from dadafs.planning import Patch, portions
from dadafs.requests import Result

PORTIONS_AT_ONCE = 8  # each takes up to 36 MB on its way


class PatternFile(ResultFile):
    """A result that needs all its frames before its first number is known.

    Whoever reads first has it computed; others wait for the same. The merged layers are kept in
    the store, so that sum, max and average of a region are one computation.
    """

    def __init__(
        self,
        name: str,
        result: Result,
        shell: Shell,
        farm: Farm,
        locator: Locator,
        store: Store,
    ) -> None:
        super().__init__(name, result, shell, farm, locator)
        self._store = store
        self._computing: Once[None, NDArray[Any]] = Once()
        self._whole: NDArray[Any] | None = None

    async def _has(self, start: int, stop: int) -> bool:
        if self._whole is None:
            plan = await self._plan()
            stored = await trio.to_thread.run_sync(self._recall, plan)
            if stored is not None and self._whole is None:
                self._whole = stored
        return self._whole is not None

    async def _numbers(self, start: int, stop: int) -> NDArray[Any]:
        whole = await self._computing.get(None, lambda: self._whole, self._compute)
        return whole[start:stop]

    async def ahead(self, offset: int) -> None:
        """All of it is computed at once."""

    async def _plan(self) -> PatternPlan:
        parts = portions(self._result.layout)
        wanted = []
        for runs in parts:
            frames = await self._locator.portion(self._result.scan, runs)
            wanted.append(self._want(frames, per_frame=False))
        return PatternPlan(parts, wanted)

    async def _compute(self) -> NDArray[Any]:
        plan = await self._plan()
        totals: NDArray[np.uint64] = np.zeros(self._result.value_shape, np.uint64)
        status: list[NDArray[np.uint8]] = [np.zeros(0, np.uint8)] * len(plan.wanted)
        limit = trio.CapacityLimiter(PORTIONS_AT_ONCE)
        merging = trio.Lock()

        async def add(number: int) -> None:
            async with limit:
                (values,) = await self._farm.values(self._job, [plan.wanted[number]])
                assert isinstance(values, PatternValues)
                status[number] = values.status[plan.chosen(number)]
                async with merging:
                    await trio.to_thread.run_sync(merge, totals, values.layers)

        try:
            async with trio.open_nursery() as nursery:
                for number in range(len(plan.wanted)):
                    nursery.start_soon(add, number)
        except ExceptionGroup as several:
            error = _first(several)
            if isinstance(error, Stale):
                self._locator.forget(self._result.scan)
            raise error from several
        found = np.concatenate(status) if status else np.zeros(0, np.uint8)
        self._whole = await trio.to_thread.run_sync(self._keep, plan, found, totals)
        return self._whole

    def _keep(
        self, plan: PatternPlan, status: NDArray[np.uint8], totals: NDArray[np.uint64]
    ) -> NDArray[Any]:
        """Store the merged layers; the finished numbers. BadData where there is no frame at all."""
        layers = tuple(narrowed(layer) for layer in totals)
        finished = self._finish(plan, status, totals)
        key = plan.key()
        self._store.put(key, PatternValues(status, layers).encode(key))
        return finished

    def _recall(self, plan: PatternPlan) -> NDArray[Any] | None:
        """The finished numbers, where the merged layers are in the store."""
        key = plan.key()
        encoded = self._store.get(key)
        if encoded is None:
            return None
        try:
            frames = len(plan.frames())
            values = PatternValues.decode(key, encoded, frames, self._result.value_shape)
        except BadData:
            return None
        totals = np.stack([layer.astype(np.uint64) for layer in values.layers])
        return self._finish(plan, values.status, totals)

    def _finish(
        self, plan: PatternPlan, status: NDArray[np.uint8], totals: NDArray[np.uint64]
    ) -> NDArray[Any]:
        self._report(plan.frames(), status, "left out")
        if (status != Status.OK).all():
            raise BadData("none of its frames can be read")
        result = self._result
        assert result.analysis is not None
        return np.ascontiguousarray(result.analysis.finish(totals, result.settings)).reshape(-1)


def _first(several: ExceptionGroup) -> Exception:
    """One error of many: when a file is lost, all portions say so."""
    error: Exception = several
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


@dataclass(frozen=True, slots=True)
class PatternPlan:
    """The frames of a pattern, shared out."""

    parts: list[list[Patch]]
    """Runs of frames of each portion."""
    wanted: list[Wanted]
    """Each portion, from its first frame to its last."""

    def key(self) -> bytes:
        """Of the whole in the store."""
        hasher = blake2b(b"pattern", digest_size=KEY_BYTES)
        for one in self.wanted:
            hasher.update(one.key)
        return hasher.digest()

    def frames(self) -> NDArray[np.int64]:
        """The number of every frame, in order."""
        runs = [np.arange(p.first, p.first + p.count) for runs in self.parts for p in runs]
        return np.concatenate(runs) if runs else np.zeros(0, np.int64)

    def chosen(self, number: int) -> NDArray[np.int64]:
        """Where the frames of a portion stand between its first and its last."""
        runs = self.parts[number]
        begin = runs[0].first
        return np.concatenate([np.arange(p.first, p.first + p.count) - begin for p in runs])
