"""png, to look at: 8 bits, uncompressed, so that the size is known; NaN is transparent.

The colours depend on all numbers (their 1st and 99th percentiles, unless `vmin` and `vmax` say
otherwise), so a picture is made at once.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.plan import Plan, Roi
from dadafs.containers.base import MAX_WHOLE, Container, Content, Encode, Shell, View
from dadafs.containers.colours import WHEEL, palette, wheel

MAX_EDGE = 1_000_000  # what libpng, and so nearly everybody, reads
LOWEST, HIGHEST = 1, 99  # percentiles
_STORED = 65535  # bytes in a stored block of deflate
_BLANK = 0  # the colour, of 256, that is transparent
_INDEXED, _RGBA = 3, 6
_PIXEL_BYTES = {_INDEXED: 1, _RGBA: 4}


def shell(content: Content) -> Shell:
    """All pixels at once: with a table of 255 colours, or red, green, blue, opacity."""
    rows, columns = content.shape[-2:]
    view = content.view or View()
    kind = _RGBA if view.cmap == WHEEL else _INDEXED
    prefix = b"\x89PNG\r\n\x1a\n"
    prefix += _chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, kind, 0, 0, 0))
    if kind == _INDEXED:
        prefix += _chunk(b"PLTE", bytes(3) + palette(view.cmap, 255).tobytes())
        prefix += _chunk(b"tRNS", b"\0")
    raw = rows * (1 + columns * _PIXEL_BYTES[kind])
    deflated = 2 + 5 * -(-raw // _STORED) + raw + 4
    return Shell((prefix,), 12 + deflated, 1, _chunk(b"IEND", b""), _picture(content), whole=True)


def refuses(content: Content) -> str | None:
    """What is no picture, or too large for one."""
    if "bin" in content.axes:
        return "profiles are no picture; npy, tif, h5, mat and csv hold them"
    if content.count > MAX_WHOLE:
        return f"a png has at most {MAX_WHOLE} pixels; tif, h5 and npy have no limit"
    if max(content.shape) > MAX_EDGE:
        return f"a png has edges of at most {MAX_EDGE} pixels; horz= folds a long line"
    return None


def _picture(content: Content) -> Encode:
    view = content.view or View()
    shape = content.shape

    def encode(numbers: NDArray[Any], start: int = 0, /) -> bytes:
        array = numbers.reshape(shape)
        if view.cmap == WHEEL:
            pixels = _directions(array.astype(np.float64, copy=False), view)
        else:
            pixels = indexed(array, view)
        height = pixels.shape[0]
        scanlines = np.zeros((height, 1 + pixels[0].size), np.uint8)  # each begins with "no filter"
        scanlines[:, 1:] = pixels.reshape(height, -1)
        return _chunk(b"IDAT", _stored(scanlines.tobytes()))

    return encode


def indexed(array: NDArray[Any], view: View) -> NDArray[np.uint8]:
    """The number of each pixel's colour: 0 for none, 1 the lowest to 255 the highest."""
    numbers = array.astype(np.float64)
    if view.blank is not None:
        numbers[array == view.blank] = np.nan
    if view.plane is not None:
        numbers[_invalid(view.plane)] = np.nan
    numbers[np.isinf(numbers)] = np.nan
    blank = np.isnan(numbers)
    low, high = view.vmin, view.vmax
    if view.log:
        with np.errstate(divide="ignore", invalid="ignore"):
            numbers = np.log10(numbers)  # what has no logarithm gets the lowest colour
        low, high = (None if one is None else float(np.log10(one)) for one in (low, high))
    low, high = limits(numbers, low, high)
    with np.errstate(invalid="ignore"):
        numbers -= low
        numbers *= 254 / (high - low)
    np.clip(numbers, 0, 254, out=numbers)
    numbers[np.isnan(numbers)] = 0
    colours = 1 + np.rint(numbers, out=numbers).astype(np.uint8)
    colours[blank] = _BLANK
    return colours


def _invalid(plane: Plan) -> NDArray[np.bool_]:
    """The pixels of the roi that are not to be used."""
    roi = plane.roi or Roi(0, 0, plane.width, plane.height)
    return plane.invalid()[roi.y : roi.y + roi.h, roi.x : roi.x + roi.w]


def limits(
    numbers: NDArray[np.float64], low: float | None, high: float | None
) -> tuple[float, float]:
    """What gets the lowest and the highest colour, low < high."""
    if low is None or high is None:
        finite = numbers[np.isfinite(numbers)]
        if finite.size:
            ends = np.percentile(finite, [LOWEST, HIGHEST], overwrite_input=True)
            low = float(ends[0]) if low is None else low
            high = float(ends[1]) if high is None else high
    low = 0.0 if low is None else low
    high = low if high is None else high
    if not low < high:  # one number everywhere, or percentiles beyond a limit that was given
        high = float(np.nextafter(low, np.inf)) if low else 1.0
    return low, high


def _directions(array: NDArray[np.float64], view: View) -> NDArray[np.uint8]:
    """Hue by angle (channel 0), brightness by anisotropy (channel 1), from vmin, 0, to vmax."""
    angle, strength = array
    blank = ~np.isfinite(angle) | ~np.isfinite(strength)
    low, high = limits(strength, 0.0 if view.vmin is None else view.vmin, view.vmax)
    brightness = np.clip((np.nan_to_num(strength) - low) / (high - low), 0, 1)
    pixels = np.empty((*angle.shape, 4), np.uint8)
    pixels[..., :3] = wheel(np.nan_to_num(angle), brightness)
    pixels[..., 3] = np.where(blank, 0, 255)
    return pixels


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _stored(raw: bytes) -> bytes:
    """A zlib stream of stored blocks, all but the last of one size."""
    parts = [b"\x78\x01"]
    for begin in range(0, len(raw), _STORED):
        block = raw[begin : begin + _STORED]
        last = begin + _STORED >= len(raw)
        parts += [struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block]
    parts.append(struct.pack(">I", zlib.adler32(raw)))
    return b"".join(parts)


PNG = Container("png", shell, refuses, picture=True)
