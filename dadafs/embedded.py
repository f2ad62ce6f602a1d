"""The processes behind a mount: `python -m dadafs.embedded server|peer`."""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

from dadafs import logs, processes
from dadafs.config import address
from dadafs.errors import DadaError
from dadafs.rpc.service import listening
from dadafs.stacks import dump_at_signal


def main() -> None:
    """Serve one role on an inherited socket until the lifeline closes."""
    parser = argparse.ArgumentParser(prog="dadafs.embedded")
    parser.add_argument("role", choices=("server", "peer"))
    parser.add_argument("--listen-fd", type=int, required=True)
    parser.add_argument("--lifeline-fd", type=int, required=True)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--server", type=address)
    parser.add_argument("--tls", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--plugins", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results-bytes", type=int, default=1 << 30)
    options = parser.parse_args()
    logs.set_up(logging.WARNING)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lifeline = socket.socket(fileno=options.lifeline_fd)
    try:
        role = _server if options.role == "server" else _peer
        processes.run(partial(_serve, role(options), options.listen_fd, lifeline))
    except Exception as exc:
        lifeline.send(_line(exc).encode()[: processes.LAST_WORDS_BYTES])
        if not isinstance(exc, DadaError):  # its line says it all
            raise
        sys.exit(1)


def _line(exc: Exception) -> str:
    kind = "" if isinstance(exc, DadaError) else f"{type(exc).__name__}: "
    return kind + " ".join(str(exc).split())


Role = Callable[[trio.SocketListener], Awaitable[None]]


def _server(options: argparse.Namespace) -> Role:
    from dadafs.server.serving import ServerConfig, serve_raw

    config = ServerConfig(options.root, options.cache)
    return lambda listener: serve_raw(config, [listener])


def _peer(options: argparse.Namespace) -> Role:
    from dadafs.client.computing.peering import PeerConfig, serve_peer

    return partial(
        serve_peer,
        PeerConfig(
            options.cache,
            options.results_bytes,
            options.threads,
            root=options.root,
            server=options.server,
            tls=options.tls,
            plugins=options.plugins,
        ),
    )


async def _serve(role: Role, listen_fd: int, lifeline: socket.socket) -> None:
    dump_at_signal()
    listener = listening(socket.socket(fileno=listen_fd))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(role, listener)
        await trio.socket.from_stdlib_socket(lifeline.dup()).recv(1)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    main()
