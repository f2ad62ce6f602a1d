"""HDF5 files written by hand: headers of known bytes before an array that is not there yet.

Only what results need of the format (HDF5 File Format Specification 3.0): superblock 0, object
headers 1, groups of link messages, contiguous datasets, attributes whose strings are in one heap.
No clock, no library version and no checksum is in it, so equal results are equal files; and a
header takes 0.3 ms instead of the 3 ms of h5py, which the process of the mount need not load.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias

import numpy as np

Value: TypeAlias = str | int | float | tuple[str, ...] | tuple[int, ...]

PAGE_BYTES = 4096
FLOAT64 = np.dtype("<f8")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SUPERBLOCK_BYTES = 96
_HEAP_BYTES = 4096  # the smallest that the library takes
_NOWHERE = b"\xff" * 8
_DATASPACE, _LINK_INFO, _DATATYPE, _FILL, _LINK = 0x01, 0x02, 0x03, 0x05, 0x06
_LAYOUT, _ATTRIBUTE = 0x08, 0x0C
_FILL_NEVER = bytes([2, 1, 1, 0])  # version 2, allocated early, written never, none defined
_FLOAT_FIELDS = {4: (23, 8, 127), 8: (52, 11, 1023)}  # bits of mantissa and exponent, bias
_STRING = bytes([0x19, 1, 1, 0]) + struct.pack("<I", 16)  # of any length, UTF-8, in the heap
_STRING += bytes([0x10, 0, 0, 0]) + struct.pack("<IHH", 1, 0, 8)  # sequences of bytes


@dataclass(frozen=True, slots=True)
class Dataset:
    """An array, a number, or a text."""

    value: Value | bytes = b""
    """A text or number; or the bytes of an array; unused where `begin` is given."""
    shape: tuple[int, ...] = ()
    dtype: np.dtype[Any] | None = None
    """None for a text or number."""
    begin: int | None = None
    """Byte of the file's array where this dataset begins."""
    attributes: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Group:
    """Datasets and groups by name."""

    members: Mapping[str, Dataset | Group]
    attributes: Mapping[str, Value] = field(default_factory=dict)


def prefix(root: Group, array_bytes: int) -> bytes:
    """The file up to its array, which begins on a page and ends the file; several datasets may lie
    in it."""
    texts: dict[str, int] = {}
    for text in _attribute_texts(root):
        texts.setdefault(text, len(texts) + 1)
    writer = _Writer(texts)
    top = writer.put(root)
    data = writer.data
    data += bytes(-len(data) % PAGE_BYTES)
    for position, begin in writer.arrays:
        struct.pack_into("<Q", data, position, len(data) + begin)
    data[:_SUPERBLOCK_BYTES] = _superblock(top, len(data) + array_bytes)
    return bytes(data)


def _superblock(root: int, end: int) -> bytes:
    sizes = bytes([0, 0, 0, 0, 0, 8, 8, 0]) + struct.pack("<HHI", 4, 16, 0)
    places = bytes(8) + _NOWHERE + struct.pack("<Q", end) + _NOWHERE
    return _SIGNATURE + sizes + places + struct.pack("<QQII16x", 0, root, 0, 0)


