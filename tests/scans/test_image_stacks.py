"""Image files of several frames: where the frames lie, which files are scans, and bad ones."""

from __future__ import annotations

import gzip
import io
import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stackfiles as made
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from scanfiles import SHAPE, Clock, read_slice

from analysis.codec import Codec
from dadafs.cache.store import Store
from dadafs.errors import BadData, NoSuchPath
from dadafs.scans.catalog import Catalog
from dadafs.scans.formats.decode import decode, decode_counts
from dadafs.scans.formats.imagestacks import holds_several, is_series, read_stack
from dadafs.scans.frames.index import FrameIndexer
from dadafs.scans.model import NO_CHUNK
from dadafs.scans.names import ScanFiles, group, with_number
from dadafs.scans.tree import RawTree


def counts(number: int, dtype: str = "<u2", shape: tuple[int, int] = SHAPE) -> NDArray[Any]:
    """Frames; in those of signed numbers some pixels are gaps."""
    frames = np.random.default_rng(number).poisson(9.0, (number, *shape)).astype(dtype)
    if frames.dtype.kind == "i":
        frames[1::2, 2, 3] = -2
    return frames


def expected(frames: NDArray[Any]) -> NDArray[Any]:
    """As counts, by plain means."""
    target = {1: "u1", 2: "<u2"}.get(frames.dtype.itemsize, "<u4")
    return np.where(frames < 0, np.iinfo(target).max, frames).astype(target)


def read(data: bytes, kind: str) -> tuple[list[NDArray[Any] | None], str, Codec]:
    """Every frame of a file, None where it has none; what is said of it."""
    fd = os.memfd_create("stack")
    try:
        os.write(fd, data)
        stack = read_stack(fd, len(data), kind)
        offsets = np.frombuffer(stack.offsets, "<u8").tolist()
        lengths = np.frombuffer(stack.lengths, "<u4").tolist()
        frames = []
        for offset, length in zip(offsets, lengths, strict=True):
            there = offset != NO_CHUNK and offset + length <= len(data)
            chunk = data[offset : offset + length]
            frames.append(decode_counts(chunk, stack.codec) if there else None)
        return frames, stack.note, stack.codec
    finally:
        os.close(fd)


def several(data: bytes, kind: str) -> tuple[bool, bool]:
    """Whether a file is read as a stack, and whether it is one when it is alone."""
    fd = os.memfd_create("stack")
    try:
        os.write(fd, data)
        return holds_several(fd, len(data), kind), is_series(fd, len(data), kind)
    finally:
        os.close(fd)


TIF: dict[str, tuple[Callable[[NDArray[Any]], bytes], str]] = {
    "plain": (made.tif, "<u2"),
    "bytes": (made.tif, "u1"),
    "page by page": (made.pages, "<u4"),
    "BigTIFF": (lambda frames: made.pages(frames, bigtiff=True), "<u2"),
    "big-endian": (lambda frames: made.tif(frames, byteorder=">"), "<u4"),
    "signed": (made.pages, "<i4"),
    "signed, short": (made.pages, "<i2"),
    "floating point": (made.pages, "<f4"),
    "strips": (lambda frames: made.pages(frames, rowsperstrip=2), "<u2"),
    "deflate": (lambda frames: made.pages(frames, compression="zlib"), "<u4"),
    "deflated strips": (
        lambda frames: made.pages(frames, compression="zlib", rowsperstrip=4, predictor=True),
        "<u2",
    ),
    "tiles": (lambda frames: made.tif(frames, tile=(16, 16)), "<i4"),
    "deflated tiles": (
        lambda frames: made.tif(frames, tile=(16, 32), compression="zlib", predictor=True),
        "<u2",
    ),
    "ImageJ": (made.imagej, "<u2"),
    "ImageJ, one directory": (made.imagej_of_one_directory, "<u2"),
    "tifffile, one directory": (lambda frames: made.tif(frames, truncate=True), "<u2"),
    "Pillow": (made.pillow, "<u2"),
    "Pillow, plain": (lambda frames: made.pillow(frames, None), "<u2"),
    "ImageMagick": (made.imagemagick, "<u2"),
}


