"""Memory for fragments: whole pages, huge ones where the kernel has them, and taken again."""

from __future__ import annotations

import mmap
from contextlib import suppress
from weakref import finalize

import numpy as np

from dadafs.fragments import FRAGMENT_BYTES

PAGE_BYTES = 4096  # what transfers past the page cache are aligned to, in files and in memory
HUGE_PAGE_BYTES = 2 << 20
SLAB_BYTES = 32 << 20


class Blocks:
    """Gives memory for fragments, to any thread, and takes back what nobody looks at any more.

    The kernel takes 0.6 s to find and clear a GB in pages of 4 KiB, several times what it takes to
    copy something there; 0.1 s in huge pages; and none for a block that is used again.

    Invariant: a block is free, or somebody holds a view of it. What was taken is kept, so there
    are as many as were ever held at a time.
    """

    def __init__(self) -> None:
        self._free: list[memoryview] = []

    def take(self, size: int) -> memoryview:
        """Memory for a fragment of `size` bytes, beginning with a page; its content is anything.

        A shorter one, the last of its file, gets just that: a cache of small files would else
        hold mostly nothing.
        """
        if size < FRAGMENT_BYTES:
            return page_aligned(size)
        while True:
            try:
                block = self._free.pop()
            except IndexError:
                self._free.extend(_slab())
            else:
                break
        view = np.frombuffer(block, np.uint8)
        finalize(view, self._free.append, block).atexit = False
        return view.data


def _slab() -> list[memoryview]:
    """Memory that nothing was in, as blocks."""
    memory = mmap.mmap(-1, SLAB_BYTES + HUGE_PAGE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    begin = -_address(memory) % HUGE_PAGE_BYTES
    with suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE, begin, SLAB_BYTES)
    view = memoryview(memory)
    ends = range(begin + FRAGMENT_BYTES, begin + SLAB_BYTES + 1, FRAGMENT_BYTES)
    return [view[end - FRAGMENT_BYTES : end] for end in ends]


def page_aligned(size: int) -> memoryview:
    """Memory that begins with a page; its content is anything."""
    memory = np.empty(size + PAGE_BYTES, np.uint8)
    begin = -_address(memory) % PAGE_BYTES
    return memory[begin : begin + size].data


def is_aligned(view: memoryview) -> bool:
    """Whether a transfer from or to this memory may go past the page cache."""
    return len(view) % PAGE_BYTES == 0 and _address(view) % PAGE_BYTES == 0


def advanced(buffers: list[memoryview], size: int) -> list[memoryview]:
    """Buffers without their first `size` bytes. Pure."""
    for number, buffer in enumerate(buffers):
        if size < len(buffer):
            return [buffer[size:], *buffers[number + 1 :]]
        size -= len(buffer)
    return []


def _address(memory: mmap.mmap | memoryview | np.ndarray) -> int:
    address: int = np.frombuffer(memory, np.uint8).ctypes.data
    return address
