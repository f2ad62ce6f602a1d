"""Requests, replies and errors travel; whatever else comes is a ProtocolError."""

from __future__ import annotations

import inspect
from typing import ClassVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dadafs import errors
from dadafs.errors import BadData, DadaError, ProtocolError, Stale, Unforeseen
from dadafs.rpc.calls import (
    Failure,
    Reply,
    Request,
    decode_reply,
    encode_failure,
    encode_reply,
    encode_request,
)


class Add(Request[int], frozen=True):
    """The sum of two numbers."""

    a: int
    b: int
    reply: ClassVar[type] = int


class Nothing(Request[None], frozen=True):
    """Done."""

    reply: ClassVar[type] = type(None)


CLASSES = [
    one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, DadaError)
]


def test_requests_are_told_apart_by_their_type() -> None:
    decoder = msgspec.msgpack.Decoder(Add | Nothing)
    for request in (Add(1, 2), Nothing()):
        assert decoder.decode(encode_request(request)) == request


def test_replies() -> None:
    assert decode_reply(encode_reply(3), Add(1, 2)) == 3
    assert decode_reply(bytearray(encode_reply(None)), Nothing()) is None


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_travel_as_their_class(kind: type[DadaError]) -> None:
    header = encode_failure(kind("scan42 has no frames"))
    with pytest.raises(DadaError) as caught:
        decode_reply(header, Add(1, 2))
    assert type(caught.value) is kind
    assert str(caught.value) == "scan42 has no frames"
    assert caught.value.errno == kind.errno


def test_error_that_was_caused_by_another_travels_alone() -> None:
    error = Stale("changed")
    error.__cause__ = OSError(5, "I/O")
    with pytest.raises(Stale, match="changed"):
        decode_reply(encode_failure(error), Nothing())


def test_error_about_a_name_that_is_no_utf8() -> None:
    with pytest.raises(BadData, match=r"^scan\\udcff has changed$"):
        decode_reply(encode_failure(BadData("scan\udcff has changed")), Nothing())


@pytest.mark.parametrize(
    "kind", ["NoSuchError", "errno", "annotations", "", "__name__", "Exception"]
)
def test_errors_of_unknown_class_are_unforeseen(kind: str) -> None:
    header = msgspec.msgpack.encode(Reply(Failure(kind, "what happened")))
    with pytest.raises(DadaError, match="what happened") as caught:
        decode_reply(header, Nothing())
    assert type(caught.value) is Unforeseen


NESTED = b"\x91" * 100_000 + b"\xc0"


@pytest.mark.parametrize(
    "header",
    [
        *(b"", b"\xc1", b"\xc0", b"\x92", b"\x92\xc0"),
        encode_reply("three"),
        encode_reply(None),
        b"\x92\x92\xa1\xff\xa1x\xc0",
        NESTED,
        b"\x92\xc0" + NESTED,
    ],
    ids=lambda header: repr(header[:12]),
)
def test_what_is_no_reply(header: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"^reply to Add does not decode: "):
        decode_reply(header, Add(1, 2))


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.binary(max_size=40))
def test_random_bytes_are_no_reply(header: bytes) -> None:
    try:
        value = decode_reply(header, Add(1, 2))
    except DadaError:
        return  # a failure may come by chance, too
    assert isinstance(value, int)
