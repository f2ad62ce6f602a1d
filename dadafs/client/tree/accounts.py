"""What is told of a result beside its numbers: how it comes about, how far it is, what it costs.

Nothing here computes.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
import trio
from numpy.typing import NDArray

from analysis.reductions import Status
from dadafs.cache.store import Store
from dadafs.cache.values import SUM_BYTES, patch_statuses, pattern_statuses
from dadafs.client.farming.farm import Farm
from dadafs.client.tree.inventory import Inventories, Need, Part, parts_of
from dadafs.client.upstream.link import Link
from dadafs.containers.base import Fact, plain
from dadafs.planning import PATCH_FRAMES, runs
from dadafs.requests import Result
from dadafs.scans.model import Scan, SourceFile

STATE, PROGRESS, PROVENANCE = (
    b"user.dadafs.state",
    b"user.dadafs.progress",
    b"user.dadafs.provenance",
)
ATTRIBUTES = (STATE, PROGRESS, PROVENANCE)
"""The extended attributes of every result."""
LARGEST_ATTRIBUTE = 1 << 16  # XATTR_SIZE_MAX of Linux
LONG = ("files", "missing", "corrupt", "background_frames", "problems")
"""What an attribute leaves out of an account that is too large for it, the first first."""
UNKNOWN = 255  # of a frame that was not decoded
REMEMBERED = 4  # lists of files: 3 MB each for ten thousand


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a result is computed."""

    state: Literal["absent", "computing", "cached"]
    share: float
    """Of its frames, from 0 to 1; 1 only when it is cached."""
    frames_per_s: float | None = None
    """Of whoever computes it."""
    left_s: float | None = None
    peers: int = 0
    """That are at it."""

    def line(self) -> str:
        """`37 %, computing, 1240 frames/s, 12 s left, 3 peers`, for people."""
        told = [f"{int(100 * self.share)} %", self.state]
        if self.state == "computing":
            rate, left = self.frames_per_s, self.left_s
            told.append("? frames/s" if rate is None else f"{rate:.0f} frames/s")
            told.append("? s left" if left is None else f"{left:.0f} s left")
            told.append(f"{self.peers} peer{'' if self.peers == 1 else 's'}")
        return ", ".join(told)


