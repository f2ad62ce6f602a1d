"""From chunks in raw files to values: what a thread of a peer does for one patch."""

from __future__ import annotations

import logging
import os
from typing import Any, Protocol

import numpy as np
import trio
from numpy.typing import NDArray

from analysis.codec import Codec
from analysis.reductions import Prepared, Status
from analysis.reductions.patterns import Pattern, PreparedPattern
from dadafs.client.computing.sources import Chunks, RunReader
from dadafs.errors import BadData, ComputationFailed
from dadafs.scans.formats.decode import Decoder
from dadafs.scans.frames.slices import chunks as places
from dadafs.scans.model import ChunkRun, FrameSlice

log = logging.getLogger(__name__)

MAX_CHUNK_BYTES = 1 << 30


class Reducer(Protocol):
    """Takes the frames of a patch one by one."""

    decoder: Decoder
    """Of what no kernel reads."""

    def fuses(self, codec: Codec) -> bool:
        """Whether `chunk` understands this codec."""

    def chunk(self, chunk: bytes, codec: Codec, index: int) -> bool:
        """Take the frame at `index` of the patch from its chunk; False when corrupt."""

    def frame(self, frame: NDArray[Any], index: int) -> None:
        """Take a decoded frame."""


class FrameReducer:
    """Values of each frame, into rows of an array."""

    def __init__(self, prepared: Prepared, values: NDArray[Any], decoder: Decoder) -> None:
        self.decoder = decoder
        self._prepared = prepared
        self._values = values
        self.fuses = prepared.fuses

    def chunk(self, chunk: bytes, codec: Codec, index: int) -> bool:
        """Into row `index`, which is zero when corrupt."""
        good = self._prepared.chunk(chunk, codec, self._values[index])
        if not good:
            self._values[index] = 0
        return good

    def frame(self, frame: NDArray[Any], index: int) -> None:
        """Into row `index`."""
        self._prepared.frame(frame, self._values[index])


class PatternReducer:
    """All frames into one pattern."""

    def __init__(self, prepared: PreparedPattern, pattern: Pattern, decoder: Decoder) -> None:
        self.decoder = decoder
        self._prepared = prepared
        self._pattern = pattern
        self.fuses = prepared.fuses

    def chunk(self, chunk: bytes, codec: Codec, index: int) -> bool:
        """Added, unless corrupt."""
        return self._prepared.accumulate(chunk, codec, self._pattern)

    def frame(self, frame: NDArray[Any], index: int) -> None:
        """Added."""
        self._prepared.accumulate_frame(frame, self._pattern)


def reduce_frames(
    chunks: Chunks, frames: FrameSlice, status: NDArray[np.uint8], reducer: Reducer
) -> int:
    """Have `reducer` take every frame of a patch that has a chunk; note in `status` what became
    of it.

    The number of chunks that could not be read, for which nothing may be stored. Stale when a
    file is not, or does not remain, the content that was indexed.
    """
    unreadable = 0
    for run in frames.runs:
        with chunks.run(run) as reader:
            unreadable += _reduce_run(reader, run, frames.first, status, reducer)
    return unreadable


def _reduce_run(
    reader: RunReader, run: ChunkRun, first: int, status: NDArray[np.uint8], reducer: Reducer
) -> int:
    unreadable = 0
    fused = reducer.fuses(run.codec)
    for number, offset, length in places(run):
        trio.from_thread.check_cancelled()
        if length > MAX_CHUNK_BYTES:
            raise ComputationFailed(f"chunk of {length} bytes refused")
        index = number - first
        status[index] = Status.CORRUPT
        try:
            chunk = reader.read(offset, length)
        except OSError as exc:
            log.warning("%s: frame %d: %s", os.fsdecode(run.path), number, exc)
            unreadable += 1
            continue
        if fused:
            good = reducer.chunk(chunk, run.codec, index)
        else:
            good = _decoded(reducer, chunk, run.codec, index)
        if good:
            status[index] = Status.OK
    return unreadable


def _decoded(reducer: Reducer, chunk: bytes, codec: Codec, index: int) -> bool:
    """The general way, for filters that no kernel reads."""
    try:
        frame = reducer.decoder(chunk, codec)
    except BadData:
        return False
    reducer.frame(frame, index)
    return True
