"""Single image files, read by fabio: CBF, EDF and TIFF with one frame in each."""

from __future__ import annotations

import hashlib
import io
import logging
import re
import struct
from base64 import b64encode
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.codec import Codec, Filter
from dadafs.errors import BadData
from dadafs.scans.counts import as_counts

FORMATS = {"cbf": 0x10001, "edf": 0x10002, "tif": 0x10003}
"""Numbers of stages that no HDF5 filter has: these have 16 bits."""
BY_NUMBER = {number: name for name, number in FORMATS.items()}
MAX_FILE_BYTES = 1 << 28
MAX_PIXELS = 1 << 26  # four times the largest Eiger
HEADER_BYTES = 1 << 14


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
    if len(data) > MAX_FILE_BYTES:
        raise BadData(f"a file of {len(data)} bytes holds more than one frame")
    shape = _said_shape(data, kind)
    if shape is None or not 0 < shape[0] * shape[1] <= MAX_PIXELS:
        raise BadData(f"is not a whole {kind.upper()} file")
    if expected is not None and shape != expected:
        raise BadData(f"{shape[0]} x {shape[1]} pixels in a series of {expected}")
    try:
        pixels = _through_fabio(data, kind)
    except BadData:
        raise
    except Exception as exc:  # fabio raises whatever its parsers stumble over
        raise BadData(f"cannot be read as {kind.upper()}: {_line(exc)}") from exc
    if pixels.ndim != 2 or pixels.shape != shape:
        raise BadData(f"holds {' x '.join(map(str, pixels.shape))} pixels, not one frame")
    return as_counts(pixels)


def _line(exc: Exception) -> str:
    return " ".join(str(exc).split())[:200] or type(exc).__name__


def _through_fabio(data: bytes, kind: str) -> NDArray[Any]:
    # only who meets such files waits the 0.2 s for it
    from fabio.cbfimage import CbfImage
    from fabio.edfimage import EdfImage
    from fabio.tifimage import TifImage

    logging.getLogger("fabio").setLevel(logging.CRITICAL)  # what is wrong is told by us
    image = {"cbf": CbfImage, "edf": EdfImage, "tif": TifImage}[kind]()
    image.read(io.BytesIO(data))
    if image.nframes > 1:
        raise BadData(f"holds {image.nframes} frames: one in each file is needed")
    if kind == "cbf":
        _verify_cbf(image)
    pixels = image.data
    if pixels is None:
        raise BadData(f"is not a whole {kind.upper()} file")
    return np.asarray(pixels)


def _verify_cbf(image: Any) -> None:
    """Hold the compressed bytes to the checksum in the file, which fabio only complains about."""
    stated = image.header.get("Content-MD5")
    if stated is None:
        return
    binary = image.cbs[image.start_binary + len(image.STARTER) :]
    found = b64encode(hashlib.md5(binary, usedforsecurity=False).digest()).decode()
    if found != stated:
        raise BadData("the checksum differs")


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
    except struct.error:
        return None
    return (found[257], found[256]) if len(found) == 2 else None
