"""Gauges and counters as Prometheus text: the exposition format, version 0.0.4. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dadafs.rpc.messages import Report

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def node_text(report: Report, uptime_s: float, memory_bytes: int) -> str:
    """What a server or peer tells of itself."""
    return "".join(
        [
            *one("uptime_seconds", "gauge", "since the process began", uptime_s),
            *one(
                "memory_bytes", "gauge", "of the process alone, without mapped files", memory_bytes
            ),
            *one("threads", "gauge", "that read or compute", report.threads),
            *many("node_events_total", "counter", "of this node", "event", report.counters),
        ]
    )


def one(name: str, kind: str, meaning: str, value: float) -> Iterator[str]:
    """The lines of a metric without labels."""
    yield from _head(name, kind, meaning)
    yield f"dadafs_{name} {_number(value)}\n"


def many(
    name: str, kind: str, meaning: str, label: str, values: Mapping[str, Any]
) -> Iterator[str]:
    """The lines of a metric with a label; of `values` those that are numbers."""
    yield from _head(name, kind, meaning)
    for key, value in sorted(values.items()):
        if isinstance(value, int | float):
            word = key.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            yield f'dadafs_{name}{{{label}="{word}"}} {_number(value)}\n'


def _head(name: str, kind: str, meaning: str) -> Iterator[str]:
    yield f"# HELP dadafs_{name} {meaning}\n# TYPE dadafs_{name} {kind}\n"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
