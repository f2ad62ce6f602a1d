"""Pixels kept as bit planes: 512 of them are added, or compared, at once.

A stack is DEPTH groups of 8 words, one for each bit, least significant first. Frames are added as a
machine adds words: plane by plane, with a carry that seldom goes far. As in `vectors` arguments are
addresses and uint64, and nothing checks bounds; `step` is the distance of planes in bytes.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils

from analysis.kernels.jit import intrinsic
from analysis.kernels.vectors import GROUP, GROUP_BYTES, WORD, everywhere, load, some, store

DEPTH = 16
"""Bits of a pixel in a stack. What carries beyond is for whoever adds to take elsewhere."""
_U = types.uint64


def _kept(builder: Any, value: int) -> Any:
    """A group that a loop changes, at first with the same word in every lane."""
    place = cgutils.alloca_once(builder, GROUP)
    builder.store(everywhere(value), place)
    return place


def _plane(builder: Any, frame: Any, step: Any, chosen: Any, k: Any) -> Any:
    """The chosen pixels in plane k of a frame."""
    return builder.and_(load(builder, frame, builder.mul(k, step)), chosen)


def _place(builder: Any, k: Any) -> Any:
    """Where plane k of a stack is."""
    return builder.mul(k, WORD(GROUP_BYTES))


@intrinsic
def add_planes(
    typingctx: Any, frame: Any, step: Any, count: Any, chosen: Any, stack: Any, carried: Any
) -> Any:
    """Add the chosen pixels of `count` planes, up to DEPTH, to a stack.

    1 where a pixel carries beyond it, else 0; which ones do is written to the group `carried`.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        frame, step, count, chosen, stack, carried = args
        bits = load(builder, chosen, WORD(0))
        carry = _kept(builder, 0)
        with cgutils.for_range(builder, count, intp=WORD) as loop:
            plane = _plane(builder, frame, step, bits, loop.index)
            place = _place(builder, loop.index)
            held, over = load(builder, stack, place), builder.load(carry)
            half = builder.xor(held, plane)
            store(builder, builder.xor(half, over), stack, place)
            both = builder.and_(held, plane)
            builder.store(builder.or_(both, builder.and_(over, half)), carry)
        with cgutils.for_range(builder, WORD(DEPTH), start=count, intp=WORD) as loop:
            over = builder.load(carry)
            with builder.if_then(builder.icmp_unsigned("==", some(builder, over), WORD(0))):
                loop.do_break()
            place = _place(builder, loop.index)
            held = load(builder, stack, place)
            store(builder, builder.xor(held, over), stack, place)
            builder.store(builder.and_(held, over), carry)
        over = builder.load(carry)
        store(builder, over, carried, WORD(0))
        return some(builder, over)

    return _U(_U, _U, _U, _U, _U, _U), build


@intrinsic
def keep_largest(
    typingctx: Any, frame: Any, step: Any, count: Any, chosen: Any, stack: Any, height: Any
) -> Any:
    """Put the chosen pixels of `count` planes, up to DEPTH, into a stack where they are larger.

    Planes of the stack from `height` on are empty.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        frame, step, count, chosen, stack, height = args
        bits = load(builder, chosen, WORD(0))
        equal, larger = _kept(builder, -1), _kept(builder, 0)
        with cgutils.for_range(builder, height, start=count, intp=WORD) as loop:
            held = load(builder, stack, _place(builder, loop.index))
            builder.store(builder.and_(builder.load(equal), builder.not_(held)), equal)
        with cgutils.for_range(builder, count, intp=WORD) as loop:
            k = builder.sub(builder.sub(count, WORD(1)), loop.index)
            plane = _plane(builder, frame, step, bits, k)
            held, same = load(builder, stack, _place(builder, k)), builder.load(equal)
            more = builder.and_(builder.and_(same, plane), builder.not_(held))
            builder.store(builder.or_(builder.load(larger), more), larger)
            builder.store(builder.and_(same, builder.not_(builder.xor(held, plane))), equal)
        chosen_ones = builder.load(larger)
        with (
            builder.if_then(builder.icmp_unsigned("!=", some(builder, chosen_ones), WORD(0))),
            cgutils.for_range(builder, count, intp=WORD) as loop,
        ):
            plane = _plane(builder, frame, step, bits, loop.index)
            place = _place(builder, loop.index)
            held = load(builder, stack, place)
            other = builder.and_(builder.xor(held, plane), chosen_ones)
            store(builder, builder.xor(held, other), stack, place)
        return context.get_dummy_value()

    return types.void(_U, _U, _U, _U, _U, _U), build
