"""Fragments: aligned pieces of raw files, the unit in which they travel and are kept."""

from __future__ import annotations

import xxhash

FRAGMENT_BYTES = 1 << 20


def checksum(data: bytes | bytearray | memoryview) -> int:
    """What goes with a fragment from the disk to whoever uses it: XXH3, 64 bits, as fast as memory
    is read. It is against damage, not against malice: that is what TLS is for."""
    return xxhash.xxh3_64_intdigest(data)


def fragment_sizes(file_bytes: int, first: int, count: int) -> tuple[int, ...]:
    """Bytes of those of the fragments `[first, first + count)` that a file has. Pure."""
    rests = [file_bytes - index * FRAGMENT_BYTES for index in range(first, first + count)]
    return tuple(min(rest, FRAGMENT_BYTES) for rest in rests if rest > 0)
