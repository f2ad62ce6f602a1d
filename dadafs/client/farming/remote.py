"""A peer as the farm sees it: patches go out over RPC, values come back."""

from __future__ import annotations

from analysis.plan import Plan
from dadafs.rpc.messages import AskReport, Compute, Report
from dadafs.rpc.pool import Pool
from dadafs.scans.model import FrameSlice


class RemotePeer:
    """A `Computer` at the other end of a pool of connections."""

    def __init__(self, name: str, pool: Pool, threads: int) -> None:
        self.name = name
        self.slots = threads + 1
        """One patch a thread, and one to go on with while the values of another travel."""
        self._pool = pool

    async def compute(self, plan: Plan, frames: FrameSlice) -> memoryview:
        """The encoded values of a patch, asked for once: the farm counts what is lost."""
        _, payload = await self._pool.call(Compute(plan, frames), once=True)
        return payload

    async def ping(self) -> object:
        """Which process answers there."""
        report = await self.report()
        return report.pid, tuple(sorted(report.facts.items()))

    async def report(self) -> Report:
        """What the peer says of itself."""
        report, _ = await self._pool.call(AskReport())
        return report
