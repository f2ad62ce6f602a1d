"""Memory for fragments."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dadafs.blocks import SLAB_BYTES, Blocks, advanced, is_aligned, page_aligned
from dadafs.fragments import FRAGMENT_BYTES


def address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).ctypes.data)


def test_a_block_is_given_again_once_nobody_looks_at_any_of_it() -> None:
    blocks = Blocks()
    block = blocks.take(FRAGMENT_BYTES)
    at, part = address(block), block[5:7]
    rest = [blocks.take(FRAGMENT_BYTES) for _ in range(SLAB_BYTES // FRAGMENT_BYTES - 1)]
    del block
    further = blocks.take(FRAGMENT_BYTES)
    assert address(further) not in {at, *map(address, rest)}
    del part
    assert address(blocks.take(FRAGMENT_BYTES)) == at


def test_blocks_do_not_overlap_and_begin_with_a_page() -> None:
    blocks = Blocks()
    held = [blocks.take(FRAGMENT_BYTES) for _ in range(2 * SLAB_BYTES // FRAGMENT_BYTES)]
    for number, block in enumerate(held):
        assert is_aligned(block)
        assert len(block) == FRAGMENT_BYTES
        block[:] = bytes([number]) * FRAGMENT_BYTES
    assert all(block == bytes([number]) * FRAGMENT_BYTES for number, block in enumerate(held))


def test_a_short_fragment_takes_no_block() -> None:
    blocks = Blocks()
    piece = blocks.take(100)
    assert len(piece) == 100
    assert address(piece) % 4096 == 0
    assert piece.obj.base.nbytes < 3 * 4096  # type: ignore[attr-defined]


def test_threads_never_get_the_same_block() -> None:
    blocks = Blocks()
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(300):
            held = [blocks.take(FRAGMENT_BYTES) for _ in range(3)]
            for block in held:
                block[::4096] = bytes([number]) * (FRAGMENT_BYTES // 4096)
            wrong.extend(number for block in held if set(bytes(block[::4096])) != {number})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_blocks_lie_in_huge_pages_where_the_kernel_has_them() -> None:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists() or "[never]" in setting.read_text():
        pytest.skip("this kernel gives no huge pages")
    before = huge_kilobytes()
    blocks = Blocks()
    held = [blocks.take(FRAGMENT_BYTES) for _ in range(SLAB_BYTES // FRAGMENT_BYTES)]
    for block in held:
        block[0] = 1
    assert (huge_kilobytes() - before) * 1024 >= SLAB_BYTES // 2


def huge_kilobytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("AnonHugePages:")]
    return int(line.split()[1])


@given(st.lists(st.binary(max_size=9), max_size=5), st.integers(0, 50))
def test_what_is_left_of_buffers(pieces: list[bytes], size: int) -> None:
    left = advanced([memoryview(piece) for piece in pieces], size)
    assert b"".join(left) == b"".join(pieces)[size:]
    assert not left or left[0]


def test_memory_of_any_size_begins_with_a_page() -> None:
    for size in (1, 4095, 4096, 5 << 20):
        view = page_aligned(size)
        assert len(view) == size
        assert address(view) % 4096 == 0
