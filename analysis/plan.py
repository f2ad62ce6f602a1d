"""What to compute of each frame, as a plain value that can be sent, compared and hashed."""

from __future__ import annotations

import zlib
from hashlib import blake2b

import msgspec
import numpy as np
from numpy.typing import NDArray


class Roi(msgspec.Struct, frozen=True, array_like=True):
    """A rectangle of pixels: columns `[x, x + w)`, rows `[y, y + h)`."""

    x: int
    y: int
    w: int
    h: int


class Geometry(msgspec.Struct, frozen=True, array_like=True):
    """What turns pixels into scattering vectors."""

    distance_m: float
    """Sample to detector."""
    wavelength_nm: float
    pixel_m: float
    """Edge of a (square) pixel."""


class Plan(msgspec.Struct, frozen=True, array_like=True):
    """What to compute of each frame: one pass over its pixels.

    A plain value: it is sent to peers with the frames it applies to, and its digest is part of
    the key under which results are kept. Whoever makes one leaves out (None) all that does not
    change the values, so that equal computations have equal plans.
    """

    reduction: str
    """Which pass: a name in `analysis.reductions`, e.g. `moments`."""
    version: str
    """Digest of the code of that pass: results of other code are other results."""
    height: int
    width: int
    dtype: str
    """Of the detector's pixels, e.g. `<u2`; its largest value is the sentinel for invalid."""
    mask: bytes = b""
    """Invalid pixels: `pack_mask`; empty when there is no mask beside the sentinel."""
    roi: Roi | None = None
    cx: float | None = None
    """Beam centre, column; only when the pass depends on it."""
    cy: float | None = None
    """Beam centre, row."""
    rmin: float | None = None
    """Smallest radius, pixels, included."""
    rmax: float | None = None
    """Largest radius, pixels, included."""
    qmin: float | None = None
    """Smallest scattering vector, 1/nm, included."""
    qmax: float | None = None
    """Largest scattering vector, 1/nm, included."""
    geometry: Geometry | None = None
    """Only when the pass depends on it (q-limits, q-profiles)."""
    bins: int | None = None
    """Number of bins of a profile."""
    bin: int | None = None
    """Edge, in pixels, of the squares summed into one (frames, composite)."""
    extra: tuple[tuple[str, float], ...] = ()
    """Further parameters of the pass, sorted by name (plug-ins)."""
    heal: int | None = None
    """1: masked pixels take the counts opposite to them; only where there is a mask."""
    flat: int | None = None
    """1: counts are multiplied with the detector's flat field, which goes with the frames."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of a frame."""
        return self.height, self.width

    @property
    def sentinel(self) -> int:
        """The pixel value that means "not measured": the largest of the dtype."""
        return int(np.iinfo(np.dtype(self.dtype)).max)

    def invalid(self) -> NDArray[np.bool_]:
        """The mask, bool (height, width), True where a pixel is not to be used."""
        return unpack_mask(self.mask, self.shape)

    def digest(self) -> bytes:
        """16 bytes that name this plan."""
        return blake2b(msgspec.msgpack.encode(self), digest_size=16).digest()


def pack_mask(invalid: NDArray[np.bool_]) -> bytes:
    """Compress a mask, bool (height, width); b"" where no pixel is invalid.

    A 4M mask of gaps and dead pixels packs to a few kB, small enough to travel with every
    patch request.
    """
    if not invalid.any():
        return b""
    return zlib.compress(np.packbits(invalid, axis=None, bitorder="little").tobytes(), 6)


def unpack_mask(packed: bytes, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The inverse of `pack_mask`. ValueError when the size is not that of `shape`."""
    height, width = shape
    pixels = height * width
    if not packed:
        return np.zeros(shape, np.bool_)
    size = (pixels + 7) // 8
    raw = zlib.decompressobj().decompress(packed, size + 1)
    if len(raw) != size:
        raise ValueError(f"mask unpacks to {len(raw)} bytes or more instead of {size}")
    bits = np.unpackbits(np.frombuffer(raw, np.uint8), count=pixels, bitorder="little")
    return bits.astype(np.bool_).reshape(shape)
