"""A line between callers and a port of loopback that can be cut, whatever travels on it."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from tools.nodes import HOST

PIECE_BYTES = 1 << 18
AT_ONCE = struct.pack("ii", 1, 0)  # linger not at all: the other end sees a reset


class Relay:
    """Passes on what comes at `port`, in a thread of its own.

    Invariant: `_lines` holds the scope of every connection that is passed on.
    """

    def __init__(self, to: int) -> None:
        self._to = to
        self._lines: set[trio.CancelScope] = set()
        self._ready = threading.Event()
        self.port = 0

    def cut(self) -> None:
        """Reset all connections, in the middle of what they carry; new ones are passed on."""
        self._token.run_sync_soon(self._cut)

    def close(self) -> None:
        """End everything."""
        self._token.run_sync_soon(self._all.cancel)

    def _cut(self) -> None:
        for scope in self._lines:
            scope.cancel()

    def run(self) -> None:
        """Pass on until closed."""
        trio.run(self._serve)

    def until_ready(self) -> None:
        """Return when callers may connect."""
        self._ready.wait()

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as self._all:
            listeners = await trio.open_tcp_listeners(0, host=HOST)
            self.port = listeners[0].socket.getsockname()[1]
            self._ready.set()
            await trio.serve_listeners(self._connection, listeners)

    async def _connection(self, near: trio.SocketStream) -> None:
        try:
            far = await trio.open_tcp_stream(HOST, self._to)
        except OSError:
            return  # nobody there: the caller is hung up on
        async with trio.open_nursery() as nursery:
            self._lines.add(nursery.cancel_scope)
            try:
                nursery.start_soon(_pass_on, near, far, nursery.cancel_scope)
                await _pass_on(far, near, nursery.cancel_scope)
            finally:
                self._lines.discard(nursery.cancel_scope)
                for end in (near, far):
                    end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
                    end.socket.close()


async def _pass_on(source: trio.SocketStream, to: trio.SocketStream, end: trio.CancelScope) -> None:
    try:
        while data := await source.receive_some(PIECE_BYTES):
            await to.send_all(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    end.cancel()


@contextmanager
def relaying(to: int) -> Iterator[Relay]:
    """A relay to a port, until the end."""
    relay = Relay(to)
    thread = threading.Thread(target=relay.run, name="relay")
    thread.start()
    relay.until_ready()
    try:
        yield relay
    finally:
        relay.close()
        thread.join()
