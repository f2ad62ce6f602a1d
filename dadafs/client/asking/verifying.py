"""Computing parts of a result once more, in this process, and comparing: for `dadafs verify`.

Nothing of the way of a read takes part but the frame index: raw bytes are decoded filter by
filter instead of by the kernels, and reduced by the plain numpy of `analysis.reference`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trio
from numpy.typing import NDArray

from analysis.plan import Plan
from analysis.reductions import REDUCTIONS, Prepared, Status
from analysis.reductions.flattened import prepared_for
from analysis.reductions.patterns import LAYERS, merge
from analysis.reductions.shapes import value_type
from analysis.reference import reference, scale
from dadafs.cache.values import PatchValues, PatternValues
from dadafs.client.asking.asking import ANSWER_S, line_to, silence
from dadafs.errors import BadData, NoSuchPath, Unreachable, UsageError
from dadafs.rpc.messages import AskPart, AskReport, PartFacts, ReadRaw
from dadafs.rpc.pool import Pool
from dadafs.scans.formats.decode import Decoder, decode, decode_counts
from dadafs.scans.frames.flatfields import as_frames, plane_of
from dadafs.scans.frames.slices import chunks
from dadafs.scans.model import ChunkRun

PATIENCE_S = 3600.0  # for a part that has to be computed first; the mount gives up on stall
TOLERANCE = 1e-9  # relative, of floats; a sum over 4M pixels in another order differs by 1e-12
NUMPY, PASS = "numpy", "general"
"""How a part was computed again: by a reference, or by the pass's own code for decoded frames."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one part."""

    first: int
    """Its first frame."""
    last: int
    frames: int
    """That were read again."""
    method: str
    difference: str
    """Empty where there is none."""


def verify(
    mountpoint: Path, path: bytes, patches: int, tell: Callable[[Finding, int], None]
) -> int:
    """Verify so many patches of a result, at random; how many differ.

    `tell` is given each finding and the number of parts. NoSuchPath, UsageError; Unreachable.
    """
    return trio.run(_verify, mountpoint, path, patches, tell)


async def _verify(
    mountpoint: Path, path: bytes, patches: int, tell: Callable[[Finding, int], None]
) -> int:
    pool = line_to(mountpoint)
    bad = 0
    try:
        with trio.fail_after(ANSWER_S):
            await pool.call(AskReport())
        with trio.fail_after(PATIENCE_S):
            facts, payload = await pool.call(AskPart(path, 0))
            numbers = sorted(random.sample(range(facts.parts), min(patches, facts.parts)))
            for number in numbers:
                if number:
                    facts, payload = await pool.call(AskPart(path, number))
                found = await _finding(pool, facts, payload)
                bad += bool(found.difference)
                tell(found, facts.parts)
    except NoSuchPath as exc:
        raise NoSuchPath(f"/{os.fsdecode(path)}: {exc}") from exc
    except trio.TooSlowError as exc:
        raise Unreachable(silence(mountpoint)) from exc
    finally:
        pool.close()
    return bad


async def _finding(pool: Pool, facts: PartFacts, payload: memoryview) -> Finding:
    _known(facts.plan)
    again = PatternAgain(facts) if facts.whole else PatchAgain(facts)
    general: Prepared | None = None
    factors = await _factors(pool, facts)
    frames = 0
    for run in (run for of in facts.frames for run in of.runs):
        for number, offset, length in chunks(run):
            frame = await _frame(pool, run, offset, length)
            if frame is None:
                again.corrupt(number)
                continue
            frames += 1
            values = reference(facts.plan, frame, factors)
            if values is None:
                general = general or prepared_for(facts.plan, factors)
                values = np.zeros(general.value_shape, general.value_dtype)
                general.frame(frame, values)
            again.add(number, values)
    first, last = facts.frames[0], facts.frames[-1]
    method = NUMPY if general is None else PASS
    return Finding(
        first.first, last.first + last.count - 1, frames, method, again.difference(payload)
    )


def _known(plan: Plan) -> None:
    """UsageError where this process does not have the code that the mount computes with."""
    reduction = REDUCTIONS.get(plan.reduction)
    if reduction is None:
        raise UsageError(f"{plan.reduction!r} is a plug-in: say where it is with --plugins")
    if reduction.version != plan.version:
        raise UsageError(f"the mount has another version of {plan.reduction!r}; mount again")


