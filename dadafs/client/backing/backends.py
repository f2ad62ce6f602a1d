"""What stands behind a mount: processes of its own, or a cluster."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import ExitStack
from typing import Protocol

import trio

from dadafs.client.backing.children import Child
from dadafs.client.farming.crew import Crew
from dadafs.client.farming.remote import RemotePeer
from dadafs.client.farming.roster import Roster
from dadafs.client.upstream.files import LocalRawFiles, RawFiles, RemoteRawFiles
from dadafs.client.upstream.fragments import FragmentCache
from dadafs.client.upstream.link import GREET_S, RETRY_S, Link
from dadafs.config import MountConfig, runtime_directory
from dadafs.errors import Unreachable, UsageError
from dadafs.rpc.pool import Pool, tcp_connector, unix_connector
from dadafs.rpc.security import Credentials
from dadafs.scans.tree import RawTree

log = logging.getLogger(__name__)


class Backend(Protocol):
    """A server, ways to raw files, and computers for the crew of a farm."""

    link: Link
    raw_files: RawFiles
    children: list[Child]

    async def run(self, crew: Crew) -> None:
        """Keep it going until cancelled."""

    async def started(self) -> None:
        """Wait until all that must answer does. UsageError, Unreachable say why it does not."""

    def peers(self) -> list[RemotePeer]:
        """Those that compute now."""


def backend_of(config: MountConfig, stack: ExitStack) -> Backend:
    """The backend that a configuration asks for; `stack` closes it."""
    return Embedded(config, stack) if config.server is None else Cluster(config, stack)


class Embedded:
    """A server and one peer with a thread for each core, in processes that live with the mount."""

    def __init__(self, config: MountConfig, stack: ExitStack) -> None:
        assert config.root is not None
        server_options = [f"--root={config.root}", f"--cache={config.cache}"]
        self._server = Child("server", runtime_directory(config.mountpoint), server_options)
        stack.callback(self._server.close)
        self._peer = Child(
            "peer", runtime_directory(config.mountpoint), [*server_options, *_peer_options(config)]
        )
        stack.callback(self._peer.close)
        self.children = [self._server, self._peer]
        server = Pool(unix_connector(str(self._server.path)), name="the server")
        peer = Pool(unix_connector(str(self._peer.path)), name="the peer")
        stack.callback(server.close)
        stack.callback(peer.close)
        self.link = Link(server)
        self.raw_files: RawFiles = LocalRawFiles(RawTree(config.root))
        self._computer = RemotePeer("the peer", peer, config.threads)

    async def run(self, crew: Crew) -> None:
        """Start the processes, and start them again when they end."""
        crew.join(self._computer)
        counters: Counter[str] = Counter()
        async with trio.open_nursery() as nursery:
            for child in self.children:
                nursery.start_soon(child.run, counters)

    async def started(self) -> None:
        """Wait until both processes answer. UsageError says why one does not."""
        async with trio.open_nursery() as nursery:
            for child in self.children:
                nursery.start_soon(child.hopeless)
            await self.link.greet()
            await self._greet_peer()
            nursery.cancel_scope.cancel()

    async def _greet_peer(self) -> None:
        with trio.move_on_after(GREET_S):
            while True:
                try:
                    await self._computer.ping()
                    return
                except Unreachable:  # it ended, and is started again
                    await trio.sleep(RETRY_S)
        raise UsageError(f"the peer did not answer in {GREET_S:.0f} s")

    def peers(self) -> list[RemotePeer]:
        """The one."""
        return [self._computer]


class Cluster:
    """A server elsewhere and the peers that it knows; one of our own while there is none."""

    def __init__(self, config: MountConfig, stack: ExitStack) -> None:
        assert config.server is not None
        credentials = Credentials(config.tls) if config.tls is not None else None
        connect = tcp_connector(*config.server, credentials, "server")
        self._server = Pool(connect, name=f"the server {config.source}")
        stack.callback(self._server.close)
        self.link = Link(self._server, config.fresh_s)
        self._fragments = FragmentCache(self._server, config.raw_bytes)
        self.raw_files: RawFiles = RemoteRawFiles(self._fragments)
        self._roster = Roster(self._server, credentials, stack)
        self.children: list[Child] = []
        self._own: RemotePeer | None = None
        if config.local_peer:
            self._child = self._own_child(config)
            stack.callback(self._child.close)
            pool = Pool(unix_connector(str(self._child.path)), name="the peer here")
            stack.callback(pool.close)
            self._own = RemotePeer("the peer here", pool, config.threads)
            self.children = [self._child]

    def _own_child(self, config: MountConfig) -> Child:
        assert config.server is not None
        host, port = config.server
        options = [f"--server={host}:{port}", f"--cache={config.cache}", *_peer_options(config)]
        options += [f"--tls={config.tls}"] if config.tls is not None else []
        return Child("peer", runtime_directory(config.mountpoint), options)

    async def run(self, crew: Crew) -> None:
        """Follow the server's list of peers; have a peer of our own work while it is empty."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fragments.run)
            nursery.start_soon(self._roster.follow, crew)
            if self._own is not None:
                nursery.start_soon(self._fill_in, crew, self._own)

    async def started(self) -> None:
        """Wait until the server answers; peers may come later."""
        await self.link.greet()

    async def _fill_in(self, crew: Crew, own: RemotePeer) -> None:
        counters: Counter[str] = Counter()
        while True:
            await self._roster.until_empty()
            log.warning("no peer answers to the server's call: this machine computes by itself")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._child.run, counters)
                crew.join(own)
                await self._roster.until_filled()
                crew.leave(own.name)
                nursery.cancel_scope.cancel()

    def peers(self) -> list[RemotePeer]:
        """Those that the server knows, or our own."""
        return self._roster.peers() or ([self._own] if self._own is not None else [])


def _peer_options(config: MountConfig) -> list[str]:
    options = [f"--threads={config.threads}", f"--results-bytes={config.results_bytes}"]
    return options + ([f"--plugins={config.plugins}"] if config.plugins is not None else [])
