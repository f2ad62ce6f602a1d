"""Where the chunks of a data file lie is told right, or not at all."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from scanfiles import BITSHUFFLE, DATASET, SHAPE, frames_from, rewrite, write_data

from analysis.codec import Codec, Filter
from dadafs.cache.store import Store
from dadafs.errors import BadData, NoSuchPath, Stale
from dadafs.scans.formats import hdf5
from dadafs.scans.formats.decode import decode
from dadafs.scans.frames.index import FileIndex, FrameIndexer, _check_place
from dadafs.scans.model import NO_CHUNK
from dadafs.scans.tree import RawTree

P = b"f.h5"
D = DATASET.encode()
FRAMES = frames_from(0, 5)


@pytest.fixture
def indexer(tree: RawTree, store: Store) -> FrameIndexer:
    return FrameIndexer(tree, store)


def read(root: Path, index: FileIndex, skip: int = 0) -> dict[int, NDArray[Any]]:
    """The frames that an index leads to."""
    content = (root / "f.h5").read_bytes()
    found = {}
    for run in index.runs(P, skip, index.frames, skip):
        offsets = np.frombuffer(run.offsets, "<u8").tolist()
        lengths = np.frombuffer(run.lengths, "<u4").tolist()
        for number, (offset, length) in enumerate(zip(offsets, lengths, strict=True), run.first):
            if offset != NO_CHUNK:
                found[number] = decode(content[offset : offset + length], run.codec)
    return found


def assert_reads(root: Path, index: FileIndex, frames: NDArray[Any]) -> None:
    assert index.problem == ""
    found = read(root, index)
    assert sorted(found) == list(range(len(frames)))
    for number, frame in found.items():
        assert_array_equal(frame, frames[number])


@pytest.mark.parametrize("dtype", ["|u1", "<u2", "<u4", ">u2"])
@pytest.mark.parametrize("options", [BITSHUFFLE, {"compression": "gzip", "shuffle": True}, {}])
def test_chunks_are_found(
    root: Path, indexer: FrameIndexer, options: dict[str, Any], dtype: str
) -> None:
    frames = FRAMES.astype(dtype)
    write_data(root / "f.h5", frames, low=8, options=options)
    index = indexer.index(P, D)
    assert (index.codec.shape, index.codec.dtype, index.start) == (SHAPE, dtype, 7)
    assert_reads(root, index, frames)


def test_file_may_be_closed_and_asked_again(root: Path, indexer: FrameIndexer) -> None:
    write_data(root / "f.h5", FRAMES)
    before = len(os.listdir("/proc/self/fd"))
    assert indexer.index(P, D) == indexer.index(P, D)
    assert indexer.index(P, D).start is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_contiguous_dataset(root: Path, indexer: FrameIndexer) -> None:
    with h5py.File(root / "f.h5", "w") as file:
        file[DATASET] = FRAMES
    index = indexer.index(P, D)
    assert index.codec == Codec(*SHAPE, "<u2", ())
    assert_reads(root, index, FRAMES)


def test_dataset_that_was_never_written(root: Path, indexer: FrameIndexer) -> None:
    with h5py.File(root / "f.h5", "w") as file:
        file.create_dataset(DATASET, FRAMES.shape, FRAMES.dtype)
    index = indexer.index(P, D)
    assert (index.frames, read(root, index)) == (5, {})


def test_frames_without_chunk(root: Path, indexer: FrameIndexer) -> None:
    write_data(root / "f.h5", FRAMES, missing=(0, 3))
    index = indexer.index(P, D)
    assert index.frames == 5
    assert sorted(read(root, index)) == [1, 2, 4]


def test_chunks_that_lack_filters(root: Path, indexer: FrameIndexer) -> None:
    write_data(root / "f.h5", FRAMES, options={"compression": "gzip", "shuffle": True})
    with h5py.File(root / "f.h5", "a") as file:
        write = file[DATASET].id.write_direct_chunk
        write((1, 0, 0), FRAMES[1].tobytes(), 0b11)
        shuffled = FRAMES[2].view(np.uint8).reshape(-1, 2).T.tobytes()
        write((2, 0, 0), shuffled, 0b10)
        write((4, 0, 0), FRAMES[4].tobytes(), 0b11)
    index = indexer.index(P, D)
    assert index.skipped == ((1, 3), (2, 2), (4, 3))
    assert_reads(root, index, FRAMES)
    runs = list(index.runs(P, 0, 5, 10))
    assert [(run.first, len(run.codec.filters)) for run in runs] == [
        (10, 2),
        (11, 0),
        (12, 1),
        (13, 2),
        (14, 0),
    ]
    assert sorted(read(root, index, skip=2)) == [2, 3, 4]


@pytest.mark.parametrize("contiguous", [False, True])
def test_user_block(root: Path, indexer: FrameIndexer, contiguous: bool) -> None:
    if contiguous:
        with h5py.File(root / "f.h5", "w", userblock_size=1024) as file:
            file[DATASET] = FRAMES
    else:
        write_data(root / "f.h5", FRAMES, userblock_size=1024)
    assert_reads(root, indexer.index(P, D), FRAMES)


def test_offsets_that_a_library_counts_from_behind_the_user_block(root: Path) -> None:
    write_data(root / "f.h5", FRAMES, userblock_size=1024, missing=(0,))
    with open(root / "f.h5", "rb") as plain, h5py.File(root / "f.h5") as file:
        found, fd, block = file[DATASET].id, plain.fileno(), file.userblock_size
        places = [found.get_chunk_info(n).byte_offset for n in range(4)]
        offsets = np.array([NO_CHUNK, *places], np.uint64)
        lengths = np.array([0, *(found.get_chunk_info(n).size for n in range(4))], np.uint32)
        for shift in (0, 1024):
            shifted = offsets - np.uint64(shift)
            shifted[0] = NO_CHUNK
            _check_place(found, shifted, lengths, fd, block)
            assert_array_equal(shifted, offsets)
        beside = shifted - np.uint64(100) * (shifted != NO_CHUNK)
        with pytest.raises(BadData, match="user block"):
            _check_place(found, beside, lengths, fd, block)


def test_chunks_beyond_a_file_that_was_cut_are_missing(root: Path, indexer: FrameIndexer) -> None:
    """A file of which HDF5 believes that it ends where it was cut."""
    write_data(root / "f.h5", FRAMES, options={})
    with h5py.File(root / "f.h5") as file:
        size = file[DATASET].id.get_chunk_info_by_coord((3, 0, 0)).byte_offset + 7
    os.truncate(root / "f.h5", size)
    with (root / "f.h5").open("r+b") as raw:
        assert struct.unpack_from("<B", raw.read(9), 8) == (0,)  # superblock of version 0
        raw.seek(40)
        raw.write(struct.pack("<Q", size))
    index = indexer.index(P, D)
    assert index.frames == 5
    assert sorted(read(root, index)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (
            lambda file: file.create_dataset(DATASET, data=FRAMES, chunks=(2, *SHAPE)),
            "f.h5: chunks of 2 x 6 x 5 are not supported; repack with h5repack",
        ),
        (
            lambda file: file.create_dataset(DATASET, data=FRAMES, chunks=(1, 3, 5)),
            "chunks of 1 x 3 x 5",
        ),
        (lambda file: file.create_dataset(DATASET, data=FRAMES[0]), "a dataset of 2 dimensions"),
        (lambda file: file.create_dataset(DATASET, data=3), "a dataset of 0 dimensions"),
        (
            lambda file: file.create_dataset(DATASET, data=FRAMES * 0.25),
            "f.h5: pixels are not whole numbers (e.g. 0.25): counts are needed",
        ),
        (
            lambda file: file.create_dataset(DATASET, data=FRAMES.astype("c8")),
            "pixels of complex64 are not supported: counts are whole numbers",
        ),
        (lambda file: file.create_group(DATASET), "no dataset /entry/data/data"),
        (lambda file: file.create_group("x"), "no dataset /entry/data/data"),
        (
            lambda file: file.create_dataset(DATASET, (2**40, *SHAPE), "u2", chunks=(1, *SHAPE)),
            "1099511627776 frames of 6 x 5 are not supported",
        ),
        (
            lambda file: file.create_dataset(
                DATASET, (1, 2**17, 2**17), "u2", chunks=(1, 2**10, 2**10)
            ),
            "frames of 131072 x 131072 are not supported",
        ),
        (
            lambda file: file.create_dataset(
                DATASET, FRAMES.shape, "u2", external=[("/etc/passwd", 0, 1000)]
            ),
            "no dataset",
        ),
    ],
)
def test_datasets_that_cannot_be_indexed(
    root: Path, indexer: FrameIndexer, make: Callable[[h5py.File], object], problem: str
) -> None:
    with h5py.File(root / "f.h5", "w") as file:
        make(file)
    index = indexer.index(P, D)
    assert problem in index.problem
    assert (index.frames, list(index.runs(P, 0, 0, 0))) == (0, [])


@pytest.mark.parametrize("low", [0, -5, 2.5, "x", np.arange(3)])
def test_image_numbers_that_are_none(root: Path, indexer: FrameIndexer, low: Any) -> None:
    write_data(root / "f.h5", FRAMES)
    with h5py.File(root / "f.h5", "a") as file:
        file[DATASET].attrs["image_nr_low"] = low
    index = indexer.index(P, D)
    assert (index.start, index.problem) == (None, "")


def test_usual_places_are_tried_when_none_is_given(root: Path, indexer: FrameIndexer) -> None:
    write_data(root / "f.h5", FRAMES, dataset="/entry/instrument/detector/data")
    assert_reads(root, indexer.index(P, b""), FRAMES)


def test_changed_file_has_another_index(root: Path, indexer: FrameIndexer) -> None:
    write_data(root / "f.h5", FRAMES)
    before = indexer.index(P, D)
    rewrite(root / "f.h5", frames=FRAMES[:2])
    after = indexer.index(P, D)
    assert (before.frames, after.frames) == (5, 2)
    assert before.identity != after.identity


def test_indices_are_kept_over_restarts(
    root: Path, tree: RawTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(root / "f.h5", FRAMES, low=3, missing=(1,))
    store = Store(tmp_path / "kept", map_bytes=1 << 20)
    before = FrameIndexer(tree, store).index(P, D)
    store.close()

    def refuse(fd: int) -> None:
        raise AssertionError("the file was read again")

    monkeypatch.setattr(hdf5, "opened", refuse)
    store = Store(tmp_path / "kept", map_bytes=1 << 20)
    try:
        assert FrameIndexer(tree, store).index(P, D) == before
        with pytest.raises(AssertionError, match="read again"):  # another dataset of it
            FrameIndexer(tree, store).index(P, b"/x")
    finally:
        store.close()


def test_problems_are_not_kept(root: Path, indexer: FrameIndexer) -> None:
    write_data(root / "f.h5", FRAMES)
    about = (root / "f.h5").stat()
    good = (root / "f.h5").read_bytes()
    (root / "f.h5").write_bytes(b"x" * len(good))
    os.utime(root / "f.h5", ns=(0, about.st_mtime_ns))
    assert indexer.index(P, D).problem == "f.h5 is not an HDF5 file"
    (root / "f.h5").write_bytes(good)
    os.utime(root / "f.h5", ns=(0, about.st_mtime_ns))
    assert_reads(root, indexer.index(P, D), FRAMES)


def change_while_read(
    root: Path, monkeypatch: pytest.MonkeyPatch, times: int, change: Callable[[Path], None]
) -> list[int]:
    """Have the file changed in the midst of so many readings; which are counted."""
    calls: list[int] = []
    attribute = hdf5.attribute

    def interfere(found: Any, name: str) -> int | None:
        calls.append(1)
        if len(calls) <= times:
            change(root / "f.h5")
        return attribute(found, name)

    monkeypatch.setattr(hdf5, "attribute", interfere)
    return calls


def touch(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000))


def replace(path: Path) -> None:
    write_data(path.with_suffix(".new"), FRAMES[:2])
    path.with_suffix(".new").rename(path)


@pytest.mark.parametrize("change", [touch, replace])
def test_file_that_changes_once_is_read_again(
    root: Path,
    indexer: FrameIndexer,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
) -> None:
    write_data(root / "f.h5", FRAMES)
    calls = change_while_read(root, monkeypatch, 1, change)
    index = indexer.index(P, D)
    assert len(calls) == 2
    about = (root / "f.h5").stat()
    assert (index.identity.mtime_ns, index.identity.inode) == (about.st_mtime_ns, about.st_ino)


def test_file_that_keeps_changing_is_stale(
    root: Path, indexer: FrameIndexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(root / "f.h5", FRAMES)
    change_while_read(root, monkeypatch, 99, touch)
    with pytest.raises(Stale, match=r"f\.h5 changes while it is read"):
        indexer.index(P, D)


def test_file_that_vanishes(
    root: Path, indexer: FrameIndexer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(root / "f.h5", FRAMES)
    change_while_read(root, monkeypatch, 1, Path.unlink)
    with pytest.raises(NoSuchPath, match=r"f\.h5 does not exist"):
        indexer.index(P, D)


def test_damaged_store_only_costs_time(root: Path, tree: RawTree, tmp_path: Path) -> None:
    write_data(root / "f.h5", FRAMES)
    store = Store(tmp_path / "kept", map_bytes=1 << 20)
    FrameIndexer(tree, store).index(P, D)
    store.close()
    data = tmp_path / "kept/data.mdb"
    content = data.read_bytes()
    at = content.index(Filter(32008).number.to_bytes(2, "big"))  # in the middle of the value
    data.write_bytes(content[:at] + b"\0" + content[at + 1 :])
    store = Store(tmp_path / "kept", map_bytes=1 << 20)
    try:
        assert_reads(root, FrameIndexer(tree, store).index(P, D), FRAMES)
        assert store.counters == {"misses": 1, "bad_sums": 1}
    finally:
        store.close()
