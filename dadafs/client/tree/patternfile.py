"""Patterns as files: all frames of a region reduced to one detector plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import trio
from numpy.typing import NDArray

from analysis.corrections import corrected, parts_of
from analysis.reductions import Status
from analysis.reductions.flattened import flat_layers
from analysis.reductions.patterns import merge, narrowed
from dadafs.cache.store import Store
from dadafs.cache.values import PatchValues, PatternValues
from dadafs.client.farming.farm import Farm
from dadafs.client.farming.tickets import Wanted
from dadafs.client.tree.resultfile import ResultFile
from dadafs.client.upstream.locator import Locator
from dadafs.client.upstream.once import Once
from dadafs.containers import Shell
from dadafs.containers.base import UNUSED, FrameRun
from dadafs.corrections import Chosen
from dadafs.errors import BadData
from dadafs.keys import patch_key, pattern_key
from dadafs.planning import Patch, frames_in, portions
from dadafs.requests import Result
from dadafs.scans.frames.flatfields import as_frames, plane_of

PORTIONS_AT_ONCE = 8  # each takes up to 36 MB on its way


class PatternFile(ResultFile):
    """A result that needs all its frames before its first number is known.

    Whoever reads first has it computed; others wait for the same. The merged layers are kept in
    the store, so that sum, max and average of a region are one computation, as is a background, and
    with a flat field, which multiplies the merged layers.
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
        self._seen: list[NDArray[np.uint8]] = []
        """When `_whole` is known: what became of the frames of each run of the provenance."""

    async def _has(self, start: int, stop: int) -> bool:
        if self._whole is None:
            plans = [await self._plan(one) for one in self._chosen]
            merged = [await trio.to_thread.run_sync(self._recall, plan) for plan in plans]
            known = [one for one in merged if one is not None]
            flat = self._flat_wanted()
            there = flat is None or self._farm.at_hand(flat) is not None
            if there and len(known) == len(merged) and self._whole is None:
                await self._take(known)
        return self._whole is not None

    async def _numbers(self, start: int, stop: int) -> NDArray[Any]:
        whole = await self._computing.get(None, lambda: self._whole, self._compute)
        return whole[start:stop]

    async def _has_status(self, number: int, start: int, stop: int) -> bool:
        return await self._has(0, 0)

    async def _status(self, number: int, start: int, stop: int) -> NDArray[np.uint8]:
        await self._numbers(0, 0)
        return self._seen[number][start:stop]

    async def ahead(self, offset: int) -> None:
        """All of it is computed at once."""

    async def _plan(self, chosen: Chosen) -> PatternPlan:
        parts = portions(chosen.layout, chosen.usable)
        wanted = []
        for runs in parts:
            frames = await self._locator.portion(chosen.scan, runs)
            wanted.append(self._want(frames, per_frame=False))
        return PatternPlan(chosen, parts, wanted)

    async def _compute(self) -> NDArray[Any]:
        known = []
        for chosen in self._chosen:
            plan = await self._plan(chosen)
            merged = await trio.to_thread.run_sync(self._recall, plan)
            known.append(merged or await self._merged(plan))
        return await self._take(known)

    async def _take(self, known: Sequence[Merged]) -> NDArray[Any]:
        """Make the numbers of the file of what its frames add up to."""
        runs = self._result.content.provenance.frames
        self._seen = [one.status_in(run) for one, run in zip(known, runs, strict=False)]
        factors = await self._factors()
        self._whole = await trio.to_thread.run_sync(self._finish, known, factors)
        return self._whole

    def _flat_wanted(self) -> Wanted | None:
        """The tiles of the flat field, where one is asked for."""
        result = self._result
        tiles = result.flat_tiles
        if tiles is None:
            return None
        plan, frames = as_frames(tiles, result.plan.shape)
        shape, dtype = (frames.count, *plan.shape), np.dtype(plan.dtype)
        return Wanted(patch_key(plan.digest(), frames), plan, frames, shape, dtype)

    async def _factors(self) -> NDArray[np.float64] | None:
        """The flat field (height, width), where one is asked for."""
        wanted, tiles = self._flat_wanted(), self._result.flat_tiles
        if wanted is None or tiles is None:
            return None
        (values,) = await self._values([wanted])
        assert isinstance(values, PatchValues)
        return plane_of(tiles, values.status, values.values, self._result.plan.shape)

    async def _merged(self, plan: PatternPlan) -> Merged:
        """The layers over all frames of a plan, computed, and kept in the store."""
        totals: NDArray[np.uint64] = np.zeros(self._result.value_shape, np.uint64)
        status: list[NDArray[np.uint8]] = [np.zeros(0, np.uint8)] * len(plan.wanted)
        limit = trio.CapacityLimiter(PORTIONS_AT_ONCE)
        merging = trio.Lock()

        async def add(number: int) -> None:
            async with limit:
                (values,) = await self._values([plan.wanted[number]])
                assert isinstance(values, PatternValues)
                status[number] = values.status[plan.chosen_of(number)]
                async with merging:
                    await trio.to_thread.run_sync(merge, totals, values.layers)

        try:
            async with trio.open_nursery() as nursery:
                for number in range(len(plan.wanted)):
                    nursery.start_soon(add, number)
        except ExceptionGroup as several:
            raise _first(several) from several
        merged = Merged(plan, np.concatenate([np.zeros(0, np.uint8), *status]), totals)
        await trio.to_thread.run_sync(self._keep, merged)
        return merged

    def _keep(self, merged: Merged) -> None:
        key = merged.plan.key()
        layers = tuple(narrowed(layer) for layer in merged.totals)
        self._store.put(key, PatternValues(merged.status, layers).encode(key))

    def _recall(self, plan: PatternPlan) -> Merged | None:
        """The merged layers, where they are in the store."""
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
        return Merged(plan, values.status, totals)

    def _finish(self, known: Sequence[Merged], factors: NDArray[np.float64] | None) -> NDArray[Any]:
        """The numbers of the file. BadData where there is no frame at all."""
        result = self._result
        for number, merged in enumerate(known):
            scan, of = merged.plan.chosen.scan, " of the background" if number else ""
            self._report(merged.plan.frames(), merged.status, f"left out{of}", scan)
            if (merged.status != Status.OK).all():
                raise BadData(f"none of the frames{of} can be used")
        assert result.analysis is not None
        layers = [
            one.totals if factors is None else flat_layers(result.plan, one.totals, factors)
            for one in known
        ]
        if result.correction is None:
            numbers: NDArray[Any] = result.analysis.finish(layers[0], result.settings)
        else:
            additive = result.analysis.additive
            assert additive is not None
            own, *background = (
                parts_of(additive, these, result.settings, one.factor())
                for one, these in zip(known, layers, strict=True)
            )
            less = background[0][0] if background else None
            numbers = corrected(additive, own, result.settings, less)
        return np.ascontiguousarray(numbers).reshape(-1)


