"""What every long-lived process of dadafs begins with."""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import trio

from dadafs.errors import DadaError

DESCRIPTORS = 8192  # connections, raw files, stores
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # <malloc.h>
LARGEST_FROM_HEAP = 32 << 20  # the most that glibc takes
LAST_WORDS_BYTES = 1000  # of why a process behind a mount ends
KEPT_FREE_BYTES = 64 << 20  # what the calls under way at a time hold


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run `main`. Of what it raises in a group the first comes out, unless there is a bug in it."""
    keep_freed_memory()
    raise_descriptor_limit()
    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        errors = list(_leaves(group))
        if len(errors) == 1 or all(isinstance(error, DadaError | OSError) for error in errors):
            raise errors[0] from group
        raise


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def keep_freed_memory() -> None:
    """Let buffers of some MB be taken from what was freed before.

    glibc by default gives each back to the kernel, which then has to find, and clear, the pages
    of the next: 0.5 s a GB, several times what copying it takes, and more on a virtual machine.
    """
    with suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGEST_FROM_HEAP)
        mallopt(M_TRIM_THRESHOLD, KEPT_FREE_BYTES)


def raise_descriptor_limit() -> None:
    """Let this process have as many files and connections open as it may be asked for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def memory_bytes() -> int:
    """Memory of this process alone.

    Not the pages of files that it maps: those of a store of results grow to gigabytes, and the
    kernel takes them back as it needs them.
    """
    with open("/proc/self/statm", encoding="ascii") as statm:
        _, resident, shared, *_ = map(int, statm.read().split())
        return (resident - shared) * resource.getpagesize()
