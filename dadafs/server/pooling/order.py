"""What a pool holds, in the order of use, and how much of it has to go. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

LOWERED = 0.95  # of what is allowed: so far eviction goes at a time, but by no more than a lump
LUMP_PAGES = 256 * 257  # 256 fragments: 3 ms each on a busy ext4 disk, while nothing is written
LUMP_FILES = 256


class Order:
    """Keys and the pages that their files take, the least recently used first.

    Invariant: `pages` is their sum.
    """

    def __init__(self) -> None:
        self.pages = 0
        self._pages: OrderedDict[bytes, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pages)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pages)

    def use(self, key: bytes, pages: int) -> None:
        """It was used just now, and takes so many pages."""
        self.pages += pages - self._pages.pop(key, 0)
        self._pages[key] = pages

    def add_oldest(self, key: bytes, pages: int) -> None:
        """Unless it is known, it was used before all others."""
        if key not in self._pages:
            self._pages[key] = pages
            self._pages.move_to_end(key, last=False)
            self.pages += pages

    def forget(self, key: bytes) -> None:
        """It is not there any more, if it ever was."""
        self.pages -= self._pages.pop(key, 0)

    def take_oldest(self) -> tuple[bytes, int]:
        """The least recently used, which is known no longer, and its pages. KeyError."""
        key, pages = self._pages.popitem(last=False)
        self.pages -= pages
        return key, pages


@dataclass(frozen=True, slots=True)
class Spare:
    """What may still be written: pages within the quota, pages and inodes of the file system."""

    quota: int
    space: int
    inodes: int

    def holds(self, pages: int) -> bool:
        """Whether a file of so many pages may be written; of none, whether all is well."""
        return pages <= min(self.quota, self.space) and self.inodes >= min(1, pages)


def surplus(used: int, coming: int, spare: int, lump: int) -> int:
    """How much of `used` has to go before `coming` fits, where there is room for `spare` more:
    when any has to, then up to a lump more, so that it is seldom."""
    if coming <= spare:
        return 0
    allowed = max(0, used + spare)
    return min(used, used + coming - max(int(LOWERED * allowed), allowed - lump))
