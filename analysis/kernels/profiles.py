"""Counts summed by bins: each pixel has a bin, given by a table.

Few pixels of a diffraction frame are not zero, so the kernel visits the set bits of each plane.
Where a block has about as many set bits as pixels, it puts the pixels together first and visits
those.
Pixels are not counted: their number by bin is known but for sentinels, which are visited.
"""

from __future__ import annotations

import numpy as np

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
from analysis.kernels.memory import load8, lowest, popcount
from analysis.kernels.stream import new_window, occupied, open_stream, refill
from analysis.kernels.vectors import any_common, count_common

_0, _1, _2, _3, _4, _6 = (np.uint64(i) for i in (0, 1, 2, 3, 4, 6))


@inlined
def _positions(words, plane, chosen, stride, full, found):  # type: ignore[no-untyped-def]
    """Write the positions in the block of the chosen bits of a plane to `found`; their number.

    First the words that are not empty, then four bits at a time, be they there or not: a branch
    for each word or bit would be mispredicted half of the time. `full` is scratch, two words for
    each of the plane's, `found` has room for four positions more than there are bits.
    """
    filled = _0  # unsigned, here and below: numba need not look for negative indices
    for w in range(np.uint64(stride)):
        v = words[np.uint64(plane) + w] & load8(chosen + (w << _3))
        full[filled] = v
        full[filled + _1] = w << _6
        filled += np.uint64(v != _0) << _1
    number = _0
    for i in range(_0, filled, _2):
        v, origin = full[i], full[i + _1]
        behind = number + popcount(v)
        while v != _0:
            for j in range(_4):
                found[number + j] = origin + lowest(v)
                v &= v - _1
            number += _4
        number = behind
    return number


@inlined
def _visit(found, number, weight, table, start, sums):  # type: ignore[no-untyped-def]
    """Add `weight` to the bins of the pixels at these positions."""
    places = table[start:]
    for i in range(number):
        sums[places[found[i]]] += weight


@inlined
def _visit_pixels(words, used, planes, chosen, stride, table, start, sums):  # type: ignore[no-untyped-def]
    """Add every chosen pixel to its bin, whatever its value."""
    values = np.empty(64, np.uint64)
    for w in range(stride):
        bits = load8(chosen + np.uint64(8 * w))
        if bits == _0:
            continue
        values[:] = _0
        weight = _1
        for k in range(used):
            if k == used - 1:  # it stands for the planes above, too
                weight = (_1 << np.uint64(planes)) - weight
            v = words[k * stride + w] & bits
            for u in range(64):
                values[u] += (v >> np.uint64(u) & _1) * weight
            weight = weight << _1
        first = start + 64 * w
        while bits != _0:
            u = lowest(bits)
            sums[table[np.uint64(first) + u]] += values[u]
            bits &= bits - _1


@inlined
def _add_block(words, used, planes, chosen, table, start, pixels, full, found, sums):  # type: ignore[no-untyped-def]
    """Add a block to the sums by bin."""
    groups = groups_of(pixels)
    stride = 8 * groups
    base = np.uint64(words.ctypes.data)
    set_bits = _0
    for k in range(used):
        set_bits += count_common(base + np.uint64(8 * stride * k), chosen, np.uint64(groups))
    if set_bits << _4 > np.uint64(pixels * (4 + used)):  # measured: where both take as long
        _visit_pixels(words, used, planes, chosen, stride, table, start, sums)
        return
    for k in range(used):
        weight = _1 << np.uint64(k)
        if k == used - 1:
            weight = (_1 << np.uint64(planes)) - weight
        if any_common(base + np.uint64(8 * stride * k), chosen, np.uint64(groups)):
            number = _positions(words, k * stride, chosen, stride, full, found)
            _visit(found, number, weight, table, start, sums)


@inlined
def _uncount(selection, start, pixels, chosen, left, table, counts):  # type: ignore[no-untyped-def]
    """Take the pixels that are selected but no longer in `left` from the counts by bin."""
    cut(selection, start, pixels, chosen)
    for w in range(np.uint64(8 * groups_of(pixels))):
        v = chosen[w] & ~load8(left + (w << _3))
        first = np.uint64(start) + (w << _6)
        while v != _0:
            counts[table[first + lowest(v)]] -= _1
            v &= v - _1


