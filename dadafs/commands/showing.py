"""Answers of a mount as text for people. Pure, but for `versions`."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "pyfuse3",
    "trio",
    "numpy",
    "numba",
    "llvmlite",
    "h5py",
    "hdf5plugin",
    "lmdb",
    "msgspec",
)
JOBS_SHOWN = 20
PEERS_SHOWN = 50


def versions() -> dict[str, str]:
    """Versions of what dadafs is made of."""
    found = {"python": platform.python_version(), "kernel": platform.release()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def status_text(stats: dict[str, Any]) -> str:
    """A few lines on one mount."""
    peers = stats["peers"]
    silent = sum(peer is None for peer in peers)
    threads = sum(peer["threads"] for peer in peers if peer is not None)
    server = stats["server"]
    farm, opened = stats["farm"], stats["open"]
    lines = [
        f"  up        {duration(stats['uptime_s'])}, process {stats['pid']},"
        f" {size(stats['memory_bytes'])}",
        f"  server    {'does not answer' if server is None else 'answers'}",
        f"  peers     {len(peers) - silent} answer, with {threads} threads"
        + (f"; {silent} do not" if silent else ""),
        f"  computed  {stats['frames_computed']} frames in {stats['patches_computed']} patches;"
        f" {farm['in_flight']} patches under way",
        f"  open      {opened.get('open_files', 0)} files,"
        f" {opened.get('open_directories', 0)} directories",
    ]
    if stats.get("last_error"):
        lines.append(f"  last said {stats['last_error']}")
    return "\n".join(lines) + "\n"


def peers_text(told: dict[str, Any]) -> str:
    """A line for each peer."""
    lines = [f"{'PEER':<24} {'STATE':<16} {'PID':>8} {'THREADS':>7} {'PATCHES':>9} {'FRAMES':>10}"]
    for peer in told["peers"][:PEERS_SHOWN]:
        report = peer["report"]
        state = "answers" if peer["answers"] else "does not answer"
        line = f"{peer['name'][:24]:<24} {state:<16}"
        if report is not None:
            counters = report["counters"]
            line += f" {report['pid']:>8} {report['threads']:>7}"
            line += f" {counters.get('patches', 0):>9} {counters.get('frames', 0):>10}"
        lines.append(line)
    lines += _more(told["peers"], PEERS_SHOWN)
    return "\n".join(lines) + "\n"


def jobs_text(told: dict[str, Any]) -> str:
    """A line for each reader that waits."""
    lines = [f"{'DONE':>12} {'PER S':>7} {'LEFT':>9}  PATH"]
    for job in told["jobs"][:JOBS_SHOWN]:
        done, wanted, rate = job["patches_done"], job["patches_wanted"], job["patches_per_s"]
        left = duration((wanted - done) / rate) if rate else "?"
        lines.append(f"{f'{done}/{wanted}':>12} {rate:>7} {left:>9}  {job['path']}")
    lines += _more(told["jobs"], JOBS_SHOWN)
    return "\n".join(lines) + "\n" if told["jobs"] else "nobody waits for a computation\n"


def top_text(
    mountpoint: Path, now: dict[str, Any], jobs: dict[str, Any], before: dict[str, Any] | None
) -> str:
    """One mount at work; rates since `before`."""
    frames = "frames/s: -"
    if before is not None and now["uptime_s"] > before["uptime_s"]:
        made = max(0, now["frames_computed"] - before["frames_computed"])
        frames = f"frames/s: {made / (now['uptime_s'] - before['uptime_s']):.0f}"
    return f"{mountpoint}  {frames}\n{status_text(now)}\n{jobs_text(jobs)}"


def duration(seconds: float) -> str:
    """`3 h 12 min`, `4 min 5 s`, `7 s`."""
    whole = round(seconds)
    if whole >= 86400:
        return f"{whole // 86400} d {whole % 86400 // 3600} h"
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def size(count: float) -> str:
    """`12.3 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _more(items: list[Any], shown: int) -> list[str]:
    return [f"... and {len(items) - shown} more"] if len(items) > shown else []
