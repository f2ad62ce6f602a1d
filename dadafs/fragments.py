"""Fragments: aligned pieces of raw files, the unit in which they travel and are kept."""

from __future__ import annotations

import zlib

FRAGMENT_BYTES = 1 << 20


def checksum(data: bytes | bytearray | memoryview) -> int:
    """What goes with a fragment from the disk to whoever uses it."""
    return zlib.crc32(data)
