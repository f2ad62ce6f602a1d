"""Which peers there are: they announce themselves, and are forgotten when they fall silent."""

from __future__ import annotations

from dadafs.errors import NotPermitted
from dadafs.rpc.messages import Announce, PeerEntry

ANNOUNCE_EVERY_S = 1.0
EXPIRY_S = 4.0  # three announcements lost
MAX_PEERS = 10_000
MAX_NAME = 100
MAX_THREADS = 1024


class Registry:
    """Peers by name; a name announced from another address takes the older one's place."""

    def __init__(self) -> None:
        self._peers: dict[str, tuple[PeerEntry, float]] = {}

    def announce(self, said: Announce, host: str, now_s: float) -> None:
        """A peer says that it is there. NotPermitted for what no peer would say."""
        sane = 0 < len(said.name) <= MAX_NAME and said.name.isprintable()
        if not sane or not 0 < said.port < 65536 or not 0 < said.threads <= MAX_THREADS:
            raise NotPermitted(f"announcement of {said.name[:MAX_NAME]!r} refused")
        if said.name not in self._peers and len(self._peers) >= MAX_PEERS:
            self.peers(now_s)
        if said.name not in self._peers and len(self._peers) >= MAX_PEERS:
            raise NotPermitted(f"more than {MAX_PEERS} peers")
        entry = PeerEntry(said.name, host, said.port, said.threads)
        self._peers[said.name] = entry, now_s + EXPIRY_S

    def peers(self, now_s: float) -> tuple[PeerEntry, ...]:
        """Those that were heard lately, by name."""
        for name, (_, until_s) in list(self._peers.items()):
            if until_s < now_s:
                del self._peers[name]
        return tuple(entry for _, (entry, _) in sorted(self._peers.items()))
