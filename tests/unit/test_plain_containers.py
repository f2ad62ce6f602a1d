"""npy and tif: a file is prefix, array and suffix, and others read the array back."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dadafs.containers import CONTAINERS, Content, Shell
from dadafs.containers.tif import MANY_PAGES

NPY, TIF = CONTAINERS["npy"], CONTAINERS["tif"]
NAMES = ("angle", "anisotropy", "l1", "l2")
FLOAT = np.dtype(np.float64)
EDGES = st.integers(1, 7)


def map_of(channels: int, vert: int, horz: int, bins: int | None = None) -> Content:
    axes = (("channel",) if channels > 1 else ()) + ("line", "point")
    shape = ((channels,) if channels > 1 else ()) + (vert, horz)
    if bins is not None:
        axes, shape = (*axes, "bin"), (*shape, bins)
    return Content(shape, FLOAT, axes, NAMES[:channels], "größe", "px")


def pattern_of(channels: int, rows: int, columns: int) -> Content:
    axes = (("channel",) if channels > 1 else ()) + ("row", "column")
    shape = ((channels,) if channels > 1 else ()) + (rows, columns)
    return Content(shape, FLOAT, axes, NAMES[:channels], "sum of all frames", "counts")


def frame_of(rows: int, columns: int, dtype: str) -> Content:
    return Content((rows, columns), np.dtype(dtype), ("row", "column"), (), "frame 3", "counts")


CHANNELS = st.integers(1, 4)
CONTENTS = st.one_of(
    st.builds(map_of, CHANNELS, EDGES, EDGES),
    st.builds(map_of, CHANNELS, EDGES, EDGES, EDGES),
    st.builds(pattern_of, CHANNELS, EDGES, EDGES),
    st.builds(frame_of, EDGES, EDGES, st.sampled_from(["<u1", "<u2", "<u4", ">u2", "<u8"])),
)


def array_of(content: Content) -> NDArray[Any]:
    """Numbers that differ and are exact in float32, one of them NaN where there can be one."""
    numbers = (np.arange(content.count) % 251).astype(content.dtype)
    if content.dtype.kind == "f":
        numbers = numbers / 4 - 3
        numbers[content.count // 2] = np.nan
    return numbers.reshape(content.shape)


def file_of(shell: Shell, array: NDArray[Any]) -> bytes:
    return shell.prefix + shell.encode(array.reshape(-1)) + shell.suffix


@settings(deadline=None, derandomize=True)
@given(CONTENTS)
def test_numpy_reads_an_npy(content: Content) -> None:
    shell = NPY.shell(content)
    array = array_of(content)
    data = file_of(shell, array)
    assert len(data) == shell.size
    read = np.load(io.BytesIO(data), allow_pickle=False)
    assert read.dtype == content.dtype.newbyteorder("<")
    assert read.shape == content.shape
    np.testing.assert_array_equal(read, array)


@settings(deadline=None, derandomize=True)
@given(CONTENTS)
def test_tifffile_and_imageio_read_a_tif(content: Content) -> None:
    shell = TIF.shell(content)
    array = array_of(content)
    data = file_of(shell, array)
    assert len(data) == shell.size
    integer = content.dtype.kind == "u" and content.dtype.itemsize <= 4
    stored = content.dtype.newbyteorder("<") if integer else np.dtype("<f4")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        read = file.asarray()
        pages = [page.asarray() for page in file.pages]
    assert read.dtype == stored
    np.testing.assert_array_equal(read.reshape(content.shape), array.astype(stored))
    height, width = content.shape[-2:]
    assert len(pages) == content.count // (height * width)
    np.testing.assert_array_equal(
        np.reshape(pages, (-1, height, width)), array.astype(stored).reshape(-1, height, width)
    )
    every = np.array(list(imageio.imiter(data)))
    np.testing.assert_array_equal(every.reshape(content.shape), array.astype(stored))


@settings(deadline=None, derandomize=True)
@given(CONTENTS, st.sampled_from([NPY, TIF]), st.data())
def test_array_may_be_encoded_in_any_pieces(
    content: Content, container: Any, data: st.DataObject
) -> None:
    shell = container.shell(content)
    flat = array_of(content).reshape(-1)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(flat)), max_size=5)))
    parts = [shell.encode(part) for part in np.split(flat, cuts)]
    assert b"".join(parts) == shell.encode(flat)
    assert [len(part) for part in parts] == [
        (stop - start) * shell.item_bytes
        for start, stop in zip([0, *cuts], [*cuts, len(flat)], strict=True)
    ]


@settings(deadline=None, derandomize=True)
@given(CONTENTS, st.sampled_from([NPY, TIF]))
def test_shell_is_the_same_every_time(content: Content, container: Any) -> None:
    made = container.shell(content)
    container.shell.cache_clear()
    again = container.shell(content)
    assert (made.prefix, made.suffix, made.size) == (again.prefix, again.suffix, again.size)


def test_npy_maps_into_memory(tmp_path: Path) -> None:
    content = map_of(2, 30, 40)
    shell = NPY.shell(content)
    path = tmp_path / "a.npy"
    path.write_bytes(file_of(shell, array_of(content)))
    mapped = np.load(path, mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    assert mapped.offset == len(shell.prefix) == 4096
    np.testing.assert_array_equal(mapped[1, 10:12], array_of(content)[1, 10:12])


def described(content: Content) -> tuple[str, int, dict[str, Any]]:
    """Axes, pages and ImageJ's description of a tif."""
    data = file_of(TIF.shell(content), array_of(content))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return file.series[0].axes, len(file.pages), dict(file.imagej_metadata or {})


