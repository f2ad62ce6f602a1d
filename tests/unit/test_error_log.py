"""The log of errors keeps lines, not repetitions, and can always be shown."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator

import pytest

from dadafs.client.telling import errorlog
from dadafs.client.telling.errorlog import ErrorLog


@pytest.fixture
def kept() -> ErrorLog:
    return ErrorLog()


@pytest.fixture
def log(kept: ErrorLog) -> Iterator[logging.Logger]:
    logger = logging.Logger("here")
    logger.addHandler(kept)
    yield logger
    logger.removeHandler(kept)


def messages(kept: ErrorLog) -> list[str]:
    """The lines without their times."""
    lines = kept.text().splitlines()
    return [line.strip() if line.startswith(" ") else line.split(" ", 2)[2] for line in lines]


def test_warnings_and_errors_with_their_time(kept: ErrorLog, log: logging.Logger) -> None:
    assert kept.text() == ""
    log.info("not of interest")
    log.warning("%s: no such parameter", "/scan42/dpc")
    log.error("worse")
    assert messages(kept) == ["warning: /scan42/dpc: no such parameter", "error: worse"]
    record = logging.LogRecord("here", logging.ERROR, "", 0, "when", None, None)
    record.created = 86400.0 * 365
    kept.handle(record)
    assert kept.text().splitlines()[-1].startswith(("1971-01-01", "1970-12-31"))


def test_line_repeated_at_once_is_counted(kept: ErrorLog, log: logging.Logger) -> None:
    for _ in range(4):
        log.warning("again")
    log.warning("other")
    log.warning("again")
    again = "warning: again"
    other = "warning: other"
    assert messages(kept) == [again, "(the line above 3 times more)", other, again]
    assert messages(kept) == [again, "(the line above 3 times more)", other, again]


def test_looking_ends_a_count(kept: ErrorLog, log: logging.Logger) -> None:
    for _ in range(3):
        log.warning("again")
    assert messages(kept) == ["warning: again", "(the line above 2 times more)"]
    log.warning("again")
    assert messages(kept)[2:] == ["warning: again"]


def test_message_is_one_line_of_text(kept: ErrorLog, log: logging.Logger) -> None:
    log.warning("two\nlines")
    log.warning("no text: \udcff")
    assert messages(kept) == ["warning: two lines", r"warning: no text: \udcff"]
    kept.text().encode()


def test_traceback_is_left_to_other_handlers(kept: ErrorLog, log: logging.Logger) -> None:
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        log.exception("unforeseen")
    assert messages(kept) == ["error: unforeseen"]


def test_lines_are_bounded(
    log: logging.Logger, kept: ErrorLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(errorlog.KEPT_LINES + 10):
        log.warning("line %d", number)
    lines = messages(kept)
    assert len(lines) == errorlog.KEPT_LINES
    assert (lines[0], lines[-1]) == ("warning: line 10", "warning: line 1009")


def test_lines_are_read_under_the_lock_of_the_writers(log: logging.Logger, kept: ErrorLog) -> None:
    """A thread that logs while the lines are walked would end the walk with an error."""
    log.warning("one")
    owned: list[bool] = []

    class Watched(deque[str]):
        def __iter__(self) -> Iterator[str]:
            owned.append(kept.lock is not None and kept.lock._is_owned())  # type: ignore[attr-defined]
            return super().__iter__()

    kept._lines = Watched(kept._lines)
    assert messages(kept) == ["warning: one"]
    assert owned == [True]
