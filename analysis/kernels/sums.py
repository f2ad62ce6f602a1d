"""Sum of the counts of the chosen pixels.

Of a bitshuffle chunk it is 2^k popcount(plane k & chosen), over all planes.
"""

from __future__ import annotations

import numpy as np

from analysis.kernels.blocks import groups_of, load_block, loose_pixel, open_chunk, scratch_words
from analysis.kernels.jit import inlined, kernel
from analysis.kernels.lz4 import CORRUPT
from analysis.kernels.pixels import SUM_WORDS, sum_chosen
from analysis.kernels.stream import new_window, open_stream, refill
from analysis.kernels.vectors import count_common

_0, _1 = np.uint64(0), np.uint64(1)


@kernel
def sum_of_blocks(  # type: ignore[no-untyped-def]
    chunk, layout, block, pixels, itemsize, selection, out
):
    """Sum of a bitshuffle chunk in `out[0]`; False when it is damaged, then `out` is untouched."""
    base, length = np.uint64(chunk.ctypes.data), len(chunk)
    at, block = open_chunk(base, length, layout, block, pixels, itemsize)
    if at == CORRUPT:
        return False
    size, per_plane = scratch_words(block, pixels, itemsize)
    words, spare = np.empty(size, np.uint64), np.empty(size, np.uint64)
    chosen = np.empty(per_plane, np.uint64)
    planes = 8 * itemsize
    whole = pixels & ~7
    total = _0
    start = 0
    while start < whole:
        count = min(block, whole - start)
        at, used, bits, _ = load_block(
            base, length, layout, at, start, count, itemsize, selection, words, spare, chosen
        )
        if at == CORRUPT:
            return False
        groups = groups_of(count)
        for k in range(used):
            weight = _1 << np.uint64(k)
            if k == used - 1:  # it stands for the planes above, too
                weight = (_1 << np.uint64(planes)) - weight
            plane = np.uint64(words.ctypes.data + 64 * groups * k)
            total += count_common(plane, bits, np.uint64(groups)) * weight
        start += count
    if length - at < (pixels - whole) * itemsize:
        return False
    largest = (_1 << np.uint64(planes)) - _1
    for p in range(whole, pixels):
        value = loose_pixel(base, length, at, itemsize, p - whole)
        if value != largest and selection[p >> 6] >> np.uint64(p & 63) & _1:
            total += value
    out[0] = total
    return True


@inlined
def _add_pixels(pixels, first, count, start, selection):  # type: ignore[no-untyped-def]
    """Sum of `count` pixels of a decoded frame: `pixels[first]` is number `start` of the frame."""
    p, end = start, start + count
    largest = np.iinfo(pixels.dtype).max
    total = _0
    while p < end:
        at = first + p - start
        words = min((end - p) >> 6, SUM_WORDS) if p & 63 == 0 else 0
        if words:
            total += sum_chosen(
                np.uint64(pixels.ctypes.data + at * pixels.itemsize),
                pixels,
                np.uint64(selection.ctypes.data + (p >> 3)),
                np.uint64(words),
            )
            p += 64 * words
        else:
            if pixels[at] != largest and selection[p >> 6] >> np.uint64(p & 63) & _1:
                total += np.uint64(pixels[at])
            p += 1
    return total


@kernel
def sum_of_pixels(pixels, selection, out):  # type: ignore[no-untyped-def]
    """Sum of a decoded frame, flat and contiguous, in `out[0]`."""
    out[0] = _add_pixels(pixels, 0, pixels.size, 0, selection)


@kernel
def sum_of_stream(chunk, like, pixels, selection, out):  # type: ignore[no-untyped-def]
    """Sum of an LZ4 chunk in `out[0]`; False when it is damaged, then `out` is untouched.

    `like` is an array, be it empty, of the frame's dtype.
    """
    base, length = np.uint64(chunk.ctypes.data), len(chunk)
    window, state = new_window()
    itemsize = like.itemsize
    if not open_stream(base, length, pixels * itemsize, state):
        return False
    view = window.view(like.dtype)
    total = _0
    filled, done, start = 0, 0, 0
    while start < pixels:
        filled, done = refill(base, length, window, filled, done, itemsize, state)
        if filled == CORRUPT:
            return False
        count = min(filled // itemsize - done, pixels - start)
        total += _add_pixels(view, done, count, start, selection)
        start += count
        done += count
    out[0] = total
    return True
