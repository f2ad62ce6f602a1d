"""Counts times powers of the distance from the beam and harmonics of the direction.

With dx and up the offsets of a pixel, r^2 cos 2 phi = dx^2 - up^2 and r^2 sin 2 phi = 2 dx up, and
4 phi is the same once more: no angle is computed, only one reciprocal for each pixel with counts.

The sums are float64, taken in the order of the pixels whatever the codec is, so that a frame has
the same sums to the bit in each.
"""

from __future__ import annotations

import numpy as np

from analysis.kernels.blocks import groups_of, load_block, loose_pixel, open_chunk, scratch_words
from analysis.kernels.jit import inlined, kernel
from analysis.kernels.lz4 import CORRUPT
from analysis.kernels.memory import load8, lowest
from analysis.kernels.stream import new_window, occupied, open_stream, refill

AT_BEAM = 1e-12  # px^2: a pixel this near to the beam has no direction

_0, _1, _3 = np.uint64(0), np.uint64(1), np.uint64(3)


@inlined
def _add(counts, column, row, cx, cy, out):  # type: ignore[no-untyped-def]
    """Add a pixel."""
    n = np.float64(counts)
    dx, up = column - cx, cy - row
    r2 = dx * dx + up * up
    out[0] += n
    if r2 < AT_BEAM:
        return
    c, s = dx * dx - up * up, 2.0 * dx * up
    cc, ss = c * c - s * s, 2.0 * c * s
    once = n / r2
    twice = once / r2
    out[1] += c * once
    out[2] += s * once
    out[3] += cc * twice
    out[4] += ss * twice
    out[5] += r2 * n
    out[6] += c * n
    out[7] += s * n
    n_r2 = r2 * n
    out[8] += r2 * n_r2
    out[9] += c * n_r2
    out[10] += s * n_r2
    out[11] += cc * n
    out[12] += ss * n


@kernel
def directions_of_blocks(  # type: ignore[no-untyped-def]
    chunk, layout, block, itemsize, pixels, selection, width, cx, cy, out
):
    """Of a bitshuffle chunk; False when it is damaged, then `out` means nothing.

    `out` is the sums of `analysis.reductions.directions.COLUMNS`, zero at first.
    """
    base, length = np.uint64(chunk.ctypes.data), len(chunk)
    at, block = open_chunk(base, length, layout, block, pixels, itemsize)
    if at == CORRUPT:
        return False
    size, per_plane = scratch_words(block, pixels, itemsize)
    words, spare = np.empty(size, np.uint64), np.empty(size, np.uint64)
    chosen = np.empty(per_plane, np.uint64)
    planes = np.uint64(8 * itemsize)
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
        row = start // width
        behind = (row + 1) * width
        for w in range(stride if used else 0):
            some = _0
            for k in range(used):
                some |= words[k * stride + w]
            some &= load8(bits + (np.uint64(w) << _3))
            while some != _0:
                u = lowest(some)
                some &= some - _1
                value = _0
                for k in range(used - 1):
                    value |= (words[k * stride + w] >> u & _1) << np.uint64(k)
                top = (_1 << planes) - (_1 << np.uint64(used - 1))  # the last: those above, too
                value |= top * (words[(used - 1) * stride + w] >> u & _1)
                place = start + 64 * w + np.int64(u)
                while place >= behind:
                    row += 1
                    behind += width
                _add(value, place - behind + width, row, cx, cy, out)
        start += count
    if length - at < (pixels - whole) * itemsize:
        return False
    largest = (_1 << planes) - _1
    for p in range(whole, pixels):
        value = loose_pixel(base, length, at, itemsize, p - whole)
        if _0 < value < largest and selection[p >> 6] >> np.uint64(p & 63) & _1:
            _add(value, p % width, p // width, cx, cy, out)
    return True


@inlined
def _add_pixels(pixels, first, count, start, selection, width, cx, cy, out):  # type: ignore[no-untyped-def]
    """Add `count` pixels of a decoded frame: `pixels[first]` is number `start` of the frame."""
    p, end = start, start + count
    row = start // width
    behind = (row + 1) * width
    while p < end:
        stop = min(end, (p | 63) + 1)
        bits = selection[p >> 6] >> np.uint64(p & 63)
        if bits != _0:
            at = first + p - start
            some, full = occupied(pixels, at, stop - p)
            bits &= some & ~full
            while bits != _0:
                u = np.int64(lowest(bits))
                bits &= bits - _1
                while p + u >= behind:
                    row += 1
                    behind += width
                _add(pixels[at + u], p + u - behind + width, row, cx, cy, out)
        p = stop


@kernel
def directions_of_pixels(pixels, size, selection, width, cx, cy, out):  # type: ignore[no-untyped-def]
    """Of a decoded frame, flat and contiguous."""
    _add_pixels(pixels, 0, size, 0, selection, width, cx, cy, out)


@kernel
def directions_of_stream(chunk, like, pixels, selection, width, cx, cy, out):  # type: ignore[no-untyped-def]
    """Of an LZ4 chunk; False when it is damaged, then `out` means nothing.

    `like` is an array, be it empty, of the frame's dtype.
    """
    base, length = np.uint64(chunk.ctypes.data), len(chunk)
    itemsize = like.itemsize
    window, state = new_window()
    if not open_stream(base, length, pixels * itemsize, state):
        return False
    view = window.view(like.dtype)
    filled, done, start = 0, 0, 0
    while start < pixels:
        filled, done = refill(base, length, window, filled, done, itemsize, state)
        if filled == CORRUPT:
            return False
        count = min(filled // itemsize - done, pixels - start)
        _add_pixels(view, done, count, start, selection, width, cx, cy, out)
        start += count
        done += count
    return True
