"""The contract of a reduction: one pass over the pixels of a frame."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from analysis.codec import Codec
from analysis.plan import Plan


class Status(IntEnum):
    """What became of a frame. Values of frames that are not OK are zero and mean nothing."""

    OK = 0
    MISSING = 1
    """There is no chunk for it: the scan was aborted, still runs, or lost a file."""
    CORRUPT = 2
    """The chunk does not decode."""


class Prepared(Protocol):
    """A reduction made ready for one plan: masks and tables built once, then used per frame.

    Immutable after construction, hence shared by the threads of a peer.
    """

    @property
    def value_shape(self) -> tuple[int, ...]:
        """Of one frame's values."""

    @property
    def value_dtype(self) -> np.dtype[Any]:
        """Of one frame's values."""

    def frame(self, frame: NDArray[Any], out: NDArray[Any]) -> None:
        """Reduce a decoded frame (height, width) into `out` (`value_shape`, zeroed)."""

    def fuses(self, codec: Codec) -> bool:
        """Whether `chunk` understands this codec; else the caller decodes and calls `frame`."""

    def chunk(self, chunk: bytes, codec: Codec, out: NDArray[Any]) -> bool:
        """Reduce a compressed chunk into `out` without making the frame; False when corrupt."""


class Reduction(Protocol):
    """A kind of pass over frames."""

    name: str
    version: str
    """Digest of the code that determines its values."""
    uses: frozenset[str]
    """Fields of a plan that change the values, beside detector, mask, roi and limits."""

    def prepare(self, plan: Plan) -> Prepared:
        """Build masks and tables. ValueError when the plan lacks what the pass needs."""
