"""Sum and maximum of frames by pixel, and in how many frames a pixel was not measured.

A frame is added after all of it was decoded once: a damaged chunk changes nothing. Planes of a
bitshuffle chunk are added and compared as they are, 512 pixels at once (`planes`), and put into
numbers when all frames are added. Of decoded frames, and where counts are large, the pixels that
are not zero are visited.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.kernels.blocks import (
    cut,
    groups_of,
    load_block,
    loose_pixel,
    open_chunk,
    scratch_words,
)
from analysis.kernels.jit import inlined, kernel
from analysis.kernels.lz4 import CORRUPT
from analysis.kernels.memory import load8, lowest
from analysis.kernels.planes import DEPTH, add_planes, keep_largest
from analysis.kernels.stream import new_window, occupied, open_stream, refill
from analysis.kernels.vectors import GROUP_BYTES, any_common

_0, _1, _3, _6, _8 = (np.uint64(i) for i in (0, 1, 3, 6, 8))
STACKS_BYTES = 2 * DEPTH * GROUP_BYTES


@inlined
def _add(p, value, sums, largest):  # type: ignore[no-untyped-def]
    """Add a pixel that is not zero."""
    sums[p] += value
    if value > largest[p]:
        largest[p] = np.uint32(value)


@inlined
def _visit(words, used, planes, chosen, start, pixels, begin, end, sums, largest):  # type: ignore[no-untyped-def]
    """Add the chosen pixels of the words [begin, end) of a block that are not zero."""
    stride = np.uint64(8 * groups_of(pixels))
    filled = np.uint64(used)
    top = filled - _1
    above = (_1 << np.uint64(planes)) - (_1 << top)  # the last plane stands for those above
    for w in range(np.uint64(begin), np.uint64(end)):
        bits = load8(chosen + (w << _3))
        v = _0
        for k in range(filled):
            v |= words[k * stride + w]
        v &= bits
        first = np.uint64(start) + (w << _6)
        while v != _0:
            u = lowest(v)
            value = (words[top * stride + w] >> u & _1) * above
            for k in range(top):
                value |= (words[k * stride + w] >> u & _1) << k
            _add(first + u, value, sums, largest)
            v &= v - _1


@inlined
def _carry(carried, first, sums):  # type: ignore[no-untyped-def]
    """Add what was carried beyond a stack of the pixels from `first` on."""
    for w in range(_8):
        v = carried[w]
        while v != _0:
            sums[first + (w << _6) + lowest(v)] += _1 << np.uint64(DEPTH)
            v &= v - _1


@inlined
def _add_block(  # type: ignore[no-untyped-def]
    words, used, planes, chosen, start, pixels, sums, largest, stacks, heights, carried
):
    """Add the chosen pixels of a block."""
    groups = groups_of(pixels)
    if start & 511:
        _visit(words, used, planes, chosen, start, pixels, 0, 8 * groups, sums, largest)
        return
    step = np.uint64(GROUP_BYTES * groups)
    for g in range(groups):
        offset = np.uint64(GROUP_BYTES * g)
        frame, bits = np.uint64(words.ctypes.data) + offset, chosen + offset
        count = used
        while count and not any_common(frame + np.uint64(count - 1) * step, bits, _1):
            count -= 1
        if count == 0:
            continue
        if count > DEPTH or (count == used and used < planes):
            _visit(words, used, planes, chosen, start, pixels, 8 * g, 8 * g + 8, sums, largest)
            continue
        at = (start >> 9) + g
        stack = np.uint64(stacks.ctypes.data + at * STACKS_BYTES)
        n = np.uint64(count)
        if add_planes(frame, step, n, bits, stack, np.uint64(carried.ctypes.data)):
            _carry(carried, np.uint64(at << 9), sums)
        stack += np.uint64(STACKS_BYTES // 2)
        keep_largest(frame, step, n, bits, stack, np.uint64(heights[at]))
        if count > heights[at]:
            heights[at] = count


def new_stacks(pixels: int) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """`stacks` and `heights` for that many pixels."""
    groups = groups_of(pixels)
    return np.zeros((groups, 2, DEPTH, 8), np.uint64), np.zeros(groups, np.uint8)


@kernel
def unfold(stacks, heights, sums, largest):  # type: ignore[no-untyped-def]
    """Move what is in stacks to the numbers."""
    for g in range(len(stacks)):
        if heights[g] == 0:
            continue
        for w in range(8):
            first = np.uint64(512 * g + 64 * w)
            some = _0
            for k in range(DEPTH):
                some |= stacks[g, 1, k, w]
                v = stacks[g, 0, k, w]
                while v != _0:
                    sums[first + lowest(v)] += _1 << np.uint64(k)
                    v &= v - _1
            while some != _0:
                u = lowest(some)
                value = _0
                for k in range(heights[g]):
                    value |= (stacks[g, 1, k, w] >> u & _1) << np.uint64(k)
                largest[first + u] = max(largest[first + u], np.uint32(value))
                some &= some - _1
        stacks[g] = _0
        heights[g] = 0


@inlined
def _miss(selection, start, pixels, chosen, left, missing):  # type: ignore[no-untyped-def]
    """Count the pixels that are selected but no longer in `left` as not measured."""
    cut(selection, start, pixels, chosen)
    for w in range(np.uint64(8 * groups_of(pixels))):
        v = chosen[w] & ~load8(left + (w << _3))
        while v != _0:
            missing[np.uint64(start) + (w << _6) + lowest(v)] += np.uint32(1)
            v &= v - _1


@kernel
def add_blocks(  # type: ignore[no-untyped-def]
    chunk, layout, block, itemsize, selection, sums, largest, missing, stacks, heights
):
    """Add a bitshuffle chunk; False when it is damaged, then nothing has changed.

    `sums` (uint64), `largest` and `missing` (uint32) have one number for each pixel. For each 512
    pixels there are two stacks, of their sum and of their maximum, in `stacks` (uint64, ... x 2 x
    DEPTH x 8), to be added to the numbers by `unfold`, and in `heights` (uint8) how high the second
    is.
    """
    base, length = np.uint64(chunk.ctypes.data), len(chunk)
    pixels = sums.size
    begin, block = open_chunk(base, length, layout, block, pixels, itemsize)
    if begin == CORRUPT:
        return False
    size, per_plane = scratch_words(block, pixels, itemsize)
    words, spare = np.empty(size, np.uint64), np.empty(size, np.uint64)
    chosen, before = np.empty(per_plane, np.uint64), np.empty(per_plane, np.uint64)
    carried = np.empty(8, np.uint64)
    planes = 8 * itemsize
    whole = pixels & ~7
    end = begin
    for adding in (False, True):
        at, start = begin, 0
        while start < whole:
            count = min(block, whole - start)
            at, used, bits, sentinels = load_block(
                base, length, layout, at, start, count, itemsize, selection, words, spare, chosen
            )
            if at == CORRUPT:
                return False
            if adding and used:
                _add_block(
                    words,
                    used,
                    planes,
                    bits,
                    start,
                    count,
                    sums,
                    largest,
                    stacks,
                    heights,
                    carried,
                )
                if sentinels:
                    _miss(selection, start, count, before, bits, missing)
            start += count
        if length - at < (pixels - whole) * itemsize:
            return False
        end = at
    full = (_1 << np.uint64(planes)) - _1
    for p in range(whole, pixels):
        if selection[p >> 6] >> np.uint64(p & 63) & _1:
            value = loose_pixel(base, length, end, itemsize, p - whole)
            if value == full:
                missing[p] += np.uint32(1)
            else:
                _add(p, value, sums, largest)
    return True


@inlined
def _add_pixels(pixels, first, count, start, selection, sums, largest, missing):  # type: ignore[no-untyped-def]
    """Add `count` pixels of a decoded frame: `pixels[first]` is number `start` of the frame."""
    p, end = start, start + count
    while p < end:
        stop = min(end, (p | 63) + 1)
        bits = selection[p >> 6] >> np.uint64(p & 63)
        if bits != _0:
            at = first + p - start
            some, full = occupied(pixels, at, stop - p)
            full &= bits
            bits &= some & ~full
            while bits != _0:
                u = np.int64(lowest(bits))
                _add(p + u, np.uint64(pixels[at + u]), sums, largest)
                bits &= bits - _1
            while full != _0:
                missing[p + np.int64(lowest(full))] += np.uint32(1)
                full &= full - _1
        p = stop


@kernel
def add_pixels(pixels, selection, sums, largest, missing):  # type: ignore[no-untyped-def]
    """Add a decoded frame, flat and contiguous."""
    _add_pixels(pixels, 0, pixels.size, 0, selection, sums, largest, missing)


@kernel
def add_stream(chunk, like, selection, sums, largest, missing):  # type: ignore[no-untyped-def]
    """Add an LZ4 chunk; False when it is damaged, then nothing has changed.

    `like` is an array, be it empty, of the frame's dtype.
    """
    base, length = np.uint64(chunk.ctypes.data), len(chunk)
    pixels, itemsize = sums.size, like.itemsize
    for adding in (False, True):
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
            if adding:
                _add_pixels(view, done, count, start, selection, sums, largest, missing)
            start += count
            done += count
    return True
