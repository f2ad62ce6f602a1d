"""A line that comes again and again is written once, then counted."""

from __future__ import annotations

import logging

import pytest

from dadafs import logs


def record(text: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("x", logging.WARNING, "x", 1, text, args, None)


def test_repetitions_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)
    once = logs.Once()
    assert once.filter(record("host %s", "a"))
    assert [once.filter(record("host %s", "a")) for _ in range(5)] == [False] * 5
    assert once.filter(record("host %s", "b"))
    now = logs.QUIET_S + 1
    again = record("host %s", "a")
    assert once.filter(again)
    assert again.getMessage() == "host a (5 times more since then)"


def test_memory_is_bounded() -> None:
    once = logs.Once()
    for number in range(3 * logs.KEPT):
        assert once.filter(record("%d", number))
    assert len(once._seen) == logs.KEPT
