"""Sums over the chosen pixels of counts times 1, x, y, x^2, x y, y^2, exact modulo 2^64.

Within a 64-bit word of a bit plane the bit position u is the coordinate, and the bits of u and of
u^2 are constant words: sum u = sum_i 2^i popcount(v & U_i). From there integers lead to the frame:
with p = 64 w + u the index of the pixel in the flat frame and y its row, the kernel sums counts
times 1, p, p^2, y, y p, y^2, and x = p - y width gives the moments. A word whose pixels are in
several rows counts for the first of them; what is behind each row start is then added.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from analysis.kernels.blocks import (
    groups_of,
    load_block,
    loose_pixel,
    open_chunk,
    scratch_words,
)
from analysis.kernels.jit import inlined, intrinsic, kernel
from analysis.kernels.lz4 import CORRUPT
from analysis.kernels.memory import load8, lowest, popcount
from analysis.kernels.pixels import MOMENT_WORDS, moments_chosen
from analysis.kernels.stream import new_window, occupied, open_stream, refill
from analysis.kernels.vectors import (
    LANES,
    any_common,
    constant,
    each,
    everywhere,
    load,
    ones,
    spread,
    store,
    total,
)


def _bit_words(values: list[int]) -> tuple[int, ...]:
    """For each bit of numbers `values[u]`, u < 64, the word whose bit u it is."""
    highest = max(values).bit_length()
    return tuple(sum((v >> i & 1) << u for u, v in enumerate(values)) for i in range(highest))


_U = _bit_words(list(range(64)))
"""The bits of u."""
_U0, _U1, _U2, _U3, _U4, _U5 = (np.uint64(word) for word in _U)
_Q = _bit_words([u * u for u in range(64)])
"""The bits of u^2."""

_0, _1, _2, _3, _4, _5 = (np.uint64(i) for i in range(6))


@inlined
def _first_moment(v):  # type: ignore[no-untyped-def]
    """Sum of the positions of the set bits of a word."""
    return (
        popcount(v & _U0)
        + (popcount(v & _U1) << _1)
        + (popcount(v & _U2) << _2)
        + (popcount(v & _U3) << _3)
        + (popcount(v & _U4) << _4)
        + (popcount(v & _U5) << _5)
    )


def _weighted(builder: Any, group: Any, bits: tuple[int, ...]) -> Any:
    """Sum over the set bits of each word of the number whose bit i is in the word `bits[i]`."""
    result = everywhere(0)
    for i, word in enumerate(bits):
        if word:
            part = ones(builder, builder.and_(group, everywhere(word)))
            result = builder.add(result, builder.shl(part, everywhere(i)))
    return result


@intrinsic
def _add_plane(  # type: ignore[no-untyped-def]
    typingctx, plane, chosen, counts, offsets, groups, weight
):
    """Add 2^weight for each bit to its word's `counts`, and times u to `offsets`.

    Returns the sum times u^2, without the factor 2^weight.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        plane, chosen, counts, offsets, groups, weight = args
        shift = spread(builder, weight)

        def body(at: Any, sums: list[Any]) -> list[Any]:
            v = builder.and_(load(builder, plane, at), load(builder, chosen, at))
            for place, value in (counts, ones(builder, v)), (offsets, _weighted(builder, v, _U)):
                old = load(builder, place, at)
                store(builder, builder.add(old, builder.shl(value, shift)), place, at)
            return [builder.add(sums[0], _weighted(builder, v, _Q))]

        return total(builder, each(builder, groups, 1, body)[0])

    return types.uint64(*[types.uint64] * 6), build


@intrinsic
def _gather(typingctx, counts, offsets, groups):  # type: ignore[no-untyped-def]
    """Sums over a block of the counts times 1, e and e^2 - u^2, e = 64 w + u.

    On return `offsets` holds for each word the sum of the counts times e instead of times u.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        counts, offsets, groups = args
        lanes = constant([64 * w for w in range(LANES)])

        def body(at: Any, sums: list[Any]) -> list[Any]:
            n, s = load(builder, counts, at), load(builder, offsets, at)
            e = builder.add(spread(builder, builder.shl(at, at.type(3))), lanes)
            first = builder.add(builder.mul(n, e), s)
            store(builder, first, offsets, at)
            second = builder.mul(e, builder.add(first, s))
            return [builder.add(*pair) for pair in zip(sums, (n, first, second), strict=True)]

        sums = each(builder, groups, 3, body)
        return context.make_tuple(builder, signature.return_type, [total(builder, x) for x in sums])

    return types.UniTuple(types.uint64, 3)(*[types.uint64] * 3), build


@intrinsic
def _behind(typingctx, counts, offsets, word, groups):  # type: ignore[no-untyped-def]
    """Sums of `counts` and of `offsets` from `word` on to the end."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        counts, offsets, word, groups = args
        start = spread(builder, word)
        lanes = constant(range(LANES))

        def body(at: Any, sums: list[Any]) -> list[Any]:
            w = builder.add(spread(builder, builder.lshr(at, at.type(3))), lanes)
            inside = builder.icmp_unsigned(">=", w, start)
            return [
                builder.add(value, builder.select(inside, load(builder, place, at), everywhere(0)))
                for value, place in zip(sums, (counts, offsets), strict=True)
            ]

        sums = each(builder, groups, 2, body)
        return context.make_tuple(builder, signature.return_type, [total(builder, x) for x in sums])

    return types.UniTuple(types.uint64, 2)(*[types.uint64] * 4), build


