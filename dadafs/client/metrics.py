"""The gauges and counters of a mount as Prometheus text. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def metrics_text(stats: Mapping[str, Any], jobs: Mapping[str, Any]) -> str:
    """The exposition format, version 0.0.4, of what `stats.json` and `jobs.json` tell."""
    return "".join(_lines(stats, jobs["jobs"]))


def _lines(stats: Mapping[str, Any], jobs: list[Mapping[str, Any]]) -> Iterator[str]:
    peers = stats["peers"]
    answering = [peer for peer in peers if peer is not None]
    yield from _one("uptime_seconds", "gauge", "since the mount began", stats["uptime_s"])
    yield from _one("memory_bytes", "gauge", "resident in the mount", stats["memory_bytes"])
    yield from _one("server_up", "gauge", "whether the server answers", stats["server"] is not None)
    yield from _one("peers_up", "gauge", "peers that answer", len(answering))
    yield from _one("peers_down", "gauge", "peers that do not", len(peers) - len(answering))
    threads = sum(peer.threads for peer in answering)
    yield from _one("peer_threads", "gauge", "threads of peers that answer", threads)
    frames, patches = stats["frames_computed"], stats["patches_computed"]
    yield from _one("frames_computed_total", "counter", "by peers that answer", frames)
    yield from _one("patches_computed_total", "counter", "by peers that answer", patches)
    yield from _one("jobs", "gauge", "files that somebody waits for", len(jobs))
    waiting = sum(job["patches_wanted"] - job["patches_done"] for job in jobs)
    yield from _one("jobs_patches_left", "gauge", "patches that these still need", waiting)
    yield from _one("log_lines_total", "counter", "warnings and errors", stats["log_lines"])
    farm = dict(stats["farm"])
    flight = farm.pop("in_flight")
    yield from _one("patches_in_flight", "gauge", "queued or being computed", flight)
    starts = stats["processes"]
    yield from _many("process_starts_total", "counter", "of processes behind it", "role", starts)
    yield from _many("open", "gauge", "what is open now", "kind", stats["open"])
    for family, meaning in (("mount", "FUSE"), ("link", "the line to the server")):
        name = f"{family}_events_total"
        yield from _many(name, "counter", f"of {meaning}", "event", stats[family])
    yield from _many("farm_events_total", "counter", "of the farm", "event", farm)


def _one(name: str, kind: str, meaning: str, value: float) -> Iterator[str]:
    yield from _head(name, kind, meaning)
    yield f"dadafs_{name} {_number(value)}\n"


def _many(
    name: str, kind: str, meaning: str, label: str, values: Mapping[str, Any]
) -> Iterator[str]:
    yield from _head(name, kind, meaning)
    for key, value in sorted(values.items()):
        if isinstance(value, int | float):
            word = key.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            yield f'dadafs_{name}{{{label}="{word}"}} {_number(value)}\n'


def _head(name: str, kind: str, meaning: str) -> Iterator[str]:
    yield f"# HELP dadafs_{name} {meaning}\n# TYPE dadafs_{name} {kind}\n"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