@dataclass(frozen=True, slots=True)
class Cost:
    """What reading all of a result takes."""

    frames: int
    patches: int
    cached: int
    """Patches that need no computing."""
    bytes: int
    """Of raw data, for the others."""
    seconds: float | None
    """As fast as computers were so far; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Listed:
    """The files of a version of a scan, ready to be put into accounts."""

    compact: msgspec.Raw
    """JSON of the list."""
    indented: bytes
    """Of the field `files`, as it stands at the end of a NAME.json."""


class Accounts:
    """Accounts of results.

    What is long about them, the files, is the same for all results of a version of a scan, and is
    made once: a text is asked for at every stat.
    """

    def __init__(self, link: Link, inventories: Inventories, farm: Farm, results: Store) -> None:
        self._link = link
        self._farm = farm
        self._results = results
        self._inventories = inventories
        self._listed: OrderedDict[tuple[bytes, str], Listed] = OrderedDict()

    async def attribute(self, result: Result, name: bytes) -> bytes:
        """The value of one of `ATTRIBUTES`."""
        if name == PROVENANCE:
            files = await self._files(result.scan)
            return attribute({**await self._account(result), "files": files.compact})
        standing = await self.standing(result)
        return (standing.state if name == STATE else standing.line()).encode()

    async def json(self, result: Result) -> bytes:
        """How `result` comes about: `docs/provenance.md` has the fields."""
        account = msgspec.json.encode(await self._account(result))
        files = await self._files(result.scan)
        return _open(msgspec.json.format(account, indent=2)) + b"," + files.indented + b"\n}\n"

    async def standing(self, result: Result) -> Standing:
        """How far `result` is."""
        needs = await self._inventories.of(result)
        parts, held = parts_of(needs), await self._held(needs)
        if len(held) == len(parts):
            return Standing("cached", 1.0)
        total = sum(part.count for part in parts)
        done = sum(part.count for part in held)
        tickets = self._farm.under_way(part.key for part in parts)
        if not tickets:
            return Standing("absent", done / total)
        job = max((job for one in tickets for job in one.jobs), key=lambda job: job.done)
        finished = job.done * total / len(parts)
        if needs[0].whole is not None:  # its portions are not kept
            done = min(max(done, int(finished)), total)
        seconds = trio.current_time() - job.began if job.began else 0.0
        rate = finished / seconds if finished and seconds else None
        left = (total - done) / rate if rate else None
        peers = {name for ticket in tickets for name in ticket.running}
        return Standing("computing", done / total, rate, left, len(peers))

    async def cost(self, result: Result) -> Cost:
        """What reading all of `result` takes now."""
        needs = await self._inventories.of(result)
        parts, held = parts_of(needs), set(await self._held(needs))
        wanted = [part for part in parts if part not in held]
        frames = sum(part.frames for part in wanted)
        return Cost(
            sum(part.frames for part in parts),
            len(parts),
            len(held),
            sum(part.bytes for part in wanted),
            self._farm.crew.expected_s(result.plan, frames) if frames else 0.0,
        )

    async def _account(self, result: Result) -> dict[str, Any]:
        """All but the files."""
        provenance = result.provenance
        own, *background = [
            await self._frames(result, need) for need in await self._inventories.of(result)
        ]
        return {
            **{fact.name: fact.value for fact in provenance.facts if fact.name != "problems"},
            "parameters": {fact.name: _told(fact) for fact in provenance.parameters},
            **own,
            **({"background_frames": background[0]} if background else {}),
            "problems": [plain(problem) for problem in result.scan.problems],
        }

    async def _files(self, scan: Scan) -> Listed:
        """The files of this version of a scan. Stale where it is of another now, and not known."""
        key = (scan.path, scan.version)
        found = self._listed.get(key)
        if found is None:
            files = await self._link.files(scan)
            found = self._listed[key] = await trio.to_thread.run_sync(listed, files)
            if len(self._listed) > REMEMBERED:
                self._listed.popitem(last=False)
        self._listed.move_to_end(key)
        return found

    async def _frames(self, result: Result, need: Need) -> dict[str, Any]:
        """Which frames are needed, and what became of them."""
        computed, corrupt = await self._looked_at(result, need)
        return {
            "frames": {
                "used": len(need.used),
                "computed": computed,
                "missing": len(need.missing),
                "corrupt": len(corrupt),
                "points_beyond_the_last": need.blank,
            },
            "missing": spans(need.missing),
            "corrupt": spans(corrupt),
        }

    async def _looked_at(self, result: Result, need: Need) -> tuple[int, NDArray[np.int64]]:
        """How many of the frames used were decoded, and which of them are corrupt."""
        used = need.used
        if need.whole is not None:
            layers = result.value_shape[0]
            heads = await self._heads([need.whole], SUM_BYTES + layers + len(used))
            status = pattern_statuses(heads.get(need.whole, b""), layers, len(used))
            return len(status), used[: len(status)][status == Status.CORRUPT]
        heads = await self._heads([part.key for part in need.parts], SUM_BYTES + PATCH_FRAMES)
        status = np.full(need.scan.frames, UNKNOWN, np.uint8)
        for part in need.parts:
            values = self._farm.remembered(part.key)
            head = heads.get(part.key, b"")
            told = patch_statuses(head, part.count) if values is None else values.status
            status[part.first : part.first + len(told)] = told
        known = status[used]
        return int(np.count_nonzero(known != UNKNOWN)), used[known == Status.CORRUPT]

    async def _held(self, needs: Sequence[Need]) -> list[Part]:
        """The parts that need no computing."""
        wholes = [need.whole for need in needs if need.whole is not None]
        parts = parts_of(needs)
        keys = [part.key for part in parts] if not wholes else []
        heads = await self._heads([*wholes, *keys], 0)
        if wholes:
            return parts_of([need for need in needs if need.whole in heads])
        remembered = self._farm.remembered
        return [one for one in parts if one.key in heads or remembered(one.key) is not None]

    async def _heads(self, keys: Sequence[bytes], size: int) -> dict[bytes, bytes]:
        """The first bytes of what is stored under these keys."""
        return await trio.to_thread.run_sync(self._results.heads, keys, size)


def listed(files: Sequence[SourceFile]) -> Listed:
    """Files as JSON. Pure."""
    compact = msgspec.json.encode([_file(file) for file in files])
    field = msgspec.json.format(b'{"files":' + compact + b"}", indent=2)
    return Listed(msgspec.Raw(compact), _open(field).removeprefix(b"{"))


def _open(formatted: bytes) -> bytes:
    """An indented object without its end."""
    return formatted.removesuffix(b"\n}")


def attribute(account: dict[str, Any]) -> bytes:
    """An account as the value of an attribute, JSON on one line. Pure.

    What is too long for an attribute is left out, and named in `left_out`.
    """
    encoded = msgspec.json.encode(account)
    for number in range(1, len(LONG) + 1):
        if len(encoded) <= LARGEST_ATTRIBUTE:
            break
        left_out = LONG[:number]
        kept = {name: value for name, value in account.items() if name not in left_out}
        encoded = msgspec.json.encode(kept | {"left_out": left_out})
    return encoded


def spans(frames: NDArray[np.int64]) -> list[list[int]]:
    """Sorted numbers as first and last of each run of consecutive ones. Pure."""
    return [[run.first, run.first + run.count - 1] for run in runs(frames)]


def _told(fact: Fact) -> dict[str, Any]:
    told = {"value": fact.value, "unit": fact.unit, "source": fact.source}
    return {name: value for name, value in told.items() if value != ""}


def _file(file: SourceFile) -> dict[str, Any]:
    of = file.identity
    name = plain(os.fsdecode(file.name))
    return {"name": name, "size_bytes": of.size, "mtime_ns": of.mtime_ns, "inode": of.inode}
