"""The server's pool and store of results in trouble: what is read stays right."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trio
from loopback import COMMAND, HOST, Daemon, ask, daemon, until

from dadafs.fragments import FRAGMENT_BYTES, checksum
from dadafs.rpc.messages import AskReport, FindResults, KeepResults, ReadFragments, Resolve
from dadafs.rpc.pool import Pool, tcp_connector
from dadafs.scans.model import Identity

FRAGMENTS = 12
KEYS = tuple(bytes([n]) * 32 for n in range(40))


class Tier:
    """A raw file, a server with a pool and a store, and what it should answer."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.pool = base / "pool"
        self.results = base / "results"
        raw = base / "raw"
        raw.mkdir()
        chance = np.random.default_rng(1)
        self.data = chance.bytes(FRAGMENTS * FRAGMENT_BYTES - 1000)
        (raw / "large").write_bytes(self.data)
        os.utime(raw / "large", (1e9, 1e9))  # long ago: what is young is not put into the pool
        self.values = {key: chance.bytes(20_000) for key in KEYS}
        self.words = ("server", "--root", raw, "--listen", f"{HOST}:0", "--pool", self.pool)
        self.words += ("--pool-size", "64MiB", "--results", self.results)
        self.words += ("--results-size", "32MiB")

    def check_file(self, server: Daemon) -> None:
        """All of the raw file comes, and it is right."""
        attributes = ask(server.port, None, Resolve(b"large")).attributes
        identity = Identity(attributes.size, attributes.mtime_ns, attributes.inode)

        async def read() -> bytes:
            pool = Pool(tcp_connector(HOST, server.port, None, "server"), name="the server")
            parts = []
            for first in range(0, FRAGMENTS, 4):
                about, data = await pool.call(ReadFragments(b"large", identity, first, 4))
                begins = np.cumsum((0, *about.sizes))
                for begin, size, total in zip(begins, about.sizes, about.sums, strict=False):
                    assert checksum(data[begin : begin + size]) == total
                parts.append(bytes(data))
            pool.close()
            return b"".join(parts)

        assert trio.run(read) == self.data

    def put(self, server: Daemon) -> None:
        """Have all results kept, on the disk."""
        ask(server.port, None, KeepResults(tuple(self.values.items())))
        until(lambda: self.counter(server, "results_written"), "results are written")

    def hits(self, server: Daemon) -> int:
        """How many results are found; those are right."""

        async def find() -> int:
            pool = Pool(tcp_connector(HOST, server.port, None, "server"), name="the server")
            found = 0
            for key, value in self.values.items():
                (size,), data = await pool.call(FindResults((key,)))
                assert size == -1 or bytes(data) == value
                found += size != -1
            pool.close()
            return found

        return trio.run(find)

    def counter(self, server: Daemon, name: str) -> int:
        """One of the server's counters."""
        return ask(server.port, None, AskReport()).counters.get(name, 0)


@pytest.fixture
def tier(tmp_path: Path) -> Tier:
    """Not yet served."""
    return Tier(tmp_path)


@pytest.fixture
def server(tier: Tier) -> Iterator[Daemon]:
    """Serving, everything in pool and store."""
    with daemon(tier.base / "server", *tier.words) as made:
        tier.check_file(made)
        until(lambda: tier.counter(made, "pool_written") >= FRAGMENTS, "the pool is filled")
        tier.put(made)
        assert tier.hits(made) == len(KEYS)
        yield made
        assert "Traceback" not in made.log()


def fragment_files(tier: Tier) -> list[Path]:
    """Of the pool, the larger ones."""
    found = [path for path in tier.pool.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in found if path.stat().st_size > 10_000]


def test_pool_is_used(tier: Tier, server: Daemon) -> None:
    before = tier.counter(server, "from_source")
    tier.check_file(server)
    assert tier.counter(server, "from_source") == before


def test_pool_is_removed(tier: Tier, server: Daemon) -> None:
    shutil.rmtree(tier.pool)
    for _ in range(2):
        tier.check_file(server)