@pytest.mark.parametrize(
    ("content", "axes", "pages", "labels"),
    [
        (map_of(1, 5, 6), "YX", 1, None),
        (map_of(2, 5, 6), "CYX", 2, ["angle", "anisotropy"]),
        (map_of(3, 5, 1), "CYX", 3, ["angle", "anisotropy", "l1"]),
        (map_of(2, 1, 1), "CYX", 2, ["angle", "anisotropy"]),
        (map_of(1, 5, 6, 7), "ZYX", 5, None),
        (map_of(1, 5, 6, 1), "ZYX", 5, None),
        (map_of(2, 3, 6, 7), "TZYX", 6, ["angle"] * 3 + ["anisotropy"] * 3),
        (pattern_of(1, 8, 3), "YX", 1, None),
        (pattern_of(4, 8, 3), "CYX", 4, list(NAMES)),
        (frame_of(8, 9, "<u2"), "YX", 1, None),
    ],
)
def test_imagej_finds_channels_and_lines_as_pages(
    content: Content, axes: str, pages: int, labels: list[str] | None
) -> None:
    found_axes, found_pages, about = described(content)
    assert (found_axes, found_pages) == (axes, pages)
    assert about["Info"] == content.title
    assert about["mode"] == "grayscale"
    assert about.get("Labels") == labels
    assert about["images"] == pages


def test_array_of_a_tif_begins_on_a_page_of_memory() -> None:
    for content in (map_of(1, 3, 4), map_of(4, 20, 30, 5), frame_of(5, 5, "<u4")):
        assert len(TIF.shell(content).prefix) % 4096 == 0


def test_counts_beyond_float32_are_rounded_in_tif_and_whole_in_npy() -> None:
    content = replace(frame_of(1, 2, "<u8"), shape=(1, 2))
    array = np.array([[2**24 + 1, 2**40 + 1]], np.uint64)
    npy = np.load(io.BytesIO(file_of(NPY.shell(content), array)))
    assert npy.tolist() == array.tolist()
    tif = tifffile.imread(io.BytesIO(file_of(TIF.shell(content), array)))
    assert tif.tolist() == [[2**24, 2**40]]


@pytest.fixture
def allocated() -> Iterator[Any]:
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


LARGE = {
    "map": map_of(4, 20_000, 50_000),  # 16 GB of float32
    "stack": map_of(1, 1_000, 1_000, 4_000),
    "stack of 3": map_of(3, 1_000, 1_000, 1_000),
    "many pages": map_of(1, 10_000_000, 1, 4_000),
    "many pages of 2": map_of(2, 10_000_000, 1, 2),
    "frame": frame_of(70_000, 70_000, "<u4"),
}


@pytest.mark.parametrize("container", [NPY, TIF], ids=lambda one: one.extension)
@pytest.mark.parametrize("content", LARGE.values(), ids=LARGE.keys())
def test_large_array_costs_nothing_before_it_is_there(
    content: Content, container: Any, allocated: Any
) -> None:
    container.shell.cache_clear()
    shell = container.shell(content)
    assert allocated() < 32 << 20
    assert len(shell.prefix) + len(shell.suffix) < 8 << 20
    assert shell.array_bytes == content.count * shell.item_bytes


@pytest.mark.parametrize("content", LARGE.values(), ids=LARGE.keys())
def test_large_tif_is_read_back(content: Content, tmp_path: Path) -> None:
    shell = TIF.shell(content)
    path = tmp_path / "large.tif"
    with path.open("wb") as file:  # a hole where the array is
        file.write(shell.prefix)
        file.seek(shell.array_bytes, io.SEEK_CUR)
        file.write(shell.suffix)
        file.truncate(shell.size)
    mapped = tifffile.memmap(path, mode="r")
    assert mapped.size == content.count
    assert mapped.shape == tuple(edge for edge in content.shape if edge > 1) or (
        mapped.shape == content.shape
    )
    assert mapped.reshape(-1)[-1] == 0


@pytest.mark.parametrize("lines", [MANY_PAGES, MANY_PAGES + 1])
def test_tif_of_many_pages(lines: int) -> None:
    content = map_of(1, lines, 2, 3)
    data = file_of(TIF.shell(content), array_of(content))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert len(file.pages) == (lines if lines <= MANY_PAGES else 1)
        np.testing.assert_array_equal(file.asarray(), array_of(content).astype("<f4"))


def test_tif_just_below_and_above_the_classic_limit() -> None:
    assert TIF.shell(map_of(1, 16384, 655, 98)).prefix[:4] == b"II*\0"
    assert TIF.shell(map_of(1, 16384, 655, 100)).prefix[:4] == b"II+\0"
