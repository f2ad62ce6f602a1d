"""npy, numpy's own format: version 1.0 of NEP 1."""

from __future__ import annotations

from functools import lru_cache

from dadafs.containers.base import Container, Content, Shell, plain_bytes

HEADER_BYTES = 4096
"""Of every file. numpy takes any length: a whole page lets the array begin on one, so that reading
the header, or mapping the file, asks for no number of the array."""
_MAGIC = b"\x93NUMPY\x01\x00"


@lru_cache(256)
def shell(content: Content) -> Shell:
    """The array as it is, C-ordered, little endian."""
    dtype = content.dtype.newbyteorder("<")
    about = {"descr": dtype.str, "fortran_order": False, "shape": content.shape}
    length = HEADER_BYTES - len(_MAGIC) - 2
    text = str(about).encode("latin1").ljust(length - 1) + b"\n"
    prefix = _MAGIC + length.to_bytes(2, "little") + text
    return Shell((prefix,), content.count, dtype.itemsize, b"", plain_bytes(dtype))


NPY = Container("npy", shell)
