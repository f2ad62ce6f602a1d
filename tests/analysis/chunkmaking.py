"""Chunks as detectors write them, by h5py and hdf5plugin, and plain decoders to check against."""

from __future__ import annotations

from functools import cache
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from analysis.codec import Codec, Filter
from analysis.plan import Plan, pack_mask

DTYPES = ("|u1", "<u2", "<u4")

KINDS: dict[str, dict[str, Any]] = {
    "bitshuffle-lz4": dict(hdf5plugin.Bitshuffle(nelems=0, cname="lz4")),
    "bitshuffle-lz4-blocks-of-512": dict(hdf5plugin.Bitshuffle(nelems=512, cname="lz4")),
    "bitshuffle-lz4-blocks-of-24": dict(hdf5plugin.Bitshuffle(nelems=24, cname="lz4")),
    "bitshuffle": dict(hdf5plugin.Bitshuffle(nelems=0, cname="none")),
    "bitshuffle-blocks-of-64": dict(hdf5plugin.Bitshuffle(nelems=64, cname="none")),
    "lz4": dict(hdf5plugin.LZ4(nbytes=0)),
    "lz4-blocks-of-160-bytes": dict(hdf5plugin.LZ4(nbytes=160)),
    "none": {},
}
"""Settings of a dataset, by a name."""


@cache
def _file() -> h5py.File:
    return h5py.File("chunks", "w", driver="core", backing_store=False)


def encode(frame: NDArray[Any], kind: str) -> tuple[bytes, Codec]:
    """The chunk that HDF5 makes of a frame, and its codec."""
    file = _file()
    dataset = file.create_dataset("d", data=frame[None], chunks=(1, *frame.shape), **KINDS[kind])
    try:
        return dataset.id.read_direct_chunk((0, 0, 0))[1], codec_of(dataset)
    finally:
        del file["d"]


def codec_of(dataset: h5py.Dataset) -> Codec:
    """The codec of an h5py dataset of frames."""
    properties = dataset.id.get_create_plist()
    stages = [properties.get_filter(i) for i in range(properties.get_nfilters())]
    filters = tuple(Filter(stage[0], tuple(stage[2])) for stage in stages)
    return Codec(*dataset.shape[1:], dataset.dtype.str, filters)


def plan_of(reduction: str, codec: Codec, invalid: NDArray[np.bool_] | None, **more: Any) -> Plan:
    """A plan for frames of a codec."""
    mask = b"" if invalid is None else pack_mask(invalid)
    return Plan(reduction, "", codec.height, codec.width, codec.dtype, mask, **more)


def unpack_lz4(block: bytes, size: int) -> bytes:
    """Decode an LZ4 block by the letter of the format. ValueError when it is damaged."""
    out = bytearray()
    at = 0

    def length(start: int) -> int:
        nonlocal at
        total = start
        if start == 15:
            while True:
                if at >= len(block):
                    raise ValueError("cut")
                total += block[at]
                at += 1
                if block[at - 1] != 255:
                    break
        return total

    while True:
        if at >= len(block):
            raise ValueError("cut")
        token = block[at]
        at += 1
        count = length(token >> 4)
        if at + count > len(block) or len(out) + count > size:
            raise ValueError("literals")
        out += block[at : at + count]
        at += count
        if at == len(block):
            break
        if at + 2 > len(block):
            raise ValueError("cut")
        offset = block[at] | block[at + 1] << 8
        at += 2
        count = length(token & 15) + 4
        if not 0 < offset <= len(out) or len(out) + count > size:
            raise ValueError("match")
        period = bytes(out[-offset:])
        out += (period * (count // offset + 1))[:count]
    if len(out) != size:
        raise ValueError("size")
    return bytes(out)


def unshuffle(block: bytes, itemsize: int) -> bytes:
    """The pixels of the bit planes of a block."""
    planes = np.frombuffer(block, np.uint8).reshape(8 * itemsize, -1)
    bits = np.unpackbits(planes, axis=1, bitorder="little")
    return np.packbits(bits.T, axis=1, bitorder="little").tobytes()


def decode(chunk: bytes, codec: Codec) -> NDArray[Any]:
    """The frame in a chunk of any of `KINDS`, plainly. ValueError when it is damaged."""
    dtype = np.dtype(codec.dtype)
    size = codec.frame_bytes
    number = codec.filters[0].number if codec.filters else 0
    options = codec.filters[0].options if codec.filters else ()
    bare = number == 32008 and options[4] == 0
    parts: list[bytes] = []
    if not number or bare:
        if len(chunk) != size:
            raise ValueError("size")
        at = 0
        block = (options[3] if bare else 0) * dtype.itemsize or 8192
    else:
        if len(chunk) < 12 or int.from_bytes(chunk[:8], "big") != size:
            raise ValueError("header")
        at = 12
        block = int.from_bytes(chunk[8:12], "big")
        if number == 32008:
            block = block or 8192
            if block % (8 * dtype.itemsize):
                raise ValueError("block size")
        elif not block:
            raise ValueError("block size")
    if not number:
        return np.frombuffer(chunk, dtype).reshape(codec.shape)
    whole = size - size % (8 * dtype.itemsize) if number == 32008 else size
    done = 0
    while done < whole:
        part = min(block, whole - done)
        if bare:
            data = chunk[at : at + part]
            at += part
        else:
            if at + 4 > len(chunk):
                raise ValueError("cut")
            stored = int.from_bytes(chunk[at : at + 4], "big")
            data = chunk[at + 4 : at + 4 + stored]
            at += 4 + stored
            if len(data) != stored:
                raise ValueError("cut")
            if number == 32008 or stored != part:
                data = unpack_lz4(data, part)
        parts.append(unshuffle(data, dtype.itemsize) if number == 32008 else data)
        done += part
    loose = chunk[at : at + size - whole]
    if len(loose) != size - whole:
        raise ValueError("cut")
    return np.frombuffer(b"".join([*parts, loose]), dtype).reshape(codec.shape)
