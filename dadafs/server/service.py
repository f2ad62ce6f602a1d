"""What the server answers: the catalog and the frame index, over RPC."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio

from dadafs.cache.store import Store
from dadafs.errors import BadData, NoSuchPath
from dadafs.keys import KEY_BYTES
from dadafs.rpc.messages import (
    Announce,
    AskReport,
    Describe,
    FindResults,
    Fragments,
    Identify,
    KeepResults,
    List,
    ListDataFiles,
    ListPeers,
    ListRaw,
    Locate,
    ReadFragments,
    ReadMask,
    ReadMonitor,
    Report,
    Resolve,
)
from dadafs.rpc.security import Credentials
from dadafs.rpc.service import Answer, Service, caller
from dadafs.scans.catalog import Catalog
from dadafs.scans.tree import RawTree
from dadafs.server.fragments import FragmentReader
from dadafs.server.pooling.pool import FragmentPool
from dadafs.server.registry import Registry

R = TypeVar("R")
INDEX_BYTES = 1 << 30  # of the frame index: 80 million frames at 12 bytes each
INDEX_RECENT_BYTES = 32 << 20
READING_THREADS = 8  # wait for disks; the bytes they hold at a time are at most 64 MiB
MAX_FRAGMENTS = 8
MAX_RESULTS = 256
RESULTS_BYTES = 16 << 20  # of one reply; what is beyond has to be asked for again
MAX_PATH_BYTES = 4096  # PATH_MAX: nothing longer can be opened
FRAGMENT_CALLS = 48  # at a time: what their replies take of memory is at most 384 MiB
THREADS = 4  # h5py has one lock, but stat and readdir of slow disks overlap


class RawServer:
    """The only one that sees the raw tree; every answer is a plain value."""

    def __init__(
        self,
        root: Path,
        cache: Path,
        *,
        pool: FragmentPool | None = None,
        results: Store | None = None,
    ) -> None:
        """With `results`, it also keeps results that peers share."""
        tree = RawTree(root)
        self._store = Store(cache / "index", INDEX_BYTES, recent_bytes=INDEX_RECENT_BYTES)
        self._catalog = Catalog(tree, self._store)
        self._pool = pool
        self._results = results
        self._fragments = FragmentReader(tree, pool)
        self._registry = Registry()
        self._limiter = trio.CapacityLimiter(THREADS)
        self._reading = trio.CapacityLimiter(READING_THREADS)
        self._counters: Counter[str] = Counter()

    def service(self, credentials: Credentials | None = None) -> Service:
        """The RPC service of this server."""
        catalog = self._catalog
        return Service(
            "server",
            {
                ReadFragments: self._read_fragments,
                FindResults: self._find_results,
                KeepResults: self._keep_results,
                Announce: self._announce,
                ListPeers: self._list_peers,
                Resolve: self._in_thread(lambda r: catalog.resolve(r.path)),
                List: self._in_thread(lambda r: catalog.list(r.path)),
                ListRaw: self._in_thread(lambda r: catalog.raw_files(r.path)),
                Identify: self._in_thread(lambda r: catalog.files(r.path, r.version)),
                Describe: self._in_thread(lambda r: catalog.scan(r.path)),
                ReadMask: self._in_thread(lambda r: catalog.mask(r.path, r.name)),
                ReadMonitor: self._in_thread(lambda r: catalog.monitor(r.path, r.name)),
                ListDataFiles: self._in_thread(lambda r: tuple(catalog.data_files(r.path))),
                Locate: self._in_thread(
                    lambda r: catalog.slice(r.path, r.first, r.count, r.version)
                ),
                AskReport: self.report,
            },
            credentials=credentials,
            roles={Announce: {"peer"}, KeepResults: {"peer"}},
            at_once={ReadFragments: FRAGMENT_CALLS, FindResults: FRAGMENT_CALLS},
        )

    def _in_thread(self, answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def handle(request: Any) -> Answer:
            self._counters["answered"] += 1
            _check_path(request.path)
            work = partial(answer, request)
            return await trio.to_thread.run_sync(work, limiter=self._limiter), b""

        return handle

    async def report(self, request: AskReport) -> Answer:
        """Counters of this process."""
        counters = self._counters | Counter(self._fragments.counters)
        if self._pool is not None:
            counters.update({f"pool_{name}": n for name, n in self._pool.counters.items()})
        if self._results is not None:
            counters.update({f"results_{name}": n for name, n in self._results.counters.items()})
        return Report(os.getpid(), THREADS, dict(counters)), b""

    async def _read_fragments(self, request: ReadFragments) -> Answer:
        if not 0 < request.count <= MAX_FRAGMENTS or request.first < 0:
            raise BadData(f"{request.count} fragments from {request.first} refused")
        _check_path(request.path)
        work = partial(
            self._fragments.read, request.path, request.identity, request.first, request.count
        )
        found = await trio.to_thread.run_sync(work, limiter=self._reading)
        self._counters["fragments"] += len(found.sizes)
        return Fragments(found.sizes, found.sums), found.pieces

    async def _find_results(self, request: FindResults) -> Answer:
        if self._results is None or len(request.keys) > MAX_RESULTS:
            return (-1,) * len(request.keys), b""
        results = self._results

        def look() -> list[bytes | None]:
            found: list[bytes | None] = []
            rest = RESULTS_BYTES
            for key in request.keys:
                value = results.get(key) if len(key) == KEY_BYTES and rest > 0 else None
                rest -= len(value or b"")
                found.append(value if rest >= 0 else None)
            return found

        found = await trio.to_thread.run_sync(look, limiter=self._limiter)
        self._counters["results_given"] += sum(value is not None for value in found)
        sizes = tuple(-1 if value is None else len(value) for value in found)
        return sizes, b"".join(value for value in found if value is not None)

    async def _keep_results(self, request: KeepResults) -> Answer:
        if self._results is not None:
            for key, value in request.pairs:
                if len(key) == KEY_BYTES:
                    self._results.put(key, value)
        return None, b""

    async def _announce(self, request: Announce) -> Answer:
        self._registry.announce(request, caller.get().host, trio.current_time())
        return None, b""

    async def _list_peers(self, request: ListPeers) -> Answer:
        return self._registry.peers(trio.current_time()), b""

    def close(self) -> None:
        """Write what is pending, close all stores."""
        self._fragments.close()
        self._store.close()
        if self._pool is not None:
            self._pool.close()
        if self._results is not None:
            self._results.close()


def _check_path(path: bytes) -> None:
    """Refuse what no file has, before it is taken apart. NoSuchPath."""
    if len(path) > MAX_PATH_BYTES:
        raise NoSuchPath(f"{path[:40]!r}... is no path: it has {len(path)} bytes")
