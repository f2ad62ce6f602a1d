"""Logs of the processes that stay: one line a failure, and not the same line again and again."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict

FORMAT = "dadafs: %(levelname)s: %(message)s"
QUIET_S = 60.0  # the same line is written once in that time
KEPT = 1000


class Once(logging.Filter):
    """Lets a message through, then counts its repetitions until it may come again."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write this record; one that comes again says how often it was left out."""
        message = record.getMessage()
        until, count = self._seen.get(message, (0.0, 0))
        now = time.monotonic()
        if now < until:
            self._seen[message] = until, count + 1
            return False
        self._seen[message] = now + QUIET_S, 0
        self._seen.move_to_end(message)
        while len(self._seen) > KEPT:
            self._seen.popitem(last=False)
        if count:
            record.msg, record.args = f"{message} ({count} times more since then)", None
        return True


def set_up(level: int, prefix: str = "") -> None:
    """Log to standard error from `level` on."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(prefix + FORMAT))
    handler.addFilter(Once())
    logging.basicConfig(level=level, handlers=[handler])
