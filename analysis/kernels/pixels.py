"""Loops over decoded pixels, 64 at a time, written as vectors.

Of a decoded frame most words of 64 pixels are empty or nearly so, but which ones nobody knows:
to visit only what is there costs a mispredicted branch a word, 25 ns a pixel; to go through all
with vectors takes a third of that. As in `vectors` arguments are addresses and uint64, and nothing
checks bounds.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from analysis.kernels.jit import intrinsic
from analysis.kernels.vectors import GROUP, LANES, WORD, constant, everywhere, total

_U = types.uint64
_PIXELS = 64

SUM_WORDS = 4096
"""Words that `sum_chosen` takes at once: a lane of 32 bits adds 8 pixels of each."""
MOMENT_WORDS = 64
"""Words that `moments_chosen` takes at once: a lane of 32 bits adds 28 pixels times 0..63."""


def _vector(size: int, lanes: int) -> Any:
    return ir.VectorType(ir.IntType(size), lanes)


def _chosen(builder: Any, address: Any, selection: Any, word: Any, size: int) -> list[Any]:
    """The 64 pixels of a word, zero where not selected or a sentinel: vectors of 256 bits.

    In these a pixel has 16 bits, or 32. Mostly all of a word is selected, or nothing.
    """
    wide = max(size, 16)
    lanes = 256 // wide
    kind = _vector(wide, lanes)
    full, zero = ir.Constant(kind, [2**size - 1] * lanes), ir.Constant(kind, [0] * lanes)
    first = builder.add(address, builder.mul(word, WORD(_PIXELS * size // 8)))
    place = builder.add(selection, builder.mul(word, WORD(8)))
    bits = builder.load(builder.inttoptr(place, WORD.as_pointer()))
    measured = []
    for number in range(_PIXELS // lanes):
        place = builder.add(first, WORD(number * lanes * size // 8))
        part = builder.load(builder.inttoptr(place, _vector(size, lanes).as_pointer()))
        part.align = size // 8
        pixels = part if size == wide else builder.zext(part, kind)
        good = builder.icmp_unsigned("!=", pixels, full)
        measured.append(builder.select(good, pixels, zero))
    places = [cgutils.alloca_once(builder, kind) for _ in measured]
    for place, part in zip(places, measured, strict=True):
        builder.store(part, place)
    with builder.if_then(builder.icmp_unsigned("!=", bits, WORD(2**64 - 1))):
        lane_bits = ir.Constant(kind, [1 << i for i in range(lanes)])
        for number, place in enumerate(places):
            shifted = builder.trunc(builder.lshr(bits, WORD(number * lanes)), ir.IntType(wide))
            here = builder.and_(_everywhere(builder, shifted, lanes), lane_bits)
            inside = builder.icmp_unsigned("==", here, lane_bits)
            builder.store(builder.select(inside, measured[number], zero), place)
    return [builder.load(place) for place in places]


def _everywhere(builder: Any, value: Any, lanes: int) -> Any:
    """A vector with the value in every lane."""
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    one = builder.insert_element(undefined, value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, undefined, ir.Constant(_vector(32, lanes), [0] * lanes))


def _widened(builder: Any, parts: list[Any]) -> list[Any]:
    """Vectors of 8 pixels, each with twice the bits."""
    widened = []
    for part in parts:
        size, lanes = part.type.element.width, part.type.count
        for first in range(0, lanes, LANES):
            mask = ir.Constant(_vector(32, LANES), list(range(first, first + LANES)))
            some = builder.shuffle_vector(part, ir.Constant(part.type, ir.Undefined), mask)
            widened.append(builder.zext(some, _vector(2 * size, LANES)))
    return widened


def _as_words(builder: Any, value: Any) -> Any:
    """The same numbers in lanes of 64 bits."""
    return value if value.type == GROUP else builder.zext(value, GROUP)


def _accumulator(builder: Any, kind: Any) -> Any:
    place = cgutils.alloca_once(builder, kind)
    builder.store(ir.Constant(kind, [0] * kind.count), place)
    return place


def _accumulate(builder: Any, place: Any, value: Any) -> None:
    builder.store(builder.add(builder.load(place), value), place)


@intrinsic
def sum_chosen(typingctx: Any, address: Any, like: Any, selection: Any, words: Any) -> Any:
    """Sum of the chosen pixels of up to SUM_WORDS words of 64, of the dtype of the array `like`.

    `selection` is the address of their bits; the sentinel is left out.
    """
    size = like.dtype.bitwidth
    wide = 2 * max(size, 16)
    lanes = 256 // wide
    kind = _vector(wide, lanes)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address, _, selection, words = args
        place = _accumulator(builder, kind)
        low = ir.Constant(kind, [2 ** (wide // 2) - 1] * lanes)
        shift = ir.Constant(kind, [wide // 2] * lanes)
        with cgutils.for_range(builder, words, intp=WORD) as loop:
            for part in _chosen(builder, address, selection, loop.index, size):
                pair = builder.bitcast(part, kind)
                _accumulate(builder, place, builder.and_(pair, low))
                _accumulate(builder, place, builder.lshr(pair, shift))
        sums = builder.load(place)
        if wide == 32:
            return total(builder, builder.zext(sums, GROUP))
        adder = ir.FunctionType(WORD, [kind])
        name = "llvm.vector.reduce.add.v4i64"
        return builder.call(cgutils.get_or_insert_function(builder.module, adder, name), [sums])

    return _U(_U, like, _U, _U), build


@intrinsic
def moments_chosen(typingctx: Any, address: Any, like: Any, selection: Any, words: Any) -> Any:
    """Sums of the chosen pixels of up to MOMENT_WORDS words of 64 times 1, e and e^2.

    e is counted from the first pixel. They are of the dtype of the array `like`; `selection` is the
    address of their bits; the sentinel is left out. Exact modulo 2^64.

    With e = 64 w + 8 j + i each vector is 8 pixels with i = 0..7. Sums over j times j and j^2 are
    sums of partial sums, without multiplication; w follows by word, and i at the end.
    """
    size = like.dtype.bitwidth
    kind = _vector(64 if size == 32 else 32, LANES)

    def add_word(builder: Any, places: list[Any], pixels: list[Any], word: Any) -> None:
        parts = _widened(builder, pixels)  # there is room for 84 times the largest pixel
        tail = parts[-1]  # sum of the parts from j on
        tails = tail  # sum of those: sum of j V_j in the end
        sums = tail  # and of those: sum of j (j + 1) / 2 V_j
        for part in parts[-2:0:-1]:
            tail = builder.add(tail, part)
            tails = builder.add(tails, tail)
            sums = builder.add(sums, tails)
        n = builder.add(tail, parts[0])
        w = builder.trunc(word, kind.element) if size < 32 else word
        w = _everywhere(builder, w, LANES)
        by_word = builder.mul(n, w)
        squares = builder.mul(*(_as_words(builder, value) for value in (by_word, w)))
        for place, value in zip(
            places, (n, by_word, tails, builder.mul(tails, w), sums, squares), strict=True
        ):
            _accumulate(builder, place, value)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address, _, selection, words = args
        places = [_accumulator(builder, kind) for _ in range(5)] + [_accumulator(builder, GROUP)]
        with cgutils.for_range(builder, words, intp=WORD) as loop:
            pixels = _chosen(builder, address, selection, loop.index, size)
            some = builder.bitcast(reduce(builder.or_, pixels), ir.IntType(256))
            some = builder.icmp_unsigned("!=", some, some.type(0))
            with builder.if_then(some):
                add_word(builder, places, pixels, loop.index)
        loaded = (_as_words(builder, builder.load(place)) for place in places)
        n, n_w, b, b_w, c, n_ww = loaded

        def times(value: Any, factor: int) -> Any:
            return builder.mul(value, everywhere(factor))

        i, i_i = constant(list(range(LANES))), constant([i * i for i in range(LANES)])
        q = builder.add(times(n_w, 64), times(b, 8))  # e = q + i
        squares = builder.sub(times(c, 2), b)  # of j
        q_q = builder.add(times(n_ww, 4096), builder.add(times(b_w, 1024), times(squares, 64)))
        first = builder.add(q, builder.mul(n, i))
        cross = builder.mul(times(q, 2), i)
        second = builder.add(q_q, builder.add(cross, builder.mul(n, i_i)))
        sums = [total(builder, value) for value in (n, first, second)]
        return context.make_tuple(builder, signature.return_type, sums)

    return types.UniTuple(_U, 3)(_U, like, _U, _U), build