def _first(several: ExceptionGroup) -> Exception:
    """One error of many: when a file is lost, all portions say so."""
    error: Exception = several
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


@dataclass(frozen=True, slots=True, eq=False)
class PatternPlan:
    """The frames of a pattern, shared out."""

    chosen: Chosen
    parts: list[list[Patch]]
    """Runs of frames of each portion."""
    wanted: list[Wanted]
    """Each portion, from its first frame to its last."""

    def key(self) -> bytes:
        """Of the whole in the store."""
        return pattern_key(one.key for one in self.wanted)

    def frames(self) -> NDArray[np.int64]:
        """The number of every frame, in order."""
        return frames_in([patch for runs in self.parts for patch in runs])

    def chosen_of(self, number: int) -> NDArray[np.int64]:
        """Where the frames of a portion stand between its first and its last."""
        runs = self.parts[number]
        return frames_in(runs) - runs[0].first


@dataclass(frozen=True, slots=True, eq=False)
class Merged:
    """What the frames of a plan add up to."""

    plan: PatternPlan
    status: NDArray[np.uint8]
    """Of each frame."""
    totals: NDArray[np.uint64]
    """The layers."""

    def status_in(self, run: FrameRun) -> NDArray[np.uint8]:
        """Of each frame of a run that holds these, UNUSED of the others."""
        status = np.full(run.count, UNUSED, np.uint8)
        status[self.plan.frames() - run.first] = self.status
        return status

    def factor(self) -> NDArray[np.float64] | None:
        """What scales a mean over these frames to the mean monitor (1,): sums over sums."""
        factors = self.plan.chosen.factors
        if factors is None:
            return None
        used = factors[self.plan.frames()[self.status == Status.OK]]
        return np.array([len(used) / (1 / used).sum()])
