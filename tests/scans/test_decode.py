"""Chunks decode to the frames they were made from, or are refused."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from analysis.codec import Codec, Filter
from dadafs.errors import BadData
from dadafs.scans.formats import decode as module
from dadafs.scans.formats.decode import decode

SHAPE = (21, 23)  # no multiple of 8 pixels: bitshuffle leaves a rest
PIPELINES: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "gzip": {"compression": 4},
    "gzip-shuffle-fletcher32": {"compression": 4, "shuffle": True, "fletcher32": True},
    "fletcher32": {"fletcher32": True},
    "shuffle": {"shuffle": True},
    "lzf-shuffle": {"compression": "lzf", "shuffle": True},
    "bitshuffle-lz4": hdf5plugin.Bitshuffle(cname="lz4"),
    "bitshuffle-lz4-small-blocks": hdf5plugin.Bitshuffle(cname="lz4", nelems=64),
    "bitshuffle-zstd": hdf5plugin.Bitshuffle(cname="zstd"),
    "bitshuffle": hdf5plugin.Bitshuffle(cname="none"),
    "lz4": hdf5plugin.LZ4(),
    "lz4-small-blocks": hdf5plugin.LZ4(nbytes=100),
    "zstd": hdf5plugin.Zstd(),
    "zstd-shuffle": {**hdf5plugin.Zstd(), "shuffle": True},
    "blosc-lz4": hdf5plugin.Blosc(cname="lz4"),
    "blosc-zstd-bits": hdf5plugin.Blosc(cname="zstd", shuffle=hdf5plugin.Blosc.BITSHUFFLE),
}
FILTERS = {"none": 0, "gzip-shuffle-fletcher32": 3, "lzf-shuffle": 2, "zstd-shuffle": 2}
EXACT = ("gzip", "gzip-shuffle-fletcher32", "fletcher32")  # these carry a checksum


def encode(frame: NDArray[Any], options: Mapping[str, Any]) -> tuple[bytes, Codec]:
    """A chunk as HDF5 writes it, and its codec."""
    with h5py.File("encode", "w", driver="core", backing_store=False) as file:
        made = file.create_dataset("d", data=frame[None], chunks=(1, *frame.shape), **options)
        file.flush()
        properties = made.id.get_create_plist()
        stages = [properties.get_filter(n) for n in range(properties.get_nfilters())]
        skipped, chunk = made.id.read_direct_chunk((0, 0, 0))  # filters that would only enlarge it
        filters = [Filter(one[0], tuple(one[2])) for one in stages]
        used = tuple(one for bit, one in enumerate(filters) if not skipped >> bit & 1)
        return bytes(chunk), Codec(*frame.shape, frame.dtype.str, used)


def frame_of(dtype: str, shape: tuple[int, int] = SHAPE, seed: int = 1) -> NDArray[Any]:
    frame = np.random.default_rng(seed).poisson(0.5, shape).astype(dtype)
    frame[2, ::3] = np.iinfo(dtype).max
    return frame


@pytest.mark.parametrize("dtype", ["|u1", "<u2", "<u4", ">u2", "<i4"])
@pytest.mark.parametrize("name", PIPELINES)
def test_chunks_decode_to_their_frames(name: str, dtype: str) -> None:
    for shape in [SHAPE, (64, 128), (1, 1)]:
        frame = frame_of(dtype, shape) if shape != (1, 1) else np.ones(shape, dtype)
        chunk, codec = encode(frame, PIPELINES[name])
        assert shape == (1, 1) or len(codec.filters) == FILTERS.get(name, 1)
        found = decode(chunk, codec)
        assert (found.dtype, found.shape) == (np.dtype(dtype), shape)
        assert_array_equal(found, frame)


def test_frames_do_not_share_memory() -> None:
    options = PIPELINES["bitshuffle-lz4"]
    frames = [frame_of("<u2", seed=seed) for seed in range(4)]
    found = [decode(*encode(frame, options)) for frame in frames]
    for one, frame in zip(found, frames, strict=True):
        assert_array_equal(one, frame)


def test_many_codecs_and_threads() -> None:
    chunks = [
        (frame, *encode(frame, options))
        for options in PIPELINES.values()
        for frame in (frame_of("<u2"), frame_of("<u4", (16, 8)))
    ]
    wrong: list[int] = []

    def work(seed: int) -> None:
        for number in np.random.default_rng(seed).permutation(len(chunks)):
            frame, chunk, codec = chunks[number]
            if not (decode(chunk, codec) == frame).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(module._wrappers) <= module.KEPT_DATASETS


@pytest.mark.parametrize("name", PIPELINES)
def test_chunks_that_decode_to_another_size_are_refused(name: str) -> None:
    """HDF5 reads on in memory behind what is too short."""
    chunk, codec = encode(frame_of("<u2"), PIPELINES[name])
    for height in (SHAPE[0] - 1, SHAPE[0] + 1, SHAPE[0] * 1000):
        with pytest.raises(BadData):
            decode(chunk, Codec(height, SHAPE[1], "<u2", codec.filters))
    assert_array_equal(decode(chunk, codec), frame_of("<u2"))


@pytest.mark.parametrize("name", PIPELINES)
def test_chunks_cut_anywhere_are_refused(name: str) -> None:
    chunk, codec = encode(frame_of("<u2"), PIPELINES[name])
    for length in range(0, len(chunk), 1 + len(chunk) // 50):
        with pytest.raises(BadData):
            decode(chunk[:length], codec)


@pytest.mark.parametrize("name", PIPELINES)
def test_damaged_chunks_are_refused_or_decode_alike(name: str) -> None:
    """What is accepted must at least not depend on what lies in memory."""
    frame = frame_of("<u2")
    chunk, codec = encode(frame, PIPELINES[name])
    random = np.random.default_rng(3)
    refused = 0
    for _ in range(60):
        damaged = bytearray(chunk)
        for place in random.integers(0, len(damaged), 3):
            damaged[place] ^= random.integers(1, 256)
        try:
            found = decode(bytes(damaged), codec)
        except BadData:
            refused += 1
            continue
        assert_array_equal(found, decode(bytes(damaged), codec))
        assert name not in EXACT or (found == frame).all()
    if name not in ("none", "shuffle", "bitshuffle"):
        assert refused


@pytest.mark.parametrize(
    ("codec", "problem"),
    [
        (Codec(2, 2, "<u2", (Filter(12345),)), "filter 12345 is not supported; known are 1, 2, 3"),
        (Codec(2, 2, "|O"), "pixels of"),
        (Codec(2, 2, "u2,u2"), "pixels of"),
        (Codec(2, 2, "nonsense"), "is no dtype"),
        (Codec(2**16, 2**16, "<u2"), "frames of 65536 x 65536"),
        (Codec(2**40, 2**40, "<u2"), "not supported"),
        (Codec(0, 2, "<u2"), "frames of 0 x 2"),
        (Codec(-2, -2, "<u2"), "frames of -2 x -2"),
        (Codec(2, 2, "<u2", (Filter(2, (2,)),) * 9), "9 filters"),
        (Codec(2, 2, "<u2", (Filter(1, (0,) * 33),)), "impossible options"),
        (Codec(2, 2, "<u2", (Filter(1, (-1,)),)), "impossible options"),
        (Codec(2, 2, "<u2", (Filter(2, (0,)),)), "elements of 0 bytes"),
        (Codec(2, 2, "<u2", (Filter(32008, (0, 0, 3, 0, 2)),)), "impossible options"),
        (Codec(2, 2, "<u2", (Filter(32008, (0, 0, 2, 0, 7)),)), "impossible options"),
    ],
)
def test_codecs_that_no_file_has(codec: Codec, problem: str) -> None:
    with pytest.raises(BadData, match=problem):
        decode(bytes(8), codec)


def test_bombs_do_not_go_off() -> None:
    bomb = zlib.compress(bytes(5_000_000))
    with pytest.raises(BadData, match="more than 8 bytes"):
        decode(bomb, Codec(2, 2, "<u2", (Filter(1),)))
    header = struct.pack(">QI", 2**40, 2**20)
    for number in (32004, 32008):
        with pytest.raises(BadData, match="1099511627776 bytes"):
            decode(header + bytes(100), Codec(2, 2, "<u2", (Filter(number, (0, 0, 2, 0, 2)),)))


@given(st.binary(max_size=200), st.sampled_from(list(PIPELINES)))
def test_arbitrary_bytes_are_refused_or_frames(data: bytes, name: str) -> None:
    _, codec = encode(np.ones((2, 2), "<u2"), {}) if name == "none" else CODECS[name]
    try:
        assert decode(data, codec).shape == codec.shape
    except BadData as exc:
        message = str(exc)
    else:
        message = ""
    assert "\n" not in message


CODECS = {name: encode(frame_of("<u2"), options) for name, options in PIPELINES.items()}


def test_fletcher32_of_any_length() -> None:
    for pixels in (1, 2, 3, 255, 70_000):
        frame = np.random.default_rng(pixels).integers(0, 256, (1, pixels)).astype("|u1")
        chunk, codec = encode(frame, {"fletcher32": True})
        assert_array_equal(decode(chunk, codec), frame)
        worse = bytes([chunk[0] ^ 1]) + chunk[1:]
        with pytest.raises(BadData, match="checksum differs"):
            decode(worse, codec)


def test_nothing_is_written_beside(tmp_path: Path) -> None:
    """The files in memory leave none on disk, and decoding none open."""
    code = (
        "import os; from test_decode import *;"
        "before = len(os.listdir('/proc/self/fd'));"
        "[decode(chunk, codec) for chunk, codec in CODECS.values()];"
        "print(os.listdir('.'), len(os.listdir('/proc/self/fd')) - before)"
    )
    paths = os.pathsep.join([os.fspath(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[] 0\n"
