"""Messages arrive whole or not at all, and cost nothing before their size is known to be fair."""

from __future__ import annotations

import socket
import tracemalloc
from collections.abc import AsyncIterator

import numpy as np
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from dadafs.errors import ProtocolError
from dadafs.rpc.framing import (
    HEAD,
    MAGIC,
    REQUEST_LIMITS,
    SMALL_MESSAGE_BYTES,
    Limits,
    Message,
    receive,
    send,
    tune,
)

LIMITS = Limits(header_bytes=100, payload_bytes=1000)


def stream_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    one, other = trio.socket.socketpair()
    return trio.SocketStream(one), trio.SocketStream(other)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    one, other = stream_pair()
    yield one, other
    one.socket.close()
    other.socket.close()


Pair = tuple[trio.SocketStream, trio.SocketStream]


def received(data: bytes, limits: Limits = LIMITS) -> Message | None:
    """What a receiver makes of these bytes and the end of the stream."""

    async def main() -> Message | None:
        one, other = stream_pair()
        try:
            await one.send_all(data)
            one.socket.shutdown(socket.SHUT_WR)
            return await receive(other, limits)
        finally:
            one.socket.close()
            other.socket.close()

    return trio.run(main)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.binary(max_size=100), st.binary(max_size=1000)), max_size=5))
def test_messages_arrive_as_they_were_sent(messages: list[tuple[bytes, bytes]]) -> None:
    async def main() -> list[tuple[bytes, bytes]]:
        one, other = stream_pair()
        got = []
        for header, payload in messages:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, one, Message(header, payload))
                message = await receive(other, LIMITS)
            assert message is not None
            got.append((bytes(message.header), bytes(message.payload)))
        one.socket.close()
        assert await receive(other, LIMITS) is None
        other.socket.close()
        return got

    assert trio.run(main) == messages


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.integers(1, 300_000), min_size=1, max_size=5),
    st.integers(0, 300_000),
    st.booleans(),
)
def test_payload_goes_into_the_room_for_it(sizes: list[int], header_bytes: int, fits: bool) -> None:
    payload = np.random.default_rng(sizes).bytes(sum(sizes) + (not fits))
    room = [np.empty(size, np.uint8).data for size in sizes]

    async def main() -> Message | None:
        one, other = stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, one, Message(b"h" * header_bytes, payload))
            message = await receive(other, Limits(), room=room)
        one.socket.close()
        other.socket.close()
        return message

    message = trio.run(main)
    assert message is not None
    assert message.header == b"h" * header_bytes
    assert bytes(message.payload) == (b"" if fits else payload)
    if fits:
        assert b"".join(room) == payload


@pytest.mark.parametrize("surplus", [b"x", HEAD.pack(MAGIC, 0, 0)])
def test_one_side_speaks_at_a_time(surplus: bytes) -> None:
    with pytest.raises(ProtocolError, match="more than one message at a time"):
        received(HEAD.pack(MAGIC, 1, 2) + b"hpp" + surplus)


@settings(deadline=None, derandomize=True)
@given(st.data(), st.binary(max_size=20), st.binary(max_size=20))
def test_message_that_is_cut(data: st.DataObject, header: bytes, payload: bytes) -> None:
    whole = HEAD.pack(MAGIC, len(header), len(payload)) + header + payload
    part = whole[: data.draw(st.integers(0, len(whole) - 1))]
    if not part:
        assert received(part) is None
        return
    with pytest.raises(ProtocolError, match="cut within a message"):
        received(part)


@settings(deadline=None, derandomize=True)
@given(st.binary(min_size=HEAD.size, max_size=64).filter(lambda data: data[:4] != MAGIC))
def test_another_protocol_is_told_apart(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="does not speak dadafs"):
        received(data)


@pytest.mark.parametrize(
    ("header_bytes", "payload_bytes"), [(101, 0), (0, 1001), (2**32 - 1, 0), (0, 2**64 - 1)]
)
def test_sizes_are_refused(header_bytes: int, payload_bytes: int) -> None:
    with pytest.raises(ProtocolError, match="refused") as caught:
        received(HEAD.pack(MAGIC, header_bytes, payload_bytes))
    assert f"message of {header_bytes} + {payload_bytes} bytes" in str(caught.value)


@pytest.mark.parametrize("limits", [Limits(), REQUEST_LIMITS])
def test_sizes_are_refused_before_anything_is_allocated(limits: Limits) -> None:
    head = HEAD.pack(MAGIC, limits.header_bytes, limits.payload_bytes + 1)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="refused"):
            received(head, limits)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.trio
async def test_largest_message_within_the_limits(pair: Pair) -> None:
    one, other = pair
    await send(one, Message(b"h" * 100, b"p" * 1000))
    message = await receive(other, LIMITS)
    assert message == Message(b"h" * 100, b"p" * 1000)


@pytest.mark.trio
@pytest.mark.parametrize("size", [0, 1, SMALL_MESSAGE_BYTES, SMALL_MESSAGE_BYTES + 1, 5 << 20])
async def test_payloads_of_all_sizes(pair: Pair, size: int) -> None:
    one, other = pair
    payload = np.random.default_rng(size).bytes(size)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, one, Message(b"header", memoryview(payload)))
        message = await receive(other, Limits())
    assert message is not None
    assert message.payload == payload


@pytest.mark.trio
@pytest.mark.parametrize("count", [10, 100_000])
async def test_payload_of_wider_items_counts_in_bytes(pair: Pair, count: int) -> None:
    one, other = pair
    values = np.arange(count, dtype=np.uint64)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, one, Message(b"", values.data))
        message = await receive(other, Limits())
    assert message is not None
    assert bytes(message.payload) == values.tobytes()


@pytest.mark.trio
async def test_reset_connection_is_broken(pair: Pair) -> None:
    one, other = pair
    await one.send_all(b"never read")
    other.socket.close()  # with unread bytes: the kernel resets
    with pytest.raises(trio.BrokenResourceError):
        await receive(one, LIMITS)
    with pytest.raises(trio.BrokenResourceError):
        await send(one, Message(b"x"))


@pytest.mark.trio
async def test_tcp_connections_are_tuned() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener:
        client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        async with client:
            tune(client)
            option = client.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
            assert option == 4 << 20