async def _frame(
    pool: Pool, run: ChunkRun, offset: int, length: int, decoder: Decoder = decode_counts
) -> NDArray[Any] | None:
    """A frame decoded without the kernels; None where it is corrupt."""
    try:
        _, chunk = await pool.call(ReadRaw(run.path, run.identity, offset, length))
        return decoder(bytes(chunk), run.codec)
    except BadData:
        return None


async def _factors(pool: Pool, facts: PartFacts) -> NDArray[np.float64] | None:
    """The flat field that the counts were multiplied with; None where they were not."""
    tiles = facts.frames[0].flat
    if tiles is None:
        return None
    _, frames = as_frames(tiles, facts.plan.shape)
    values = np.zeros((frames.count, *tiles.codec.shape), tiles.codec.dtype)
    status = np.full(frames.count, Status.MISSING, np.uint8)
    for number, offset, length in chunks(tiles):
        tile = await _frame(pool, tiles, offset, length, decode)
        status[number] = Status.CORRUPT if tile is None else Status.OK
        values[number] = 0 if tile is None else tile
    return plane_of(tiles, status, values, facts.plan.shape)


class PatchAgain:
    """The values of each frame of a patch."""

    def __init__(self, facts: PartFacts) -> None:
        (self._frames,) = facts.frames
        self._key, self._plan = facts.key, facts.plan
        shape, self._dtype = value_type(facts.plan)
        self._values = np.zeros((self._frames.count, *shape), self._dtype)
        self._status = np.full(self._frames.count, Status.MISSING, np.uint8)

    def corrupt(self, number: int) -> None:
        """This frame does not decode."""
        self._status[number - self._frames.first] = Status.CORRUPT

    def add(self, number: int, values: NDArray[Any]) -> None:
        """The values of this frame."""
        self._status[number - self._frames.first] = Status.OK
        self._values[number - self._frames.first] = values

    def difference(self, payload: memoryview) -> str:
        """What is another in the values that a reader gets; empty where they are equal."""
        count, shape = self._frames.count, self._values.shape
        try:
            kept = PatchValues.decode(self._key, payload, count, shape, self._dtype)
        except BadData as exc:
            return str(exc)
        for place in np.flatnonzero(kept.status != self._status)[:1].tolist():
            said, found = (Status(one[place]).name.lower() for one in (kept.status, self._status))
            return f"frame {self._frames.first + place}: {said}, but {found} when read again"
        different = np.argwhere(~_equal(self._plan, kept.values, self._values))
        for place, *inner in different[:1].tolist():
            numbers = (one[(place, *inner)] for one in (kept.values, self._values))
            said, found = (str(number) for number in numbers)
            where = f"frame {self._frames.first + place}, value {_shown(inner)}"
            return f"{where}: {said}, but {found} when computed again"
        return ""


class PatternAgain:
    """The layers over all frames of a pattern."""

    def __init__(self, facts: PartFacts) -> None:
        self._facts = facts
        shape, _ = value_type(facts.plan)
        self._layers: NDArray[np.uint64] = np.zeros(shape, np.uint64)
        self._decoded = 0

    def corrupt(self, number: int) -> None:
        """It is left out."""

    def add(self, number: int, values: NDArray[Any]) -> None:
        """Merge the values of this frame."""
        merge(self._layers, list(values))
        self._decoded += 1

    def difference(self, payload: memoryview) -> str:
        """What is another in the layers that a reader's numbers are made of."""
        facts = self._facts
        try:
            kept = PatternValues.decode(facts.key, payload, facts.statuses, self._layers.shape)
        except BadData as exc:
            return str(exc)
        used = int(np.count_nonzero(kept.status == Status.OK))
        if used != self._decoded:
            return f"of {used} frames, but {self._decoded} decode when read again"
        for name, layer, again in zip(LAYERS, kept.layers, self._layers, strict=True):
            for row, column in np.argwhere(layer != again)[:1].tolist():
                said, found = layer[row, column], again[row, column]
                where = f"{name} at row {row}, column {column}"
                return f"{where}: {said}, but {found} when computed again"
        return ""


def _equal(plan: Plan, kept: NDArray[Any], again: NDArray[Any]) -> NDArray[np.bool_]:
    """Integers exactly, floats within `TOLERANCE` of what they are sums of."""
    if kept.dtype.kind != "f":
        return np.asarray(kept == again)
    close = np.abs(kept - again) <= TOLERANCE * scale(plan, again)
    return np.asarray(close | (np.isnan(kept) & np.isnan(again)))


def _shown(index: list[int]) -> str:
    return ",".join(map(str, index))
