"""Loops over groups of 8 words, written as vectors of 8 x 64 bits.

A block has 4 to 16 such groups, too few to pay for the checks with which a compiler guards a loop
that it vectorises by itself; as explicit vectors the whole pass over moments is 1.7 times as fast.
LLVM maps them to what the machine has. Arguments are addresses of words and numbers of groups,
uint64. Nothing here checks bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from analysis.kernels.jit import intrinsic

LANES = 8
GROUP_BYTES = 8 * LANES
WORD = ir.IntType(64)
GROUP = ir.VectorType(WORD, LANES)
_U = types.uint64


def constant(values: Sequence[int]) -> Any:
    """A group of the given words."""
    return ir.Constant(GROUP, list(values))


def everywhere(value: int) -> Any:
    """A group with the same word in every lane."""
    return constant([value] * LANES)


def spread(builder: Any, word: Any) -> Any:
    """A group with the word, known only when running, in every lane."""
    undefined = ir.Constant(GROUP, ir.Undefined)
    index = ir.IntType(32)
    first = builder.insert_element(undefined, word, ir.Constant(index, 0))
    return builder.shuffle_vector(
        first, undefined, ir.Constant(ir.VectorType(index, LANES), [0] * LANES)
    )


def ones(builder: Any, group: Any) -> Any:
    """Number of set bits of each word."""
    kind = ir.FunctionType(GROUP, [GROUP])
    counter = cgutils.get_or_insert_function(builder.module, kind, "llvm.ctpop.v8i64")
    return builder.call(counter, [group])


def total(builder: Any, group: Any) -> Any:
    """Sum of the words, modulo 2^64."""
    kind = ir.FunctionType(WORD, [GROUP])
    adder = cgutils.get_or_insert_function(builder.module, kind, "llvm.vector.reduce.add.v8i64")
    return builder.call(adder, [group])


def some(builder: Any, group: Any) -> Any:
    """1 when any bit is set, else 0."""
    flags = builder.icmp_unsigned("!=", group, everywhere(0))
    return builder.zext(
        builder.icmp_unsigned("!=", builder.bitcast(flags, ir.IntType(8)), ir.IntType(8)(0)), WORD
    )


def load(builder: Any, address: Any, offset: Any) -> Any:
    """The group `offset` bytes behind `address`."""
    place = builder.inttoptr(builder.add(address, offset), GROUP.as_pointer())
    group = builder.load(place)
    group.align = 8
    return group


def store(builder: Any, group: Any, address: Any, offset: Any) -> None:
    """Write the group `offset` bytes behind `address`."""
    place = builder.inttoptr(builder.add(address, offset), GROUP.as_pointer())
    builder.store(group, place).align = 8


def each(builder: Any, groups: Any, sums: int, body: Callable[[Any, list[Any]], list[Any]]) -> Any:
    """A loop over groups: `body(offset in bytes, sums so far)` gives the new sums; the last sums.

    The sums are groups that start at zero and stay in registers.
    """
    places = []
    for _ in range(sums):
        place = cgutils.alloca_once(builder, GROUP)
        builder.store(everywhere(0), place)
        places.append(place)
    with cgutils.for_range(builder, groups, intp=WORD) as loop:
        offset = builder.mul(loop.index, WORD(GROUP_BYTES))
        for place, value in zip(
            places, body(offset, [builder.load(place) for place in places]), strict=True
        ):
            builder.store(value, place)
    return [builder.load(place) for place in places]


@intrinsic
def any_set(typingctx: Any, words: Any, groups: Any) -> Any:
    """Whether any bit is set."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def body(offset: Any, sums: list[Any]) -> list[Any]:
            return [builder.or_(sums[0], load(builder, args[0], offset))]

        return some(builder, each(builder, args[1], 1, body)[0])

    return _U(_U, _U), build


@intrinsic
def any_common(typingctx: Any, one: Any, other: Any, groups: Any) -> Any:
    """Whether any bit is set in both."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def body(offset: Any, sums: list[Any]) -> list[Any]:
            both = builder.and_(load(builder, args[0], offset), load(builder, args[1], offset))
            return [builder.or_(sums[0], both)]

        return some(builder, each(builder, args[2], 1, body)[0])

    return _U(_U, _U, _U), build


@intrinsic
def count_common(typingctx: Any, one: Any, other: Any, groups: Any) -> Any:
    """Number of bits that are set in both."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def body(offset: Any, sums: list[Any]) -> list[Any]:
            both = builder.and_(load(builder, args[0], offset), load(builder, args[1], offset))
            return [builder.add(sums[0], ones(builder, both))]

        return total(builder, each(builder, args[2], 1, body)[0])

    return _U(_U, _U, _U), build


@intrinsic
def nonzero_and_full(typingctx: Any, address: Any, like: Any) -> Any:
    """Of the 64 pixels at `address`, of the dtype of the array `like`: two words of bits.

    Bit u of the first is set where pixel u is not zero, of the second where all its bits are set.
    """
    size = like.dtype.bitwidth

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pixels = ir.VectorType(ir.IntType(size), 64)
        loaded = builder.load(builder.inttoptr(args[0], pixels.as_pointer()))
        loaded.align = size // 8
        words = [
            builder.bitcast(
                builder.icmp_unsigned(sign, loaded, ir.Constant(pixels, [edge] * 64)), WORD
            )
            for sign, edge in (("!=", 0), ("==", 2**size - 1))
        ]
        return context.make_tuple(builder, signature.return_type, words)

    return types.UniTuple(_U, 2)(_U, like), build
