"""The LZ4 decoder by itself, and how kernels are loaded, cached and shared."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hdf5plugin
import numpy as np
import pytest
from chunkmaking import encode, plan_of, unpack_lz4
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import njit

from analysis.kernels import decoder_name, lz4
from analysis.kernels.codecs import Blocks, Plain, Stream, bitshuffle_form, form_of, pack_selection
from analysis.plan import Plan
from analysis.reductions import REDUCTIONS

ROOT = Path(__file__).parents[2]
CANARY = 0xA5


def library() -> ctypes.CDLL:
    """LZ4 itself, as hdf5plugin ships it."""
    found = list(Path(hdf5plugin.__file__).parent.glob("plugins/libh5bshuf.*"))
    try:
        loaded = ctypes.CDLL(str(found[0]))
        _ = loaded.LZ4_compress_default, loaded.LZ4_decompress_safe
    except (IndexError, OSError, AttributeError):
        pytest.skip("hdf5plugin has no LZ4 to compare with")
    return loaded


def compress(data: bytes) -> bytes:
    """By LZ4 itself."""
    out = ctypes.create_string_buffer(len(data) + len(data) // 255 + 16)
    size = library().LZ4_compress_default(data, out, len(data), len(out))
    return out.raw[:size]


def decompress(block: bytes, size: int) -> bytes | None:
    """By LZ4 itself; None when it refuses."""
    out = ctypes.create_string_buffer(size + 1)
    return (
        out.raw[:size]
        if library().LZ4_decompress_safe(block, out, len(block), size) == size
        else None
    )


@njit
def _decode(source: Any, end: int, out: Any, size: int, period: int) -> int:
    base = np.uint64(source.ctypes.data)
    limit = base + np.uint64(source.size)
    return lz4.decode(  # type: ignore[no-any-return]
        base,
        base + np.uint64(end),
        limit,
        np.uint64(out.ctypes.data),
        np.uint64(size),
        np.uint64(period),
    )


def decode(block: bytes, size: int, *, period: int = 0, behind: bytes = b"") -> bytes | None:
    """By our decoder; checks that nothing beyond the slack was written."""
    out = np.full(size + lz4.SLACK + 64, CANARY, np.uint8)
    source = np.frombuffer(block + behind, np.uint8)
    written = _decode(source, len(block), out, size, period)
    assert (out[size + lz4.SLACK :] == CANARY).all()
    if written == lz4.CORRUPT:
        return None
    data = out[:written].tobytes()
    while len(data) < size:
        data += data[-period:]
    return data


@st.composite
def plains(draw: st.DrawFn) -> bytes:
    """Bytes with runs and repetitions of all lengths and periods."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    data = bytearray()
    for _ in range(draw(st.integers(0, 12))):
        length = draw(st.integers(1, 700))
        period = draw(st.sampled_from((1, 2, 3, 5, 6, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 200)))
        piece = rng.integers(0, draw(st.sampled_from((2, 256))), period, np.uint8).tobytes()
        data += (piece * (length // period + 1))[:length]
        if data and draw(st.booleans()):
            start = draw(st.integers(0, len(data) - 1))
            data += data[start : start + draw(st.integers(1, 300))]
    return bytes(data)


@given(data=plains(), behind=st.sampled_from((b"", b"x", b"y" * 40)))
@settings(max_examples=400, deadline=None, derandomize=True)
@example(data=b"", behind=b"")
@example(data=bytes(70000), behind=b"")
def test_decodes_what_lz4_encodes(data: bytes, behind: bytes) -> None:
    block = compress(data)
    assert decode(block, len(data), behind=behind) == data
    assert unpack_lz4(block, len(data)) == data
    for wrong in (len(data) - 1, len(data) + 1, len(data) + 300):
        if wrong >= 0:
            assert decode(block, wrong, behind=behind) is None


@given(
    head=plains(),
    planes=st.integers(2, 33),
    period=st.sampled_from((8, 24, 64, 128, 512)),
    last=st.binary(max_size=512),
    tail=st.binary(max_size=9),
)
@settings(max_examples=400, deadline=None, derandomize=True)
def test_repeated_planes_may_be_left_out(
    head: bytes, planes: int, period: int, last: bytes, tail: bytes
) -> None:
    """Planes that repeat the one before, up to the end or with a difference in the last bytes."""
    size = planes * period
    repeated = last.ljust(period, b"\0")[:period] * planes
    data = (head[: size // 2 // period * period] + repeated)[:size]
    data = (data[: size - len(tail)] + tail)[:size]
    assert decode(compress(data), size, period=period) == data


def test_equal_planes_are_left_out() -> None:
    """Which is what makes it fast: nothing of the empty planes is written."""
    plane = np.random.default_rng(1).integers(0, 256, 512, np.uint8).tobytes()
    out = np.zeros(8192 + lz4.SLACK, np.uint8)
    for data in (plane * 2 + bytes(14 * 512), plane * 16):
        block = np.frombuffer(compress(data), np.uint8)
        assert _decode(block, len(block), out, 8192, 512) <= 2048


@given(
    data=plains().filter(bool),
    damage=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=3),
)
@settings(max_examples=600, deadline=None, derandomize=True)
def test_accepts_what_lz4_accepts(data: bytes, damage: list[tuple[int, int]]) -> None:
    block = bytearray(compress(data))
    for at, value in damage:
        block[at % len(block)] = value
    decoded, wanted = decode(bytes(block), len(data)), decompress(bytes(block), len(data))
    if decoded is None and wanted is not None:
        with pytest.raises(ValueError, match="match"):  # an offset of 0, which LZ4 reads as zeros
            unpack_lz4(bytes(block), len(data))
    else:
        assert decoded == wanted


def test_name_of_the_decoder() -> None:
    assert decoder_name() == "numba"


def child(code: str) -> str:
    """Output of a fresh Python."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_definitions_do_not_load_numba() -> None:
    """The process that mounts reads them; numba would cost it 100 MB and half a second."""
    loaded = "import sys, analysis.analyses, analysis.reductions, analysis.kernels as kernels;"
    assert child(loaded + "print(len(kernels.VERSION), 'numba' in sys.modules)") == "12 False"


def test_a_fresh_process_loads_compiled_kernels() -> None:
    """Once compiled, here or earlier, machine code comes from disk."""
    frame = np.zeros((8, 8), "<u2")
    chunk, codec = encode(frame, "bitshuffle-lz4")
    moments = REDUCTIONS["moments"].prepare(plan_of("moments", codec, None))
    assert moments.chunk(chunk, codec, np.zeros(6, np.uint64))
    code = (
        "import numpy as np\n"
        "from analysis.kernels.moments import moments_of_blocks as kernel\n"
        "chunk, selection = np.zeros(9, np.uint8), np.zeros(9, np.uint64)\n"
        "chunk.flags.writeable = selection.flags.writeable = False\n"
        "assert not kernel(chunk, 1, 4096, 64, 8, 2, selection, np.zeros(6, np.uint64))\n"
        "print(sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values()))"
    )
    assert child(code) == "1 0"


def test_threads_share_a_prepared_plan() -> None:
    rng = np.random.default_rng(8)
    stack = rng.poisson(1, (8, 150, 200)).astype("<u2")
    encoded = [encode(frame, "bitshuffle-lz4") for frame in stack]
    prepared = REDUCTIONS["moments"].prepare(plan_of("moments", encoded[0][1], None))

    def total(number: int) -> int:
        out = np.zeros(6, np.uint64)
        chunk, codec = encoded[number % 8]
        assert prepared.chunk(chunk, codec, out)
        return int(out[0])

    with ThreadPoolExecutor(4) as threads:
        totals = list(threads.map(total, range(400)))
    assert totals == [int(stack[number % 8].sum()) for number in range(400)]


@pytest.mark.parametrize(
    ("options", "form"),
    [
        ((0, 4, 2, 0, 2), Blocks(1, 4096)),
        ((0, 3, 2, 512, 2), Blocks(1, 512)),
        ((0, 4, 2, 0, 0), Blocks(0, 4096)),
        ((0, 4, 2), Blocks(0, 4096)),
        ((), Blocks(0, 4096)),
        ((0, 4, 2, 0, 3), None),
        ((0, 4, 4, 0, 2), None),
        ((0, 4, 2, 9, 2), None),
    ],
)
def test_options_of_bitshuffle(options: tuple[int, ...], form: Blocks | None) -> None:
    assert bitshuffle_form(options, 2) == form


@pytest.mark.parametrize(("kind", "form"), [("none", Plain), ("lz4", Stream)])
def test_forms(kind: str, form: Callable[[], Any]) -> None:
    _, codec = encode(np.zeros((4, 4), "<u4"), kind)
    assert form_of(codec, Plan("moments", "", 4, 4, "<u4")) == form()
    assert form_of(codec, Plan("moments", "", 4, 4, "<u2")) is None


def test_selection_is_packed_in_the_order_of_planes() -> None:
    selected = np.zeros((3, 50), np.bool_)
    selected[0, 1] = selected[1, 14] = selected[2, 49] = True
    assert list(pack_selection(selected)) == [2, 1, 1 << 21, 0, 0]
