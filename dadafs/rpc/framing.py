"""Messages on a trio stream: a fixed head, a msgpack header, a raw payload.

The head says how long both are, so that a receiver can refuse sizes before it allocates. Nothing
is pickled. A send that is cancelled leaves the stream within a message: drop the connection.
"""

from __future__ import annotations

import math
import select
import socket
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import trio

from dadafs.blocks import advanced
from dadafs.errors import ProtocolError

HEAD = struct.Struct("<4sIQ")
MAGIC = b"dda1"
KEEPALIVE_S = 5  # a host that is silent for 20 s is gone
NOTSENT_LOWAT_BYTES = 4 << 20  # trio sets 16 KiB; 4 MiB reaches 2.7-3.0 GB/s on loopback
SMALL_MESSAGE_BYTES = 64 << 10  # below this one copy costs less than a second system call
PIECE_BYTES = 1 << 20  # of what is sent: each has to be taken within a time
FIRST_BYTES = 16 << 10  # of what has come: holds most messages, so that they take one call
STEP_BYTES = 64 << 10  # of a header: memory is taken as bytes come, not as they are announced
RECORD_BYTES = 16 << 10  # the most that TLS gives at a time, and more would be allocated in vain
NOTHING = memoryview(b"")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a receiver is willing to allocate for one message."""

    header_bytes: int = 64 << 20
    """A listing of 10 000 entries takes about 1 MB."""
    payload_bytes: int = 1 << 30


REQUEST_LIMITS = Limits(header_bytes=16 << 20, payload_bytes=0)


Payload: TypeAlias = "bytes | bytearray | memoryview | Sequence[memoryview]"


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its msgpack header and its raw payload."""

    header: bytes | bytearray
    payload: Payload = b""

    def pieces(self) -> Sequence[memoryview]:
        """The payload as it lies in memory, by bytes: a view of wider items counts those."""
        if isinstance(self.payload, bytes | bytearray | memoryview):
            return [memoryview(self.payload).cast("B")]
        return [piece.cast("B") for piece in self.payload]


Stream: TypeAlias = "trio.SocketStream | trio.SSLStream[trio.SocketStream]"


def socket_of(stream: Stream) -> trio.socket.SocketType:
    """The socket at the bottom of a stream."""
    if isinstance(stream, trio.SocketStream):
        return stream.socket
    return stream.transport_stream.socket


def hang_up(stream: Stream) -> None:
    """Close a connection at once, without a farewell."""
    socket_of(stream).close()
    let_go(stream)


def let_go(stream: Stream) -> None:
    """Free the memory of a stream that nobody uses any more.

    trio's TLS stream refers to itself, so that what it encrypted last, a MiB of a fragment, would
    stay until the next full garbage collection, which may be hours from now.
    """
    if isinstance(stream, trio.SSLStream):
        vars(stream).clear()


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


def speaking(streams: Collection[Stream]) -> list[Stream]:
    """Those on which something has come out of turn: an end mostly, in TLS in words; whoever else
    speaks then is treated the same."""
    found = {socket_of(stream).fileno(): stream for stream in streams}
    found.pop(-1, None)  # closed already
    looking = select.poll()
    for number in found:
        looking.register(number, select.POLLIN)
    return [found[number] for number, _ in looking.poll(0)]


async def send(stream: Stream, message: Message, *, stall_s: float = math.inf) -> None:
    """Send one message. BrokenResourceError when the other side has gone, ProtocolError when it
    takes less than a piece of 1 MiB within `stall_s`."""
    pieces = message.pieces()
    size = sum(map(len, pieces))
    head = HEAD.pack(MAGIC, len(message.header), size) + message.header
    if size <= SMALL_MESSAGE_BYTES:
        await _send_piece(stream, head + b"".join(pieces), stall_s)
        return
    await _send_piece(stream, head, stall_s)
    for piece in pieces:
        step = len(piece) if stall_s == math.inf else PIECE_BYTES
        for begin in range(0, len(piece), step):
            await _send_piece(stream, piece[begin : begin + step], stall_s)


