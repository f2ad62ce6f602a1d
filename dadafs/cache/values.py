"""What a pass leaves of a patch, as it is sent and stored.

The checksum is keyed with the key of the patch: whole values of another patch, sent or stored in
its place, are damaged values.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dadafs.errors import BadData

SUM_BYTES = 8


@dataclass(frozen=True, slots=True, eq=False)
class PatchValues:
    """Status of every frame of a patch, and the values of the pass."""

    status: NDArray[np.uint8]
    """`analysis.reductions.Status` of each frame (frames,)."""
    values: NDArray[Any]
    """(frames, *value_shape) for passes that leave values of each frame."""

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return self.status.nbytes + self.values.nbytes

    def encode(self, key: bytes) -> bytes:
        """A checksum, the statuses, the values of the patch with that key."""
        body = self.status.tobytes() + self.values.tobytes()
        return _sum(key, body) + body

    @classmethod
    def decode(
        cls,
        key: bytes,
        encoded: bytes | bytearray | memoryview,
        frames: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> PatchValues:
        """The values of `frames` frames in the promised shape, which are not to be changed.

        BadData when the bytes are damaged, of another patch, or of another shape.
        """
        view = memoryview(encoded)
        if len(view) < SUM_BYTES or _sum(key, view[SUM_BYTES:]) != view[:SUM_BYTES]:
            raise BadData("values of a patch are damaged")
        status = np.frombuffer(view[SUM_BYTES : SUM_BYTES + frames], np.uint8)
        rest = view[SUM_BYTES + frames :]
        if len(status) != frames or len(rest) != int(np.prod(shape)) * dtype.itemsize:
            raise BadData("values of a patch have another shape")
        return cls(status, np.frombuffer(rest, dtype).reshape(shape))


@dataclass(frozen=True, slots=True, eq=False)
class PatternValues:
    """What a pass over many frames leaves of a patch: one plane of numbers for each layer."""

    status: NDArray[np.uint8]
    """Of each frame (frames,); frames that the pattern leaves out are MISSING."""
    layers: tuple[NDArray[Any], ...]
    """Unsigned (rows, columns) each, in the smallest dtype that holds the numbers."""

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return self.status.nbytes + sum(layer.nbytes for layer in self.layers)

    def encode(self, key: bytes) -> bytes:
        """A checksum, the size of each layer's numbers, the statuses, the layers."""
        sizes = bytes(layer.itemsize for layer in self.layers)
        body = b"".join([sizes, self.status.data, *(_flat(layer) for layer in self.layers)])
        return _sum(key, body) + body

    @classmethod
    def decode(
        cls,
        key: bytes,
        encoded: bytes | bytearray | memoryview,
        frames: int,
        shape: tuple[int, ...],
    ) -> PatternValues:
        """The layers, `shape` is (layers, rows, columns).

        BadData when the bytes are damaged, of another patch, or of another shape.
        """
        view = memoryview(encoded)
        if len(view) < SUM_BYTES or _sum(key, view[SUM_BYTES:]) != view[:SUM_BYTES]:
            raise BadData("values of a patch are damaged")
        count, *plane = shape
        pixels = int(np.prod(plane))
        sizes = bytes(view[SUM_BYTES : SUM_BYTES + count])
        at = SUM_BYTES + count + frames
        if len(view) != at + pixels * sum(sizes) or not set(sizes) <= {1, 2, 4, 8}:
            raise BadData("values of a patch have another shape")
        status = np.frombuffer(view[SUM_BYTES + count : at], np.uint8)
        layers = []
        for size in sizes:
            layers.append(np.frombuffer(view[at : at + pixels * size], f"<u{size}").reshape(plane))
            at += pixels * size
        return cls(status, tuple(layers))


def patch_statuses(head: bytes, frames: int) -> NDArray[np.uint8]:
    """The statuses in the first bytes of an encoded patch, unverified; none where it is short."""
    return np.frombuffer(head[SUM_BYTES : SUM_BYTES + frames], np.uint8)


def pattern_statuses(head: bytes, layers: int, frames: int) -> NDArray[np.uint8]:
    """The same of an encoded pattern of so many layers."""
    begin = SUM_BYTES + layers
    return np.frombuffer(head[begin : begin + frames], np.uint8)


def _flat(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _sum(key: bytes, body: bytes | memoryview) -> bytes:
    return blake2b(body, digest_size=SUM_BYTES, key=key).digest()
