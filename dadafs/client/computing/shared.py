"""The results that all peers share, kept by the server. Never in the way: trouble is a miss."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict

import trio

from dadafs.errors import DadaError
from dadafs.rpc.messages import FindResults, KeepResults
from dadafs.rpc.pool import Pool

log = logging.getLogger(__name__)

FIND_S = 2.0  # a patch is computed in less than a tenth of that
GIVE_EVERY_S = 0.3
BATCH_BYTES = 4 << 20
PENDING_BYTES = 32 << 20  # more is dropped: whoever wants it computes it again


class SharedResults:
    """Results by key, at the server."""

    def __init__(self, server: Pool) -> None:
        self._server = server
        self._pending: OrderedDict[bytes, bytes] = OrderedDict()
        self._pending_bytes = 0
        self._silent_until = 0.0
        self.counters: Counter[str] = Counter()

    async def find(self, key: bytes) -> bytes | None:
        """What the server has of this key; after trouble it is left alone for a moment."""
        if trio.current_time() < self._silent_until:
            return None
        try:
            with trio.fail_after(FIND_S):
                (size,), payload = await self._server.call(FindResults((key,)))
        except (DadaError, trio.TooSlowError, ValueError):
            self._trouble()
            return None
        if size < 0 or size != len(payload):
            return None
        return bytes(payload)

    def give(self, key: bytes, value: bytes) -> None:
        """Have `value` sent to the server, soon, if there is room."""
        if len(value) > BATCH_BYTES or self._pending_bytes + len(value) > PENDING_BYTES:
            self.counters["dropped"] += 1
            return
        self._pending_bytes += len(value) - len(self._pending.pop(key, b""))
        self._pending[key] = value

    async def run(self) -> None:
        """Send what was given, until cancelled."""
        while True:
            await trio.sleep(GIVE_EVERY_S)
            while self._pending and trio.current_time() >= self._silent_until:
                await self._send()

    async def _send(self) -> None:
        batch: list[tuple[bytes, bytes]] = []
        size = 0
        while self._pending and size < BATCH_BYTES:
            key, value = self._pending.popitem(last=False)
            batch.append((key, value))
            size += len(value)
        self._pending_bytes -= size
        try:
            with trio.fail_after(FIND_S * 5):
                await self._server.call(KeepResults(tuple(batch)))
            self.counters["given"] += len(batch)
        except (DadaError, trio.TooSlowError):
            self.counters["dropped"] += len(batch)
            self._trouble()

    def _trouble(self) -> None:
        self._silent_until = trio.current_time() + FIND_S
