"""The processes of a cluster that stay: `dadafs server` and `dadafs peer`."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

from dadafs import logs, processes
from dadafs.client.computing.peering import PeerConfig, serve_peer
from dadafs.errors import UsageError
from dadafs.notify import keep_watchdog, notify
from dadafs.rpc.security import Credentials, check_exposure
from dadafs.rpc.service import BACKLOG, listening
from dadafs.server.claims import claimed
from dadafs.server.serving import ServerConfig, serve_raw
from dadafs.stacks import dump_at_signal

log = logging.getLogger(__name__)


def run_server(config: ServerConfig, listen: tuple[str, int], *, insecure: bool) -> None:
    """Serve until told to stop. UsageError, one line, where it cannot begin."""
    _check(listen[0], config.tls, insecure)
    with claimed("--pool", config.pool), claimed("--results", config.results):
        listener = _bound(*listen)
        _run(lambda: serve_raw(config, [listening(listener)]), f"server of {config.root}", listener)


def run_peer(config: PeerConfig, listen: tuple[str, int], *, insecure: bool) -> None:
    """Compute until told to stop. UsageError, one line, where it cannot begin."""
    _check(listen[0], config.tls, insecure)
    listener = _bound(*listen)
    serve = partial(serve_peer, config, listening(listener), secure=True)
    _run(serve, f"peer {config.name}", listener)


def _check(host: str, tls: Path | None, insecure: bool) -> None:
    check_exposure(host, tls is not None, insecure)
    if tls is not None:
        Credentials(tls)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, UnicodeError) as exc:
        raise UsageError(f"cannot listen on {host}:{port}: {exc}") from exc
    listener.listen(BACKLOG)
    return listener


def _run(serve: Callable[[], Awaitable[None]], what: str, listener: socket.socket) -> None:
    logs.set_up(logging.INFO)
    host, port = listener.getsockname()[:2]

    async def until_told() -> None:
        dump_at_signal()
        async with trio.open_nursery() as nursery:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                nursery.start_soon(serve)
                nursery.start_soon(keep_watchdog)
                log.info("%s answers on %s:%d", what, host, port)
                notify("READY=1", f"STATUS={what} answers on {host}:{port}")
                async for _ in signals:
                    break
            notify("STOPPING=1")
            nursery.cancel_scope.cancel()

    processes.run(until_told)
