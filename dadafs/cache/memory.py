"""Recent values in RAM."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class MemoryCache(Generic[K, V]):
    """Values by key up to a number of bytes; the least recently used go first.

    Invariant: `used_bytes` is the sum of the sizes of what is held, and at most `max_bytes`.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._held: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: K) -> V | None:
        """The value, which is now the most recent one; None where there is none."""
        found = self._held.get(key)
        if found is None:
            return None
        self._held.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, size_bytes: int) -> None:
        """Hold `value`, unless it alone is too large."""
        self.discard(key)
        if size_bytes > self.max_bytes:
            return
        self._held[key] = value, size_bytes
        self.used_bytes += size_bytes
        while self.used_bytes > self.max_bytes:
            _, (_, size) = self._held.popitem(last=False)
            self.used_bytes -= size

    def discard(self, key: K) -> None:
        """Forget the value, if there is one."""
        found = self._held.pop(key, None)
        if found is not None:
            self.used_bytes -= found[1]
