"""A port of this machine at which Prometheus fetches metrics by HTTP."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from dadafs.errors import UsageError
from dadafs.processes import memory_bytes
from dadafs.rpc.exposition import CONTENT_TYPE, node_text
from dadafs.rpc.messages import AskReport
from dadafs.rpc.service import Answer, listening

log = logging.getLogger(__name__)

HOST = "127.0.0.1"  # without TLS nothing answers beyond this machine
ANSWER_S = 10.0  # of which a mount waits 2 s for what is behind it
HEAD_BYTES = 8192
CALLERS = 16  # at a time; a collector is one
BACKLOG = 16

Text = Callable[[], Awaitable[str]]


def metrics_listener(port: int) -> trio.SocketListener:
    """The port, taken. UsageError where somebody else has it."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as exc:
        listener.close()
        raise UsageError(f"metrics_port: cannot listen on {HOST}:{port}: {exc.strerror}") from exc
    listener.listen(BACKLOG)
    return listening(listener)


async def expose(listener: trio.SocketListener, text: Text) -> None:
    """Answer `GET /metrics` with `text`, made anew each time, until cancelled."""
    callers = trio.CapacityLimiter(CALLERS)
    await trio.serve_listeners(partial(_serve, text, callers), [listener])


async def expose_node(
    listener: trio.SocketListener, report: Callable[[AskReport], Awaitable[Answer]]
) -> None:
    """The same of what a server or peer reports."""
    began = time.monotonic()

    async def text() -> str:
        told, _ = await report(AskReport())
        return node_text(told, time.monotonic() - began, memory_bytes())

    await expose(listener, text)


async def _serve(text: Text, callers: trio.CapacityLimiter, stream: trio.SocketStream) -> None:
    async with stream:
        with trio.move_on_after(ANSWER_S):
            try:
                async with callers:
                    await stream.send_all(await _answer(await _request_line(stream), text))
            except trio.BrokenResourceError:  # the caller has gone
                return


async def _request_line(stream: trio.SocketStream) -> bytes:
    """The first line of a request, when its head is there, as much as is looked at."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < HEAD_BYTES:
        part = await stream.receive_some(HEAD_BYTES)
        if not part:
            break
        head += part
    return head.partition(b"\r\n")[0]


async def _answer(line: bytes, text: Text) -> bytes:
    method, _, rest = line.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if method != b"GET":
        return _response("405 Method Not Allowed", "only GET\n")
    if path != b"/metrics":
        return _response("404 Not Found", "only /metrics\n")
    try:
        return _response("200 OK", await text())
    except Exception:
        log.exception("metrics")
        return _response("500 Internal Server Error", "see the log\n")


def _response(status: str, body: str) -> bytes:
    payload = body.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\n"
        f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + payload
