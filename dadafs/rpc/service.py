"""The answering side: a loop over connections that no caller can break."""

from __future__ import annotations

import logging
import math
import socket
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import trio

from dadafs.errors import DadaError, NotPermitted, ProtocolError, Unforeseen
from dadafs.rpc import framing
from dadafs.rpc.calls import UNDECODABLE, Request, encode_failure, encode_reply
from dadafs.rpc.framing import REQUEST_LIMITS, Message, Payload, Stream, socket_of
from dadafs.rpc.security import ROLES, Credentials, role_of

log = logging.getLogger(__name__)

Answer = tuple[Any, Payload]
Handler = Callable[[Any], Awaitable[Answer]]
MAX_CONNECTIONS = 1024
IDLE_S = 600.0  # between two requests
REQUEST_S = 30.0  # for a request to arrive, from its first byte
REPLY_S = 20.0  # for 1 MiB of a reply to be taken
WATCH_S = 0.1  # between looks for callers who have gone
COMPLAINTS = 20  # about one host
COMPLAINTS_S = 60.0  # in that time; more would be a way to fill a disk
COMPLAINED = 1000  # hosts
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
    it raises is logged and travels as Unforeseen. It is cancelled when its caller closes
    the connection. One connection's trouble ends that connection and nothing else.

    Invariants: `_silent` holds the scopes of those connections that are waited for, for a handshake
    or a request, the longest first; `_answering` those of the requests that are being answered.
    """

    def __init__(
        self,
        name: str,
        handlers: dict[type[Request[Any]], Handler],
        *,
        credentials: Credentials | None = None,
        roles: Mapping[type[Request[Any]], Collection[str]] | None = None,
        at_once: Mapping[type[Request[Any]], int] | None = None,
    ) -> None:
        """With `credentials`, TCP callers need a certificate; `roles` says for which requests a
        role among those of certificates is needed, by default any; `at_once`, how many requests of
        a kind are answered at a time, until their replies, which are large, are taken."""
        self._name = name
        self._handlers = handlers
        self._credentials = credentials
        self._roles = roles or {}
        self._at_once = {
            kind: trio.CapacityLimiter(number) for kind, number in (at_once or {}).items()
        }
        self._complaints: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._silent: OrderedDict[trio.CancelScope, None] = OrderedDict()
        self._answering: dict[Stream, trio.CancelScope] = {}
        types: Any = tuple(handlers)
        union = types[0]
        for kind in types[1:]:
            union = union | kind
        self._decoder = msgspec.msgpack.Decoder(union)
        self.connections = 0

    async def serve(self, *listeners: trio.SocketListener) -> None:
        """Answer on the listeners until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            await trio.serve_listeners(self._connection, list(listeners))

    async def _watch(self) -> None:
        """Cancel what is answered to callers who have gone: one look at all of them now and then,
        since a task for each, for a moment, would take half the time of a call."""
        while True:
            await trio.sleep(WATCH_S)
            for stream in framing.speaking(self._answering):
                self._answering[stream].cancel()

    async def _connection(self, plain: trio.SocketStream) -> None:
        self.connections += 1
        stream: Stream | None = None
        try:
            if self.connections > MAX_CONNECTIONS and not self._displace():
                return
            framing.tune(plain)
            with self._silence(math.inf):
                stream = await self._admit(plain)
            if stream is not None:
                await self._converse(stream)
        except trio.BrokenResourceError:
            pass  # the caller went away: that is how calls are cancelled
        except ProtocolError as exc:
            self._complain(_host(plain), f"connection of {_host(plain)} dropped: {exc}")
        except Exception:
            log.exception("%s: connection of %s failed", self._name, _host(plain))
        finally:
            self.connections -= 1
            framing.hang_up(plain if stream is None else stream)

    def _displace(self) -> bool:
        """Have the connection that was silent for longest give way to a new one."""
        what = "a silent one gives way" if self._silent else "one refused"
        log.warning("%s: more than %d connections, %s", self._name, MAX_CONNECTIONS, what)
        if not self._silent:
            return False
        scope, _ = self._silent.popitem(last=False)
        scope.cancel()
        return True

    @contextmanager
    def _silence(self, within_s: float) -> Iterator[None]:
        """While the caller is waited for. BrokenResourceError when it is silent for too long, or
        has to give way."""
        with trio.move_on_after(within_s) as scope:
            self._silent[scope] = None
            try:
                yield
            finally:
                self._silent.pop(scope, None)
        if scope.cancelled_caught:
            raise trio.BrokenResourceError("a silent connection")

    def _complain(self, host: str, line: str) -> None:
        """Log what a caller did, unless that host has filled its share of the log."""
        now = trio.current_time()
        until, count = self._complaints.pop(host, (0.0, 0))
        if now >= until:
            until, count = now + COMPLAINTS_S, 0
        self._complaints[host] = until, count + 1
        while len(self._complaints) > COMPLAINED:
            self._complaints.popitem(last=False)
        if count < COMPLAINTS:
            log.warning("%s: %s", self._name, line)
        elif count == COMPLAINTS:
            log.warning("%s: more about %s is left out for a while", self._name, host)

    async def _admit(self, plain: trio.SocketStream) -> Stream | None:
        """The stream to speak on, after a handshake where one is due; None for who fails it."""
        if self._credentials is None or plain.socket.family == socket.AF_UNIX:
            return plain
        try:
            stream = await self._credentials.accept(plain)
        except (trio.BrokenResourceError, trio.TooSlowError) as exc:
            cause = exc.__cause__ or exc
            if not isinstance(cause, ssl.SSLEOFError | ConnectionError):  # it went away
                self._complain(_host(plain), f"{_host(plain)} refused, no certificate: {cause}")
            return None
        if not role_of(stream):
            self._complain(_host(plain), f"{_host(plain)} refused: its certificate has no role")
            framing.let_go(stream)
            return None
        return stream

    async def _converse(self, stream: Stream) -> None:
        caller.set(Caller(role_of(stream), _host(stream)))
        while True:
            message = None
            with self._silence(IDLE_S):
                message = await framing.receive(stream, REQUEST_LIMITS, within_s=REQUEST_S)
            if message is None:
                return
            try:
                request = self._decoder.decode(message.header)
            except UNDECODABLE as exc:
                raise ProtocolError(f"request does not decode: {exc}") from exc
            del message
            limiter = self._at_once.get(type(request))
            if limiter is None:
                await self._reply(stream, request)
            else:
                async with limiter:
                    await self._reply(stream, request)
            del request  # it may be large, and the next may be long in coming

    async def _reply(self, stream: Stream, request: Request[Any]) -> None:
        answer = await self._answer_or_hang_up(stream, request)
        await framing.send(stream, answer, stall_s=REPLY_S)

    async def _answer_or_hang_up(self, stream: Stream, request: Request[Any]) -> Message:
        """The reply to `request`; BrokenResourceError soon after the caller hangs up."""
        with trio.CancelScope() as scope:
            self._answering[stream] = scope
            try:
                return await self._answer(request)
            finally:
                del self._answering[stream]
        raise trio.BrokenResourceError("the caller closed the connection")

    async def _answer(self, request: Request[Any]) -> Message:
        kind = type(request)
        who = caller.get()
        needed = self._roles.get(kind)
        if who.role in ROLES and needed is not None and who.role not in needed:
            line = f"a certificate for a {who.role} does not allow {kind.__name__}"
            self._complain(who.host, f"{who.host} refused: {line}")
            return Message(encode_failure(NotPermitted(line)))
        try:
            value, payload = await self._handlers[kind](request)
            return Message(encode_reply(value), payload)
        except DadaError as exc:
            return Message(encode_failure(exc))
        except Exception as exc:
            log.exception("%s: %s failed", self._name, type(request).__name__)
            line = f"internal error in {type(request).__name__}: {exc!r}"
            return Message(encode_failure(Unforeseen(line)))


def _host(stream: Stream) -> str:
    sock = socket_of(stream)
    if sock.family == socket.AF_UNIX:
        return "a local caller"
    try:
        return str(sock.getpeername()[0])
    except OSError:
        return "a caller"
