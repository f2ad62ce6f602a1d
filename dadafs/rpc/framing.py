"""Messages on a trio stream: a fixed head, a msgpack header, a raw payload.

The head says how long both are, so that a receiver can refuse sizes before it allocates. Nothing
is pickled. A send that is cancelled leaves the stream within a message: drop the connection.
"""

from __future__ import annotations

import math
import socket
import struct
from dataclasses import dataclass
from typing import TypeAlias

import trio

from dadafs.errors import ProtocolError

HEAD = struct.Struct("<4sIQ")
MAGIC = b"dda1"
KEEPALIVE_S = 5  # a host that is silent for 20 s is gone
NOTSENT_LOWAT_BYTES = 4 << 20  # trio sets 16 KiB; 4 MiB reaches 2.7-3.0 GB/s on loopback
SMALL_MESSAGE_BYTES = 64 << 10  # below this one copy costs less than a second system call
PIECE_BYTES = 1 << 20  # of what is sent: each has to be taken within a time
FIRST_BYTES = 64 << 10  # of a header: memory is taken as bytes come, not as they are announced


@dataclass(frozen=True, slots=True)
class Limits:
    """What a receiver is willing to allocate for one message."""

    header_bytes: int = 64 << 20
    """A listing of 10 000 entries takes about 1 MB."""
    payload_bytes: int = 1 << 30


REQUEST_LIMITS = Limits(header_bytes=16 << 20, payload_bytes=0)


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its msgpack header and its raw payload."""

    header: bytes | bytearray
    payload: bytes | bytearray | memoryview = b""


Stream: TypeAlias = "trio.SocketStream | trio.SSLStream[trio.SocketStream]"


def socket_of(stream: Stream) -> trio.socket.SocketType:
    """The socket at the bottom of a stream."""
    if isinstance(stream, trio.SocketStream):
        return stream.socket
    return stream.transport_stream.socket


def tune(stream: Stream) -> None:
    """Let large payloads flow, and notice hosts that have vanished: trio's default low-water mark
    is for interactive use, and TCP's own patience is two hours."""
    sock = socket_of(stream)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 4000 * KEEPALIVE_S)


async def send(stream: Stream, message: Message, *, stall_s: float = math.inf) -> None:
    """Send one message. BrokenResourceError when the other side has gone, ProtocolError when it
    takes less than a piece of 1 MiB within `stall_s`."""
    payload = memoryview(message.payload).cast("B")  # a view of wider items counts those
    head = HEAD.pack(MAGIC, len(message.header), len(payload)) + message.header
    if len(payload) <= SMALL_MESSAGE_BYTES:
        await _send_piece(stream, head + payload, stall_s)
        return
    await _send_piece(stream, head, stall_s)
    step = len(payload) if stall_s == math.inf else PIECE_BYTES
    for begin in range(0, len(payload), step):
        await _send_piece(stream, payload[begin : begin + step], stall_s)


async def _send_piece(stream: Stream, data: bytes | memoryview, stall_s: float) -> None:
    with trio.move_on_after(stall_s):
        await stream.send_all(data)
        return
    raise ProtocolError(f"the other side takes nothing for {stall_s:.0f} s")


async def receive(stream: Stream, limits: Limits, *, within_s: float = math.inf) -> Message | None:
    """Receive one message; None when the other side closed between messages.

    ProtocolError when the bytes are no message, or it is larger than `limits`, or it was cut, or
    does not arrive within `within_s` of its first byte.
    """
    first = await _receive_first(stream)
    if not first:
        return None
    with trio.move_on_after(within_s):
        return await _receive_rest(stream, first, limits)
    raise ProtocolError(f"a message did not arrive within {within_s:.0f} s")


async def _receive_first(stream: Stream) -> bytes | bytearray:
    """The head, or its beginning; nothing at the end of the stream."""
    if not isinstance(stream, trio.SocketStream):
        return await stream.receive_some(HEAD.size)
    try:
        return await stream.socket.recv(HEAD.size)
    except OSError as exc:
        raise trio.BrokenResourceError(str(exc)) from exc


async def _receive_rest(stream: Stream, head: bytes | bytearray, limits: Limits) -> Message:
    if len(head) < HEAD.size:
        head += await _receive_exactly(stream, HEAD.size - len(head))
    magic, header_bytes, payload_bytes = HEAD.unpack(head)
    if magic != MAGIC:
        raise ProtocolError(f"the other side does not speak dadafs (it said {bytes(magic)!r})")
    if header_bytes > limits.header_bytes or payload_bytes > limits.payload_bytes:
        raise ProtocolError(
            f"message of {header_bytes} + {payload_bytes} bytes refused"
            f" (limits {limits.header_bytes} + {limits.payload_bytes})"
        )
    header = bytearray()
    while len(header) < header_bytes:
        more = await _receive_exactly(
            stream, min(max(FIRST_BYTES, len(header)), header_bytes - len(header))
        )
        header = header + more if header else more
    payload = await _receive_exactly(stream, payload_bytes)
    return Message(header, payload)


async def _receive_exactly(stream: Stream, size: int) -> bytearray:
    """`size` bytes. ProtocolError when the stream ends before."""
    data = bytearray(size)
    view = memoryview(data)
    got = 0
    while got < size:
        if isinstance(stream, trio.SocketStream):
            try:
                n = await stream.socket.recv_into(view[got:])
            except OSError as exc:
                raise trio.BrokenResourceError(str(exc)) from exc
        else:
            piece = await stream.receive_some(size - got)
            n = len(piece)
            view[got : got + n] = piece
        if n == 0:
            raise ProtocolError("the connection was cut within a message")
        got += n
    return data
