"""Damaged chunks are refused, or read as a plain decoder reads them; nothing else happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chunkmaking import KINDS, encode, plan_of

from analysis.codec import Codec, Filter
from analysis.reductions import REDUCTIONS

HERE = Path(__file__).parent
DAMAGED = int(os.environ.get("DADAFS_TEST_DAMAGED", "100000"))
"""Chunks to damage where time does not matter."""

Child = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def child() -> Iterator[Child]:
    """Starts `damaging` in a process of its own, killed at the end of the test."""
    children = []

    def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
        path = os.pathsep.join((str(HERE.parents[1]), str(HERE)))
        children.append(
            subprocess.Popen(
                [sys.executable, "-X", "faulthandler", HERE / "damaging.py", *map(str, arguments)],
                env=os.environ | {"PYTHONPATH": path} | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return children[-1]

    yield start
    for process in children:
        process.kill()
        process.communicate()


def result(process: subprocess.Popen[str]) -> tuple[int, int]:
    """How many were accepted, and refused."""
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, output[-2000:] + errors[-4000:]
    found = re.search(r"accepted (\d+) refused (\d+)", output)
    assert found is not None
    return int(found[1]), int(found[2])


def assert_most_are_refused(accepted: int, refused: int, damaged: int) -> None:
    assert accepted + refused == damaged
    assert accepted > damaged // 20
    assert refused > damaged // 2


def test_damaged_chunks_never_give_wrong_values_nor_harm(child: Child) -> None:
    """Each through every kernel, in front of a page that cannot be read."""
    assert_most_are_refused(*result(child("chunks", 10000, 1)), 10000)


def test_damaged_blocks_never_harm(child: Child) -> None:
    """The LZ4 decoder by itself, between pages that can neither be read nor written."""
    assert_most_are_refused(*result(child("blocks", 20000, 1)), 20000)


@pytest.mark.slow
def test_many_damaged_chunks_and_with_bounds_checked(child: Child, tmp_path: Path) -> None:
    """More of both, side by side; and with numba's own checks of every index of an array.

    The kernels are too fast for those otherwise, and compiling them again takes half a minute, a
    little less without optimisation.
    """
    halves = [child("chunks", DAMAGED // 2, seed) for seed in (2, 3)]
    options = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_OPT": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    checked = child("chunks", 3000, 4, "<u2", **options)
    for half in halves:
        assert_most_are_refused(*result(half), DAMAGED // 2)
    assert_most_are_refused(*result(checked), 3000)
    checked = child("blocks", 5000, 5, **options)
    assert_most_are_refused(*result(checked), 5000)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"none"}))
def test_every_truncation_is_refused(kind: str) -> None:
    """At each byte; and bytes behind the end are no harm where HDF5 reads the chunk, too."""
    rng = np.random.default_rng(5)
    frame = (rng.poisson(0.2, (9, 11)) * 3).astype("<u2")
    frame[0, 0] = 65535
    chunk, codec = encode(frame, kind)
    prepared = REDUCTIONS["moments"].prepare(plan_of("moments", codec, None))
    out = np.zeros(6, np.uint64)
    for length in range(len(chunk)):
        assert not prepared.chunk(chunk[:length], codec, out), length
    assert not out.any()
    assert prepared.chunk(chunk, codec, out)
    longer = out.copy()
    with_more = prepared.chunk(chunk + b"rest", codec, longer)
    assert with_more == (kind.find("lz4") >= 0)
    assert (longer == out).all()


def header(chunk: bytes, **fields: Any) -> bytes:
    """The chunk with another size of frame or block."""
    size = fields.get("size", int.from_bytes(chunk[:8], "big"))
    block = fields.get("block", int.from_bytes(chunk[8:12], "big"))
    return size.to_bytes(8, "big") + block.to_bytes(4, "big") + chunk[12:]


def test_headers() -> None:
    """A wrong size is refused; no size of block means the default, as bitshuffle has it."""
    frame = np.arange(64 * 100, dtype="<u2").reshape(64, 100)
    chunk, codec = encode(frame, "bitshuffle-lz4")
    prepared = REDUCTIONS["counts"].prepare(plan_of("counts", codec, None))
    out = np.zeros(1, np.uint64)
    for size in (0, 12799, 12801, 1 << 40, (1 << 64) - 1):
        assert not prepared.chunk(header(chunk, size=size), codec, out)
    for block in (1, 8, 8190, 8193, 1 << 31, (1 << 32) - 1):
        assert not prepared.chunk(header(chunk, block=block), codec, out)
    assert prepared.chunk(header(chunk, block=0), codec, out)
    assert out[0] == frame.sum()


def test_masked_blocks_are_not_decoded_but_their_structure_is_checked() -> None:
    frame = np.arange(128 * 64, dtype="<u2").reshape(128, 64) % 7
    chunk, codec = encode(frame, "bitshuffle-lz4")
    invalid = np.zeros(frame.shape, np.bool_)
    invalid[:64] = True  # the first block
    prepared = REDUCTIONS["counts"].prepare(plan_of("counts", codec, invalid))
    out = np.zeros(1, np.uint64)
    first = int.from_bytes(chunk[12:16], "big")
    scrambled = chunk[:16] + b"\xff" * first + chunk[16 + first :]
    assert prepared.chunk(scrambled, codec, out)
    assert out[0] == frame[64:].sum()
    for wrong in (first + 1, first - 1, 1 << 20, (1 << 32) - 1):
        assert not prepared.chunk(chunk[:12] + wrong.to_bytes(4, "big") + chunk[16:], codec, out)


def test_a_match_at_the_end_of_an_lz4_chunk_is_refused() -> None:
    """By the format the last 5 bytes are literals, and LZ4 itself refuses the rest."""
    codec = Codec(1, 25, "|u1", (Filter(32004),))
    prepared = REDUCTIONS["counts"].prepare(plan_of("counts", codec, None))
    sizes = (25).to_bytes(8, "big") + (25).to_bytes(4, "big")
    out = np.zeros(1, np.uint64)
    good = b"\x1f\x07\x01\x00\x00" + b"\x50" + b"\x07" * 5
    bad = b"\x1f\x07\x01\x00\x05" + b"\x00"
    assert prepared.chunk(sizes + len(good).to_bytes(4, "big") + good, codec, out)
    assert out[0] == 25 * 7
    assert not prepared.chunk(sizes + len(bad).to_bytes(4, "big") + bad, codec, out)
