"""LZ4 chunks (HDF5 filter 32004), decoded piece by piece.

A chunk is: 8 bytes, size of the frame in bytes; 4 bytes, size of a block in bytes; for each block
4 bytes, its stored size, then its LZ4 data, or its bytes as they are where both sizes are equal;
all big-endian. A block is usually the whole frame. As LZ4 looks back 64 KiB at most, a window
that holds as much and the next piece stays in L2 cache.
"""

from __future__ import annotations

import numpy as np

from analysis.kernels.blocks import big_endian
from analysis.kernels.jit import inlined
from analysis.kernels.lz4 import CORRUPT, SLACK, copy_literals, copy_match, copy_short, extended
from analysis.kernels.memory import copy16, copy64, load1, load2
from analysis.kernels.vectors import nonzero_and_full

HISTORY = 1 << 16
ROOM = 5 * HISTORY  # 320 KiB fit L2; with 128 KiB moving the history takes a quarter of the time
"""Bytes of the window after which what is older than HISTORY is dropped."""

AT, END, BLOCK_START, BLOCK_END, LITERALS, TOKEN, MATCH, OFFSET, BLOCK_BYTES, LEFT = range(10)
"""The state: offset in the chunk, and there of the end of the block; both ends of the block in the
window; literals left when the room was full, and the token they came with, -1 for none; bytes left
of a match, and its offset; bytes in a block; bytes of the frame behind this block."""

_0, _1, _2, _4, _5, _15, _23, _32 = (np.uint64(i) for i in (0, 1, 2, 4, 5, 15, 23, 32))
_ROOM = np.uint64(ROOM)
_WINDOW_WORDS = (ROOM + 64 + SLACK) // 8


@inlined
def new_window():  # type: ignore[no-untyped-def]
    """(window, state): scratch, made for each chunk."""
    state = np.zeros(10, np.int64)
    state[TOKEN] = -1
    return np.empty(_WINDOW_WORDS, np.uint64), state


@inlined
def open_stream(base, length, frame_bytes, state):  # type: ignore[no-untyped-def]
    """Read the header; False when it is wrong."""
    if length < 12 or big_endian(base, 8) != np.uint64(frame_bytes):
        return False
    state[AT] = state[END] = 12
    state[BLOCK_BYTES] = min(np.int64(big_endian(base + np.uint64(8), 4)), frame_bytes)
    state[LEFT] = frame_bytes
    return state[BLOCK_BYTES] > 0


@inlined
def _next_block(base, length, filled, state):  # type: ignore[no-untyped-def]
    """Begin a block at `filled` of the window; False when it is cut short."""
    if length - state[END] < 4:
        return False
    size = min(state[BLOCK_BYTES], state[LEFT])
    stored = np.int64(big_endian(base + np.uint64(state[END]), 4))
    state[AT] = state[END] + 4
    if stored > length - state[AT]:
        return False
    state[END] = state[AT] + stored
    state[LEFT] -= size
    state[BLOCK_START] = filled
    state[BLOCK_END] = filled + size
    if stored == size:
        state[LITERALS] = size
    return True


