"""A peer: computes patches it is sent, in threads, and keeps the results."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter, OrderedDict
from functools import partial

import numpy as np
import trio

from analysis import kernels
from analysis.plan import Plan
from analysis.plugins import PluginFailed
from analysis.reductions import REDUCTIONS, Prepared, Status
from analysis.reductions.patterns import PreparedPattern
from analysis.reductions.shapes import is_per_frame
from dadafs.cache.store import Store
from dadafs.cache.values import PatchValues, PatternValues
from dadafs.client.reducing import FrameReducer, PatternReducer, Reducer, reduce_frames
from dadafs.errors import BadData, ComputationFailed
from dadafs.keys import patch_key
from dadafs.rpc.messages import AskReport, Compute, Report
from dadafs.rpc.service import Answer, Service
from dadafs.scans.model import FrameSlice
from dadafs.scans.slices import LENGTH_BYTES
from dadafs.scans.tree import RawTree

log = logging.getLogger(__name__)

PREPARED_PLANS = 4  # a 4M mask with its tables takes 1 to 20 MB
NOT_STORED = frozenset({"frame", "patterns"})
"""Passes whose values are not worth keeping: a frame is as fast to decode as to fetch, and patterns
are kept when they are merged."""
MAX_PATCH_FRAMES = 4096
MAX_SPAN_FRAMES = 1 << 24  # a portion of a pattern over a region leaves out most of what it spans
MAX_PIXELS = 1 << 28


class Peer:
    """Computes patches. Its threads share prepared plans, which are immutable.

    Invariants: `_prepared` is only touched under `_lock`; a result is stored only if every frame
    of it was read from the very content that the slice names.
    """

    def __init__(self, tree: RawTree, results: Store, threads: int) -> None:
        self._tree = tree
        self._results = results
        self._threads = threads
        self._limiter = trio.CapacityLimiter(threads)
        self._prepared: OrderedDict[bytes, Prepared] = OrderedDict()
        self._lock = threading.Lock()
        self._counters: Counter[str] = Counter()

    def warm_up(self) -> None:
        """Load the kernels in the background, or compile them where that was never done."""
        threading.Thread(target=kernels.warm, name="warm-up", daemon=True).start()

    def service(self) -> Service:
        """The RPC service of this peer."""
        return Service("peer", {Compute: self._compute, AskReport: self._report})

    async def _report(self, request: AskReport) -> Answer:
        facts = {"kernels": kernels.VERSION, "lz4": kernels.decoder_name()}
        return Report(os.getpid(), self._threads, dict(self._counters), facts), b""

    async def _compute(self, request: Compute) -> Answer:
        work = partial(self._patch, request.plan, request.frames)
        try:
            return None, await trio.to_thread.run_sync(work, limiter=self._limiter)
        except PluginFailed as exc:
            raise ComputationFailed(f"plug-in {exc}") from exc

    def _patch(self, plan: Plan, frames: FrameSlice) -> bytes:
        """The encoded values of one patch, from the store or computed. Runs in a thread."""
        check(plan, frames)
        digest = plan.digest()
        key = patch_key(digest, frames)
        known = self._results.get(key) if plan.reduction not in NOT_STORED else None
        prepared = self._prepare(digest, plan)
        if known is not None and self._fits(known, prepared, frames):
            self._counters["patches_from_store"] += 1
            return known
        status = np.full(frames.count, Status.MISSING, np.uint8)
        if isinstance(prepared, PreparedPattern):
            pattern = prepared.new()
            reducer: Reducer = PatternReducer(prepared, pattern)
            unreadable = reduce_frames(self._tree, frames, status, reducer)
            encoded = PatternValues(status, prepared.layers(pattern)).encode()
        else:
            values = np.zeros((frames.count, *prepared.value_shape), prepared.value_dtype)
            reducer = FrameReducer(prepared, values)
            unreadable = reduce_frames(self._tree, frames, status, reducer)
            encoded = PatchValues(status, values).encode()
        self._counters["patches"] += 1
        self._counters["frames"] += int(np.count_nonzero(status == Status.OK))
        self._counters["corrupt_frames"] += int(np.count_nonzero(status == Status.CORRUPT))
        if not unreadable and plan.reduction not in NOT_STORED:
            self._results.put(key, encoded)
        return encoded

    def _fits(self, known: bytes, prepared: Prepared, frames: FrameSlice) -> bool:
        shape = (frames.count, *prepared.value_shape)
        try:
            PatchValues.decode(known, frames.count, shape, prepared.value_dtype)
        except BadData:
            return False
        return True

    def _prepare(self, digest: bytes, plan: Plan) -> Prepared:
        with self._lock:
            prepared = self._prepared.get(digest)
            if prepared is None:
                try:
                    prepared = REDUCTIONS[plan.reduction].prepare(plan)
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
    listed = sum(len(run.lengths) // LENGTH_BYTES for run in frames.runs)
    span = MAX_PATCH_FRAMES if is_per_frame(plan) else MAX_SPAN_FRAMES
    if not 0 < frames.count <= span or listed > MAX_PATCH_FRAMES:
        raise ComputationFailed(f"patch of {frames.count} frames refused")
    if plan.height <= 0 or plan.width <= 0 or plan.height * plan.width > MAX_PIXELS:
        raise ComputationFailed(f"frames of {plan.height} x {plan.width} refused")
    end = frames.first
    for run in frames.runs:
        if (run.codec.shape, run.codec.dtype) != (plan.shape, plan.dtype):
            raise ComputationFailed("frames of another shape or dtype than planned")
        if len(run.offsets) != 2 * len(run.lengths) or len(run.lengths) % LENGTH_BYTES:
            raise ComputationFailed("malformed run of frames")
        if run.first < end:
            raise ComputationFailed("runs of frames out of order")
        end = run.first + len(run.lengths) // LENGTH_BYTES
    if end > frames.first + frames.count:
        raise ComputationFailed("run of frames beyond its patch")
