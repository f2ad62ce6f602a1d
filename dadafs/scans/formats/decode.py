"""Chunks to frames, for any pipeline of filters: slower than the kernels, and as safe.

HDF5's filters trust what they decode: some read past the end of a chunk that lies about its size,
and HDF5 itself hands out whatever lies in memory behind a chunk that decodes to too little. So each
stage is undone by itself: the simple ones here, the others by HDF5 after the chunk's own account
of its sizes was checked; and each must give exactly the bytes it has to.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeAlias

import hdf5plugin  # noqa: F401  registers its filters
import numpy as np
from h5py import h5d, h5f, h5p, h5s, h5t
from numpy.typing import NDArray

from analysis.codec import BITSHUFFLE, LZ4, Codec, Filter
from dadafs.errors import BadData
from dadafs.scans.formats import hdf5, images, segments
from dadafs.scans.formats.counts import as_counts

DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3
LZF, BLOSC, ZSTD = 32000, 32001, 32015
MAX_FRAME_BYTES = 1 << 31
MAX_FILTERS = 8
MAX_OPTIONS = 32
SPARE_BYTES = 1 << 16  # by which what one stage leaves to the next may exceed a frame
KEPT_DATASETS = 4  # 2.5 ms for a 4M frame with a dataset that is kept, 6.0 ms with a new one

Options: TypeAlias = tuple[int, ...]


class _Corrupt(ValueError):
    """A chunk contradicts itself. Never leaves this module."""


Decoder = Callable[[bytes, Codec], NDArray[Any]]
"""`decode_counts`, or `decode` for what are no counts."""


def decode_counts(chunk: bytes, codec: Codec) -> NDArray[Any]:
    """The frame (height, width) that `chunk` holds, as counts (`as_counts`). BadData as `decode`,
    and where a pixel is none."""
    return as_counts(decode(chunk, codec))


def decoded_chunks(
    found: h5d.DatasetID, codec: Codec
) -> Iterator[tuple[tuple[int, ...], NDArray[Any]]]:
    """Where in a dataset each chunk that was written begins, and what it holds. BadData.

    Our own decoder checks what the library's filters trust.
    """
    places: list[tuple[int, ...]] = []
    hdf5.each_chunk(found, lambda chunk: places.append(chunk.chunk_offset))
    for place in places:
        skipped, chunk = found.read_direct_chunk(place)
        if skipped:
            raise BadData("a chunk that lacks filters")
        yield place, decode(bytes(chunk), codec)


def decode(chunk: bytes, codec: Codec) -> NDArray[Any]:
    """The frame (height, width) that `chunk` holds. BadData when it is corrupt, or the codec is.

    Any number of threads may call it; those whose filter needs HDF5 wait for each other.
    """
    dtype = _checked(codec)
    if codec.filters and codec.filters[0].number in images.BY_NUMBER:
        return images.decode_image(chunk, codec)
    if codec.filters and codec.filters[0].number == segments.SEGMENTS:
        return segments.decode_segments(chunk, codec)
    data = chunk
    most = codec.frame_bytes + SPARE_BYTES
    for number, stage in reversed(list(enumerate(codec.filters))):
        undo = _STAGES.get(stage.number)
        if undo is None:
            known = ", ".join(map(str, sorted(_STAGES)))
            raise BadData(f"filter {stage.number} is not supported; known are {known}")
        try:
            data = undo(data, stage.options, codec.frame_bytes if number == 0 else most)
        except (_Corrupt, struct.error, zlib.error) as exc:
            raise BadData(f"filter {stage.number}: {exc}") from exc
    if len(data) != codec.frame_bytes:
        raise BadData(f"chunk decodes to {len(data)} bytes instead of {codec.frame_bytes}")
    return np.frombuffer(data, dtype).reshape(codec.shape)


def _checked(codec: Codec) -> np.dtype[Any]:
    """The dtype of the pixels. BadData when the codec is none that a file would have."""
    try:
        dtype = np.dtype(codec.dtype)
    except (TypeError, ValueError, SyntaxError) as exc:
        raise BadData(f"{codec.dtype!r} is no dtype") from exc
    if dtype.kind not in "iufb" or dtype.itemsize > 8:
        raise BadData(f"pixels of {codec.dtype} are not supported")
    if codec.height <= 0 or codec.width <= 0 or codec.frame_bytes > MAX_FRAME_BYTES:
        raise BadData(f"frames of {codec.height} x {codec.width} are not supported")
    if len(codec.filters) > MAX_FILTERS:
        raise BadData(f"{len(codec.filters)} filters are not supported")
    for stage in codec.filters:
        if len(stage.options) > MAX_OPTIONS or not all(0 <= o < 2**32 for o in stage.options):
            raise BadData(f"filter {stage.number} has impossible options")
    return dtype


def _inflate(data: bytes, options: Options, most: int) -> bytes:
    stream = zlib.decompressobj()
    plain = stream.decompress(data, most + 1)
    if len(plain) > most or not stream.eof:
        raise _Corrupt(f"more than {most} bytes" if len(plain) > most else "ends too soon")
    return plain


def _unshuffle(data: bytes, options: Options, most: int) -> bytes:
    size = options[0] if options else 0
    if not 1 <= size <= 256:
        raise _Corrupt(f"elements of {size} bytes")
    count = len(data) // size
    planes = np.frombuffer(data, np.uint8, count * size).reshape(size, count)
    return planes.T.tobytes() + data[count * size :]


def _verify(data: bytes, options: Options, most: int) -> bytes:
    """Strip Fletcher's checksum of the 16-bit big-endian words, both sums modulo 65535."""
    if len(data) < 4:
        raise _Corrupt("no room for a checksum")
    body, stored = data[:-4], int.from_bytes(data[-4:], "little")
    words = np.frombuffer(body + b"\0" * (len(body) % 2), ">u2").astype(np.int64)
    low = high = 0
    for start in range(0, len(words), 1 << 16):  # 2^16 words weighted by 2^16: within 2^48
        part = words[start : start + (1 << 16)]
        high += low * len(part) + int((part * np.arange(len(part), 0, -1)).sum())
        low += int(part.sum())
    if not _same_sum(high, stored >> 16) or not _same_sum(low, stored & 0xFFFF):
        raise _Corrupt("checksum differs")
    return body