@pytest.mark.parametrize("name", TIF)
def test_tif(name: str) -> None:
    write, dtype = TIF[name]
    frames = counts(5, dtype, (37, 45))
    data = write(frames)
    found, note, codec = read(data, "tif")
    assert (len(found), note) == (5, "")
    assert_array_equal(np.stack(found), expected(frames), strict=True)  # type: ignore[arg-type]
    every = None if "one directory" in name else slice(None)
    assert_array_equal(tifffile.imread(io.BytesIO(data), key=every), frames)
    assert several(data, "tif") == (True, dtype in ("<u2", "<u4", "<i2", "<i4"))
    assert bool(codec.filters) == (
        name.startswith("deflate") or name in ("tiles", "Pillow", "ImageMagick")
    )


@pytest.mark.parametrize(
    ("write", "dtype"),
    [(made.edf, "<u2"), (made.edf, "<i4"), (made.edf, "<f4"), (made.lima, "<i4")],
)
def test_edf(write: Callable[[NDArray[Any]], bytes], dtype: str) -> None:
    frames = counts(5, dtype)
    data = write(frames)
    found, note, _ = read(data, "edf")
    assert (len(found), note) == (5, "")
    assert_array_equal(np.stack(found), expected(frames), strict=True)  # type: ignore[arg-type]
    assert several(data, "edf") == (True, True)


def test_general_facts_in_front_of_the_frames_of_an_edf() -> None:
    facts = b"{\nEDF_DataFormatVersion = 2.40 ;\nEDF_BinarySize = 0 ;\n".ljust(510) + b"}\n"
    frames = counts(3)
    found, note, _ = read(facts + made.edf(frames), "edf")
    assert (len(found), note) == (3, "")
    assert_array_equal(np.stack(found), frames)  # type: ignore[arg-type]


def test_stack_of_more_than_4_gib(tmp_path: Path) -> None:
    """Sparse, by tifffile as ImageJ would: the offsets of most frames are in no directory."""
    path = tmp_path / "big.tif"
    shape = (9000, 512, 1024)
    with pytest.warns(UserWarning, match="truncating ImageJ file"):
        stack = tifffile.memmap(path, shape=shape, dtype=">u2", imagej=True)
    stack[-1, 3, 7] = 513
    stack.flush()
    del stack
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        assert size > 1 << 33
        found = read_stack(fd, size, "tif")
        offset = int(np.frombuffer(found.offsets, "<u8")[-1])
        length = int(np.frombuffer(found.lengths, "<u4")[-1])
        frame = decode(os.pread(fd, length, offset), found.codec)
    finally:
        os.close(fd)
    assert len(found.lengths) // 4 == shape[0]
    assert (frame.shape, int(frame[3, 7]), int(frame.sum())) == (shape[1:], 513, 513)


def test_index_of_many_pages_is_cheap() -> None:
    """10 000 pages: 0.07 s of a core; what tifffile needs for the same is ten times as much."""
    data = made.pages(np.zeros((2000, 4, 4), "<u2"))
    fd = os.memfd_create("stack")
    try:
        os.write(fd, data)
        began = time.process_time()
        found = read_stack(fd, len(data), "tif")
        took = time.process_time() - began
        began = time.process_time()
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            offsets = [page.dataoffsets[0] for page in file.pages]
        theirs = time.process_time() - began
    finally:
        os.close(fd)
    assert np.frombuffer(found.offsets, "<u8").tolist() == offsets
    assert took < theirs


SMALL = counts(2, "<u2", (40, 50))


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (made.tif(np.zeros((2, 9, 9, 3), "u1"), photometric="rgb"), "page 1 is a coloured picture"),
        (made.pillow(SMALL, "tiff_lzw"), "page 1 is compressed by LZW, which is not supported"),
        (made.tif(np.zeros((2, 9, 9), "?")), "page 1 has pixels of 1 bits"),
        (made.tif(np.zeros((2, 9, 9), "<c8")), "page 1 has pixels of 64 bits, kind 6"),
        (made.pillow(SMALL.astype("<f4"), tiffinfo={317: 3}), "page 1 has predictor 3"),
        (gzip.compress(made.tif(SMALL)), "is packed by gzip: unpack"),
        (b"II*\0" + bytes(40), "is not a whole TIF file"),
        (b"", "is not a whole TIF file"),
    ],
)
def test_what_is_no_stack(data: bytes, line: str) -> None:
    with pytest.raises(BadData) as caught:
        read(data, "tif")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not several_or_refused(data)[1]