def test_pool_is_replaced_by_a_file(tier: Tier, server: Daemon) -> None:
    shutil.rmtree(tier.pool)
    tier.pool.write_text("in the way")
    for _ in range(2):
        tier.check_file(server)


def test_pool_becomes_another_directory(tier: Tier, server: Daemon) -> None:
    tier.pool.rename(tier.base / "aside")
    tier.pool.mkdir()
    for _ in range(2):
        tier.check_file(server)


def test_fragments_are_damaged(tier: Tier, server: Daemon) -> None:
    files = fragment_files(tier)
    assert len(files) >= FRAGMENTS
    for number, path in enumerate(files):
        with path.open("r+b") as file:
            match number % 3:
                case 0:
                    file.seek(5000)
                    file.write(b"damaged!")
                case 1:
                    file.truncate(7000)
                case _:
                    file.truncate(0)
    for _ in range(2):
        tier.check_file(server)


def test_pool_that_cannot_be_written(tier: Tier) -> None:
    """Nor made: there is a file in its way from the beginning."""
    tier.pool.write_text("in the way")
    with daemon(tier.base / "server", *tier.words) as made:
        for _ in range(2):
            tier.check_file(made)
        assert "Traceback" not in made.log()


@pytest.mark.parametrize("how", ["damaged", "truncated", "removed", "emptied", "a file"])
def test_store_of_results_is_broken_while_nobody_serves(tier: Tier, how: str) -> None:
    with daemon(tier.base / "server", *tier.words) as made:
        tier.put(made)
        assert tier.hits(made) == len(KEYS)
    data = tier.results / "data.mdb"
    size = data.stat().st_size
    match how:
        case "damaged":
            content = bytearray(data.read_bytes())
            for at in range(3 * 4096, size, 5000):
                content[at] ^= 0xFF
            data.write_bytes(content)
        case "truncated":
            os.truncate(data, size // 2 // 4096 * 4096)
        case "removed":
            shutil.rmtree(tier.results)
        case "emptied":
            os.truncate(data, 0)
        case _:
            shutil.rmtree(tier.results)
            tier.results.write_text("in the way")
    with daemon(tier.base / "server", *tier.words) as made:
        assert tier.hits(made) < len(KEYS)
        tier.check_file(made)
        if how != "a file":
            ask(made.port, None, KeepResults(tuple(tier.values.items())))
            assert tier.hits(made) == len(KEYS)
        assert "Traceback" not in made.log()


def test_store_of_results_is_removed_while_it_serves(tier: Tier, server: Daemon) -> None:
    shutil.rmtree(tier.results)
    assert tier.hits(server) <= len(KEYS)
    tier.put(server)
    assert tier.hits(server) <= len(KEYS)
    tier.check_file(server)


def test_values_are_damaged_while_it_serves(tier: Tier, server: Daemon) -> None:
    """Flipped bytes on the disk, seen through the page cache at once."""
    data = tier.results / "data.mdb"
    content = data.read_bytes()
    with data.open("r+b") as file:
        for value in tier.values.values():
            at = content.find(value[:64])
            if at >= 0:
                file.seek(at + 10)
                file.write(bytes([content[at + 10] ^ 1]))
    assert tier.hits(server) < len(KEYS)
    tier.check_file(server)


@pytest.mark.parametrize("shared", ["--pool", "--results"])
def test_a_second_server_on_a_directory_is_refused(tier: Tier, shared: str) -> None:
    place = tier.pool if shared == "--pool" else tier.results
    words = ("server", "--root", tier.base / "raw", "--listen", f"{HOST}:0", shared, place)
    first = Daemon(tier.base / "first", *words)
    try:
        done = subprocess.run(
            [*COMMAND, *map(str, words)],
            env=first.env | {"XDG_CACHE_HOME": str(tier.base)},
            capture_output=True,
            text=True,
            timeout=30,
        )
        line = f"dadafs: {shared} {place} is in use by another server; give each its own\n"
        assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
        tier.check_file(first)
    finally:
        first.process.kill()
        first.process.wait()
    with daemon(tier.base / "second", *words) as second:  # what was killed holds nothing
        tier.check_file(second)
