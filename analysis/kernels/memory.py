"""Unaligned loads and stores by address, and bit counts: what numba's arrays do not offer.

Nothing here checks bounds: whoever calls these proves them. Addresses and words are uint64;
words are in the byte order of the machine, which must be little-endian (`LITTLE_ENDIAN`).
"""

from __future__ import annotations

import sys
from typing import Any

from llvmlite import ir
from numba import types

from analysis.kernels.jit import intrinsic

LITTLE_ENDIAN = sys.byteorder == "little"
"""Bit planes are little-endian; elsewhere nothing is fused."""

BYTE = ir.IntType(8)
WORD = ir.IntType(64)
INDEX = ir.IntType(32)


def _pointer(builder: Any, address: Any, element: Any) -> Any:
    return builder.inttoptr(address, element.as_pointer())


def _load(builder: Any, address: Any, element: Any) -> Any:
    loaded = builder.load(_pointer(builder, address, element))
    loaded.align = 1
    return loaded


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, _pointer(builder, address, value.type)).align = 1


@intrinsic
def load1(typingctx: Any, address: Any) -> Any:
    """The byte at `address`, as uint64."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(_load(builder, args[0], BYTE), WORD)

    return types.uint64(types.uint64), build


@intrinsic
def load2(typingctx: Any, address: Any) -> Any:
    """The 2 bytes at `address`, as uint64."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.zext(_load(builder, args[0], ir.IntType(16)), WORD)

    return types.uint64(types.uint64), build


@intrinsic
def load8(typingctx: Any, address: Any) -> Any:
    """The 8 bytes at `address`."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _load(builder, args[0], WORD)

    return types.uint64(types.uint64), build


@intrinsic
def store1(typingctx: Any, address: Any, value: Any) -> Any:
    """Write the lowest byte of `value` to `address`."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _store(builder, builder.trunc(args[1], BYTE), args[0])
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), build


@intrinsic
def store8(typingctx: Any, address: Any, value: Any) -> Any:
    """Write the 8 bytes of `value` to `address`."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _store(builder, args[1], args[0])
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), build


@intrinsic
def fill64(typingctx: Any, address: Any, value: Any) -> Any:
    """Write `value` 8 times to the 64 bytes at `address`."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = ir.VectorType(WORD, 8)
        undefined = ir.Constant(lanes, ir.Undefined)
        first = builder.insert_element(undefined, args[1], ir.Constant(INDEX, 0))
        spread = ir.Constant(ir.VectorType(INDEX, 8), [0] * 8)
        _store(builder, builder.shuffle_vector(first, undefined, spread), args[0])
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), build


def _copies(size: int) -> Any:
    @intrinsic
    def copy(typingctx: Any, target: Any, source: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            _store(builder, _load(builder, args[1], ir.VectorType(BYTE, size)), args[0])
            return context.get_dummy_value()

        return types.void(types.uint64, types.uint64), build

    return copy


copy16 = _copies(16)
"""Copy 16 bytes: all are read before any is written."""
copy32 = _copies(32)
"""Copy 32 bytes: all are read before any is written."""
copy64 = _copies(64)
"""Copy 64 bytes: all are read before any is written."""


@intrinsic
def popcount(typingctx: Any, word: Any) -> Any:
    """Number of set bits of a uint64; a loop over an array of them is vectorised."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), build


@intrinsic
def lowest(typingctx: Any, word: Any) -> Any:
    """Position of the lowest set bit of a uint64; 64 where none is set."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), build
