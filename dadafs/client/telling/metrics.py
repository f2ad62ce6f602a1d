"""The gauges and counters of a mount as Prometheus text. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dadafs.rpc.exposition import many, one


def metrics_text(stats: Mapping[str, Any], jobs: Mapping[str, Any]) -> str:
    """What `stats.json` and `jobs.json` tell, for Prometheus."""
    return "".join(_lines(stats, jobs["jobs"]))


def _lines(stats: Mapping[str, Any], jobs: list[Mapping[str, Any]]) -> Iterator[str]:
    peers = stats["peers"]
    answering = [peer for peer in peers if peer is not None]
    yield from one("uptime_seconds", "gauge", "since the mount began", stats["uptime_s"])
    yield from one(
        "memory_bytes", "gauge", "of the mount alone, without mapped files", stats["memory_bytes"]
    )
    yield from one("server_up", "gauge", "whether the server answers", stats["server"] is not None)
    yield from one("peers_up", "gauge", "peers that answer", len(answering))
    yield from one("peers_down", "gauge", "peers that do not", len(peers) - len(answering))
    threads = sum(peer.threads for peer in answering)
    yield from one("peer_threads", "gauge", "threads of peers that answer", threads)
    frames, patches = stats["frames_computed"], stats["patches_computed"]
    yield from one("frames_computed_total", "counter", "by peers that answer", frames)
    yield from one("patches_computed_total", "counter", "by peers that answer", patches)
    yield from one("jobs", "gauge", "files that somebody waits for", len(jobs))
    waiting = sum(job["patches_wanted"] - job["patches_done"] for job in jobs)
    yield from one("jobs_patches_left", "gauge", "patches that these still need", waiting)
    yield from one("log_lines_total", "counter", "warnings and errors", stats["log_lines"])
    farm = dict(stats["farm"])
    flight = farm.pop("in_flight")
    yield from one("patches_in_flight", "gauge", "queued or being computed", flight)
    starts = stats["processes"]
    yield from many("process_starts_total", "counter", "of processes behind it", "role", starts)
    yield from many("open", "gauge", "what is open now", "kind", stats["open"])
    for family, meaning in (("mount", "FUSE"), ("link", "the line to the server")):
        name = f"{family}_events_total"
        yield from many(name, "counter", f"of {meaning}", "event", stats[family])
    yield from many("farm_events_total", "counter", "of the farm", "event", farm)
