"""A peer from its beginning to its end: as part of a mount, or a node of a cluster."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import trio

from dadafs.cache.store import Store
from dadafs.client.computing.peer import Peer
from dadafs.client.computing.shared import SharedResults
from dadafs.client.computing.sources import FrameSource, LocalSource, RemoteSource
from dadafs.client.upstream.fragments import FragmentCache
from dadafs.errors import DadaError, UsageError
from dadafs.plugins import load_plugins
from dadafs.rpc.exposing import expose_node, metrics_listener
from dadafs.rpc.messages import Announce
from dadafs.rpc.pool import Pool, tcp_connector
from dadafs.rpc.security import Credentials
from dadafs.scans.tree import RawTree
from dadafs.server.registry import ANNOUNCE_EVERY_S

log = logging.getLogger(__name__)

ANNOUNCE_S = 5.0  # to get through


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """What one peer needs to know."""

    cache: Path
    results_bytes: int
    threads: int
    root: Path | None = None
    """A raw tree that this node sees itself; else the server's is read through the server."""
    server: tuple[str, int] | None = None
    tls: Path | None = None
    plugins: Path | None = None
    raw_bytes: int = 128 << 20
    metrics_port: int | None = None
    """Of 127.0.0.1; None for no such port."""
    name: str = ""
    """Under which it announces itself; empty for a peer that only its mount knows."""


async def serve_peer(
    config: PeerConfig, listener: trio.SocketListener, *, secure: bool = False
) -> None:
    """Answer on `listener` until cancelled, over TLS if `secure`. UsageError for a wrong set-up."""
    with ExitStack() as stack:
        load_plugins(config.plugins)
        credentials = Credentials(config.tls) if config.tls is not None else None
        server: Pool | None = None
        if config.server is not None:
            connect = tcp_connector(*config.server, credentials, "server")
            server = Pool(connect, name=f"the server {config.server[0]}:{config.server[1]}")
            stack.callback(server.close)
        results = Store(config.cache / "results", config.results_bytes)
        stack.callback(results.close)
        shared = SharedResults(server) if server is not None else None
        peer = Peer(_source(config, server), results, config.threads, shared)
        peer.warm_up()
        service = peer.service(credentials if secure else None)
        async with trio.open_nursery() as nursery:
            if config.metrics_port is not None:
                metrics = metrics_listener(config.metrics_port)
                nursery.start_soon(expose_node, metrics, peer.report)
            nursery.start_soon(service.serve, listener)
            if shared is not None:
                nursery.start_soon(shared.run)
            if server is not None and config.name:
                port = listener.socket.getsockname()[1]
                nursery.start_soon(_announce, server, config, port)


def _source(config: PeerConfig, server: Pool | None) -> FrameSource:
    if config.root is not None:
        return LocalSource(RawTree(config.root))
    if server is None:
        raise UsageError("a peer needs a raw tree or a server")
    return RemoteSource(FragmentCache(server, config.raw_bytes))


async def _announce(server: Pool, config: PeerConfig, port: int) -> None:
    """Tell the server every so often that this peer is here."""
    heard: bool | None = None
    while True:
        problem = ""
        try:
            with trio.fail_after(ANNOUNCE_S):
                await server.call(Announce(config.name, port, config.threads))
        except DadaError as exc:
            problem = str(exc)
        except trio.TooSlowError:
            problem = "the server does not answer"
        if problem and heard is not False:
            log.warning("not announced: %s", problem)
        elif not problem and not heard:
            log.info("announced as %s on port %d", config.name, port)
        heard = not problem
        await trio.sleep(ANNOUNCE_EVERY_S)
