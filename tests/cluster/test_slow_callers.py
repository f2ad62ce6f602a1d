"""Callers that take their time are let go, and what they held is free for others."""

from __future__ import annotations

import gc
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from loopback import HOST, certify

from dadafs.fragments import FRAGMENT_BYTES
from dadafs.rpc import service as service_module
from dadafs.rpc.calls import encode_request
from dadafs.rpc.framing import HEAD, MAGIC
from dadafs.rpc.messages import ReadFragments, Resolve
from dadafs.rpc.pool import Pool, tcp_connector
from dadafs.rpc.security import Credentials
from dadafs.rpc.service import listening
from dadafs.scans.model import Identity
from dadafs.server import service as server_module
from dadafs.server.service import RawServer

FRAGMENTS = 8


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of a server and a client."""
    return certify(tmp_path_factory.mktemp("ca"), "server:server", "client:client")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A raw tree with one large file."""
    tree = tmp_path / "raw"
    tree.mkdir()
    with (tree / "large").open("wb") as file:
        file.truncate(FRAGMENTS * FRAGMENT_BYTES)
    return tree


@asynccontextmanager
async def serving(raw: Path, authority: Path, cache: Path) -> AsyncIterator[tuple[int, Pool]]:
    """A server within this process, and a good client of it."""
    server = RawServer(raw, cache)
    listener = socket.create_server((HOST, 0))
    port = listener.getsockname()[1]
    connect = tcp_connector(HOST, port, Credentials(authority / "client"), "server")
    pool = Pool(connect, name="the server")
    try:
        async with trio.open_nursery() as nursery:
            service = server.service(Credentials(authority / "server"))
            nursery.start_soon(service.serve, listening(listener))
            await pool.call(Resolve(b""))
            yield port, pool
            await pool.call(Resolve(b""))
            nursery.cancel_scope.cancel()
    finally:
        pool.close()
        server.close()


def tls_streams() -> int:
    """How many hold anything, those that only a garbage collection would free among them."""
    return sum(type(one) is trio.SSLStream and bool(vars(one)) for one in gc.get_objects())


@pytest.mark.trio
async def test_connections_that_end_leave_nothing_to_collect(
    raw: Path, authority: Path, tmp_path: Path
) -> None:
    """Each would hold a MiB until a full collection, which may be hours from then."""
    async with serving(raw, authority, tmp_path) as (port, pool):
        about = (await pool.call(Resolve(b"large")))[0].attributes
        identity = Identity(about.size, about.mtime_ns, about.inode)
        gc.collect()
        gc.disable()
        try:
            before = tls_streams()
            for _ in range(8):
                await pool.call(ReadFragments(b"large", identity, 0, 2))
                pool.close()
                with trio.move_on_after(0.005):
                    await pool.call(ReadFragments(b"large", identity, 0, FRAGMENTS))
                plain = await trio.open_tcp_stream(HOST, port)
                with pytest.raises(trio.BrokenResourceError):
                    await Credentials(authority / "client").connect(plain, "peer")
            await pool.call(Resolve(b""))
            with trio.fail_after(10):
                while tls_streams() > before:  # noqa: ASYNC110  # the server has to notice
                    await trio.sleep(0.05)
        finally:
            gc.enable()


async def ended(stream: trio.SSLStream[trio.SocketStream]) -> bool:
    """Whether the other side hangs up, within a time."""
    with trio.fail_after(10):
        try:
            while await stream.receive_some(1 << 16):
                pass
        except (trio.BrokenResourceError, ssl.SSLError):
            pass
    return True


@pytest.mark.trio
async def test_header_byte_by_byte(
    raw: Path,
    authority: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(service_module, "REQUEST_S", 0.3)
    header = encode_request(Resolve(b"large"))
    message = HEAD.pack(MAGIC, len(header), 0) + header
    async with serving(raw, authority, tmp_path / "cache") as (port, pool):
        plain = await trio.open_tcp_stream(HOST, port)
        slow = await Credentials(authority / "client").connect(plain, "server")
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                for byte in message[:-1]:
                    try:
                        await slow.send_all(bytes([byte]))
                    except trio.BrokenResourceError:
                        return
                    await pool.call(Resolve(b"large"))
                    await trio.sleep(0.02)

            nursery.start_soon(drip)
            assert await ended(slow)
            nursery.cancel_scope.cancel()
        plain.socket.close()
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"server: connection of {HOST} dropped: a message did not arrive within 0 s"]


@pytest.mark.trio
async def test_nothing_after_connecting(
    raw: Path,
    authority: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("dadafs.rpc.security.HANDSHAKE_S", 0.5)
    async with serving(raw, authority, tmp_path / "cache") as (port, pool):
        silent = await trio.open_tcp_stream(HOST, port)
        with trio.fail_after(10):
            assert await silent.receive_some(1) == b""
        await silent.aclose()
        await pool.call(Resolve(b"large"))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"server: {HOST} refused, no certificate")


@pytest.mark.trio
async def test_replies_that_nobody_takes(
    raw: Path,
    authority: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They hold the memory of a few replies at most, and not for long."""
    monkeypatch.setattr(service_module, "REPLY_S", 1.0)
    monkeypatch.setattr(server_module, "FRAGMENT_CALLS", 2)
    found = (raw / "large").stat()
    identity = Identity(found.st_size, found.st_mtime_ns, found.st_ino)
    request = ReadFragments(b"large", identity, 0, FRAGMENTS)
    header = encode_request(request)
    async with serving(raw, authority, tmp_path / "cache") as (port, pool):
        deaf = []
        for _ in range(2):
            plain = await trio.open_tcp_stream(HOST, port)
            plain.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stream = await Credentials(authority / "client").connect(plain, "server")
            await stream.send_all(HEAD.pack(MAGIC, len(header), 0) + header)
            deaf.append(stream)
        await pool.call(Resolve(b"large"))
        with trio.fail_after(20):
            fragments, data = await pool.call(request)
        assert sum(fragments.sizes) == len(data) == FRAGMENTS * FRAGMENT_BYTES
        for stream in deaf:  # they were hung up on, else there was no room for the good one
            stream.transport_stream.socket.close()
    lines = {record.getMessage() for record in caplog.records}
    assert lines == {f"server: connection of {HOST} dropped: the other side takes nothing for 1 s"}
