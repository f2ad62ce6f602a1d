"""tif, as ImageJ reads it: float32, or a frame's own dtype; channels and lines as pages."""

from __future__ import annotations

import os
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from dadafs.containers.base import Container, Content, Shell, plain_bytes

LARGEST_CLASSIC = 0xFF000000  # offsets of a classic tif are 32 bits; beyond, BigTIFF
MANY_PAGES = 16384  # 178 bytes and 1.2 us each; ImageJ and tifffile find more from the first alone
IMAGEJ_AXES = {"channel": "C", "row": "Y", "column": "X"}
MAP_AXES = {"channel": "C", "line": "Y", "point": "X"}
STACK_AXES = {"channel": "T", "line": "Z", "point": "Y", "bin": "X"}


@lru_cache(256)
def shell(content: Content) -> Shell:
    """The array page after page, uncompressed and contiguous.

    float64 and uint64 become float32, the widest that ImageJ reads, so counts beyond 2^24 are
    rounded here; npy has them all.
    """
    dtype = stored_dtype(content.dtype)
    prefix, suffix = _wrapping(content, dtype)
    return Shell((prefix,), content.count, dtype.itemsize, suffix, plain_bytes(dtype))


def stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What numbers of `dtype` are written as."""
    if dtype.kind == "u" and dtype.itemsize <= 4:
        return dtype.newbyteorder("<")
    return np.dtype("<f4")


def _wrapping(content: Content, dtype: np.dtype[Any]) -> tuple[bytes, bytes]:
    """What tifffile writes before and after the array, which itself stays a hole in a file."""
    import tifffile  # 30 to 60 ms, which a start would wait for

    array_bytes = content.count * dtype.itemsize
    large = array_bytes > LARGEST_CLASSIC
    imagej = not large and (dtype.kind == "f" or dtype.itemsize != 4)
    with open("tif", "w+b", opener=_in_memory) as file:
        with tifffile.TiffWriter(file, bigtiff=large, byteorder="<", imagej=imagej) as writer:
            placed = writer.write(
                shape=(*content.shape, 1) if imagej else content.shape,
                dtype=dtype,
                photometric="minisblack",
                metadata=_metadata(content) if imagej else {"axes": "".join(_axes(content))},
                software="dadafs",
                align=4096,
                contiguous=True,
                truncate=_pages(content) > MANY_PAGES,
                returnoffset=True,
            )
        assert placed is not None
        offset, _ = placed  # where the first page begins; the others follow it without gaps
        file.seek(0)
        prefix = file.read(offset)
        file.seek(offset + array_bytes)
        return prefix, file.read()


def _in_memory(name: str, flags: int) -> int:
    return os.memfd_create(name, os.MFD_CLOEXEC)


def _axes(content: Content) -> list[str]:
    tables = (MAP_AXES, STACK_AXES) if "line" in content.axes else (IMAGEJ_AXES,)
    table = tables[-1] if "bin" in content.axes else tables[0]
    return [table[name] for name in content.axes]


def _metadata(content: Content) -> dict[str, Any]:
    # tifffile drops a last axis of length 1, so it gets one to drop: the samples of a pixel
    about: dict[str, Any] = {"axes": "".join(_axes(content)) + "S", "Info": content.title}
    pages = _pages(content)
    if 1 < len(content.channels) <= pages <= MANY_PAGES:
        each = pages // len(content.channels)
        about["Labels"] = [name for name in content.channels for _ in range(each)]
    return about


def _pages(content: Content) -> int:
    return prod(content.shape[:-2])


TIF = Container("tif", shell)