def _same_sum(total: int, stored: int) -> bool:
    return total % 65535 == stored % 65535  # 0 and 65535 are the same to Fletcher


def _unbitshuffle(data: bytes, options: Options, most: int) -> bytes:
    """Bitshuffle, alone or with LZ4 or zstd. `cd_values`: version (2), element, block, coder."""
    element = options[2] if len(options) > 2 else 0
    coder = options[4] if len(options) > 4 else 0
    if element not in (1, 2, 4, 8) or coder not in (0, 2, 3):
        raise _Corrupt("impossible options")
    if coder == 0:
        _limit(len(data), most)
        return _through_hdf5(data, len(data), element, Filter(BITSHUFFLE, options[3:]))
    size, block = struct.unpack_from(">QI", data)
    _limit(size, most)
    if block == 0 or block % (8 * element) or size % element or block > MAX_FRAME_BYTES:
        raise _Corrupt(f"blocks of {block} bytes")
    rest = size % block
    tail = rest % (8 * element)  # what fills no multiple of 8 elements is stored as it is
    blocks = size // block + (rest > tail)
    _walk(data, 12, blocks, tail)
    return _through_hdf5(data, size, element, Filter(BITSHUFFLE, options[3:]))


def _unlz4(data: bytes, options: Options, most: int) -> bytes:
    size, block = struct.unpack_from(">QI", data)
    _limit(size, most)
    if block == 0 or block > MAX_FRAME_BYTES:
        raise _Corrupt(f"blocks of {block} bytes")
    _walk(data, 12, -(-size // block), 0)
    return _through_hdf5(data, size, 1, Filter(LZ4, options))


def _walk(data: bytes, at: int, blocks: int, tail: int) -> None:
    """Make sure that this many blocks, each after its length, and `tail` bytes lie in `data`."""
    if at + 4 * blocks + tail > len(data):
        raise _Corrupt("ends too soon")
    length = struct.Struct(">I").unpack_from
    for _ in range(blocks):
        at += 4 + length(data, at)[0]
    if at + tail > len(data):
        raise _Corrupt("a block goes beyond the chunk")


def _unzstd(data: bytes, options: Options, most: int) -> bytes:
    """One zstd frame that says its size, RFC 8878 section 3.1.1.1.

    The zstd filter returns uninitialised memory where decoding fails. Blosc's decoder looks, so
    the frame is given to it: as the only block, unshuffled and unsplit, of a Blosc chunk.
    """
    magic, descriptor = struct.unpack_from("<IB", data)
    if magic != 0xFD2FB528:
        raise _Corrupt("no zstd frame")
    single, code = descriptor >> 5 & 1, descriptor >> 6
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    if code == 0 and not single:
        raise _Corrupt("a zstd frame that does not say its size")
    width = (1, 2, 4, 8)[code]
    field = data[at : at + width]
    if len(field) != width:
        raise _Corrupt("ends too soon")
    size = int.from_bytes(field, "little") + (256 if code == 1 else 0)
    _limit(size, most)
    header = struct.pack("<BBBBIII", 2, 1, 4 << 5 | 0x10, 1, size, size, len(data) + 24)
    return _unblosc(header + struct.pack("<II", 20, len(data)) + data, (), most)


def _unblosc(data: bytes, options: Options, most: int) -> bytes:
    """Blosc 1: its header says the sizes before and after."""
    size, block, stored = struct.unpack_from("<III", data, 4)
    _limit(size, most)
    if stored != len(data) or not 0 < block <= max(size, 1):
        raise _Corrupt(f"says it has {stored} bytes, not {len(data)}")
    return _through_hdf5(data, size, 1, Filter(BLOSC))


def _unlzf(data: bytes, options: Options, most: int) -> bytes:
    """LZF says no size: add up what its tokens make."""
    at = size = 0
    end = len(data)
    while at < end:
        control = data[at]
        if control < 32:
            at += control + 2
            size += control + 1
            continue
        length = control >> 5
        if length == 7:
            at += 1
            length += data[at] if at < end else 0
        at += 2
        size += length + 2
    if at != end:
        raise _Corrupt("ends too soon")
    _limit(size, most)
    return _through_hdf5(data, size, 1, Filter(LZF))


def _limit(size: int, most: int) -> None:
    if not 0 < size <= most:
        raise _Corrupt(f"{size} bytes instead of at most {most}")


_STAGES: dict[int, Callable[[bytes, Options, int], bytes]] = {
    DEFLATE: _inflate,
    SHUFFLE: _unshuffle,
    FLETCHER32: _verify,
    LZF: _unlzf,
    BLOSC: _unblosc,
    LZ4: _unlz4,
    BITSHUFFLE: _unbitshuffle,
    ZSTD: _unzstd,
}


class _Wrapper:
    """A file in memory with a dataset of one chunk, to run one filter of HDF5's."""

    def __init__(self, number: int, count: int, element: int, stage: Filter) -> None:
        access = h5p.create(h5p.FILE_ACCESS)
        access.set_fapl_core(backing_store=False)
        access.set_fclose_degree(h5f.CLOSE_STRONG)
        creation = h5p.create(h5p.DATASET_CREATE)
        creation.set_chunk((count,))
        creation.set_fill_time(h5d.FILL_TIME_NEVER)
        creation.set_filter(stage.number, 0, stage.options)
        self._type = np.dtype(f"u{element}")
        self._count = count
        self._file = h5f.create(b"dadafs-decode-%d" % number, h5f.ACC_TRUNC, fapl=access)
        try:
            space = h5s.create_simple((count,))
            self._dataset = h5d.create(
                self._file, b"chunk", h5t.py_create(self._type), space, creation
            )
        except BaseException:
            self._file.close()
            raise

    def run(self, data: bytes) -> bytes:
        """What the filter makes of `data`."""
        out = np.empty(self._count, self._type)
        self._dataset.write_direct_chunk((0,), data, 0)
        self._dataset.read(h5s.ALL, h5s.ALL, out)
        return out.data.cast("B")  # type: ignore[return-value]

    def close(self) -> None:
        """Free the memory."""
        self._file.close()


_lock = threading.Lock()
_wrappers: OrderedDict[tuple[int, int, Filter], _Wrapper] = OrderedDict()
_made = 0


def _through_hdf5(data: bytes, size: int, element: int, stage: Filter) -> bytes:
    """Undo one stage that decodes to `size` bytes, which its caller has made sure of."""
    global _made
    key = (size, element, stage)
    with _lock:
        try:
            wrapper = _wrappers.pop(key, None)
            if wrapper is None:
                _made += 1
                wrapper = _Wrapper(_made, size // element, element, stage)
            done = False
            try:
                plain = wrapper.run(data)
                done = True
            finally:
                if not done:
                    with suppress(OSError, RuntimeError, ValueError):
                        wrapper.close()
        except (OSError, RuntimeError, ValueError, MemoryError) as exc:
            raise _Corrupt(" ".join(str(exc).split())) from exc
        _wrappers[key] = wrapper
        while len(_wrappers) > KEPT_DATASETS:
            _wrappers.popitem(last=False)[1].close()
        return plain
