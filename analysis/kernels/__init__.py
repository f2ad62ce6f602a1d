"""Fused kernels: a compressed chunk is decoded block by block in L1 cache and reduced there.

An 8 MiB frame does not fit a core's cache; a bitshuffle block of 8 KiB does. So a frame is never
materialised: each block is decoded, reduced and forgotten. Importing this package does not import
numba, which only the processes that compute shall load; import the modules for that.
"""

from __future__ import annotations

from analysis.version import code_version

COMMON = tuple(
    f"analysis.kernels.{name}"
    for name in ("codecs", "jit", "memory", "vectors", "lz4", "blocks", "stream", "pixels")
)
"""Modules that determine the values of every reduction."""

_PASSES = ("moments", "sums", "profiles", "patterns", "above", "directions")
VERSION = code_version(*COMMON, *(f"analysis.kernels.{name}" for name in _PASSES))
"""Digest of the source of all kernels."""


def decoder_name() -> str:
    """Which LZ4 decoder the kernels use, for diagnosis. There is one."""
    return "numba"
