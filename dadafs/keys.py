"""Keys of patch results: equal keys mean equal values."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import msgspec

from dadafs.scans.model import FrameSlice

KEY_BYTES = 32
ENCODING = b"values-2"  # of `dadafs.cache.values`; another one makes other keys


def patch_key(plan_digest: bytes, frames: FrameSlice) -> bytes:
    """Of the values of `frames` under the plan with that digest.

    The slice names each frame's file with its identity (size, mtime, inode) and place, and says
    by omission which frames are missing: a file that changes or appears makes other keys.
    """
    hasher = blake2b(plan_digest, digest_size=KEY_BYTES, person=ENCODING)
    hasher.update(msgspec.msgpack.encode(frames))
    return hasher.digest()


def pattern_key(portions: Iterable[bytes]) -> bytes:
    """Of a pattern that was merged from the portions with these keys."""
    hasher = blake2b(b"pattern", digest_size=KEY_BYTES)
    for key in portions:
        hasher.update(key)
    return hasher.digest()