def several_or_refused(data: bytes) -> tuple[bool, bool]:
    try:
        return several(data, "tif")
    except BadData:
        return False, False


def test_pages_that_differ() -> None:
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as file:
        for shape in ((9, 9), (9, 9), (9, 8)):
            file.write(np.zeros(shape, "<u2"))
    line = "page 3 is 9 x 8 uint16, the first 9 x 9 uint16: frames of a scan are alike"
    with pytest.raises(BadData, match=line):
        read(out.getvalue(), "tif")
    assert several(out.getvalue(), "tif") == (True, False)
    data = made.edf(SMALL) + made.edf(SMALL[:, 1:])
    with pytest.raises(BadData, match="frame 2 is 39 x 50 uint16, the first 40 x 50 uint16"):
        read(data, "edf")


@pytest.mark.parametrize(
    "frames",
    [np.zeros((3, 9, 9), "u1"), np.zeros((3, 9, 9), "<f4"), np.zeros((1, 9, 9), "<u2")],
)
def test_pictures_and_results_that_are_alone_are_no_scans(frames: NDArray[Any]) -> None:
    """Grey pictures have 8 bits; maps that were computed are floating point."""
    assert not several(made.tif(frames), "tif")[1]


def cut_at(data: bytes, kind: str) -> tuple[int, int, str]:
    """How many frames a file has that was cut, how many are there, and what is said."""
    try:
        found, note, _ = read(data, kind)
    except BadData as exc:
        return 0, 0, str(exc)
    return len(found), sum(frame is not None for frame in found), note


@pytest.mark.parametrize(
    ("kind", "write"), [("tif", made.pages), ("edf", made.edf), ("edf", made.lima)]
)
def test_files_that_are_cut_anywhere(kind: str, write: Callable[[NDArray[Any]], bytes]) -> None:
    """What is there counts; nothing else is there."""
    frames = counts(4)
    data = write(frames)
    before = 0
    for size in range(0, len(data), 7):
        known, there, _ = cut_at(data[:size], kind)
        assert before <= there <= known <= 4
        before = there
    assert cut_at(data, kind) == (4, 4, "")
    known, there, note = cut_at(data[: len(data) * 3 // 5], kind)
    assert 1 <= there <= known < 4
    if known == there:
        assert "ends in" in note
    found, _, _ = read(data[: len(data) - 10], kind)
    assert_array_equal(np.stack(found[:3]), frames[:3])  # type: ignore[arg-type]


def test_imagej_stack_that_is_cut() -> None:
    frames = counts(5)
    data = made.imagej_of_one_directory(frames)
    begin = data.index(frames[0].astype(">u2").tobytes())
    found, note, _ = read(data[: begin + 4 * frames[0].nbytes - 1], "tif")
    assert note == "says that it holds 5 frames; there are 3"
    assert_array_equal(np.stack(found), frames[:3])  # type: ignore[arg-type]


def test_pages_in_a_circle() -> None:
    data = bytearray(made.pages(counts(3)))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        places = [page.offset for page in file.pages]  # type: ignore[union-attr]
        entries = len(file.pages.first.tags)
    at = places[2] + 2 + 12 * entries
    data[at : at + 4] = places[1].to_bytes(4, "little")
    found, note, _ = read(bytes(data), "tif")
    assert len(found) == 3
    assert note == "has pages that go in a circle, after frame 2"


@cache
def sound(name: str) -> tuple[bytes, str]:
    frames = counts(4, "<u2", (16, 20))
    if name in ("edf", "lima"):
        return getattr(made, name)(frames), "edf"
    return TIF[name][0](frames), "tif"


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "page by page",
        "BigTIFF",
        "strips",
        "deflated strips",
        "deflated tiles",
        "ImageJ, one directory",
        "edf",
        "lima",
    ],
)
@given(st.data())
@settings(max_examples=100, deadline=2000)
def test_damaged_files_end_in_frames_or_one_line(name: str, data: st.DataObject) -> None:
    content, kind = sound(name)
    content = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        some = data.draw(st.binary(min_size=1, max_size=8))
        content[at : at + len(some)] = some
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    fd = os.memfd_create("stack")
    try:
        os.write(fd, content)
        is_series(fd, len(content), kind)
        stack = read_stack(fd, len(content), kind)
    except BadData:
        return
    finally:
        os.close(fd)
    offsets = np.frombuffer(stack.offsets, "<u8").tolist()
    lengths = np.frombuffer(stack.lengths, "<u4").tolist()
    assert 0 < len(offsets) == len(lengths) <= len(content)
    for offset, length in zip(offsets[:50], lengths[:50], strict=True):
        try:
            frame = decode(bytes(content[offset : offset + length]), stack.codec)
        except BadData:
            continue
        assert (frame.shape, frame.dtype) == (stack.codec.shape, np.dtype(stack.codec.dtype))


