"""Telling what a reader wants from what the kernel reads ahead.

The kernel reads ahead of every access, 16 pages on both sides of a fault in a mapped file; were
all of it computed, two lines of a map would cost hundreds. But an answer to read-ahead may be an
error without harm: the kernel then asks for the pages that are really wanted, one by one, and
only those. So a request for more than a page, of values that are not there yet, is declined at
first, unless its reader has shown that he reads everything: then whole windows are wanted.
"""

from __future__ import annotations

PAGE_BYTES = 4096
STEADY_BYTES = 8 * PAGE_BYTES  # more than two lines of 1000 points
WINDOW_BYTES = 128 << 10  # the kernel's read-ahead window for FUSE
WIDEST_BYTES = 1 << 20  # what a mount by root makes of it: so much fits into one request


class Demand:
    """The reading habits on one open file, which may be `direct`: past the page cache, so that
    nothing is read ahead, and an error would be the reader's."""

    def __init__(self, *, direct: bool = False) -> None:
        self._direct = direct
        self._run_start = 0
        self._run_end = 0
        self._declined: tuple[int, int] | None = None

    def declines(self, offset: int, size: int) -> bool:
        """Whether this request, whose values would have to be computed, is to be declined.

        A repetition of the request declined last is not declined again, whatever the kernel's
        reasons for it.
        """
        wanted = self._direct or size <= PAGE_BYTES or self._declined == (offset, size)
        if wanted or self._reads_everything(offset):
            self._extend(offset, size)
            return False
        self._declined = offset, size
        return True

    @property
    def goes_on(self) -> bool:
        """Whether so much was wanted in one run that what follows will be wanted too."""
        return self._run_end - self._run_start >= STEADY_BYTES

    def _reads_everything(self, offset: int) -> bool:
        """Whether a window's worth was wanted page after page, and this goes on from there."""
        near = self._run_start <= offset <= self._run_end + WIDEST_BYTES
        return near and self._run_end - self._run_start >= WINDOW_BYTES

    def _extend(self, offset: int, size: int) -> None:
        if not self._run_start <= offset <= self._run_end + WIDEST_BYTES:
            self._run_start = self._run_end = offset
        self._run_end = max(self._run_end, offset + size)
