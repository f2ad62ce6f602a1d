"""The answering side: a loop over connections that no caller can break."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import trio

from dadafs.errors import DadaError, ProtocolError
from dadafs.rpc import framing
from dadafs.rpc.calls import UNDECODABLE, Request, encode_failure, encode_reply
from dadafs.rpc.framing import REQUEST_LIMITS, Message

log = logging.getLogger(__name__)

Answer = tuple[Any, bytes | bytearray | memoryview]
Handler = Callable[[Any], Awaitable[Answer]]
MAX_CONNECTIONS = 1024
BACKLOG = 512


def unix_socket(path: Path) -> socket.socket:
    """A Unix socket listening at `path`, where an older one may be left."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(BACKLOG)
    return listener


def listening(listener: socket.socket) -> trio.SocketListener:
    """A listening socket for `Service.serve`."""
    listener.setblocking(False)
    return trio.SocketListener(trio.socket.from_stdlib_socket(listener))


class Service:
    """Answers requests by handing each to the handler of its type.

    A handler returns its reply and payload or raises a DadaError, which travels; anything else
    it raises is logged and travels as a plain DadaError. It is cancelled when its caller closes
    the connection. One connection's trouble ends that connection and nothing else.
    """

    def __init__(self, name: str, handlers: dict[type[Request[Any]], Handler]) -> None:
        self._name = name
        self._handlers = handlers
        types: Any = tuple(handlers)
        union = types[0]
        for kind in types[1:]:
            union = union | kind
        self._decoder = msgspec.msgpack.Decoder(union)
        self.connections = 0

    async def serve(self, listener: trio.SocketListener) -> None:
        """Answer on `listener` until cancelled."""
        await trio.serve_listeners(self._connection, [listener])

    async def _connection(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        try:
            if self.connections > MAX_CONNECTIONS:
                log.warning(
                    "%s: more than %d connections, one refused", self._name, MAX_CONNECTIONS
                )
                return
            framing.tune(stream)
            while (message := await framing.receive(stream, REQUEST_LIMITS)) is not None:
                await framing.send(stream, await self._answer_or_hang_up(stream, message))
        except trio.BrokenResourceError:
            pass  # the caller went away: that is how calls are cancelled
        except ProtocolError as exc:
            log.warning("%s: connection dropped: %s", self._name, exc)
        finally:
            self.connections -= 1
            stream.socket.close()

    async def _answer_or_hang_up(self, stream: trio.SocketStream, message: Message) -> Message:
        """The reply to `message`; BrokenResourceError as soon as the caller hangs up."""
        try:
            request = self._decoder.decode(message.header)
        except UNDECODABLE as exc:
            raise ProtocolError(f"request does not decode: {exc}") from exc
        reply: Message | None = None
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await _closed(stream)
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            reply = await self._answer(request)
            nursery.cancel_scope.cancel()
        if reply is None:
            raise trio.BrokenResourceError("the caller closed the connection")
        return reply

    async def _answer(self, request: Request[Any]) -> Message:
        try:
            value, payload = await self._handlers[type(request)](request)
            return Message(encode_reply(value), payload)
        except DadaError as exc:
            return Message(encode_failure(exc))
        except Exception as exc:
            log.exception("%s: %s failed", self._name, type(request).__name__)
            line = f"internal error in {type(request).__name__}: {exc!r}"
            return Message(encode_failure(DadaError(line)))


async def _closed(stream: trio.SocketStream) -> None:
    """Return when the caller closes, or speaks out of turn, which is the same to us."""
    try:
        early = await stream.socket.recv(1, socket.MSG_PEEK)
    except OSError:
        return
    if early:
        log.warning("a caller sent a second request before the reply to its first")
