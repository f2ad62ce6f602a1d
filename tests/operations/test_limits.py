"""Mounts that run out of something: descriptors, the disk of their caches, room in a store."""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from mounting import COMMAND, Site, contents, done, until

pytestmark = pytest.mark.mount
DESCRIPTORS = 64
DISK_BYTES = 4 << 20
MAP = "raster/darkfield/horz=13/vert=11.npy"
# All readers at once; how many got what: a digest, or the name of an errno.
CROWD = """
import errno, hashlib, json, sys, threading
paths = json.loads(sys.argv[1])
found = [""] * len(paths)

def read(number):
    try:
        with open(paths[number], "rb") as file:
            found[number] = hashlib.md5(file.read()).hexdigest()
    except OSError as error:
        found[number] = errno.errorcode[error.errno]

threads = [threading.Thread(target=read, args=[n]) for n in range(len(paths))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(found))
"""


def limited(site: Site, descriptors: int) -> subprocess.CompletedProcess[str]:
    """The command `dadafs mount`, with so many descriptors for each of its processes."""
    return subprocess.run(
        [*COMMAND, "mount", str(site.raw), str(site.mnt)],
        env=site.env,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors)),
    )


def crowd(paths: list[Path]) -> list[str]:
    command = [sys.executable, "-c", CROWD, json.dumps([str(path) for path in paths])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    found: list[str] = json.loads(done(process, 120))
    return found


def test_few_descriptors(bare: Site) -> None:
    assert limited(bare, DESCRIPTORS).returncode == 0
    maps = [bare.mnt / f"raster/darkfield/roi={n},0,50,50/full.npy" for n in range(60)]
    raw = [path for path in (bare.mnt / "raster/raw").iterdir() for _ in range(40)]
    found = crowd([*maps, *raw])
    refused = [one for one in found if one.startswith("E")]
    assert 0 < len(refused) < len(found)
    assert set(refused) <= {"EIO", "EHOSTUNREACH"}
    assert "Too many open files" in bare.errors()
    again = crowd([*maps, *raw][::10])  # what is over is over
    assert not [one for one in again if one.startswith("E")]
    for got, later in zip(found[::10], again, strict=True):
        assert got == later or got.startswith("E")


def test_too_few_descriptors_to_begin(bare: Site) -> None:
    refused = limited(bare, 12)
    (line,) = refused.stderr.splitlines()
    assert refused.returncode in (1, 2)
    assert "Too many open files" in line
    bare.wait_gone()


@pytest.fixture
def small_disk(bare: Site) -> Iterator[Path]:
    """A disk of a few MB below the caches of a site."""
    disk = bare.base / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root may mount a tmpfs")
    size = f"size={DISK_BYTES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", disk], check=True, timeout=10)
    yield disk
    if bare.mounted():
        bare.unmount()
    subprocess.run(["umount", disk], check=True, timeout=10)


def fill(disk: Path) -> None:
    """Take all of a disk."""
    command = ["dd", "if=/dev/zero", f"of={disk}/filler", "bs=4k", "oflag=append", "conv=notrunc"]
    filled = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert "No space left on device" in filled.stderr


def frames(site: Site, number: int) -> bytes:
    return contents(site.mnt / f"raster/radial/bins={number}/full.npy")


@pytest.mark.parametrize("full", ["from the beginning", "later"])
def test_a_full_disk_of_caches(bare: Site, small_disk: Path, full: str) -> None:
    if full == "from the beginning":
        fill(small_disk)
    bare.mount("--cache", str(small_disk / "cache"))
    expected = {bins: frames(bare, bins) for bins in (2, 3)}
    fill(small_disk)
    for bins in range(4, 12):
        assert np.load(io.BytesIO(frames(bare, bins))).shape == (3, 1, 143, bins)
    log = next(bare.runtime.glob("dadafs/*/mount.log"))
    until(lambda: "No space left on device; going on without" in log.read_text(), "is told")
    if full == "later":
        until(
            lambda: bare.stats()["peers"][0]["counters"].get("results_write_errors", 0),
            "is counted",
        )
    assert {bins: frames(bare, bins) for bins in (2, 3)} == expected
    assert bare.stats()["processes"] == {"server": 1, "peer": 1}
    bare.unmount()
    bare.mount("--cache", str(small_disk / "cache"))  # also with what was left there
    assert {bins: frames(bare, bins) for bins in (2, 3)} == expected


def test_a_full_store(bare: Site) -> None:
    """A store of 1 MiB drops the oldest and what never fits; nobody notices but by waiting."""
    bare.mount("--results-size", "1MiB")
    expected = {bins: frames(bare, bins) for bins in (2, 40, 300)}
    for bins in range(100, 130):
        frames(bare, bins)
    for name, data in expected.items():
        assert frames(bare, name) == data
    store = next(bare.cache.glob("dadafs/*/results/data.mdb"))
    assert store.stat().st_size <= 1 << 20
    assert "error" not in bare.errors()


def test_a_store_that_is_cut_while_it_is_used(bare: Site) -> None:
    bare.mount()
    before = contents(bare.mnt / MAP)
    bare.unmount()
    bare.mount()
    for store in bare.cache.glob("dadafs/*/*/data.mdb"):
        os.truncate(store, 8192)
    assert contents(bare.mnt / MAP) == before
    assert contents(bare.mnt / "raster/dpc/horz=13/vert=11.npy")
    assert "data.mdb is truncated; going on without" in bare.errors()
    assert bare.stats()["processes"] == {"server": 1, "peer": 1}
    bare.unmount()
    bare.mount()  # makes new ones
    with bare.computing(frames=143):
        assert contents(bare.mnt / MAP) == before
