"""The processes behind a mount: `python -m dadafs.embedded server|peer`."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import trio

from dadafs.rpc.service import Service, listening

LOG_FORMAT = "dadafs: %(levelname)s: %(message)s"


def main() -> None:
    """Serve one role on an inherited socket until the lifeline closes."""
    parser = argparse.ArgumentParser(prog="dadafs.embedded")
    parser.add_argument("role", choices=("server", "peer"))
    parser.add_argument("--listen-fd", type=int, required=True)
    parser.add_argument("--lifeline-fd", type=int, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--plugins", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results-bytes", type=int, default=1 << 30)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    service, close = (_server if options.role == "server" else _peer)(options)
    try:
        trio.run(_serve, service, options.listen_fd, options.lifeline_fd)
    finally:
        close()


def _server(options: argparse.Namespace) -> tuple[Service, Callable[[], None]]:
    from dadafs.server.service import RawServer

    server = RawServer(options.root, options.cache)
    return server.service(), server.close


def _peer(options: argparse.Namespace) -> tuple[Service, Callable[[], None]]:
    from dadafs.cache.store import Store
    from dadafs.client.peer import Peer
    from dadafs.client.sources import LocalSource
    from dadafs.plugins import load_plugins
    from dadafs.scans.tree import RawTree

    load_plugins(options.plugins)
    results = Store(options.cache / "results", options.results_bytes)
    peer = Peer(LocalSource(RawTree(options.root)), results, options.threads)
    peer.warm_up()
    return peer.service(), results.close


async def _serve(service: Service, listen_fd: int, lifeline_fd: int) -> None:
    listener = listening(socket.socket(fileno=listen_fd))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.serve, listener)
        async with trio.lowlevel.FdStream(os.dup(lifeline_fd)) as lifeline:
            await lifeline.receive_some(1)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    main()
