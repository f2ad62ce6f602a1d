"""The server from its beginning to its end: as part of a mount, or the server of a cluster."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import trio

from dadafs.cache.store import Store
from dadafs.rpc.exposing import expose_node, metrics_listener
from dadafs.rpc.security import Credentials
from dadafs.server.pooling.pool import FragmentPool
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
    metrics_port: int | None = None
    """Of 127.0.0.1; None for no such port."""


async def serve_raw(config: ServerConfig, listeners: list[trio.SocketListener]) -> None:
    """Answer on `listeners` until cancelled. UsageError for a wrong set-up."""
    with ExitStack() as stack:
        credentials = Credentials(config.tls) if config.tls is not None else None
        pool = FragmentPool(config.pool, config.pool_bytes) if config.pool is not None else None
        results = Store(config.results, config.results_bytes) if config.results else None
        server = RawServer(config.root, config.cache, pool=pool, results=results)
        stack.callback(server.close)
        service = server.service(credentials)
        async with trio.open_nursery() as nursery:
            if config.metrics_port is not None:
                port = metrics_listener(config.metrics_port)
                nursery.start_soon(expose_node, port, server.report)
            nursery.start_soon(service.serve, *listeners)
