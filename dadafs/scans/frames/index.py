"""The frame index: where in a data file the chunk of each frame lies."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from hashlib import blake2b

import h5py
import msgspec
import numpy as np
from h5py import h5d
from numpy.typing import NDArray

from analysis.codec import Codec
from dadafs.cache.store import Store
from dadafs.errors import BadData, NoSuchPath, Stale
from dadafs.scans.formats import hdf5
from dadafs.scans.formats.counts import as_counts, counts_dtype
from dadafs.scans.formats.decode import MAX_FRAME_BYTES, decode
from dadafs.scans.formats.imagestacks import read_stack
from dadafs.scans.formats.stacks import find_stack
from dadafs.scans.frames.slices import LENGTH_BYTES, OFFSET_BYTES
from dadafs.scans.model import NO_CHUNK, ChunkRun, Identity
from dadafs.scans.names import image_kind, show, split
from dadafs.scans.tree import RawTree

MAX_FRAMES = 1 << 24  # of one file: 200 MB of index
ATTEMPTS = 2


class FileIndex(msgspec.Struct, frozen=True, array_like=True):
    """Where the frames of one data file lie, or why that is not known."""

    identity: Identity
    problem: str = ""
    """One line, naming the file; then all that follows is empty."""
    codec: Codec = Codec(0, 0, "")
    offsets: bytes = b""
    """uint64 little endian, one for each frame; NO_CHUNK where the file has no chunk of it."""
    lengths: bytes = b""
    """uint32 little endian."""
    skipped: tuple[tuple[int, int], ...] = ()
    """Frames written without some filters: (frame, bits of the stages left out)."""
    start: int | None = None
    """Number in the scan of the first frame, from 0, if the file says so (`image_nr_low`)."""
    grid: tuple[int, int] | None = None
    """Points and lines of a dataset with an axis for each."""
    note: str = ""
    """What is wrong behind the last frame, one line, naming the file."""

    @property
    def frames(self) -> int:
        """Length of the dataset."""
        return len(self.lengths) // LENGTH_BYTES

    def runs(self, path: bytes, begin: int, end: int, first: int) -> Iterator[ChunkRun]:
        """The frames `[begin, end)` of this file, which are `[first, ...)` of the scan."""
        cuts = [(frame, bits) for frame, bits in self.skipped if begin <= frame < end]
        for frame, bits in [*cuts, (end, 0)]:
            if begin < frame:
                yield self._run(path, begin, frame, first, self.codec)
            if frame < end:
                stages = enumerate(self.codec.filters)
                left = tuple(stage for bit, stage in stages if not bits >> bit & 1)
                codec = msgspec.structs.replace(self.codec, filters=left)
                yield self._run(path, frame, frame + 1, first + frame - begin, codec)
            first += frame + 1 - begin
            begin = frame + 1

    def _run(self, path: bytes, begin: int, end: int, first: int, codec: Codec) -> ChunkRun:
        return ChunkRun(
            path,
            self.identity,
            codec,
            first,
            self.offsets[begin * OFFSET_BYTES : end * OFFSET_BYTES],
            self.lengths[begin * LENGTH_BYTES : end * LENGTH_BYTES],
        )


class FrameIndexer:
    """Indexes data files, and remembers by their identity what it found."""

    def __init__(self, tree: RawTree, store: Store) -> None:
        self._tree = tree
        self._store = store

    def index(self, path: bytes, dataset: bytes) -> FileIndex:
        """The index of a file as it is now; problems are in it.

        NoSuchPath and NotPermitted of the tree; Stale when the file changes faster than it can be
        read.
        """
        for _ in range(ATTEMPTS):
            with self._tree.opened(path) as (fd, identity):
                key = _key(path, dataset, identity)
                known = self._known(key)
                if known is not None:
                    return known
                found = _read(fd, path, dataset, identity)
                if self._is_still(path, identity):
                    if not found.problem:  # its cause may be elsewhere, and pass
                        self._store.put(key, msgspec.msgpack.encode(found))
                    return found
        raise Stale(f"{show(path)} changes while it is read")

    def _is_still(self, path: bytes, identity: Identity) -> bool:
        try:
            return self._tree.identity(path) == identity
        except NoSuchPath:
            return False

    def _known(self, key: bytes) -> FileIndex | None:
        stored = self._store.get(key)
        if stored is None:
            return None
        try:
            return _decoder.decode(stored)
        except msgspec.MsgspecError:  # of another version of this program
            return None


_decoder = msgspec.msgpack.Decoder(FileIndex)


def _key(path: bytes, dataset: bytes, identity: Identity) -> bytes:
    named = msgspec.msgpack.encode((path, dataset, identity))
    return blake2b(named, digest_size=16).digest()


def _read(fd: int, path: bytes, dataset: bytes, identity: Identity) -> FileIndex:
    name = show(split(path)[1])
    if kind := image_kind(split(path)[1]):
        return _image_index(fd, kind, name, identity)
    try:
        with hdf5.opened(fd) as file:
            return _index(file, fd, dataset, identity)
    except BadData as exc:
        return FileIndex(identity, f"{name}: {exc}")
    except hdf5.ERRORS as exc:
        return FileIndex(identity, f"{name} {hdf5.reason(exc)}")


def _image_index(fd: int, kind: str, name: str, identity: Identity) -> FileIndex:
    try:
        stack = read_stack(fd, identity.size, kind)
        note = stack.note
        offsets: NDArray[np.uint64] = np.frombuffer(stack.offsets, "<u8").copy()
        lengths: NDArray[np.uint32] = np.frombuffer(stack.lengths, "<u4").copy()
        _drop_beyond(offsets, lengths, identity.size)
        whole = int(np.flatnonzero(offsets != NO_CHUNK).max(initial=-1)) + 1
        if whole < len(offsets):
            offsets, lengths, note = offsets[:whole], lengths[:whole], f"ends in frame {whole}"
        _check_counts(fd, stack.codec, offsets, lengths)
    except BadData as exc:
        return FileIndex(identity, f"{name}: {exc}")
    note = f"{name} {note}" if note else ""
    return FileIndex(identity, "", stack.codec, offsets.tobytes(), lengths.tobytes(), note=note)


def _index(file: h5py.File, fd: int, wanted: bytes, identity: Identity) -> FileIndex:
    found = _dataset(file, wanted)
    if len(found.shape) not in (3, 4):
        raise BadData(f"a dataset of {len(found.shape)} dimensions is no series of frames")
    *leading, height, width = found.shape
    frames = math.prod(leading)
    codec = Codec(height, width, found.dtype.str, hdf5.filters(found))
    counts_dtype(found.dtype)
    if not 0 < codec.frame_bytes <= MAX_FRAME_BYTES or frames > MAX_FRAMES:
        raise BadData(f"{frames} frames of {height} x {width} are not supported")
    offsets: NDArray[np.uint64] = np.full(frames, NO_CHUNK, "<u8")
    lengths: NDArray[np.uint32] = np.zeros(frames, "<u4")
    skipped: tuple[tuple[int, int], ...] = ()
    properties = found.get_create_plist()
    layout = properties.get_layout()
    if layout == h5d.CHUNKED:
        if properties.get_chunk() != (*(1 for _ in leading), height, width):
            shape = " x ".join(map(str, properties.get_chunk()))
            raise BadData(f"chunks of {shape} are not supported; repack with h5repack")
        skipped = _chunks(found, codec, offsets, lengths)
    elif layout == h5d.CONTIGUOUS:
        begin = found.get_offset()
        if begin is not None:
            offsets[:] = begin + np.arange(frames, dtype=np.uint64) * np.uint64(codec.frame_bytes)
            lengths[:] = codec.frame_bytes
    else:
        raise BadData("a compact dataset is not supported; repack with h5repack")
    if file.userblock_size:
        _check_place(found, offsets, lengths, fd, file.userblock_size)
    _drop_beyond(offsets, lengths, identity.size)
    _check_counts(fd, codec, offsets, lengths)
    low = hdf5.attribute(found, "image_nr_low")
    start = low - 1 if low is not None and low >= 1 else None
    grid = (leading[1], leading[0]) if len(leading) == 2 else None
    return FileIndex(
        identity, "", codec, offsets.tobytes(), lengths.tobytes(), skipped, start, grid
    )


def _dataset(file: h5py.File, wanted: bytes) -> h5d.DatasetID:
    """The dataset of that path, or the one that holds the frames."""
    if not wanted:
        try:
            return find_stack(file)[1]
        except LookupError as exc:
            raise BadData(exc.args[0]) from exc
    found = hdf5.dataset(file, wanted)
    if found is None:
        raise BadData(f"no dataset {show(wanted)} in it")
    return found


def _chunks(
    found: h5d.DatasetID, codec: Codec, offsets: NDArray[np.uint64], lengths: NDArray[np.uint32]
) -> tuple[tuple[int, int], ...]:
    """Fill in the place of every chunk; which of them lack filters."""
    skipped = []
    points = found.shape[1] if len(found.shape) == 4 else 0

    def note(chunk: h5d.StoreInfo) -> None:
        *leading, row, column = chunk.chunk_offset
        frame = leading[0] * points + leading[1] if points else leading[0]
        if row or column or frame >= len(offsets) or not 0 < chunk.size < 1 << 32:
            return
        offsets[frame] = chunk.byte_offset
        lengths[frame] = chunk.size
        bits = chunk.filter_mask & ((1 << len(codec.filters)) - 1)
        if bits:
            skipped.append((frame, bits))

    hdf5.each_chunk(found, note)
    return tuple(sorted(skipped))


def _check_place(
    found: h5d.DatasetID,
    offsets: NDArray[np.uint64],
    lengths: NDArray[np.uint32],
    fd: int,
    userblock_bytes: int,
) -> None:
    """Make offsets count from the begin of the file, whatever a user block does to them.

    Libraries differ in whether they count from behind it; so compare one chunk to the file.
    """
    present = np.flatnonzero(offsets != NO_CHUNK)
    if not len(present):
        return
    frame = int(present[0])
    place = tuple(int(one) for one in np.unravel_index(frame, found.shape[:-2]))
    if found.get_create_plist().get_layout() == h5d.CHUNKED:
        expected = bytes(found.read_direct_chunk((*place, 0, 0))[1])
    else:
        expected = h5py.Dataset(found)[place].tobytes()
    for shift in (0, userblock_bytes):
        if os.pread(fd, len(expected), int(offsets[frame]) + shift) == expected:
            offsets[present] += np.uint64(shift)
            return
    raise BadData("a user block whose length is unclear; repack with h5repack -u 0")


def _check_counts(
    fd: int, codec: Codec, offsets: NDArray[np.uint64], lengths: NDArray[np.uint32]
) -> None:
    """See by the first frame whether floating-point pixels are counts at all. A BadData says why
    not; that a frame is corrupt is found out when it is used."""
    present = np.flatnonzero(offsets != NO_CHUNK)
    if np.dtype(codec.dtype).kind != "f" or not len(present):
        return
    frame = int(present[0])
    try:
        pixels = decode(os.pread(fd, int(lengths[frame]), int(offsets[frame])), codec)
    except BadData:
        return
    as_counts(pixels)


def _drop_beyond(offsets: NDArray[np.uint64], lengths: NDArray[np.uint32], size_bytes: int) -> None:
    """Chunks that are not wholly in the file, because it was cut, are no chunks."""
    size = np.uint64(size_bytes)
    beyond = (offsets > size) | (lengths > size - np.minimum(offsets, size))
    offsets[beyond] = NO_CHUNK
    lengths[beyond] = 0