def test_names() -> None:
    files = [b"a.tif", b"b_0000.edf", b"c_1.cbf", b"1.tif", b"d.txt", b"e_1.tif", b"e_2.tif"]
    asked: list[bytes] = []

    def stacks(names: Any) -> frozenset[bytes]:
        asked.extend(names)
        return frozenset(names)

    scans, loose = group(files, (), b"", stacks)
    assert asked == [b"1.tif", b"a.tif", b"b_0000.edf"]
    assert scans == {
        b"a": ScanFiles(None, (b"a.tif",), "tif"),
        b"b": ScanFiles(None, (b"b_0000.edf",), "edf"),
        b"1": ScanFiles(None, (b"1.tif",), "tif"),
        b"e": ScanFiles(None, (b"e_1.tif", b"e_2.tif"), "tif"),
    }
    assert loose == [b"c_1.cbf", b"d.txt"]
    assert with_number(b"r_0001.tif", 23) == b"r_0023.tif"
    assert with_number(b"r_9.edf.gz", 10) == b"r_10.edf.gz"


def test_a_stack_that_is_alone(root: Path, tree: RawTree, catalog: Catalog) -> None:
    frames = counts(5)
    (root / "stack.tif").write_bytes(made.tif(frames))
    (root / "picture.tif").write_bytes(made.tif(np.zeros((2, 9, 9, 3), "u1"), photometric="rgb"))
    (root / "r_0000.edf").write_bytes(made.edf(frames))
    assert [entry.name for entry in catalog.list(b"")] == [b"picture.tif", b"r", b"stack"]
    for name in (b"stack", b"r"):
        scan = catalog.scan(name)
        assert (scan.frames, scan.height, scan.width, scan.problems) == (5, *SHAPE, ())
        found = read_slice(tree, catalog.slice(name, 0, 5))
        assert_array_equal(np.stack([found[number] for number in range(5)]), frames)
    assert catalog.resolve(b"picture.tif").kind == "file"
    with pytest.raises(NoSuchPath, match=r"is part of scan stack: stack/raw/stack\.tif"):
        catalog.resolve(b"stack.tif")


@pytest.mark.parametrize(
    "shape", [b"[Infinity, 2, 2]", b"[1e200, 1e200, 2, 2]", b"[" + b"9, " * 9000 + b"2, 2]"]
)
def test_a_description_may_say_any_number(root: Path, catalog: Catalog, shape: bytes) -> None:
    """Who lists the directory of such a file sees it, and the scans beside it."""
    data = io.BytesIO()
    text = b'{"shape": ' + shape + b', "truncated": true}'
    tifffile.imwrite(data, counts(1)[0], description=text, metadata=None)
    (root / "odd.tif").write_bytes(data.getvalue())
    (root / "p.tif").write_bytes(made.tif(counts(3)))
    names = {entry.name for entry in catalog.list(b"")}
    assert b"p" in names
    assert names & {b"odd.tif", b"odd"}


@pytest.mark.parametrize("kind", ["tif", "edf"])
def test_series_of_stacks(root: Path, tree: RawTree, catalog: Catalog, kind: str) -> None:
    """Of different lengths, one file lost, one of a single frame at the end."""
    write = {"tif": made.pages, "edf": made.edf}[kind]
    frames = counts(12)
    for number, (begin, end) in {2: (0, 4), 3: (4, 7), 5: (11, 12)}.items():
        (root / f"r_{number}.{kind}").write_bytes(write(frames[begin:end]))
    scan = catalog.scan(b"r")
    assert (scan.frames, scan.problems) == (12, ("1 of 4 files are missing",))
    assert [(f.name, f.first, f.frames, f.state) for f in catalog.data_files(b"r")] == [
        (f"r_2.{kind}", 0, 4, "present"),
        (f"r_3.{kind}", 4, 3, "present"),
        (f"r_4.{kind}", 7, 4, "missing"),  # as long as the first
        (f"r_5.{kind}", 11, 1, "present"),
    ]
    found = read_slice(tree, catalog.slice(b"r", 0, 12))
    assert sorted(found) == [*range(7), 11]
    for number, frame in found.items():
        assert_array_equal(frame, frames[number])


