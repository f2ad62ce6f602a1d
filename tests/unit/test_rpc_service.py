"""A service answers its good callers whatever the others do; a pool finds it again."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import ClassVar

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from dadafs.errors import DadaError, NoSuchPath, Stale, Unforeseen, Unreachable
from dadafs.rpc import pool as pool_module
from dadafs.rpc import service as service_module
from dadafs.rpc.calls import Request, decode_reply, encode_request
from dadafs.rpc.framing import HEAD, MAGIC, REQUEST_LIMITS, Limits, Message, receive, send
from dadafs.rpc.pool import IDLE_CONNECTIONS, Pool, tcp_connector, unix_connector
from dadafs.rpc.service import Answer, Service


class Double(Request[int], frozen=True):
    """Twice the number; the payload is so many bytes."""

    number: int
    reply: ClassVar[type] = int


class Hang(Request[None], frozen=True):
    """Never answered."""

    reply: ClassVar[type] = type(None)


class Meet(Request[int], frozen=True):
    """Answered when so many callers are there, with that number."""

    callers: int
    reply: ClassVar[type] = int


class Fail(Request[None], frozen=True):
    """Answered by an error."""

    kind: str
    reply: ClassVar[type] = type(None)


class Host:
    """A service whose handlers keep an account of what happens."""

    def __init__(self) -> None:
        self.calls = 0
        self.hanging = trio.Event()
        self.hung_up = trio.Event()
        self._here = 0
        self._all_here = trio.Event()
        self.service = Service(
            "host",
            {Double: self._double, Hang: self._hang, Meet: self._meet, Fail: self._fail},
        )

    async def _double(self, request: Double) -> Answer:
        self.calls += 1
        return 2 * request.number, b"\0" * request.number

    async def _hang(self, request: Hang) -> Answer:
        self.hanging.set()
        try:
            await trio.sleep_forever()
        finally:
            self.hung_up.set()

    async def _meet(self, request: Meet) -> Answer:
        self._here += 1
        if self._here == request.callers:
            self._all_here.set()
        await self._all_here.wait()
        return self._here, b""

    async def _fail(self, request: Fail) -> Answer:
        self.calls += 1
        match request.kind:
            case "stale":
                raise Stale("the file has changed")
            case "unreachable":
                raise Unreachable("the server behind does not answer")
            case "undecodable":
                raise NoSuchPath("no such file: \udcff")
            case "unforeseen":
                raise ZeroDivisionError("once in a while")
            case "unencodable":
                return object(), b""
            case "no text":
                return "\udcff", b""
        return None, b""


@asynccontextmanager
async def hosted(host: Host, path: Path) -> AsyncIterator[None]:
    """The host answers at `path`."""
    with trio.socket.socket(trio.socket.AF_UNIX) as listening:
        await listening.bind(str(path))
        listening.listen(64)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.service.serve, trio.SocketListener(listening))
            yield
            nursery.cancel_scope.cancel()
    path.unlink()  # noqa: ASYNC240


@asynccontextmanager
async def pooled(path: Path, limits: Limits | None = None) -> AsyncIterator[Pool]:
    pool = Pool(unix_connector(str(path)), name="the host", limits=limits)
    try:
        yield pool
    finally:
        pool.close()


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
async def path(host: Host, tmp_path: Path) -> AsyncIterator[Path]:
    """Where `host` answers."""
    async with hosted(host, tmp_path / "s"):
        yield tmp_path / "s"


@pytest.fixture
async def pool(path: Path) -> AsyncIterator[Pool]:
    async with pooled(path) as made:
        yield made


def connected(path: Path) -> AbstractAsyncContextManager[trio.SocketStream]:
    """A bare connection, for callers without manners."""

    @asynccontextmanager
    async def connecting() -> AsyncIterator[trio.SocketStream]:
        stream = await trio.open_unix_socket(str(path))
        try:
            yield stream
        finally:
            stream.socket.close()

    return connecting()


async def closed(stream: trio.SocketStream) -> bool:
    """Whether nothing more comes; waits until that is known."""
    try:
        return await stream.receive_some(1) == b""
    except trio.BrokenResourceError:
        return True


@pytest.mark.trio
async def test_reply_and_payload(pool: Pool) -> None:
    for number in (0, 3, 1_000_000):
        value, payload = await pool.call(Double(number))
        assert value == 2 * number
        assert payload == b"\0" * number


@pytest.mark.trio
async def test_calls_are_concurrent_and_connections_are_kept(host: Host, pool: Pool) -> None:
    callers = IDLE_CONNECTIONS + 4
    got: list[int] = []

    async def meet() -> None:
        got.append((await pool.call(Meet(callers)))[0])

    async with trio.open_nursery() as nursery:
        for _ in range(callers):
            nursery.start_soon(meet)
    assert got == [callers] * callers
    assert len(pool._idle) == IDLE_CONNECTIONS
    for _ in range(3):
        await pool.call(Double(1))
    assert len(pool._idle) == IDLE_CONNECTIONS


@pytest.mark.trio
async def test_one_connection_serves_one_caller(host: Host, pool: Pool) -> None:
    for _ in range(5):
        await pool.call(Double(1))
    assert host.service.connections == 1


@pytest.mark.trio
async def test_errors_come_as_they_are_and_keep_the_connection(host: Host, pool: Pool) -> None:
    with pytest.raises(Stale, match="the file has changed"):
        await pool.call(Fail("stale"))
    with pytest.raises(NoSuchPath, match=r"no such file: \\udcff"):
        await pool.call(Fail("undecodable"))
    assert (await pool.call(Double(1)))[0] == 2
    assert host.service.connections == 1


@pytest.mark.trio
async def test_reported_unreachable_is_not_a_broken_connection(host: Host, pool: Pool) -> None:
    await pool.call(Double(1))
    before = host.calls
    with pytest.raises(Unreachable, match="the server behind"):
        await pool.call(Fail("unreachable"))
    assert host.calls == before + 1


@pytest.mark.trio
@pytest.mark.parametrize("kind", ["unforeseen", "unencodable", "no text"])
async def test_unforeseen_error_is_logged_and_travels_plainly(
    pool: Pool, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    with pytest.raises(DadaError, match="internal error in Fail") as caught:
        await pool.call(Fail(kind))
    assert type(caught.value) is Unforeseen
    assert [record.getMessage() for record in caplog.records] == ["host: Fail failed"]
    assert caplog.records[0].exc_info is not None
    assert (await pool.call(Double(1)))[0] == 2


@pytest.mark.trio
async def test_cancelled_call_closes_its_connection_and_ends_the_handler(
    host: Host, pool: Pool
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.call, Hang())
        await host.hanging.wait()
        assert not host.hung_up.is_set()
        nursery.cancel_scope.cancel()
    await host.hung_up.wait()
    assert pool._idle == []
    assert (await pool.call(Double(1)))[0] == 2


@pytest.mark.trio
async def test_second_request_before_the_reply_ends_the_connection(
    host: Host, pool: Pool, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(path) as stream:
        await send(stream, Message(encode_request(Hang())))
        await host.hanging.wait()
        await send(stream, Message(encode_request(Double(1))))
        await host.hung_up.wait()
        assert await closed(stream)
    assert (await pool.call(Double(1)))[0] == 2


@pytest.mark.trio
async def test_requests_in_turn_on_a_bare_connection(path: Path) -> None:
    async with connected(path) as stream:
        for number in range(3):
            await send(stream, Message(encode_request(Double(number))))
            message = await receive(stream, Limits())
            assert message is not None
            assert decode_reply(message.header, Double(number)) == 2 * number


def framed(header: bytes) -> bytes:
    return HEAD.pack(MAGIC, len(header), 0) + header


NESTED = b"\x82\xa4type\xa4Hang\xa1z" + b"\x91" * 100_000 + b"\xc0"
NONSENSE = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "large header": HEAD.pack(MAGIC, REQUEST_LIMITS.header_bytes + 1, 0),
    "payload": HEAD.pack(MAGIC, 0, 1) + b"x",
    "empty": framed(b""),
    "no msgpack": framed(b"\xc1"),
    "no struct": framed(b"\xc0"),
    "unknown type": framed(b"\x81\xa4type\xa4Nope"),
    "wrong field": framed(b"\x82\xa4type\xa6Double\xa6number\xa1x"),
    "no field": framed(b"\x81\xa4type\xa6Double"),
    "no text": framed(b"\x81\xa4type\xa4\xff\xff\xff\xff"),
    "nested": framed(NESTED),
}


@pytest.mark.trio
@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE.keys())
async def test_nonsense_ends_its_connection_and_no_other(
    host: Host, pool: Pool, path: Path, nonsense: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await pool.call(Double(1))
    async with connected(path) as stream:
        await stream.send_all(nonsense)
        assert await closed(stream)
    assert (await pool.call(Double(2)))[0] == 4
    assert host.calls == 2
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert lines[0].startswith("host: connection of a local caller dropped: ")


GOOD = framed(encode_request(Double(7)))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.binary(max_size=60) | mutated(), max_size=6))
def test_good_caller_is_answered_amid_garbage(garbage: list[bytes]) -> None:
    async def main() -> None:
        host = Host()
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "s"
            async with hosted(host, path), pooled(path) as pool:
                for data in garbage:
                    async with connected(path) as stream:
                        assert (await pool.call(Double(1)))[0] == 2
                        await stream.send_all(data)
                        assert (await pool.call(Double(2)))[0] == 4
                        await stream.send_eof()
                        while not await closed(stream):
                            pass
                assert (await pool.call(Double(3)))[0] == 6

    logging.getLogger(service_module.__name__).disabled = True
    try:
        trio.run(main)
    finally:
        logging.getLogger(service_module.__name__).disabled = False


@pytest.mark.trio
async def test_connections_are_limited(
    host: Host,
    path: Path,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(service_module, "MAX_CONNECTIONS", 2)
    await pool.call(Double(1))
    async with connected(path) as second:
        await send(second, Message(encode_request(Double(1))))
        assert await receive(second, Limits()) is not None
        async with connected(path) as third:  # in place of the pool's, which is silent for longest
            await send(third, Message(encode_request(Double(1))))
            assert await receive(third, Limits()) is not None
        assert "more than 2 connections, a silent one gives way" in caplog.text
        assert (await pool.call(Double(1)))[0] == 2
    while host.service.connections > 1:  # it learns of the second's end in its own time
        await trio.lowlevel.checkpoint()
    async with connected(path) as fourth:
        await send(fourth, Message(encode_request(Double(1))))
        assert await receive(fourth, Limits()) is not None


@pytest.mark.trio
async def test_restarted_service_is_found_again(tmp_path: Path) -> None:
    async with pooled(tmp_path / "s") as pool:
        for _ in range(3):
            async with hosted(Host(), tmp_path / "s"), trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(pool.call, Meet(4))
            assert len(pool._idle) == 4  # broken by now
        async with hosted(Host(), tmp_path / "s"):
            assert (await pool.call(Double(1)))[0] == 2
            assert len(pool._idle) == 1


@pytest.mark.trio
async def test_service_that_ends_during_a_call(tmp_path: Path) -> None:
    host = Host()
    async with pooled(tmp_path / "s") as pool:

        async def call() -> None:
            with pytest.raises(Unreachable, match=r"^the host closed the connection$"):
                await pool.call(Hang())

        async with trio.open_nursery() as nursery, hosted(host, tmp_path / "s"):
            nursery.start_soon(call)
            await host.hanging.wait()
        assert pool._idle == []


@pytest.mark.trio
async def test_call_that_is_made_once_is_lost_with_its_service(tmp_path: Path) -> None:
    host = Host()
    async with pooled(tmp_path / "s") as pool:

        async def call() -> None:
            with pytest.raises(Unreachable, match=r"^the host closed the connection$"):
                await pool.call(Hang(), once=True)
            assert len(pool._idle) == 1  # the other connection, broken by now

        async with trio.open_nursery() as nursery, hosted(host, tmp_path / "s"):
            async with trio.open_nursery() as callers:
                for _ in range(2):
                    callers.start_soon(pool.call, Meet(2))
            nursery.start_soon(call)
            await host.hanging.wait()
        async with hosted(Host(), tmp_path / "s"):
            assert (await pool.call(Double(1), once=True))[0] == 2
            assert len(pool._idle) == 1


@pytest.mark.trio
async def test_nobody_listens(tmp_path: Path) -> None:
    async with pooled(tmp_path / "s") as pool:
        with pytest.raises(Unreachable, match="the host does not answer"):
            await pool.call(Double(1))
        (tmp_path / "s").touch()
        with pytest.raises(Unreachable, match="the host does not answer"):
            await pool.call(Double(1))


@pytest.mark.trio
async def test_nobody_listens_on_a_port() -> None:
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        pool = Pool(tcp_connector("127.0.0.1", port, None, "server"), name="the server")
        with pytest.raises(Unreachable, match=r"^the server does not answer: .*refused$"):
            await pool.call(Double(1))


@pytest.mark.trio
async def test_connecting_has_a_deadline(autojump_clock: MockClock) -> None:
    pool = Pool(trio.sleep_forever, name="the host")
    with pytest.raises(Unreachable, match=r"^the host does not answer: timed out$"):
        await pool.call(Double(1))
    assert trio.current_time() == pytest.approx(pool_module.CONNECT_TIMEOUT_S)


Script = Callable[[trio.SocketStream], Awaitable[None]]


async def answer_nothing(stream: trio.SocketStream) -> None:
    await receive(stream, Limits())


async def answer_half(stream: trio.SocketStream) -> None:
    await receive(stream, Limits())
    await stream.send_all(HEAD.pack(MAGIC, 10, 0) + b"short")


async def answer_too_much(stream: trio.SocketStream) -> None:
    await receive(stream, Limits())
    await stream.send_all(HEAD.pack(MAGIC, 10, 2**40))


async def answer_otherwise(stream: trio.SocketStream) -> None:
    await receive(stream, Limits())
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def hang_up(stream: trio.SocketStream) -> None:
    pass


@pytest.mark.trio
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (answer_nothing, "closed the connection"),
        (answer_half, "cut within a message"),
        (answer_too_much, "refused"),
        (answer_otherwise, "does not speak dadafs"),
        (hang_up, "the connection"),
    ],
)
async def test_answers_that_are_none(script: Script, reason: str) -> None:
    """Each ends its connection, which is not used again."""
    async with trio.open_nursery() as nursery:

        async def connect() -> trio.SocketStream:
            near, far = trio.socket.socketpair()

            async def play() -> None:
                with far:
                    await script(trio.SocketStream(far))

            nursery.start_soon(play)
            return trio.SocketStream(near)

        pool = Pool(connect, name="the host")
        with pytest.raises(Unreachable, match=f"^the host.*{reason}"):
            await pool.call(Double(1))
        assert pool._idle == []