@inlined
def _part_of_word(words, w, used, planes, stride, chosen):  # type: ignore[no-untyped-def]
    """Sums over the chosen bits of word `w`: counts, counts times u."""
    counts, offsets = _0, _0
    weight = _1
    for k in range(used):
        if k == used - 1:  # it stands for the planes above, too
            weight = (_1 << np.uint64(planes)) - weight
        v = words[k * stride + w] & chosen
        counts += popcount(v) * weight
        offsets += _first_moment(v) * weight
        weight = weight << _1
    return counts, offsets


@inlined
def _add_block(  # type: ignore[no-untyped-def]
    words, used, planes, chosen, counts, offsets, start, pixels, width, sums
):
    """Add a block to the sums over the frame."""
    groups = np.uint64(groups_of(pixels))
    stride = 8 * groups_of(pixels)
    counts[:stride] = _0
    offsets[:stride] = _0
    n_at, s_at = np.uint64(counts.ctypes.data), np.uint64(offsets.ctypes.data)
    squares = _0
    for k in range(planes):
        plane = np.uint64(words.ctypes.data + 8 * stride * min(k, used - 1))
        if any_common(plane, chosen, groups):
            weight = np.uint64(k)
            squares += _add_plane(plane, chosen, n_at, s_at, groups, weight) << weight
        elif k >= used - 1:
            break
    n, first, second = _gather(n_at, s_at, groups)
    if n == _0:
        return
    origin, y = np.uint64(start), np.uint64(start // width)
    sums[0] += n
    sums[1] += n * origin + first
    sums[2] += second + squares + origin * (origin * n + (first << _1))
    sums[3] += y * n
    sums[4] += y * (n * origin + first)
    sums[5] += y * y * n
    row = start // width + 1
    while row * width < start + pixels:  # what is behind a row's start is one row further
        e = row * width - start
        w = e >> 6
        n, first = _behind(n_at, s_at, np.uint64((e + 63) >> 6), groups)
        if e & 63 and counts[w] != _0:
            rest = load8(chosen + np.uint64(8 * w)) & (~_0 << np.uint64(e & 63))
            part, offset = _part_of_word(words, w, used, planes, stride, rest)
            n += part
            first += part * np.uint64(64 * w) + offset
        y = np.uint64(row)
        sums[3] += n
        sums[4] += n * origin + first
        sums[5] += n * (y + y - _1)
        row += 1


@inlined
def add_pixel(value, p, width, sums):  # type: ignore[no-untyped-def]
    """Add one pixel, p its index in the flat frame."""
    index, y = np.uint64(p), np.uint64(p // width)
    sums[0] += value
    sums[1] += value * index
    sums[2] += value * index * index
    sums[3] += value * y
    sums[4] += value * y * index
    sums[5] += value * y * y


@inlined
def _sum_pixels(pixels, first, chosen):  # type: ignore[no-untyped-def]
    """Sums over the pixels `first` + u, bit u of `chosen` set: counts, times u, times u^2."""
    counts, offsets, squares = _0, _0, _0
    while chosen != _0:
        u = lowest(chosen)
        value = np.uint64(pixels[first + np.int64(u)])
        counts += value
        offsets += value * u
        squares += value * (u * u)
        chosen &= chosen - _1
    return counts, offsets, squares


@inlined
def add_pixels(pixels, first, count, start, width, selection, sums):  # type: ignore[no-untyped-def]
    """Add `count` pixels of a decoded frame: `pixels[first]` is number `start` of the frame."""
    p, end = start, start + count
    while p < end:
        y = p // width
        row_end = min(end, (y + 1) * width)
        totals, firsts, seconds = _0, _0, _0
        while p < row_end:
            at = first + p - start
            words = min((row_end - p) >> 6, MOMENT_WORDS) if p & 63 == 0 else 0
            if words:
                stop = p + 64 * words
                counts, offsets, squares = moments_chosen(
                    np.uint64(pixels.ctypes.data + at * pixels.itemsize),
                    pixels,
                    np.uint64(selection.ctypes.data + (p >> 3)),
                    np.uint64(words),
                )
            else:
                stop = min(row_end, (p | 63) + 1)
                chosen = selection[p >> 6] >> np.uint64(p & 63)
                some, full = occupied(pixels, at, stop - p)
                counts, offsets, squares = _sum_pixels(pixels, at, chosen & some & ~full)
            origin = np.uint64(p)
            totals += counts
            firsts += counts * origin + offsets
            seconds += squares + origin * (origin * counts + (offsets << _1))
            p = stop
        row = np.uint64(y)
        sums[0] += totals
        sums[1] += firsts
        sums[2] += seconds
        sums[3] += row * totals
        sums[4] += row * firsts
        sums[5] += row * row * totals


@inlined
def finish(sums, width, out):  # type: ignore[no-untyped-def]
    """From sums over 1, p, p^2, y, y p, y^2 to moments over 1, x, y, x^2, x y, y^2."""
    line = np.uint64(width)
    out[0] = sums[0]
    out[1] = sums[1] - line * sums[3]
    out[2] = sums[3]
    out[3] = sums[2] - line * (sums[4] << _1) + line * line * sums[5]
    out[4] = sums[4] - line * sums[5]
    out[5] = sums[5]


@kernel
def moments_of_blocks(  # type: ignore[no-untyped-def]
    chunk, layout, block, pixels, width, itemsize, selection, out
):
    """Moments of a bitshuffle chunk; False when it is damaged, then `out` is untouched.

    `layout` and `block` are from `bitshuffle_form`, `selection` from `pack_selection`.
    """
    base, length = np.uint64(chunk.ctypes.data), len(chunk)
    at, block = open_chunk(base, length, layout, block, pixels, itemsize)
    if at == CORRUPT:
        return False
    size, per_plane = scratch_words(block, pixels, itemsize)
    words, spare = np.empty(size, np.uint64), np.empty(size, np.uint64)
    chosen = np.empty(per_plane, np.uint64)
    n, s = np.empty(per_plane, np.uint64), np.empty(per_plane, np.uint64)
    sums = np.zeros(6, np.uint64)
    planes = 8 * itemsize
    whole = pixels & ~7
    start = 0
    while start < whole:
        count = min(block, whole - start)
        at, used, bits, _ = load_block(
            base, length, layout, at, start, count, itemsize, selection, words, spare, chosen
        )
        if at == CORRUPT:
            return False
        if used:
            _add_block(words, used, planes, bits, n, s, start, count, width, sums)
        start += count
    if length - at < (pixels - whole) * itemsize:
        return False
    largest = (_1 << np.uint64(planes)) - _1
    for p in range(whole, pixels):
        value = loose_pixel(base, length, at, itemsize, p - whole)
        if value != largest and selection[p >> 6] >> np.uint64(p & 63) & _1:
            add_pixel(value, p, width, sums)
    finish(sums, width, out)
    return True


@kernel
def moments_of_pixels(pixels, width, selection, out):  # type: ignore[no-untyped-def]
    """Moments of a decoded frame, flat and contiguous."""
    sums = np.zeros(6, np.uint64)
    add_pixels(pixels, 0, pixels.size, 0, width, selection, sums)
    finish(sums, width, out)


@kernel
def moments_of_stream(chunk, like, pixels, width, selection, out):  # type: ignore[no-untyped-def]
    """Moments of an LZ4 chunk; False when it is damaged, then `out` is untouched.

    `like` is an array, be it empty, of the frame's dtype.
    """
    base, length = np.uint64(chunk.ctypes.data), len(chunk)
    window, state = new_window()
    itemsize = like.itemsize
    if not open_stream(base, length, pixels * itemsize, state):
        return False
    view = window.view(like.dtype)
    sums = np.zeros(6, np.uint64)
    filled, done, start = 0, 0, 0
    while start < pixels:
        filled, done = refill(base, length, window, filled, done, itemsize, state)
        if filled == CORRUPT:
            return False
        count = min(filled // itemsize - done, pixels - start)
        add_pixels(view, done, count, start, width, selection, sums)
        start += count
        done += count
    finish(sums, width, out)
    return True
