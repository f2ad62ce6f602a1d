"""The peers of a cluster, as the server lists them."""

from __future__ import annotations

import logging
from contextlib import ExitStack

import trio

from dadafs.client.farming.crew import Crew
from dadafs.client.farming.remote import RemotePeer
from dadafs.errors import DadaError
from dadafs.rpc.messages import ListPeers, PeerEntry
from dadafs.rpc.pool import Pool, tcp_connector
from dadafs.rpc.security import Credentials

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
ANSWER_S = 5.0
ALONE_S = 3.0  # a list that is empty for so long will not fill at once


class Roster:
    """Follows the server's list. While the server is away, the peers it named last stay."""

    def __init__(self, server: Pool, credentials: Credentials | None, stack: ExitStack) -> None:
        self._server = server
        self._credentials = credentials
        self._known: dict[PeerEntry, tuple[RemotePeer, Pool]] = {}
        self._changed = trio.Event()
        stack.callback(self._close)

    def peers(self) -> list[RemotePeer]:
        """All that are in the crew."""
        return [peer for peer, _ in self._known.values()]

    async def follow(self, crew: Crew) -> None:
        """Have the crew be what the list says, until cancelled."""
        while True:
            try:
                with trio.fail_after(ANSWER_S):
                    listed, _ = await self._server.call(ListPeers())
                self._update(crew, listed)
            except (DadaError, trio.TooSlowError) as exc:
                log.debug("no list of peers: %s", exc)
            await trio.sleep(LOOK_EVERY_S)

    def _update(self, crew: Crew, listed: tuple[PeerEntry, ...]) -> None:
        for entry in set(self._known) - set(listed):
            peer, pool = self._known.pop(entry)
            crew.leave(peer.name)
            pool.close()
        for entry in listed:
            if entry not in self._known:
                connect = tcp_connector(entry.host, entry.port, self._credentials, "peer")
                pool = Pool(connect, name=f"peer {entry.name}")
                peer = RemotePeer(entry.name, pool, entry.threads)
                self._known[entry] = peer, pool
                crew.join(peer)
        self._changed.set()
        self._changed = trio.Event()

    async def until_empty(self) -> None:
        """Return when there was no peer for a while."""
        while True:
            with trio.move_on_after(ALONE_S) as patience:
                await self.until_filled()
            if patience.cancelled_caught:
                return
            await self._changed.wait()

    async def until_filled(self) -> None:
        """Return when there is a peer."""
        while not self._known:
            await self._changed.wait()

    def _close(self) -> None:
        for _, pool in self._known.values():
            pool.close()
