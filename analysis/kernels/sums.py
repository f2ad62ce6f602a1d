"""Sum of the counts of the chosen pixels: 2^k popcount(plane k & chosen), over all planes."""

from __future__ import annotations

import numpy as np

from analysis.kernels.blocks import groups_of, load_block, loose_pixel, open_chunk, scratch_words
from analysis.kernels.jit import kernel
from analysis.kernels.lz4 import CORRUPT
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