@inlined
def _sequences(base, length, window, filled, state):  # type: ignore[no-untyped-def]
    """Decode LZ4 sequences until the block ends or the room is full; how far it is filled.

    `window` and all but the state are addresses.
    """
    at, end = base + np.uint64(state[AT]), base + np.uint64(state[END])
    limit = base + np.uint64(length)
    target, room = window + np.uint64(filled), window + _ROOM
    start, stop = window + np.uint64(state[BLOCK_START]), window + np.uint64(state[BLOCK_END])
    last = stop - _5  # the format: the last 5 bytes are literals
    token = np.uint64(state[TOKEN])
    resumed = state[TOKEN] >= 0
    state[TOKEN] = -1
    while resumed or target < room:
        if not resumed:
            if at >= end:
                return CORRUPT
            token = load1(at)
            at += _1
            count = token >> _4
            if count != _15 and at + _32 <= limit:
                copy16(target, at)
            else:
                if count == _15:
                    count, at = extended(count, at, end)
                    if at == _0:
                        return CORRUPT
                if count > end - at or count > stop - target:
                    return CORRUPT
                if count > room - target:
                    state[LITERALS] = np.int64(count)
                    state[TOKEN] = np.int64(token)
                    break
                copy_literals(target, at, count, limit)
            at += count
            target += count
        resumed = False
        if at + _2 > end:
            if at == end and target == stop:
                break
            return CORRUPT
        offset = load2(at)
        at += _2
        count = token & _15
        if count == _15:
            count, at = extended(count, at, end)
            if at == _0:
                return CORRUPT
        count += _4
        if offset == _0 or offset > target - start or target + count > last:
            return CORRUPT
        if count <= _23:
            copy_short(target, offset)
        else:
            part = count
            if target + count > room:
                part = room - target if target < room else _0
                state[MATCH] = np.int64(count - part)
                state[OFFSET] = np.int64(offset)
            copy_match(target, offset, part)
            count = part
        target += count
    state[AT] = np.int64(at - base)
    return np.int64(target - window)


@inlined
def advance(base, length, window, filled, state):  # type: ignore[no-untyped-def]
    """Decode until the room is full or the frame complete; how far the window is filled then.

    It may be filled up to 63 bytes beyond ROOM. CORRUPT when the chunk is damaged.
    """
    target = np.uint64(window.ctypes.data)
    while filled < ROOM:
        if state[LITERALS]:
            part = min(state[LITERALS], ROOM - filled)
            source = base + np.uint64(state[AT])
            copy_literals(
                target + np.uint64(filled), source, np.uint64(part), base + np.uint64(length)
            )
            state[AT] += part
            state[LITERALS] -= part
            filled += part
        elif state[MATCH]:
            part = min(state[MATCH], ROOM - filled)
            copy_match(target + np.uint64(filled), np.uint64(state[OFFSET]), np.uint64(part))
            state[MATCH] -= part
            filled += part
        elif filled == state[BLOCK_END] and state[AT] == state[END]:
            if state[LEFT] == 0:
                break
            if not _next_block(base, length, filled, state):
                return CORRUPT
        else:
            filled = _sequences(base, length, target, filled, state)
            if filled == CORRUPT:
                return CORRUPT
    return filled


@inlined
def slide(window, filled, state):  # type: ignore[no-untyped-def]
    """Drop what is older than HISTORY; how far the rest fills the window.

    It moves by whole words, so that what was aligned stays aligned.
    """
    words = (filled - HISTORY) >> 3
    target = np.uint64(window.ctypes.data)
    source = target + np.uint64(8 * words)
    for done in range(np.uint64(0), np.uint64(filled - 8 * words), np.uint64(64)):
        copy64(target + done, source + done)
    state[BLOCK_START] -= 8 * words
    state[BLOCK_END] -= 8 * words
    return filled - 8 * words


@inlined
def refill(base, length, window, filled, done, itemsize, state):  # type: ignore[no-untyped-def]
    """Drop what is old and decode more: how far the window is filled then, and how many pixels at
    its start are `done`. Not filled at all at first; CORRUPT as `advance`.
    """
    if filled:
        kept = slide(window, filled, state)
        done -= (filled - kept) // itemsize
        filled = kept
    return advance(base, length, window, filled, state), done


@inlined
def occupied(pixels, first, count):  # type: ignore[no-untyped-def]
    """Of up to 64 pixels from `pixels[first]` on: bits of those not zero, and of the sentinels."""
    if count == 64:
        address = np.uint64(pixels.ctypes.data + first * pixels.itemsize)
        return nonzero_and_full(address, pixels)
    largest = np.iinfo(pixels.dtype).max
    some, full = np.uint64(0), np.uint64(0)
    for u in range(count):
        some |= np.uint64(pixels[first + u] != 0) << np.uint64(u)
        full |= np.uint64(pixels[first + u] == largest) << np.uint64(u)
    return some, full
