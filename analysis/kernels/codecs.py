"""Which chunks the kernels read, and how their input is laid out. Does not load numba."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.codec import BITSHUFFLE, LZ4, Codec
from analysis.plan import Plan

LZ4_BLOCKS = 1
"""Layout of a chunk: bitshuffle with LZ4."""
BARE_BLOCKS = 0
"""Layout of a chunk: bitshuffle alone."""

DEFAULT_BLOCK_BYTES = 8192  # bitshuffle's BSHUF_TARGET_BLOCK_SIZE_B


@dataclass(frozen=True, slots=True)
class Blocks:
    """A bitshuffle chunk."""

    layout: int
    """LZ4_BLOCKS or BARE_BLOCKS."""
    block: int
    """Pixels in a block, where the chunk does not say."""


@dataclass(frozen=True, slots=True)
class Stream:
    """An LZ4 chunk."""


@dataclass(frozen=True, slots=True)
class Plain:
    """A chunk that is the frame."""


def form_of(codec: Codec, plan: Plan) -> Blocks | Stream | Plain | None:
    """The form of the chunks of `codec`; None where a frame of `plan` is not reduced from them."""
    dtype = np.dtype(codec.dtype)
    fits = codec.shape == plan.shape and dtype == np.dtype(plan.dtype)
    known = dtype.kind == "u" and dtype.itemsize <= 4 and dtype.str[0] in "<|"
    if not fits or not known or sys.byteorder != "little" or len(codec.filters) > 1:
        return None
    if not codec.filters:
        return Plain()
    stage = codec.filters[0]
    if stage.number == BITSHUFFLE:
        return bitshuffle_form(stage.options, dtype.itemsize)
    return Stream() if stage.number == LZ4 else None


def bitshuffle_form(options: tuple[int, ...], itemsize: int) -> Blocks | None:
    """The form that bitshuffle's `cd_values` tell, None where it is not read here.

    The values: version (two), size of an element, pixels in a block (0: default), compression (0
    none, 2 LZ4).
    """
    element = options[2] if len(options) > 2 else itemsize
    block = (options[3] if len(options) > 3 else 0) or DEFAULT_BLOCK_BYTES // itemsize
    compression = options[4] if len(options) > 4 else 0
    if element != itemsize or block % 8 or block <= 0 or compression not in (0, 2):
        return None
    return Blocks(LZ4_BLOCKS if compression == 2 else BARE_BLOCKS, block)


def pack_selection(selected: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Bits of the pixels to be used, in the order of bit planes; padded by empty words."""
    bits = np.packbits(selected, axis=None, bitorder="little")
    words = np.zeros(-(-bits.size // 8) + 2, np.uint64)
    words.view(np.uint8)[: bits.size] = bits
    words.flags.writeable = False
    return words


def bytes_of(chunk: bytes) -> NDArray[np.uint8]:
    """The chunk as an array of one type whatever holds it, so that kernels compile once."""
    view: NDArray[np.uint8] = np.frombuffer(chunk, np.uint8)
    view.flags.writeable = False
    return view


def pixels_of(frame: NDArray[Any], plan: Plan) -> NDArray[Any]:
    """The pixels of a decoded frame, flat, contiguous, aligned, native and of one numba type.

    ValueError where the frame is not of the plan's shape and dtype.
    """
    dtype = np.dtype(plan.dtype)
    if frame.shape != plan.shape or frame.dtype != dtype:
        raise ValueError(
            f"a frame {frame.shape} of {frame.dtype} where the plan has {plan.shape} of {dtype}"
        )
    native = dtype.newbyteorder("=")
    flat = np.require(frame, native, ("C", "A")).reshape(-1).view()
    flat.flags.writeable = False
    return flat


def plain_pixels(chunk: bytes, codec: Codec) -> NDArray[Any] | None:
    """The pixels of a chunk that is the frame, like `pixels_of`; None when of another size."""
    if len(chunk) != codec.frame_bytes:
        return None
    flat = np.require(np.frombuffer(chunk, np.dtype(codec.dtype)), None, ("C", "A")).view()
    flat.flags.writeable = False
    return flat
