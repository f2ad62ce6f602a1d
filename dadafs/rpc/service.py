"""The answering side: a loop over connections that no caller can break."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import trio

from dadafs.errors import DadaError, NotPermitted, ProtocolError
from dadafs.rpc import framing
from dadafs.rpc.calls import UNDECODABLE, Request, encode_failure, encode_reply
from dadafs.rpc.framing import REQUEST_LIMITS, Message, Stream, socket_of
from dadafs.rpc.security import ROLES, Credentials, role_of

log = logging.getLogger(__name__)

Answer = tuple[Any, bytes | bytearray | memoryview]
Handler = Callable[[Any], Awaitable[Answer]]
MAX_CONNECTIONS = 1024
IDLE_S = 600.0  # between two requests
REQUEST_S = 30.0  # for a request to arrive, from its first byte
REPLY_S = 60.0  # for a reply to be taken
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


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    role: str
    """`local`, `open`, or what the certificate says: server, peer, client."""
    host: str
    """Address of the other end, or words for a Unix socket."""


caller: ContextVar[Caller] = ContextVar("caller")
"""Who asks, for the handler that answers."""


class Service:
    """Answers requests by handing each to the handler of its type.

    A handler returns its reply and payload or raises a DadaError, which travels; anything else
    it raises is logged and travels as a plain DadaError. It is cancelled when its caller closes
    the connection. One connection's trouble ends that connection and nothing else.
    """

    def __init__(
        self,
        name: str,
        handlers: dict[type[Request[Any]], Handler],
        *,
        credentials: Credentials | None = None,
        roles: Mapping[type[Request[Any]], Collection[str]] | None = None,
    ) -> None:
        """With `credentials`, TCP callers need a certificate; `roles` says for which requests a
        role among those of certificates is needed, by default any."""
        self._name = name
        self._handlers = handlers
        self._credentials = credentials
        self._roles = roles or {}
        types: Any = tuple(handlers)
        union = types[0]
        for kind in types[1:]:
            union = union | kind
        self._decoder = msgspec.msgpack.Decoder(union)
        self.connections = 0

    async def serve(self, listener: trio.SocketListener) -> None:
        """Answer on `listener` until cancelled."""
        await trio.serve_listeners(self._connection, [listener])

    async def _connection(self, plain: trio.SocketStream) -> None:
        self.connections += 1
        try:
            if self.connections > MAX_CONNECTIONS:
                log.warning(
                    "%s: more than %d connections, one refused", self._name, MAX_CONNECTIONS
                )
                return
            framing.tune(plain)
            stream = await self._admit(plain)
            if stream is not None:
                await self._converse(stream)
        except trio.BrokenResourceError:
            pass  # the caller went away: that is how calls are cancelled
        except ProtocolError as exc:
            log.warning("%s: connection of %s dropped: %s", self._name, _host(plain), exc)
        finally:
            self.connections -= 1
            plain.socket.close()

    async def _admit(self, plain: trio.SocketStream) -> Stream | None:
        """The stream to speak on, after a handshake where one is due; None for who fails it."""
        if self._credentials is None or plain.socket.family == socket.AF_UNIX:
            return plain
        try:
            stream = await self._credentials.accept(plain)
        except (trio.BrokenResourceError, trio.TooSlowError) as exc:
            cause = exc.__cause__ or exc
            log.warning("%s: %s refused, no certificate: %s", self._name, _host(plain), cause)
            return None
        if not role_of(stream):
            log.warning("%s: %s refused: its certificate has no role", self._name, _host(plain))
            return None
        return stream

    async def _converse(self, stream: Stream) -> None:
        caller.set(Caller(role_of(stream), _host(stream)))
        while True:
            message = None
            with trio.move_on_after(IDLE_S):
                message = await framing.receive(stream, REQUEST_LIMITS, within_s=REQUEST_S)
            if message is None:
                return
            answer = await self._answer_or_hang_up(stream, message)
            with trio.move_on_after(REPLY_S) as sending:
                await framing.send(stream, answer)
            if sending.cancelled_caught:
                raise ProtocolError(f"the caller does not take its reply in {REPLY_S:.0f} s")

    async def _answer_or_hang_up(self, stream: Stream, message: Message) -> Message:
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
        kind = type(request)
        who = caller.get()
        needed = self._roles.get(kind)
        if who.role in ROLES and needed is not None and who.role not in needed:
            line = f"a certificate for a {who.role} does not allow {kind.__name__}"
            log.warning("%s: %s refused: %s", self._name, who.host, line)
            return Message(encode_failure(NotPermitted(line)))
        try:
            value, payload = await self._handlers[kind](request)
            return Message(encode_reply(value), payload)
        except DadaError as exc:
            return Message(encode_failure(exc))
        except Exception as exc:
            log.exception("%s: %s failed", self._name, type(request).__name__)
            line = f"internal error in {type(request).__name__}: {exc!r}"
            return Message(encode_failure(DadaError(line)))


async def _closed(stream: Stream) -> None:
    """Return when the caller closes, or speaks out of turn, which is the same to us."""
    try:
        early = await socket_of(stream).recv(1, socket.MSG_PEEK)
    except OSError:
        return
    if early and isinstance(stream, trio.SocketStream):  # TLS says good-bye in words
        log.warning("a caller sent a second request before the reply to its first")


def _host(stream: Stream) -> str:
    sock = socket_of(stream)
    if sock.family == socket.AF_UNIX:
        return "a local caller"
    try:
        return str(sock.getpeername()[0])
    except OSError:
        return "a caller"
