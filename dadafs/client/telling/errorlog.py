"""The last errors, for `.dadafs/errors.log` and for whoever asks."""

from __future__ import annotations

import logging
import time
from collections import deque

KEPT_LINES = 1000


class ErrorLog(logging.Handler):
    """Keeps the last warnings and errors, a line each; a line repeated at once only counts."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._last = ""
        self._repeats = 0
        self.lines = 0
        """How many came since the beginning, repeated ones too."""

    @property
    def last(self) -> str:
        """The last line; "" while there is none."""
        return self._lines[-1].strip() if self._lines else ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        self.lines += 1
        message = " ".join(record.getMessage().split("\n"))
        message = message.encode(errors="backslashreplace").decode()  # names that are no UTF-8
        if message == self._last:
            self._repeats += 1
            return
        self._note_repeats()
        self._last = message
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        self._lines.append(f"{stamp} {record.levelname.lower()}: {message}")

    def _note_repeats(self) -> None:
        if self._repeats:
            self._lines.append(f"{' ' * 20}(the line above {self._repeats} times more)")
            self._repeats = 0

    def text(self) -> str:
        """All kept lines, the newest last."""
        assert self.lock is not None
        with self.lock:  # threads log too
            self._note_repeats()
            self._last = ""
            return "".join(line + "\n" for line in self._lines)
