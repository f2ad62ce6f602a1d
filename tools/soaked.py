"""What became of a soak of a cluster, and whether that is as promised. Pure."""

from __future__ import annotations

import errno
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tools.soaking import Held

OUTAGE_S = 35.0  # who waits no longer for a server that is away must not fail
LIMITS = {
    "descriptors": 32,  # connections that are kept, up to 16 to a node
    "threads": 24,
    "memory_bytes": 64 << 20,  # caches fill
}
"""What a process may hold more in the end than in the beginning."""
LOG_LINES = 60  # of a process in a minute; trouble comes every few seconds
TROUBLE = {
    "peer killed": "peers killed by -9, started again",
    "peer stopped": "peers stopped and continued",
    "server killed": "server killed by -9, started again",
    "lines cut": "times all lines to it were cut",
    "bits flipped": "bits flipped in files of its pool",
    "scan grows": "files added to scans that grow",
    "reader killed": "readers killed by -9",
}


@dataclass(slots=True)
class Told:
    """What was done, and what came of it."""

    seed: int
    seconds: float = 0.0
    done: Counter[str] = field(default_factory=Counter)
    """Reads by what was read, `bytes`, `wrong bytes`, and every kind of trouble."""
    errors: Counter[tuple[str, bool]] = field(default_factory=Counter)
    """Reads that failed, by the name of the errno and whether that is promised."""
    longest_s: float = 0.0
    """Of all reads."""
    mended: list[float] = field(default_factory=list)
    """Seconds from the end of each round's trouble until all was well."""
    held: dict[str, list[tuple[float, Held]]] = field(default_factory=dict)
    """By process: when, in seconds, and what, at the end of each round."""
    lines: dict[str, Counter[str]] = field(default_factory=dict)
    """Lines of each log, by level."""
    broken: list[str] = field(default_factory=list)
    """Promises that did not hold, a line each."""


def allowed(code: int | None, seconds: float, *, growing: bool, away: bool) -> bool:
    """Whether a read may fail so that took so long: `growing`, what it reads; `away`, whether the
    server was away meanwhile. Pure."""
    if code == errno.ESTALE:
        return growing
    return code in (errno.ETIMEDOUT, errno.EHOSTUNREACH) and away and seconds >= OUTAGE_S


def judged(log: str) -> tuple[Counter[str], list[str]]:
    """Lines of a log by level, and those that no process that is well writes. Pure."""
    levels: Counter[str] = Counter()
    wrong = []
    for line in log.splitlines():
        found = re.match(r"(?:[\d-]+ [\d:,]+ )?dadafs: (INFO|WARNING): ", line)
        levels[found[1] if found else "wrong"] += 1
        if not found:
            wrong.append(line)
    return levels, wrong


def growth(noted: Sequence[tuple[float, Held]]) -> float | None:
    """Bytes a minute of the process that was noted last, since it was noted first; None where
    that was only once. Pure."""
    own = [(when, one.memory_bytes) for when, one in noted if one.pid == noted[-1][1].pid]
    (began, first), (ended, last) = own[0], own[-1]
    return (last - first) / (ended - began) * 60 if ended > began else None


def grown(told: Told) -> list[str]:
    """What processes hold, or have logged, beyond what is fit, a line each. Pure."""
    lines = []
    for role, noted in told.held.items():
        for what, limit in LIMITS.items():
            first, last = (getattr(one, what) for one in (noted[0][1], noted[-1][1]))
            if last - first > limit:
                lines.append(f"{what} of {role}: {first}, then {last}")
    for name, levels in told.lines.items():
        if levels.total() > LOG_LINES * max(1, told.seconds / 60):
            lines.append(f"log of {name}: {levels.total()} lines")
    return lines


def summary(told: Told) -> str:
    """For people. Pure."""
    done = told.done
    rows: list[tuple[str, Any]] = [
        ("pieces of raw files read", done["raw"]),
        ("results read", done["results"]),
        ("maps of scans that grow read", done["growing"]),
        ("MB read and compared", done["bytes"] // 10**6),
        ("bytes that were wrong", done["wrong bytes"]),
        ("longest read, s", f"{told.longest_s:.1f}"),
        *((line, done[what]) for what, line in TROUBLE.items()),
        ("rounds after which all was well", len(told.mended)),
        ("  after s, at most", f"{max(told.mended, default=0):.1f}"),
    ]
    for (name, may), number in sorted(told.errors.items()):
        rows.append((f"{name}, {'as promised' if may else 'NOT PROMISED'}", number))
    lines = [f"seed {told.seed}, {told.seconds / 60:.1f} min", ""]
    lines += [f"{what:<38}{number:>9}" for what, number in rows]
    lines += [
        "",
        "process     descriptors         threads             memory, MiB          a minute",
    ]
    for role, noted in told.held.items():
        three = [noted[index][1] for index in (0, len(noted) // 2, -1)]
        cells = [f"{one.descriptors:>5}" for one in three] + ["  "]
        cells += [f"{one.threads:>5}" for one in three] + ["     "]
        cells += [f"{one.memory_bytes / 2**20:>5.0f}" for one in three]
        rate = growth(noted)
        cells.append("" if rate is None else f"{rate / 2**20:>+10.1f}")
        lines.append(f"{role:<12}" + "".join(cells))
    lines += ["", "log                                     INFO  WARNING"]
    for name, levels in told.lines.items():
        lines.append(f"{name:<36}{levels['INFO']:>8}{levels['WARNING']:>9}")
    return "\n".join([*lines, "", *(told.broken or ["All promises held."])]) + "\n"
