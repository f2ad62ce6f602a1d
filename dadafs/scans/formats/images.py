"""Single image files: CBF, EDF and TIFF with one frame in each, or these packed by gzip."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zlib
from base64 import b64encode
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.codec import Codec, Filter
from dadafs.errors import BadData
from dadafs.scans.formats.counts import as_counts

FORMATS = {"cbf": 0x10001, "edf": 0x10002, "tif": 0x10003}
"""Numbers of stages that no HDF5 filter has: these have 16 bits."""
BY_NUMBER = {number: name for name, number in FORMATS.items()}
MAX_FILE_BYTES = 1 << 28
GZIP = b"\x1f\x8b"
CBF_STARTER = b"\x0c\x1a\x04\xd5"
EDF_TYPES = {
    b"signedbyte": "i1",
    b"unsignedbyte": "u1",
    b"signedshort": "i2",
    b"unsignedshort": "u2",
    b"signedinteger": "i4",
    b"unsignedinteger": "u4",
    b"signedlong": "i4",
    b"unsignedlong": "u4",
    b"signed64": "i8",
    b"unsigned64": "u8",
    b"float": "f4",
    b"floatvalue": "f4",
    b"double": "f8",
    b"doublevalue": "f8",
}
MAX_PIXELS = 1 << 26  # four times the largest Eiger
HEADER_BYTES = 1 << 14
SEVERAL = "holds several frames: write one a file, or unpack it if it is packed by gzip"


def codec_for(kind: str, frame: NDArray[Any]) -> Codec:
    """How the frames of a series are stored, the first of which is `frame`: each is its file."""
    height, width = frame.shape
    return Codec(height, width, frame.dtype.str, (Filter(FORMATS[kind]),))


def decode_image(data: bytes, codec: Codec) -> NDArray[Any]:
    """The frame in a file, as counts. BadData where it is not the codec's."""
    frame = read_image(data, BY_NUMBER[codec.filters[0].number], codec.shape)
    if frame.shape != codec.shape or frame.dtype != np.dtype(codec.dtype):
        height, width = frame.shape
        raise BadData(f"{height} x {width} {frame.dtype} in a series of {codec.shape}")
    return frame


def read_image(data: bytes, kind: str, expected: tuple[int, int] | None = None) -> NDArray[Any]:
    """The counts in an image file, with the shape it must have where that is known. BadData."""
    return as_counts(read_pixels(data, kind, expected))


def read_pixels(data: bytes, kind: str, expected: tuple[int, int] | None = None) -> NDArray[Any]:
    """The numbers in an image file, as they are. BadData."""
    data = plain(data)
    if len(data) > MAX_FILE_BYTES:
        raise BadData(f"a file of {len(data)} bytes holds more than one frame")
    shape = _said_shape(data, kind)
    if shape is None or not 0 < shape[0] * shape[1] <= MAX_PIXELS:
        raise BadData(f"is not a whole {kind.upper()} file")
    if expected is not None and shape != expected:
        raise BadData(f"{shape[0]} x {shape[1]} pixels in a series of {expected}")
    try:
        pixels = _READERS[kind](data, shape)
    except BadData:
        raise
    except Exception as exc:  # parsers raise whatever they stumble over
        raise BadData(f"cannot be read as {kind.upper()}: {_line(exc)}") from exc
    if pixels.shape != shape:
        raise BadData(f"holds {' x '.join(map(str, pixels.shape))} pixels, not one frame")
    return pixels


def plain(data: bytes) -> bytes:
    """The content of an image file, which may be packed by gzip whatever its name. BadData."""
    if not data.startswith(GZIP):
        return data
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        unpacked = unpacking.decompress(data, MAX_FILE_BYTES + 1)
    except zlib.error as exc:
        raise BadData(f"cannot be unpacked: {_line(exc)}") from exc
    if len(unpacked) <= MAX_FILE_BYTES and not unpacking.eof:
        raise BadData("is packed, and not whole")
    return unpacked


def _line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:200] or type(exc).__name__


