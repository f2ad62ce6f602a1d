"""A peer: computes patches it is sent, in threads, and keeps the results."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any, TypeVar

import msgspec
import numpy as np
import trio
from numpy.typing import NDArray

from analysis import kernels
from analysis.plan import Plan
from analysis.plugins import PluginFailed
from analysis.reductions import REDUCTIONS, Prepared, Status
from analysis.reductions.flattened import prepared_for
from analysis.reductions.patterns import Pattern, PreparedPattern
from analysis.reductions.shapes import is_per_frame, value_type
from analysis.warming import warm
from dadafs.cache.store import Store
from dadafs.cache.values import PatchValues, PatternValues
from dadafs.client.computing.reducing import FrameReducer, PatternReducer, Reducer, reduce_frames
from dadafs.client.computing.shared import SharedResults
from dadafs.client.computing.sources import Chunks, FrameSource
from dadafs.client.upstream.once import Once
from dadafs.errors import BadData, ComputationFailed
from dadafs.keys import patch_key
from dadafs.rpc.calls import Request
from dadafs.rpc.messages import AskReport, Compute, Report
from dadafs.rpc.security import Credentials
from dadafs.rpc.service import Answer, Handler, Service
from dadafs.scans.formats.counts import counts_of
from dadafs.scans.formats.decode import Decoder, decode, decode_counts
from dadafs.scans.frames.flatfields import TILES, as_frames, plane_of
from dadafs.scans.frames.slices import LENGTH_BYTES, listed
from dadafs.scans.model import ChunkRun, FrameSlice

R = TypeVar("R")
log = logging.getLogger(__name__)

PREPARED_PLANS = 4  # a 4M mask with its tables takes 1 to 20 MB
NOT_STORED = frozenset({"frame", "patterns", TILES})
"""Passes whose values are not worth keeping: a frame is as fast to decode as to fetch, and patterns
are kept when they are merged."""
MAX_PATCH_FRAMES = 4096
MAX_SPAN_FRAMES = 1 << 24  # a portion of a pattern over a region leaves out most of what it spans
MAX_PIXELS = 1 << 28


@dataclass(frozen=True, slots=True, eq=False)
class Flatfield:
    """What counts are multiplied with."""

    key: bytes
    """Names its content."""
    factors: NDArray[np.float64]
    """(height, width)."""


class Work:
    """One patch while it is computed. Used in one thread at a time."""

    def __init__(self, prepared: Prepared, frames: FrameSlice, decoder: Decoder) -> None:
        self._prepared = prepared
        self._frames = frames
        self._pattern: Pattern | None = None
        self._values: NDArray[Any] | None = None
        if isinstance(prepared, PreparedPattern):
            self._pattern = prepared.new()
            self._reducer: Reducer = PatternReducer(prepared, self._pattern, decoder)
        else:
            shape = (frames.count, *prepared.value_shape)
            self._values = np.zeros(shape, prepared.value_dtype)
            self._reducer = FrameReducer(prepared, self._values, decoder)
        self.status: NDArray[np.uint8] = np.full(frames.count, Status.MISSING, np.uint8)
        self.unreadable = 0

    def reduce(self, chunks: Chunks, part: FrameSlice) -> None:
        """Reduce a part of the frames."""
        self.unreadable += reduce_frames(chunks, part, self.status, self._reducer)

    def plane(self, tiles: ChunkRun, shape: tuple[int, int]) -> NDArray[np.float64]:
        """The factors of a flat field whose tiles were the frames, when all are read."""
        assert self._values is not None
        return plane_of(tiles, self.status, self._values, shape)

    def encoded(self, key: bytes) -> bytes:
        """The values of the patch with that key, when all parts are reduced."""
        if self._values is not None:
            return PatchValues(self.status, self._values).encode(key)
        assert isinstance(self._prepared, PreparedPattern)
        assert self._pattern is not None
        layers = self._prepared.layers(self._pattern)
        return PatternValues(self.status, layers).encode(key)


class Peer:
    """Computes patches. Its threads share prepared plans, which are immutable.

    Invariants: `_prepared` is only touched under `_lock`; a result is stored only if every frame
    of it was read from the very content that the slice names.
    """

    def __init__(
        self,
        source: FrameSource,
        results: Store,
        threads: int,
        shared: SharedResults | None = None,
    ) -> None:
        """With `shared`, results are also looked up at the server, and given to it."""
        self._source = source
        self._results = results
        self._shared = shared
        self._threads = threads
        self._limiter = trio.CapacityLimiter(threads)
        self._prepared: OrderedDict[bytes, Prepared] = OrderedDict()
        self._flatfield: Flatfield | None = None
        self._reading_flat: Once[bytes, Flatfield] = Once()
        self._lock = threading.Lock()
        self._counters: Counter[str] = Counter()

    def warm_up(self) -> None:
        """Load the kernels in the background, or compile them where that was never done."""
        threading.Thread(target=warm, name="warm-up", daemon=True).start()

    def service(self, credentials: Credentials | None = None) -> Service:
        """The RPC service of this peer."""
        handlers: dict[type[Request[Any]], Handler] = {
            Compute: self._compute,
            AskReport: self.report,
        }
        return Service("peer", handlers, credentials=credentials)

    async def report(self, request: AskReport) -> Answer:
        """Counters of this process."""
        facts = {"kernels": kernels.VERSION, "lz4": kernels.decoder_name()}
        counters = dict(self._counters)
        counters |= {f"results_{name}": n for name, n in self._results.counters.items()}
        return Report(os.getpid(), self._threads, counters, facts), b""

    async def _compute(self, request: Compute) -> Answer:
        """The encoded values of one patch: from a store, or computed."""
        plan, frames = request.plan, request.frames
        check(plan, frames)
        digest = plan.digest()
        key = patch_key(digest, frames)
        keeps = plan.reduction not in NOT_STORED
        if keeps and (known := await self._known(key, plan, frames)) is not None:
            return None, known
        try:
            flat = None if frames.flat is None else await self._flat(frames.flat, plan)
            work = await self._reduced(plan, frames, partial(self._prepare, digest, plan, flat))
            encoded = await self._in_thread(partial(work.encoded, key))
        except PluginFailed as exc:
            raise ComputationFailed(f"plug-in {exc}") from exc
        self._counters["patches"] += 1
        if plan.reduction != TILES:
            self._counters["frames"] += int(np.count_nonzero(work.status == Status.OK))
            self._counters["corrupt_frames"] += int(np.count_nonzero(work.status == Status.CORRUPT))
        if keeps and not work.unreadable:
            self._results.put(key, encoded)
            if self._shared is not None:
                self._shared.give(key, encoded)
        return None, encoded

    async def _reduced(
        self, plan: Plan, frames: FrameSlice, prepare: Callable[[], Prepared]
    ) -> Work:
        """All frames of a patch, part by part."""
        decoder = decode if plan.reduction == TILES else decode_counts
        work = await self._in_thread(lambda: Work(prepare(), frames, decoder))
        for part in self._source.batches(frames):
            chunks = await self._source.gather(part)
            await self._in_thread(partial(work.reduce, chunks, part))
        return work

    async def _flat(self, tiles: ChunkRun, plan: Plan) -> Flatfield:
        """A flat field, read where chunks are read, and remembered: the last one."""
        key = blake2b(msgspec.msgpack.encode(tiles), digest_size=16).digest()

        def known() -> Flatfield | None:
            found = self._flatfield
            return found if found is not None and found.key == key else None

        async def read() -> Flatfield:
            single, frames = as_frames(tiles, plan.shape)
            check(single, frames)
            prepare = partial(REDUCTIONS[single.reduction].prepare, single)
            work = await self._reduced(single, frames, prepare)
            factors = await self._in_thread(partial(work.plane, tiles, plan.shape))
            self._flatfield = made = Flatfield(key, factors)
            return made

        return await self._reading_flat.get(key, known, read)

    async def _in_thread(self, work: Callable[[], R]) -> R:
        return await trio.to_thread.run_sync(work, limiter=self._limiter)

    async def _known(self, key: bytes, plan: Plan, frames: FrameSlice) -> bytes | None:
        """The stored values of a patch, of this peer or of all."""
        shape, dtype = value_type(plan)
        for name, store in (("store", self._results), ("server", self._shared)):
            if store is None:
                continue
            known = store.get(key) if isinstance(store, Store) else await store.find(key)
            if known is None:
                continue
            try:
                PatchValues.decode(key, known, frames.count, (frames.count, *shape), dtype)
            except BadData as exc:
                log.warning("a stored result was bad and is computed again: %s", exc)
                continue
            self._counters[f"patches_from_{name}"] += 1
            if name == "server":
                self._results.put(key, known)
            return known
        return None

    def _prepare(self, digest: bytes, plan: Plan, flat: Flatfield | None) -> Prepared:
        if flat is not None:
            digest += flat.key
        with self._lock:
            prepared = self._prepared.get(digest)
            if prepared is None:
                try:
                    prepared = prepared_for(plan, None if flat is None else flat.factors)
                except ValueError as exc:
                    raise ComputationFailed(f"{plan.reduction}: {exc}") from exc
                self._prepared[digest] = prepared
                if len(self._prepared) > PREPARED_PLANS:
                    self._prepared.popitem(last=False)
            self._prepared.move_to_end(digest)
            return prepared


def check(plan: Plan, frames: FrameSlice) -> None:
    """Refuse what no client of ours sends. ComputationFailed says what was wrong."""
    if plan.reduction not in REDUCTIONS:
        raise ComputationFailed(f"this peer does not know the pass {plan.reduction!r}")
    if plan.version != REDUCTIONS[plan.reduction].version:
        raise ComputationFailed(f"this peer has another version of the pass {plan.reduction!r}")
    span = MAX_PATCH_FRAMES if is_per_frame(plan) else MAX_SPAN_FRAMES
    if not 0 < frames.count <= span or listed(frames) > MAX_PATCH_FRAMES:
        raise ComputationFailed(f"patch of {frames.count} frames refused")
    if plan.height <= 0 or plan.width <= 0 or plan.height * plan.width > MAX_PIXELS:
        raise ComputationFailed(f"frames of {plan.height} x {plan.width} refused")
    if bool(plan.flat) != (frames.flat is not None):
        raise ComputationFailed("a flat field that is not planned, or the other way round")
    end = frames.first
    for run in frames.runs:
        taken = run.codec.dtype if plan.reduction == TILES else counts_of(run.codec)
        if (run.codec.shape, taken) != (plan.shape, plan.dtype):
            raise ComputationFailed("frames of another shape or dtype than planned")
        if len(run.offsets) != 2 * len(run.lengths) or len(run.lengths) % LENGTH_BYTES:
            raise ComputationFailed("malformed run of frames")
        if run.first < end:
            raise ComputationFailed("runs of frames out of order")
        end = run.first + len(run.lengths) // LENGTH_BYTES
    if end > frames.first + frames.count:
        raise ComputationFailed("run of frames beyond its patch")
