"""The server from its beginning to its end: as part of a mount, or the server of a cluster."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import trio

from dadafs.cache.store import Store
from dadafs.rpc.security import Credentials
from dadafs.server.pool import FragmentPool
from dadafs.server.service import RawServer


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """What one server needs to know."""

    root: Path
    cache: Path
    """Directory of the frame index."""
    pool: Path | None = None
    """Directory of fragments, on an SSD; None to read raw files every time."""
    pool_bytes: int = 0
    results: Path | None = None
    """Directory of the results that peers share; None not to."""
    results_bytes: int = 0
    tls: Path | None = None


async def serve_raw(config: ServerConfig, listeners: list[trio.SocketListener]) -> None:
    """Answer on `listeners` until cancelled. UsageError for a wrong set-up."""
    with ExitStack() as stack:
        credentials = Credentials(config.tls) if config.tls is not None else None
        pool = FragmentPool(config.pool, config.pool_bytes) if config.pool is not None else None
        results = Store(config.results, config.results_bytes) if config.results else None
        server = RawServer(config.root, config.cache, pool=pool, results=results)
        stack.callback(server.close)
        service = server.service(credentials)
        await service.serve(*listeners)