async def _send_piece(stream: Stream, data: bytes | memoryview, stall_s: float) -> None:
    with trio.move_on_after(stall_s):
        await stream.send_all(data)
        return
    raise ProtocolError(f"the other side takes nothing for {stall_s:.0f} s")


async def receive(
    stream: Stream,
    limits: Limits,
    *,
    within_s: float = math.inf,
    room: Sequence[memoryview] = (),
) -> Message | None:
    """Receive one message; None when the other side closed between messages.

    A payload of just the size of the buffers in `room` goes into them, and the message has none.

    ProtocolError when the bytes are no message, or it is larger than `limits`, or it was cut, or
    does not arrive within `within_s` of its first byte, or more than it arrives: one side speaks
    at a time.
    """
    first = await _receive_first(stream)
    if not first:
        return None
    with trio.move_on_after(within_s):
        return await _receive_rest(stream, first, limits, room)
    raise ProtocolError(f"a message did not arrive within {within_s:.0f} s")


async def _receive_first(stream: Stream) -> bytes | bytearray:
    """What has arrived, mostly a small message as a whole; nothing at the end of the stream."""
    if not isinstance(stream, trio.SocketStream):
        return await stream.receive_some(FIRST_BYTES)
    try:
        return await stream.socket.recv(FIRST_BYTES)
    except OSError as exc:
        raise trio.BrokenResourceError(str(exc)) from exc


async def _receive_rest(
    stream: Stream, data: bytes | bytearray, limits: Limits, room: Sequence[memoryview]
) -> Message:
    if len(data) < HEAD.size:
        data += await _receive_exactly(stream, HEAD.size - len(data))
    magic, header_bytes, payload_bytes = HEAD.unpack_from(data)
    if magic != MAGIC:
        raise ProtocolError(f"the other side does not speak dadafs (it said {bytes(data[:4])!r})")
    if header_bytes > limits.header_bytes or payload_bytes > limits.payload_bytes:
        raise ProtocolError(
            f"message of {header_bytes} + {payload_bytes} bytes refused"
            f" (limits {limits.header_bytes} + {limits.payload_bytes})"
        )
    end = HEAD.size + header_bytes
    while len(data) < end:
        data += await _receive_exactly(stream, min(max(STEP_BYTES, len(data)), end - len(data)))
    header, early = data[HEAD.size : end], memoryview(data)[end:]
    if len(early) > payload_bytes:
        raise ProtocolError("more than one message at a time")
    if room and payload_bytes == sum(map(len, room)):
        await _receive_into(stream, room, early)
        return Message(header)
    if len(early) == payload_bytes:
        return Message(header, early)
    payload = np.empty(payload_bytes, np.uint8).data  # a bytearray would be zeroed first
    await _receive_into(stream, [payload], early)
    return Message(header, payload)


async def _receive_exactly(stream: Stream, size: int) -> bytearray:
    data = bytearray(size)
    await _receive_into(stream, [memoryview(data)])
    return data


async def _receive_into(
    stream: Stream, room: Sequence[memoryview], early: memoryview = NOTHING
) -> None:
    """Fill the buffers, first with what came `early`. ProtocolError when the stream ends before."""
    rest = _filled(list(room), early)
    while rest:
        if isinstance(stream, trio.SocketStream):
            try:
                n, *_ = await stream.socket.recvmsg_into(rest)
            except OSError as exc:
                raise trio.BrokenResourceError(str(exc)) from exc
            rest = advanced(rest, n)
        else:
            n = len(piece := await stream.receive_some(min(RECORD_BYTES, sum(map(len, rest)))))
            rest = _filled(rest, memoryview(piece))
        if n == 0:
            raise ProtocolError("the connection was cut within a message")


def _filled(room: list[memoryview], data: memoryview) -> list[memoryview]:
    """Put data into buffers; what of those is left. Pure but for their content."""
    while data:
        size = min(len(data), len(room[0]))
        room[0][:size] = data[:size]
        data = data[size:]
        room = advanced(room, size)
    return room