class _Writer:
    """Puts what is referred to before what refers to it."""

    def __init__(self, texts: Mapping[str, int]) -> None:
        self._texts = texts
        self.data = bytearray(_SUPERBLOCK_BYTES) + _heap(texts)
        self.arrays: list[tuple[int, int]] = []
        """Where the place of a dataset in the file's array is still to be written, and that."""

    def put(self, node: Dataset | Group) -> int:
        """Write an object; its address."""
        attributes = [
            (_ATTRIBUTE, self._attribute(name, value)) for name, value in node.attributes.items()
        ]
        if isinstance(node, Group):
            links = [(_LINK, _link(name, self.put(one))) for name, one in node.members.items()]
            return self._header([(_LINK_INFO, bytes(2) + _NOWHERE * 2), *links, *attributes])
        if node.begin is None:
            shape, datatype, data = self._encoded(node)
            begin = len(self.data)
            self.data += data + bytes(-len(data) % 8)
        else:
            assert node.dtype is not None
            shape, datatype, begin = node.shape, _datatype(node.dtype), 0
        size = prod(shape) * struct.unpack_from("<I", datatype, 4)[0]
        place = struct.pack("<Q", begin) if size else _NOWHERE  # all that the library takes
        layout = bytes([3, 1]) + place + struct.pack("<Q", size)
        address = self._header(
            [
                (_LAYOUT, layout),  # the first: its place is known, see below
                (_DATASPACE, _dataspace(shape)),
                (_DATATYPE, datatype),
                (_FILL, _FILL_NEVER),
                *attributes,
            ]
        )
        if node.begin is not None and size:
            self.arrays.append((address + 16 + 8 + 2, node.begin))
        return address

    def _header(self, messages: list[tuple[int, bytes]]) -> int:
        body = bytearray()
        for kind, data in messages:
            padding = -len(data) % 8
            body += struct.pack("<HHBxxx", kind, len(data) + padding, 0) + data + bytes(padding)
        address = len(self.data)
        self.data += struct.pack("<BxHIIxxxx", 1, len(messages), 1, len(body)) + body
        return address

    def _encoded(self, node: Dataset) -> tuple[tuple[int, ...], bytes, bytes]:
        if node.dtype is None:
            assert not isinstance(node.value, bytes)
            return _text(node.value) if isinstance(node.value, str) else self._value(node.value)
        assert isinstance(node.value, bytes)
        return node.shape, _datatype(node.dtype), node.value

    def _value(self, value: Value) -> tuple[tuple[int, ...], bytes, bytes]:
        """Shape, datatype and bytes."""
        many = value if isinstance(value, tuple) else (value,)
        shape = (len(many),) if isinstance(value, tuple) else ()
        if isinstance(many[0], str):
            return shape, _STRING, b"".join(self._reference(str(one)) for one in many)
        array = np.array(many, "<f8" if isinstance(many[0], float) else "<i8")
        return shape, _datatype(array.dtype), array.tobytes()

    def _reference(self, text: str) -> bytes:
        return struct.pack("<IQI", len(text.encode()), _SUPERBLOCK_BYTES, self._texts[text])

    def _attribute(self, name: str, value: Value) -> bytes:
        shape, datatype, data = self._value(value)
        space = _dataspace(shape)
        encoded = name.encode() + b"\0"
        sizes = struct.pack("<HHH", len(encoded), len(datatype), len(space))
        return bytes([3, 0]) + sizes + b"\1" + encoded + datatype + space + data


def _attribute_texts(node: Dataset | Group) -> Iterator[str]:
    for value in node.attributes.values():
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str):
                yield one
    if isinstance(node, Group):
        for member in node.members.values():
            yield from _attribute_texts(member)


def _text(text: str) -> tuple[tuple[int, ...], bytes, bytes]:
    """Shape, datatype and bytes of a text as a dataset.

    Of fixed length and labelled ASCII, though it is UTF-8: Octave loads no other, and h5py and
    others take its bytes as they are.
    """
    data = text.encode() or b"\0"
    return (), _fixed(len(data)), data


def _fixed(size: int) -> bytes:
    return bytes([0x13, 1, 0, 0]) + struct.pack("<I", size)


def _heap(texts: Mapping[str, int]) -> bytes:
    """The global heap: every text once, by its number."""
    body = b""
    for text, number in texts.items():
        data = text.encode()
        body += struct.pack("<HHIQ", number, 1, 0, len(data)) + data + bytes(-len(data) % 8)
    size = max(_HEAP_BYTES, 16 + len(body) + 16)
    free = size - 16 - len(body)
    head = b"GCOL" + struct.pack("<BxxxQ", 1, size)
    return head + body + struct.pack("<HHIQ", 0, 0, 0, free) + bytes(free - 16)


def _link(name: str, address: int) -> bytes:
    encoded = name.encode()
    return bytes([1, 0x10, 1, len(encoded)]) + encoded + struct.pack("<Q", address)


def _dataspace(shape: tuple[int, ...]) -> bytes:
    return struct.pack("<BBBxI", 1, len(shape), 0, 0) + struct.pack(f"<{len(shape)}Q", *shape)


def _datatype(dtype: np.dtype[Any]) -> bytes:
    """Little endian floats and integers, texts of fixed length as `_text` has them."""
    size = dtype.itemsize
    bits = 8 * size
    if dtype.kind == "f":
        mantissa, exponent, bias = _FLOAT_FIELDS[size]
        properties = struct.pack("<HHBBBBI", 0, bits, mantissa, exponent, 0, mantissa, bias)
        return bytes([0x11, 0x20, bits - 1, 0]) + struct.pack("<I", size) + properties
    if dtype.kind == "S":
        return _fixed(size)
    signed = 8 if dtype.kind == "i" else 0
    return bytes([0x10, signed, 0, 0]) + struct.pack("<IHH", size, 0, bits)
