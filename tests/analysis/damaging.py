"""Run by `test_corruption`: damaged data through kernels, in a process that may die of it.

`damaging.py chunks COUNT SEED [DTYPE ...]`: chunks through every kernel. Each ends where a page
begins that cannot be read: a kernel that reads on is killed.
`damaging.py blocks COUNT SEED`: LZ4 blocks through the decoder by itself, whose output lies between
two such pages, too.

Prints how many were damaged, accepted and refused; exits with 1 where something is accepted that is
not what a plain decoder reads.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from chunkmaking import DTYPES, KINDS, decode, encode, plan_of, unpack_lz4
from numba import njit
from numpy.typing import NDArray

from analysis.codec import Codec
from analysis.kernels import lz4
from analysis.reductions import REDUCTIONS
from analysis.reductions.patterns import Pattern

PASSES = (
    *("moments", "counts", "radial", "azimuthal", "patterns"),
    *("placed", "directions", "above"),
)
SHAPES = ((1, 1), (3, 5), (4, 40), (17, 31), (24, 96))
LARGE = (331, 500)
"""More than the window of an LZ4 chunk holds, more than a block; every 250th chunk, as it takes
a plain decoder long."""
OFFSETS = (1, 2, 3, 7, 8, 9, 31, 33, 64, 65, 512, 4000)
LENGTHS = (4, 8, 18, 19, 23, 24, 70, 273, 274, 1500)
"""Of matches in LZ4 blocks: where the decoder goes other ways."""


class Cliff:
    """Memory for a chunk, with pages before and behind it that cannot be touched."""

    def __init__(self, size: int) -> None:
        page = mmap.PAGESIZE
        self._end = page + -(-size // page) * page
        self._memory = mmap.mmap(-1, self._end + page)
        libc = ctypes.CDLL(None, use_errno=True)
        begin = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        for address in (begin, begin + self._end):
            if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(page), 0):
                raise OSError(ctypes.get_errno(), "mprotect")

    def last(self, size: int) -> memoryview:
        """The last bytes before memory ends."""
        return memoryview(self._memory)[self._end - size : self._end]

    def put(self, chunk: bytes) -> memoryview:
        """The chunk, copied to where memory ends."""
        view = self.last(len(chunk))
        view[:] = chunk
        return view


@dataclass
class Sample:
    """A good chunk, and every pass prepared for it."""

    chunk: bytes
    codec: Codec
    prepared: dict[str, Any]
    pattern: Pattern
    """Holds the good chunk, once."""
    before: tuple[NDArray[Any], ...]
    """A copy of its arrays."""


def sample(rng: np.random.Generator, dtype: str, kind: str, shape: tuple[int, int]) -> Sample:
    """A frame with something of everything: runs, noise, sentinels."""
    top = np.iinfo(dtype).max
    frame = (rng.poisson(0.2, shape) * rng.integers(1, 7, shape)).astype(dtype)
    frame[:, shape[1] // 2 : shape[1] // 2 + 2] = top
    if rng.random() < 0.3:
        frame[: shape[0] // 3] = rng.integers(0, top, frame[: shape[0] // 3].shape, endpoint=True)
    if rng.random() < 0.3:
        frame[shape[0] // 2 :] = 0
    chunk, codec = encode(frame, kind)
    invalid = rng.random(shape) < 0.1 if rng.random() < 0.5 else None
    binned = {"cx": 3.0, "cy": 2.0, "bins": 5}
    more: dict[str, Any] = dict.fromkeys(("radial", "azimuthal", "placed", "directions"), binned)
    more["above"] = {"extra": (("threshold", float(rng.choice((0, 3, 200)))),)}
    prepared = {
        name: REDUCTIONS[name].prepare(plan_of(name, codec, invalid, **more.get(name, {})))
        for name in PASSES
    }
    pattern = prepared["patterns"].new()
    assert prepared["patterns"].accumulate(chunk, codec, pattern)
    before = tuple(array.copy() for array in arrays(pattern))
    return Sample(chunk, codec, prepared, pattern, before)


def damage(rng: np.random.Generator, chunk: bytes) -> bytes:
    """The chunk with a few bytes changed, cut off, doubled or filled with 255."""
    data = bytearray(chunk)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, len(data))) if data else 0
        match int(rng.integers(0, 7)):
            case 0 | 1 if data:
                data[at] ^= 1 << int(rng.integers(0, 8))
            case 2 if data:
                data[at] = int(rng.choice((0, 1, 15, 16, 127, 240, 255)))
            case 3:
                del data[at:]
            case 4:
                del data[at : at + int(rng.integers(1, 9))]
            case 5:
                data[at:at] = data[at : at + int(rng.integers(1, 40))]
            case 6 if len(data) > 12:
                at = int(rng.integers(0, 16))
                data[at : at + 1] = bytes(rng.integers(0, 256, 1, np.uint8))
            case _:
                data[at : at + 6] = b"\xff" * len(data[at : at + 6])
    return bytes(data)


def values(prepared: Any, chunk: Any, codec: Codec) -> NDArray[Any] | None:
    """What the kernel gives; None when it refuses."""
    out = np.zeros(prepared.value_shape, prepared.value_dtype)
    good = prepared.chunk(chunk, codec, out)
    if not good and out.any():
        raise AssertionError("a refused chunk left values")
    return out if good else None


def untouched(item: Sample, chunk: Any) -> bool:
    """Whether a chunk that must be refused is, and leaves a pattern as it was."""
    refused = not item.prepared["patterns"].accumulate(chunk, item.codec, item.pattern)
    return refused and all(map(np.array_equal, arrays(item.pattern), item.before))


def arrays(pattern: Pattern) -> tuple[NDArray[Any], ...]:
    """What frames add to."""
    return pattern.sums, pattern.largest, pattern.missing


def check(item: Sample, damaged: bytes, cliff: Cliff) -> bool:
    """Whether the chunk was accepted, by all passes or by none. AssertionError when wrongly."""
    chunk: Any = cliff.put(damaged)
    results = {name: values(p, chunk, item.codec) for name, p in item.prepared.items()}
    accepted = {result is not None for result in results.values()}
    assert len(accepted) == 1, {name: result is not None for name, result in results.items()}
    if accepted == {False}:
        assert untouched(item, chunk)
        return False
    frame = decode(damaged, item.codec)
    for name, prepared in item.prepared.items():
        wanted = np.zeros(prepared.value_shape, prepared.value_dtype)
        prepared.frame(frame, wanted)
        result = results[name]
        assert result is not None
        assert result.tobytes() == wanted.tobytes(), name
    return True


def damage_chunks(chunks: int, seed: int, *dtypes: str) -> None:
    """Damage so many chunks."""
    rng = np.random.default_rng(seed)
    items = [
        sample(rng, dtype, kind, shape)
        for dtype in dtypes or DTYPES
        for kind in sorted(KINDS)
        for shape in SHAPES
    ]
    large = [
        sample(rng, dtype, kind, LARGE)
        for dtype in dtypes or DTYPES
        for kind in ("lz4", "bitshuffle-lz4")
    ]
    cliff = Cliff(max(len(item.chunk) for item in items + large) * 4 + 4096)
    accepted = 0
    for item in items + large:
        assert check(item, item.chunk, cliff), "a good chunk was refused"
    for number in range(chunks):
        item = items[number % len(items)] if number % 250 else large[number // 250 % len(large)]
        damaged = damage(rng, item.chunk)
        try:
            accepted += check(item, damaged, cliff)
        except (AssertionError, ValueError) as exc:
            print(f"chunk {number}: {item.codec}: {exc!r}: {damaged.hex()}")
            sys.exit(1)
    print(f"damaged {chunks} accepted {accepted} refused {chunks - accepted}")


@njit
def decode_block(source: Any, target: Any, size: int, period: int) -> int:
    """What `lz4.decode` makes of a block that may be read to its end and no further."""
    base = np.uint64(source.ctypes.data)
    end = base + np.uint64(source.size)
    return lz4.decode(  # type: ignore[no-any-return]
        base, end, end, np.uint64(target.ctypes.data), np.uint64(size), np.uint64(period)
    )


def block_of(rng: np.random.Generator, size: int) -> bytes:
    """An LZ4 block with matches of all offsets, cut up at random: not as a compressor would."""
    block = bytearray()
    done = 0
    while True:
        left = size - done
        literals = min(left, int(rng.choice((0, 0, 1, 3, 14, 15, 40))) + (done == 0))
        if left - literals < 9 or rng.random() < 0.02:
            literals = left
        offset = min(done + literals, int(rng.choice(OFFSETS)))
        count = min(left - literals - 5, int(rng.choice(LENGTHS)))
        last = literals == left
        block.append(min(literals, 15) << 4 | (0 if last else min(count - 4, 15)))
        block += _more(literals - 15) + bytes(rng.integers(0, 3, literals, np.uint8))
        if last:
            return bytes(block)
        block += offset.to_bytes(2, "little") + _more(count - 19)
        done += literals + count


def _more(length: int) -> bytes:
    """The bytes that extend a length."""
    return b"" if length < 0 else b"\xff" * (length // 255) + bytes((length % 255,))


def unpacked(block: bytes, size: int) -> bytes | None:
    """By the plain decoder; None when it refuses."""
    try:
        return unpack_lz4(block, size)
    except ValueError:
        return None


def damage_blocks(blocks: int, seed: int) -> None:
    """Damage so many LZ4 blocks; those of 3968 and 8064 bytes fill what lies between the pages."""
    rng = np.random.default_rng(seed)
    before = Cliff(1 << 16)
    outputs = {size: Cliff(size + lz4.SLACK) for size in (0, 8, 64, 512, 3968, 8064)}
    good = [(size, block_of(rng, size)) for size in outputs for _ in range(40)]
    accepted = 0
    for number in range(blocks):
        size, block = good[number % len(good)]
        damaged = block if number < len(good) else damage(rng, block)
        period = int(rng.choice((0, 8, 64, 512)))
        source = np.frombuffer(before.put(damaged), np.uint8)
        target = np.frombuffer(outputs[size].last(size + lz4.SLACK), np.uint8)
        written = decode_block(source, target, size, period if size % (period or 8) == 0 else 0)
        plain = target[: max(written, 0)].tobytes()
        while written > 0 and len(plain) < size:
            plain += plain[-period:]
        refused = written == lz4.CORRUPT
        if (refused and number < len(good)) or (not refused and plain != unpacked(damaged, size)):
            print(f"block {number}: {size} bytes, period {period}: {written}: {damaged.hex()}")
            sys.exit(1)
        accepted += not refused
    print(f"damaged {blocks} accepted {accepted} refused {blocks - accepted}")


if __name__ == "__main__":
    run = {"chunks": damage_chunks, "blocks": damage_blocks}[sys.argv[1]]
    run(int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
