"""Remote calls: requests are msgspec structs, replies are structs or one of our errors.

One request is in flight on a connection; to cancel a call is to close its connection.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from dadafs import errors
from dadafs.errors import DadaError, ProtocolError, Unforeseen

R = TypeVar("R")


class Request(msgspec.Struct, Generic[R], frozen=True, tag=True):
    """Base of all requests. A subclass names its reply's type in `reply`."""

    reply: ClassVar[Any]


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """An error that travels: the name of its class in `dadafs.errors` and its line."""

    kind: str
    message: str


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """What comes back: a failure or the encoded reply."""

    failure: Failure | None = None
    body: msgspec.Raw = msgspec.Raw(b"\xc0")


UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""What msgspec raises for bytes that are no message: malformed, no UTF-8, nested too deep."""
_encoder = msgspec.msgpack.Encoder()
_reply_decoder = msgspec.msgpack.Decoder(Reply)


def encode_request(request: Request[Any]) -> bytes:
    """The header of a request message."""
    return _encoder.encode(request)


def encode_reply(value: Any) -> bytes:
    """The header of a reply message that carries `value`."""
    return _encoder.encode(Reply(None, msgspec.Raw(_encoder.encode(value))))


def encode_failure(error: DadaError) -> bytes:
    """The header of a reply message that carries `error`; it may name files that are no UTF-8."""
    line = str(error).encode(errors="backslashreplace").decode()
    return _encoder.encode(Reply(Failure(type(error).__name__, line)))


def decode_reply(header: bytes | bytearray, request: Request[R]) -> R:
    """The reply to `request`, or raise the error that it carries. ProtocolError if it is none."""
    try:
        reply = _reply_decoder.decode(header)
    except UNDECODABLE as exc:
        raise ProtocolError(f"reply to {type(request).__name__} does not decode: {exc}") from exc
    if reply.failure is not None:
        kind = getattr(errors, reply.failure.kind, Unforeseen)
        if not (isinstance(kind, type) and issubclass(kind, DadaError)):
            kind = Unforeseen
        raise kind(reply.failure.message)
    try:
        value: R = _decoder(request.reply).decode(reply.body)
    except UNDECODABLE as exc:
        raise ProtocolError(f"reply to {type(request).__name__} does not decode: {exc}") from exc
    return value


@cache
def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)
