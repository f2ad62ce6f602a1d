"""What a mount says of itself: the texts under `.dadafs`, and the answers on its control socket."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import trio

from dadafs.client.backing.backends import Backend
from dadafs.client.farming.farm import Farm
from dadafs.client.farming.tickets import Job
from dadafs.client.fuse.operations import Operations
from dadafs.client.telling.errorlog import ErrorLog
from dadafs.client.telling.metrics import metrics_text
from dadafs.errors import DadaError
from dadafs.processes import memory_bytes
from dadafs.rpc.messages import Report

REPORT_S = 2.0  # a process that does not answer by then is said not to answer


class Status:
    """Gathers counters and gauges of a mount and the processes behind it. Never waits for long."""

    def __init__(self, farm: Farm, backend: Backend, log: ErrorLog) -> None:
        self._farm = farm
        self._backend = backend
        self._log = log
        self._began = time.time()
        self.operations: Operations | None = None

    def texts(self) -> dict[bytes, Callable[[], Awaitable[str]]]:
        """The files under `.dadafs`, each made when it is opened."""
        return {
            b"stats.json": self.stats,
            b"jobs.json": self.jobs,
            b"peers.json": self.peers,
            b"errors.log": self.errors,
            b"metrics": self.metrics,
        }

    async def stats(self) -> str:
        """Counters since the mount began, and what is open now."""
        return _json(await self._stats())

    async def metrics(self) -> str:
        """The same for Prometheus."""
        return metrics_text(await self._stats(), self._jobs())

    async def _stats(self) -> dict[str, Any]:
        operations = self.operations
        asked = [peer.report for peer in self._backend.peers()]
        server, *peers = await _all([self._backend.link.report, *asked])
        computed = sum(report.counters.get("frames", 0) for report in peers if report)
        patches = sum(report.counters.get("patches", 0) for report in peers if report)
        return {
            "uptime_s": round(time.time() - self._began, 1),
            "pid": os.getpid(),
            "memory_bytes": memory_bytes(),
            "frames_computed": computed,
            "patches_computed": patches,
            "mount": dict(operations.counters) if operations else {},
            "open": operations.gauges() if operations else {},
            "farm": dict(self._farm.counters) | {"in_flight": self._farm.in_flight},
            "processes": {child.role: child.starts for child in self._backend.children},
            "link": dict(self._backend.link.counters),
            "server": server,
            "peers": peers,
            "log_lines": self._log.lines,
            "last_error": self._log.last,
        }

    async def jobs(self) -> str:
        """What is read now and has to be computed."""
        return _json(self._jobs())

    def _jobs(self) -> dict[str, Any]:
        return {"jobs": [_job(job) for job in self._farm.jobs]}

    async def peers(self) -> str:
        """Who computes."""
        peers = self._backend.peers()
        reports = await _all([peer.report for peer in peers])
        farmed = self._farm.crew.gauges()
        return _json(
            {
                "peers": [
                    {
                        "name": peer.name,
                        "answers": report is not None,
                        "farm": farmed.get(peer.name),
                        "report": report,
                    }
                    for peer, report in zip(peers, reports, strict=True)
                ]
            }
        )

    async def errors(self) -> str:
        """The last warnings and errors, a line each."""
        return self._log.text()


async def _all(reports: Sequence[Callable[[], Awaitable[Report]]]) -> list[Report | None]:
    """The reports of all, asked at once: a hundred that are silent cost no more than one."""
    found: list[Report | None] = [None] * len(reports)

    async def one(number: int) -> None:
        found[number] = await _asked(reports[number])

    async with trio.open_nursery() as nursery:
        for number in range(len(reports)):
            nursery.start_soon(one, number)
    return found


async def _asked(report: Callable[[], Awaitable[Report]]) -> Report | None:
    """A process's report; None where it does not answer in time."""
    with trio.move_on_after(REPORT_S):
        try:
            return await report()
        except DadaError:
            return None
    return None


def _job(job: Job) -> dict[str, Any]:
    seconds = trio.current_time() - job.began
    rate = job.done / seconds if seconds > 0 else 0.0
    return {
        "path": job.name,
        "patches_wanted": job.wanted,
        "patches_done": job.done,
        "seconds": round(seconds, 1),
        "patches_per_s": round(rate, 1),
    }


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"
