"""What the server answers: the catalog and the frame index, over RPC."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio

from dadafs.cache.store import Store
from dadafs.rpc.messages import (
    AskReport,
    Describe,
    List,
    ListDataFiles,
    ListRaw,
    Locate,
    Report,
    Resolve,
)
from dadafs.rpc.service import Answer, Service
from dadafs.scans.catalog import Catalog
from dadafs.scans.tree import RawTree

R = TypeVar("R")
INDEX_BYTES = 1 << 30  # of the frame index: 80 million frames at 12 bytes each
INDEX_RECENT_BYTES = 32 << 20
THREADS = 4  # h5py has one lock, but stat and readdir of slow disks overlap


class RawServer:
    """The only one that sees the raw tree; every answer is a plain value."""

    def __init__(self, root: Path, cache: Path) -> None:
        self._store = Store(cache / "index", INDEX_BYTES, recent_bytes=INDEX_RECENT_BYTES)
        self._catalog = Catalog(RawTree(root), self._store)
        self._limiter = trio.CapacityLimiter(THREADS)
        self._answered = 0

    def service(self) -> Service:
        """The RPC service of this server."""
        catalog = self._catalog
        return Service(
            "server",
            {
                Resolve: self._in_thread(lambda r: catalog.resolve(r.path)),
                List: self._in_thread(lambda r: catalog.list(r.path)),
                ListRaw: self._in_thread(lambda r: catalog.raw_files(r.path)),
                Describe: self._in_thread(lambda r: catalog.scan(r.path)),
                ListDataFiles: self._in_thread(lambda r: tuple(catalog.data_files(r.path))),
                Locate: self._in_thread(
                    lambda r: catalog.slice(r.path, r.first, r.count, r.version)
                ),
                AskReport: self._report,
            },
        )

    def _in_thread(self, answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def handle(request: Any) -> Answer:
            self._answered += 1
            work = partial(answer, request)
            return await trio.to_thread.run_sync(work, limiter=self._limiter), b""

        return handle

    async def _report(self, request: AskReport) -> Answer:
        return Report(os.getpid(), THREADS, {"answered": self._answered}), b""

    def close(self) -> None:
        """Close the index store."""
        self._store.close()
