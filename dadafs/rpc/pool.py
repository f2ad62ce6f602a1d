"""The calling side: pooled connections to one address."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import trio

from dadafs.errors import ProtocolError, Unreachable
from dadafs.rpc import framing
from dadafs.rpc.calls import Request, decode_reply, encode_request
from dadafs.rpc.framing import Limits, Message, Stream
from dadafs.rpc.security import Credentials

R = TypeVar("R")
IDLE_CONNECTIONS = 16  # kept open between calls; more come and go with bursts
CONNECT_TIMEOUT_S = 10.0


Connector: TypeAlias = Callable[[], Awaitable[Stream]]


def unix_connector(path: str) -> Connector:
    """A way to connect to the Unix socket at `path`."""

    async def connect() -> Stream:
        return await trio.open_unix_socket(path)

    return connect


def tcp_connector(host: str, port: int, credentials: Credentials | None, role: str) -> Connector:
    """A way to connect to a node of that role, by TLS where there are credentials."""

    async def connect() -> Stream:
        plain = await trio.open_tcp_stream(host, port)
        if credentials is None:
            return plain
        try:
            return await credentials.connect(plain, role)
        except BaseException:
            plain.socket.close()
            raise

    return connect


def _innermost(error: BaseException) -> BaseException:
    """What stopped the last of several attempts, for instance on each address of a name."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[-1]
    return error


class Pool:
    """Connections to one address, each with at most one call in flight.

    Invariants: a connection is either idle in the pool or owned by exactly one call; a
    connection whose call did not end with a whole reply is never used again.
    """

    def __init__(
        self,
        connect: Connector,
        *,
        name: str,
        limits: Limits | None = None,
    ) -> None:
        self._connect = connect
        self._name = name
        self._limits = limits or Limits()
        self._idle: list[Stream] = []

    async def call(
        self, request: Request[R], room: Sequence[memoryview] = (), *, once: bool = False
    ) -> tuple[R, memoryview]:
        """Send `request`; its reply and payload. The caller sets the deadline.

        A payload of just the size of the buffers in `room` goes into them; none is returned then.

        Raises the error the other side reports; Unreachable when there is no answer. Broken idle
        connections (the other side restarted) are replaced, the last time by a new one: a request
        may be repeated without harm. With `once` it is not: the caller is told that it was lost,
        since it may be what ended the other side.
        """
        message: Message | None = None
        if once:
            self._drop_ended()
        while self._idle and message is None:
            try:
                message = await self._call_on(self._idle.pop(), request, room)
            except Unreachable:
                if once:
                    raise
        if message is None:
            message = await self._call_on(await self._open(), request, room)
        (payload,) = message.pieces()  # what was received is one
        return decode_reply(message.header, request), payload

    async def _open(self) -> Stream:
        try:
            with trio.fail_after(CONNECT_TIMEOUT_S):
                stream = await self._connect()
        except (OSError, trio.TooSlowError, trio.BrokenResourceError) as exc:
            reason = str(_innermost(exc.__cause__ or exc)) or "timed out"
            raise Unreachable(f"{self._name} does not answer: {reason}") from exc
        framing.tune(stream)
        return stream

    async def _call_on(
        self, stream: Stream, request: Request[Any], room: Sequence[memoryview]
    ) -> Message:
        """The answer, a whole message, which may report an error of the other side."""
        whole = False
        try:
            await framing.send(stream, Message(encode_request(request)))
            message = await framing.receive(stream, self._limits, room=room)
            if message is None:
                raise Unreachable(f"{self._name} closed the connection")
            whole = True
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise Unreachable(f"{self._name} broke the connection") from exc
        except ProtocolError as exc:
            raise Unreachable(f"{self._name}: {exc}") from exc
        finally:
            if whole and len(self._idle) < IDLE_CONNECTIONS:
                self._idle.append(stream)
            else:
                framing.hang_up(stream)
        return message

    def _drop_ended(self) -> None:
        """Close the idle connections that the other side has closed."""
        for stream in framing.speaking(self._idle):
            self._idle.remove(stream)
            framing.hang_up(stream)

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            framing.hang_up(self._idle.pop())
