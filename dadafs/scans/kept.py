"""What was made once and may be asked for again; the least used is forgotten."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Kept:
    """A number of things by their keys. Safe for threads; two may make the same at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What was made for that key; a ValueError is remembered too."""
        with self._lock:
            known = self._kept.get(key)
            if known is not None:
                self._kept.move_to_end(key)
        if known is None:
            try:
                known = (make(),)
            except ValueError as exc:
                known = exc
            with self._lock:
                self._kept[key] = known
                while len(self._kept) > self._most:
                    self._kept.popitem(last=False)
        if isinstance(known, ValueError):
            raise ValueError(str(known))
        made: T = known[0]
        return made
