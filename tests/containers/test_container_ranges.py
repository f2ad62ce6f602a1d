"""Any range of bytes of any container is that slice of the whole file."""

from __future__ import annotations

import pytest
import trio
from fakefarm import FakeFarm, file_of, read_all, result_of, scan_of
from hypothesis import given, settings
from hypothesis import strategies as st

from dadafs.containers import CONTAINERS
from dadafs.containers.base import Annex
from dadafs.errors import NoSuchPath
from dadafs.requests import concrete, shell_of

SCANS = {
    "plain": scan_of(),
    "three patches": scan_of(150, 10, 15),
    "beyond the last frame": scan_of(10, 4, 3),
    "without geometry": scan_of(geometry=None),
    "four bytes": scan_of(dtype="<u4"),
}
STEMS = [
    "darkfield/full",
    "darkfield/horz=5/order=snake",
    "dpc/full",
    "dpc/channel=y/vert=2",
    "orientation/full",
    "radial/bins=3",
    "radial/bins=4/qmin=0.01/qmax=0.1/channel=sigma",
    "azimuthal/bins=5",
    "sum/full",
    "max/roi=1,2,5,3",
    "average/region=1,0,2,2",
    "composite/bin=2",
    "composite/roi=1,1,3,2/region=1,1,2,2",
    "frames/000003",
    "frames/bin=3/000007",
    "frames/roi=2,1,5,7/000000",
]


@st.composite
def paths(draw: st.DrawFn) -> tuple[str, str]:
    scan = draw(st.sampled_from(sorted(SCANS)))
    stem = draw(st.sampled_from(STEMS))
    fitting = []
    for extension in CONTAINERS:
        try:
            result_of(f"{stem}.{extension}", SCANS[scan])
        except NoSuchPath:
            continue
        fitting.append(extension)
    if not fitting:
        stem, fitting = "darkfield/full", list(CONTAINERS)
    return scan, f"{stem}.{draw(st.sampled_from(fitting))}"


@settings(deadline=None, derandomize=True, max_examples=150)
@given(paths(), st.data())
def test_ranges_are_slices_of_the_whole(case: tuple[str, str], data: st.DataObject) -> None:
    name, path = case
    scan = SCANS[name]

    async def check() -> None:
        whole = await read_all(path, scan)
        file = file_of(result_of(path, scan), FakeFarm())
        edges = st.integers(0, len(whole) + 3)
        edges |= st.integers(max(len(whole) - 200, 0), len(whole))
        for _ in range(4):
            offset, size = data.draw(edges), data.draw(st.integers(0, 70) | edges)
            assert await file.read(offset, size) == whole[offset : offset + size]

    trio.run(check)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(paths(), st.data())
def test_ranges_beside_the_numbers_compute_nothing(
    case: tuple[str, str], data: st.DataObject
) -> None:
    name, path = case
    result = result_of(path, SCANS[name])
    farm = FakeFarm()
    file = file_of(result, farm)

    async def check() -> None:
        shell = shell_of(result)
        start = len(shell.prefix)
        offset = data.draw(st.integers(0, start))
        assert await file.at_hand(offset, start - offset)
        assert len(await file.read(offset, start - offset)) == start - offset
        end = start + shell.array_bytes + sum(map(len, shell.heads[1:]))
        assert len(await file.read(end, len(shell.suffix))) == len(shell.suffix)
        end += len(shell.suffix)
        for piece in shell.tail:
            computed = isinstance(piece, Annex) and piece.frames is not None
            size = piece.size if isinstance(piece, Annex) else len(piece)
            at = data.draw(st.integers(0, size))
            if not computed:
                assert await file.at_hand(end + at, size - at)
                assert len(await file.read(end + at, size - at)) == size - at
            end += size

    trio.run(check)
    assert farm.asked == set()


@pytest.mark.parametrize(
    ("path", "frames"),
    [
        ("darkfield/full.npy", range(64)),
        ("darkfield/full.csv", range(64)),
        ("darkfield/full.h5", range(64)),
        ("darkfield/full.mat", range(640)),  # a column is a point of each line
        ("radial/bins=2/full.mat", range(64)),  # profiles are not turned
    ],
)
def test_first_number_needs_its_patch_alone(path: str, frames: range) -> None:
    """... the first line's; of a column, one patch a line."""
    scan = scan_of(640, 64, 10)
    farm = FakeFarm()
    result = result_of(path, scan)
    count = 10 if path == "darkfield/full.mat" else 1
    shell = shell_of(result)

    async def check() -> None:
        await file_of(result, farm).read(len(shell.prefix), count * shell.item_bytes)

    trio.run(check)
    assert farm.asked == set(frames)


def test_sizes_do_not_depend_on_coordinates() -> None:
    """What `stat` says is the size of the file with the bins' places, which are made later."""
    for extension in ("h5", "mat", "csv"):
        result = result_of(f"radial/bins=7/full.{extension}", scan_of())
        settled = result.settled()
        assert shell_of(settled).size == shell_of(result).size
        assert shell_of(settled).prefix != shell_of(result).prefix
        assert concrete(result.request, result.scan) == result
