"""Sum and number of the chosen pixels above a threshold.

Planes are compared for 64 pixels at once, from the highest on: a pixel is above the threshold where
its first bit that differs is set. Few words have a pixel that may be above it: one of the planes
from the threshold's highest bit on must be set there. All other words are passed over.
"""

from __future__ import annotations

import numpy as np

from analysis.kernels.blocks import groups_of, load_block, loose_pixel, open_chunk, scratch_words
from analysis.kernels.jit import inlined, kernel
from analysis.kernels.lz4 import CORRUPT
from analysis.kernels.memory import load8, lowest, popcount
from analysis.kernels.stream import new_window, occupied, open_stream, refill

_0, _1, _3 = np.uint64(0), np.uint64(1), np.uint64(3)


@inlined
def _highest(threshold):  # type: ignore[no-untyped-def]
    """The plane of the highest bit of the threshold, 0 where it has none."""
    plane = 0
    while threshold >> np.uint64(plane + 1) != _0:
        plane += 1
    return plane


@inlined
def _add_word(words, w, stride, used, planes, bits, threshold, out):  # type: ignore[no-untyped-def]
    """Add those of the pixels `bits` of a word that are above the threshold."""
    above, same = _0, bits
    for down in range(planes):
        k = planes - 1 - down
        plane = words[min(k, used - 1) * stride + w]  # the last stands for those above, too
        if threshold >> np.uint64(k) & _1:
            same &= plane
        else:
            above |= same & plane
            same &= ~plane
    if above == _0:
        return
    total = _0
    for k in range(used):
        weight = _1 << np.uint64(k)
        if k == used - 1:
            weight = (_1 << np.uint64(planes)) - weight
        total += popcount(words[k * stride + w] & above) * weight
    out[0] += total
    out[1] += popcount(above)


@kernel
def above_of_blocks(  # type: ignore[no-untyped-def]
    chunk, layout, block, itemsize, pixels, selection, threshold, out
):
    """Of a bitshuffle chunk; False when it is damaged, then `out` means nothing.

    `out` is the sum of the counts above `threshold`, and the number of these pixels.
    """
    base, length = np.uint64(chunk.ctypes.data), len(chunk)
    at, block = open_chunk(base, length, layout, block, pixels, itemsize)
    if at == CORRUPT:
        return False
    size, per_plane = scratch_words(block, pixels, itemsize)
    words, spare = np.empty(size, np.uint64), np.empty(size, np.uint64)
    chosen = np.empty(per_plane, np.uint64)
    planes = 8 * itemsize
    highest = _highest(threshold)
    out[:] = _0
    whole = pixels & ~7
    start = 0
    while start < whole:
        count = min(block, whole - start)
        at, used, bits, _ = load_block(
            base, length, layout, at, start, count, itemsize, selection, words, spare, chosen
        )
        if at == CORRUPT:
            return False
        stride = 8 * groups_of(count)
        for w in range(stride if used else 0):
            some = _0
            for k in range(min(highest, used - 1), used):
                some |= words[k * stride + w]
            some &= load8(bits + (np.uint64(w) << _3))
            if some != _0:
                _add_word(words, w, stride, used, planes, some, threshold, out)
        start += count
    if length - at < (pixels - whole) * itemsize:
        return False
    largest = (_1 << np.uint64(planes)) - _1
    for p in range(whole, pixels):
        value = loose_pixel(base, length, at, itemsize, p - whole)
        if threshold < value < largest and selection[p >> 6] >> np.uint64(p & 63) & _1:
            out[0] += value
            out[1] += _1
    return True


@inlined
def _add_pixels(pixels, first, count, start, selection, threshold, out):  # type: ignore[no-untyped-def]
    """Add `count` pixels of a decoded frame: `pixels[first]` is number `start` of the frame."""
    p, end = start, start + count
    while p < end:
        stop = min(end, (p | 63) + 1)
        bits = selection[p >> 6] >> np.uint64(p & 63)
        if bits != _0:
            at = first + p - start
            some, full = occupied(pixels, at, stop - p)
            bits &= some & ~full
            while bits != _0:
                value = np.uint64(pixels[at + np.int64(lowest(bits))])
                if value > threshold:
                    out[0] += value
                    out[1] += _1
                bits &= bits - _1
        p = stop


@kernel
def above_of_pixels(pixels, size, selection, threshold, out):  # type: ignore[no-untyped-def]
    """Of a decoded frame, flat and contiguous."""
    out[:] = _0
    _add_pixels(pixels, 0, size, 0, selection, threshold, out)


@kernel
def above_of_stream(chunk, like, pixels, selection, threshold, out):  # type: ignore[no-untyped-def]
    """Of an LZ4 chunk; False when it is damaged, then `out` means nothing.

    `like` is an array, be it empty, of the frame's dtype.
    """
    base, length = np.uint64(chunk.ctypes.data), len(chunk)
    itemsize = like.itemsize
    window, state = new_window()
    if not open_stream(base, length, pixels * itemsize, state):
        return False
    view = window.view(like.dtype)
    out[:] = _0
    filled, done, start = 0, 0, 0
    while start < pixels:
        filled, done = refill(base, length, window, filled, done, itemsize, state)
        if filled == CORRUPT:
            return False
        count = min(filled // itemsize - done, pixels - start)
        _add_pixels(view, done, count, start, selection, threshold, out)
        start += count
        done += count
    return True