def test_series_whose_first_file_has_one_frame(root: Path, tree: RawTree, catalog: Catalog) -> None:
    frames = counts(6)
    (root / "r_0.tif").write_bytes(made.pages(frames[:1]))
    (root / "r_1.tif").write_bytes(made.pages(frames[1:]))
    assert catalog.scan(b"r").frames == 6
    assert sorted(read_slice(tree, catalog.slice(b"r", 0, 6))) == list(range(6))


def test_stack_of_other_frames_in_a_series(root: Path, catalog: Catalog) -> None:
    (root / "r_0.tif").write_bytes(made.pages(counts(2)))
    (root / "r_1.tif").write_bytes(made.pages(counts(3, "<u4")))
    (root / "r_2.tif").write_bytes(made.pillow(counts(2), "tiff_lzw"))
    catalog.data_files(b"r")
    catalog.slice(b"r", 0, catalog.scan(b"r").frames)
    problems = catalog.scan(b"r").problems
    assert "r_1.tif holds frames of 6 x 5 <u4 in a scan of 6 x 5 <u2" in problems
    assert any("r_2.tif: page 1 is compressed by LZW" in problem for problem in problems)


def test_stacks_that_are_no_counts(root: Path, catalog: Catalog) -> None:
    for number in range(2):
        (root / f"r_{number}.tif").write_bytes(made.tif(np.full((2, 9, 9), 0.5, "<f4")))
    scan = catalog.scan(b"r")
    assert scan.frames == 0
    line = "r_0.tif: pixels are not whole numbers (e.g. 0.5): counts are needed"
    assert line in scan.problems


def test_packed_stacks(root: Path, catalog: Catalog) -> None:
    for number in range(2):
        (root / f"r_{number}.edf.gz").write_bytes(gzip.compress(made.edf(counts(2))))
    (root / "s_0.tif.gz").write_bytes(gzip.compress(made.tif(counts(2))))
    scan = catalog.scan(b"r")
    line = (
        "r_0.edf.gz: holds several frames: write one a file, or unpack it if it is packed by gzip"
    )
    assert (scan.frames, scan.problems[0]) == (0, line)
    assert [entry.name for entry in catalog.list(b"")] == [b"r", b"s_0.tif.gz"]


def test_index_is_remembered_by_identity(root: Path, tree: RawTree, store: Store) -> None:
    path = root / "r.tif"
    path.write_bytes(made.pages(counts(3)))
    before = path.stat()
    first = FrameIndexer(tree, store).index(b"r.tif", b"")
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert FrameIndexer(tree, store).index(b"r.tif", b"") == first
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000_000))
    assert (
        FrameIndexer(tree, store).index(b"r.tif", b"").problem == "r.tif: is not a whole TIF file"
    )


def test_file_that_becomes_a_stack_and_grows(root: Path, catalog: Catalog, clock: Clock) -> None:
    data = made.lima(counts(5))
    each = len(data) // 5
    path = root / "r_0000.edf"
    path.write_bytes(data[:each])
    past = time.time() - 100
    os.utime(root, (past, past))  # nothing but the file tells of what comes
    assert [entry.name for entry in catalog.list(b"")] == [b"r_0000.edf"]
    assert catalog.resolve(b"r_0000.edf").kind == "file"
    versions = set()
    for size, frames in ((2 * each, 2), (4 * each - 7, 3), (4 * each + 9, 4), (5 * each, 5)):
        path.write_bytes(data[:size])
        os.utime(root, (past, past))
        clock.now += 10
        assert [(entry.name, entry.scan) for entry in catalog.list(b"")] == [(b"r", True)]
        assert catalog.resolve(b"r").kind == "scan"
        scan = catalog.scan(b"r")
        assert scan.frames == frames
        versions.add(scan.version)
    assert len(versions) == 4
    assert scan.problems == ()
    (root / "r_0001.edf").write_bytes(made.lima(counts(2)))
    clock.now += 10
    assert catalog.scan(b"r").frames == 7