def _read_cbf(data: bytes, shape: tuple[int, int]) -> NDArray[Any]:
    """Signed 32-bit numbers as differences. The header is read here: fabio's reader does not end on
    some damaged ones, and only complains where the checksum differs.
    """
    from fabio.compression import decByteOffset  # 0.2 s, for who meets such files only

    head, found, rest = data.partition(CBF_STARTER)
    stated = {
        name.lower(): value
        for name, value in re.findall(rb"([\w-]+)\s*[:=]\s*\"?([^\s\";]+)", head)
    }
    if stated.get(b"conversions", b"").lower() != b"x-cbf_byte_offset":
        raise BadData("is compressed in a way that is not supported")
    size = int(stated.get(b"x-binary-size", b"-1"))
    if not found or not 0 < size <= len(rest):
        raise BadData("is not a whole CBF file")
    binary = rest[:size]
    checksum = stated.get(b"content-md5")
    digest = hashlib.md5(binary, usedforsecurity=False).digest()
    if checksum is not None and checksum != b64encode(digest):
        raise BadData("the checksum differs")
    pixels = decByteOffset(binary + bytes(16), shape[0] * shape[1], "int32")
    return np.asarray(pixels, np.int32).reshape(shape)


def _read_edf(data: bytes, shape: tuple[int, int]) -> NDArray[Any]:
    """A header of `name = value ;` in braces, then plain pixels."""
    end = data.find(b"}\n", 0, HEADER_BYTES) + 2
    if end < 2:
        raise BadData("is not a whole EDF file")
    dtype = edf_dtype(edf_stated(data[:end]))
    size = shape[0] * shape[1] * dtype.itemsize
    if end + size > len(data):
        raise BadData("is not a whole EDF file")
    if data[end + size :].lstrip(b"\0\n\r ").startswith(b"{"):
        raise BadData(SEVERAL)
    return np.frombuffer(data, dtype, shape[0] * shape[1], end).reshape(shape)


def edf_stated(header: bytes) -> dict[bytes, bytes]:
    """The values in the header of an EDF frame, braces included, by their names in lower case."""
    lines = [part.partition(b"=") for part in header.strip(b"{} \r\n").split(b";")]
    return {name.strip().lower(): value.strip() for name, equals, value in lines if equals}


def edf_dtype(stated: dict[bytes, bytes]) -> np.dtype[Any]:
    """Of the pixels behind a header that says so. BadData for compressed ones, and for others."""
    if stated.get(b"compression", b"none").lower() not in (b"none", b"nocompression"):
        raise BadData("is compressed, which is not supported")
    name = EDF_TYPES.get(stated.get(b"datatype", b"").lower())
    if name is None:
        raise BadData(f"has pixels of {stated.get(b'datatype', b'')!r}, which are not supported")
    order = ">" if stated.get(b"byteorder", b"").lower() == b"highbytefirst" else "<"
    return np.dtype(order + name)


def _read_tif(data: bytes, shape: tuple[int, int]) -> NDArray[Any]:
    """The only page."""
    import tifffile  # 0.1 s, for who meets such files only

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return np.asarray(file.pages.first.asarray())


_READERS = {"cbf": _read_cbf, "edf": _read_edf, "tif": _read_tif}


def _said_shape(data: bytes, kind: str) -> tuple[int, int] | None:
    """Rows and columns, by the header: nothing is allocated for what a header makes up."""
    if kind == "tif":
        return _tif_shape(data)
    head = data[:HEADER_BYTES]
    names = (
        (rb"X-Binary-Size-Second-Dimension:", rb"X-Binary-Size-Fastest-Dimension:")
        if kind == "cbf"
        else (rb"\bDim_2\s*=", rb"\bDim_1\s*=")
    )
    found = [re.search(name + rb"\s*([0-9]{1,9})\b", head) for name in names]
    if found[0] is None or found[1] is None:
        return None
    return int(found[0][1]), int(found[1][1])


def _tif_shape(data: bytes) -> tuple[int, int] | None:
    """Of the first directory of a classic TIFF: tags 257 and 256."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return None
    found: dict[int, int] = {}
    try:
        (at,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, at)
        for number in range(min(count, 200)):
            entry = at + 2 + 12 * number
            tag, kind = struct.unpack_from(order + "HH", data, entry)
            if tag in (256, 257):
                (found[tag],) = struct.unpack_from(
                    order + ("H" if kind == 3 else "I"), data, entry + 8
                )
        (following,) = struct.unpack_from(order + "I", data, at + 2 + 12 * count)
    except struct.error:
        return None
    if following:
        raise BadData(SEVERAL)
    return (found[257], found[256]) if len(found) == 2 else None
