"""Joining equal work in flight."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import trio

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Once(Generic[K, V]):
    """Lets one task do a piece of work while others that want the same wait.

    `look` tells whether the result is there already; whoever waited looks again, so that work
    whose task was cancelled or failed is taken over by the next one rather than lost.
    Invariant: at most one task is within `make` for a key.
    """

    def __init__(self) -> None:
        self._flying: dict[K, trio.Event] = {}

    async def get(
        self, key: K, look: Callable[[], V | None], make: Callable[[], Awaitable[V]]
    ) -> V:
        """What `look` finds, or else what `make` returns. Raises what `make` raises."""
        while True:
            found = look()
            if found is not None:
                return found
            flying = self._flying.get(key)
            if flying is None:
                break
            await flying.wait()
        landed = self._flying[key] = trio.Event()
        try:
            return await make()
        finally:
            del self._flying[key]
            landed.set()