@kernel
def profile_of_blocks(  # type: ignore[no-untyped-def]
    chunk, layout, block, itemsize, selection, table, static, out
):
    """Profile of a bitshuffle chunk; False when it is damaged, then `out` means nothing.

    `table` has the bin of each pixel, uint16; `static` the selected pixels by bin. `out` is
    (2, bins): sums of the counts, numbers of the pixels that are selected and no sentinels.
    """
    base, length = np.uint64(chunk.ctypes.data), len(chunk)
    pixels = table.size
    at, block = open_chunk(base, length, layout, block, pixels, itemsize)
    if at == CORRUPT:
        return False
    size, per_plane = scratch_words(block, pixels, itemsize)
    words, spare = np.empty(size, np.uint64), np.empty(size, np.uint64)
    chosen, before = np.empty(per_plane, np.uint64), np.empty(per_plane, np.uint64)
    full, found = np.empty(2 * per_plane + 2, np.uint64), np.empty(64 * per_plane + 4, np.uint32)
    sums, counts = out[0], out[1]
    sums[:] = _0
    counts[:] = static
    planes = 8 * itemsize
    whole = pixels & ~7
    start = 0
    while start < whole:
        count = min(block, whole - start)
        at, used, bits, sentinels = load_block(
            base, length, layout, at, start, count, itemsize, selection, words, spare, chosen
        )
        if at == CORRUPT:
            return False
        if used:
            _add_block(words, used, planes, bits, table, start, count, full, found, sums)
            if sentinels:
                _uncount(selection, start, count, before, bits, table, counts)
        start += count
    if length - at < (pixels - whole) * itemsize:
        return False
    largest = (_1 << np.uint64(planes)) - _1
    for p in range(whole, pixels):
        value = loose_pixel(base, length, at, itemsize, p - whole)
        if selection[p >> 6] >> np.uint64(p & 63) & _1:
            _add_pixel(value, largest, table[p], sums, counts)
    return True


@inlined
def _add_pixel(value, largest, place, sums, counts):  # type: ignore[no-untyped-def]
    """Add a selected pixel to its bin, or uncount it."""
    if value == largest:
        counts[place] -= _1
    else:
        sums[place] += value


@inlined
def _add_pixels(pixels, first, count, start, selection, table, sums, counts):  # type: ignore[no-untyped-def]
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
                sums[table[p + u]] += np.uint64(pixels[at + u])
                bits &= bits - _1
            while full != _0:
                counts[table[p + np.int64(lowest(full))]] -= _1
                full &= full - _1
        p = stop


@kernel
def profile_of_pixels(pixels, selection, table, static, out):  # type: ignore[no-untyped-def]
    """Profile of a decoded frame, flat and contiguous."""
    out[0, :] = _0
    out[1, :] = static
    _add_pixels(pixels, 0, pixels.size, 0, selection, table, out[0], out[1])


@kernel
def profile_of_stream(chunk, like, selection, table, static, out):  # type: ignore[no-untyped-def]
    """Profile of an LZ4 chunk; False when it is damaged, then `out` means nothing.

    `like` is an array, be it empty, of the frame's dtype.
    """
    base, length = np.uint64(chunk.ctypes.data), len(chunk)
    pixels, itemsize = table.size, like.itemsize
    window, state = new_window()
    if not open_stream(base, length, pixels * itemsize, state):
        return False
    view = window.view(like.dtype)
    out[0, :] = _0
    out[1, :] = static
    filled, done, start = 0, 0, 0
    while start < pixels:
        filled, done = refill(base, length, window, filled, done, itemsize, state)
        if filled == CORRUPT:
            return False
        count = min(filled // itemsize - done, pixels - start)
        _add_pixels(view, done, count, start, selection, table, out[0], out[1])
        start += count
        done += count
    return True
