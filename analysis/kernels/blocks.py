"""The blocks of a bitshuffle chunk (HDF5 filter 32008), ready to be reduced one by one.

A chunk with LZ4 is: 8 bytes, size of the frame in bytes; 4 bytes, size of a block in bytes; for
each block 4 bytes, its compressed size, then its LZ4 data; all big-endian. Without compression it
is the blocks one after another. A block of n pixels is a bit plane of n / 8 bytes for each bit of
the pixel type, least significant first. The last block is shorter; pixels that do not fill a
multiple of 8 follow as they are.

A block is handed over as 64-bit words: bit u of word w is the pixel `start + 64 w + u` of the flat
frame, in every plane and in `chosen`, the bits of the pixels to be used.
"""

from __future__ import annotations

import numpy as np

from analysis.kernels.codecs import DEFAULT_BLOCK_BYTES, LZ4_BLOCKS
from analysis.kernels.jit import inlined
from analysis.kernels.lz4 import CORRUPT, SLACK, decode
from analysis.kernels.memory import load1, load8
from analysis.kernels.vectors import any_common, any_set

_0, _1, _8, _64 = (np.uint64(i) for i in (0, 1, 8, 64))


@inlined
def big_endian(base, size):  # type: ignore[no-untyped-def]
    """The unsigned number of `size` bytes at address `base`."""
    value = _0
    for i in range(size):
        value = value << _8 | load1(base + np.uint64(i))
    return value


@inlined
def open_chunk(base, length, layout, block, pixels, itemsize):  # type: ignore[no-untyped-def]
    """(offset of the first block, pixels in a block); offset CORRUPT when the header is wrong.

    `block` is the number of pixels in a block where the chunk does not say.
    """
    if layout != LZ4_BLOCKS:
        return (0 if length == pixels * itemsize else CORRUPT), block
    if length < 12 or big_endian(base, 8) != np.uint64(pixels * itemsize):
        return CORRUPT, block
    block_bytes = np.int64(big_endian(base + _8, 4))
    if block_bytes == 0:
        return 12, DEFAULT_BLOCK_BYTES // itemsize
    if block_bytes % (8 * itemsize) != 0:
        return CORRUPT, block
    return 12, block_bytes // itemsize


@inlined
def groups_of(count):  # type: ignore[no-untyped-def]
    """Groups of 8 words that `count` pixels fill."""
    return (count + 511) >> 9


@inlined
def scratch_words(block, pixels, itemsize):  # type: ignore[no-untyped-def]
    """Sizes of the scratch arrays of `load_block`: words of `words` and `spare`, of `chosen`."""
    words = 8 * groups_of(min(block, pixels))
    return 8 * itemsize * words + SLACK // 8, words


@inlined
def cut(selection, start, count, chosen):  # type: ignore[no-untyped-def]
    """Copy the bits of `count` pixels from `start` on to whole groups."""
    first, shift = start >> 6, np.uint64(start & 63)
    words = (count + 63) >> 6
    if shift == _0:
        for w in range(words):
            chosen[w] = selection[first + w]
    else:
        for w in range(words):
            chosen[w] = selection[first + w] >> shift | selection[first + w + 1] << (_64 - shift)
    if count & 63:
        chosen[words - 1] &= (_1 << np.uint64(count & 63)) - _1
    chosen[words : 8 * groups_of(count)] = _0


@inlined
def _align(raw, used, count, words):  # type: ignore[no-untyped-def]
    """Copy `used` planes of `count` / 8 bytes to whole groups each."""
    plane_bytes = count >> 3
    padded = 64 * groups_of(count)
    source = raw.view(np.uint8)
    target = words.view(np.uint8)
    for k in range(used):
        for i in range(plane_bytes):
            target[k * padded + i] = source[k * plane_bytes + i]
        for i in range(plane_bytes, padded):
            target[k * padded + i] = 0


@inlined
def _drop_sentinels(words, used, stride, chosen):  # type: ignore[no-untyped-def]
    """Remove from `chosen` the pixels of which every bit is set; whether there were any."""
    last, step = np.uint64(used - 1), np.uint64(stride)
    some = _0
    for w in range(step):
        full = words[last * step + w] & chosen[w]
        if full != _0:
            for k in range(last):
                full &= words[k * step + w]
            chosen[w] &= ~full
            some |= full
    return some != _0


@inlined
def load_block(  # type: ignore[no-untyped-def]
    base, length, layout, at, start, count, itemsize, selection, words, spare, chosen
):
    """Make the block of `count` pixels from `start` on, at offset `at` of the chunk, ready.

    Returns (offset of the next block, planes, address, sentinels). Plane k is in
    `words[8 k n : 8 (k + 1) n]`, n the number of groups; the planes that are left equal the last.
    At `address` are the n groups of bits of the pixels to be used: those of `selection`, less the
    sentinels if there were any. No plane: no pixel is chosen and the block was not decoded.
    Offset CORRUPT: the block is damaged. `words`, `spare` and `chosen` are scratch.
    """
    size = count * itemsize
    following = at + size
    if layout == LZ4_BLOCKS:
        if length - at < 4:
            return CORRUPT, 0, _0, False
        packed = np.int64(big_endian(base + np.uint64(at), 4))
        at += 4
        if packed > length - at:
            return CORRUPT, 0, _0, False
        following = at + packed
    groups = groups_of(count)
    aligned = count & 511 == 0 and start & 63 == 0
    if aligned:
        bits = np.uint64(selection.ctypes.data + (start >> 3))
    else:
        cut(selection, start, count, chosen)
        bits = np.uint64(chosen.ctypes.data)
    if not any_set(bits, np.uint64(groups)):
        return following, 0, bits, False
    raw = words if aligned else spare
    source = base + np.uint64(at)
    written = size
    if layout == LZ4_BLOCKS:
        written = decode(
            source,
            base + np.uint64(following),
            base + np.uint64(length),
            np.uint64(raw.ctypes.data),
            np.uint64(size),
            np.uint64(count >> 3),
        )
        if written == CORRUPT:
            return CORRUPT, 0, bits, False
    else:
        for i in range(size >> 3):
            raw[i] = load8(source + np.uint64(8 * i))
    used = written // (count >> 3)
    if not aligned:
        _align(raw, used, count, words)
    sentinels = False
    top = np.uint64(words.ctypes.data + 64 * groups * (used - 1))
    if any_common(top, bits, np.uint64(groups)):
        if aligned:
            cut(selection, start, count, chosen)
            bits = np.uint64(chosen.ctypes.data)
        sentinels = _drop_sentinels(words, used, 8 * groups, chosen)
    return following, used, bits, sentinels


@inlined
def loose_pixel(base, length, at, itemsize, i):  # type: ignore[no-untyped-def]
    """Value of the i-th of the pixels stored after the blocks, at offset `at`."""
    value = _0
    for j in range(itemsize):
        value |= load1(base + np.uint64(at + i * itemsize + j)) << np.uint64(8 * j)
    return value
