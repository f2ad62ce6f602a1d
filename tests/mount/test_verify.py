"""`dadafs verify`: what is right is found right by another way, what is wrong is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from mounting import Site, contents
from numpy.typing import NDArray

from dadafs.cache.store import AGE_BYTES, SUM_BYTES, VALUES, value_sum
from dadafs.cache.values import PatchValues, PatternValues
from tools.scan_maker import ScanMade, damage_chunk, make_scan

pytestmark = pytest.mark.mount

MOMENTS = 6


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("darkfield/full.npy", 3),
        ("dpc/rmax=40.tif", 3),
        ("radial/bins=50.h5", 3),
        ("azimuthal/bins=7/heal=1/full.npy", 3),
        ("orientation/heal=1/full.png", 3),
        ("darkfield/first=100/background=0..9.npy", 3),
        ("harmonic/heal=1/full.npy", 3),
        ("exponent/rmax=40.npy", 3),
        ("crystal/full.npy", 3),
        ("average/roi=10,10,80,80.npy", 1),
        ("sum/heal=1/full.npy", 1),
        ("average/background=0..9/full.npy", 2),
    ],
)
def test_results_that_are_right(shared: Site, raster: ScanMade, name: str, parts: int) -> None:
    path = shared.mnt / "raster" / name
    if not path.exists():
        pytest.fail(shared.errors().splitlines()[-1])
    told = shared.run("verify", path, "--patches", "9")
    assert (told.returncode, told.stderr) == (0, ""), told.stdout
    first, *lines = told.stdout.splitlines()
    assert first == f"{path}: verifying {parts} of {parts}"
    assert len(lines) == parts
    assert all(line.endswith(("numpy    equal", "general  equal")) for line in lines)


def test_frames_composites_and_gaps_are_verified_too(shared: Site) -> None:
    made = make_scan(shared.raw, name="holes", horz=10, vert=10, images_per_file=25, leave_out=[3])
    damage_chunk(made.data_files[0], 5)
    for name, read in (("darkfield/full.npy", 74), ("frames/000007.npy", 1), ("sum/full.npy", 74)):
        told = shared.run("verify", shared.mnt / "holes" / name, "--patches", "99")
        assert (told.returncode, told.stderr) == (0, ""), told.stdout
        counted = [
            int(line.split(" read again")[0].split()[-1]) for line in told.stdout.splitlines()[1:]
        ]
        assert sum(counted) == read
    told = shared.run("verify", shared.mnt / "holes/composite/bin=8/full.npy", "--patches", "2")
    assert told.returncode == 0, told.stdout
    assert "general  equal" in told.stdout


def damage(store: Path, change: Callable[[bytes, bytes], bytes | None]) -> int:
    """Replace values in a store, their checksums right; how many were."""
    environment = lmdb.open(str(store), max_dbs=2)
    count = 0
    try:
        values = environment.open_db(VALUES, create=False)
        with environment.begin(write=True, db=values) as transaction:
            for key, stored in list(transaction.cursor()):
                other = change(key, stored[AGE_BYTES + SUM_BYTES :])
                if other is not None:
                    transaction.put(key, stored[:AGE_BYTES] + value_sum(key, other) + other)
                    count += 1
    finally:
        environment.close()
    return count


def store_of(site: Site) -> Path:
    """Of the one mount of a site."""
    (found,) = site.cache.glob("dadafs/*/results")
    return found


def test_a_value_that_was_altered_is_found(own: Site) -> None:
    make_scan(own.raw, horz=64, vert=2)
    path = own.mnt / "scan42/darkfield/full.npy"
    before = own.load("scan42/darkfield/full.npy")
    own.unmount()

    def one_more(key: bytes, value: bytes) -> bytes | None:
        shape = 64, MOMENTS
        kept = PatchValues.decode(key, value, 64, shape, np.dtype(np.uint64))
        values: NDArray[Any] = kept.values.copy()
        if (values[:, 0] != before.reshape(-1)[:64]).any():
            return None  # the other patch
        values[9, 0] += 1
        return PatchValues(kept.status, values).encode(key)

    assert damage(store_of(own), one_more) == 1
    own.mount()
    assert own.load("scan42/darkfield/full.npy").reshape(-1)[9] == before.reshape(-1)[9] + 1
    told = own.run("verify", path, "--patches", "9")
    assert (told.returncode, told.stderr) == (1, "")
    _, bad, good = told.stdout.splitlines()
    assert good.endswith("equal")
    right, wrong = int(before.reshape(-1)[9]), int(before.reshape(-1)[9]) + 1
    assert f"DIFFERS: frame 9, value 0: {wrong}, but {right} when computed again" in bad
    assert own.run("verify", own.mnt / "scan42/dpc/full.tif", "--patches", "9").returncode == 1


def test_a_pattern_that_was_altered_is_found(own: Site) -> None:
    made = make_scan(own.raw, horz=8, vert=2)
    contents(own.mnt / "scan42/max/full.npy")
    own.unmount()
    shape = 3, *made.detector.shape

    def one_more(key: bytes, value: bytes) -> bytes:
        kept = PatternValues.decode(key, value, 16, shape)
        layers = [layer.copy() for layer in kept.layers]
        layers[0][3, 4] += 1
        return PatternValues(kept.status, tuple(layers)).encode(key)

    assert damage(store_of(own), one_more) == 1
    own.mount()
    told = own.run("verify", own.mnt / "scan42/average/full.npy")
    assert told.returncode == 1
    assert "DIFFERS: sum at row 3, column 4:" in told.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("raster/darkfield",), 1, "dadafs: /raster/darkfield: it is no result"),
        (("raster/README.txt",), 1, "dadafs: /raster/README.txt: it is no result"),
        (("raster/darkfield/fill.npy",), 1, "did you mean 'full.npy'?"),
        (("raster/darkfield/full.npy", "--patches", "0"), 2, "--patches: at least 1"),
        (("/usr",), 2, "not within a dadafs mount"),
    ],
)
def test_what_cannot_be_verified_takes_one_line(
    shared: Site, raster: ScanMade, arguments: tuple[str, ...], code: int, line: str
) -> None:
    told = shared.run("verify", shared.mnt / arguments[0], *arguments[1:])
    assert (told.returncode, told.stdout) == (code, "")
    assert len(told.stderr.splitlines()) == 1
    assert line in told.stderr
