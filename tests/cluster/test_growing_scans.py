"""A scan grows, as beamlines let it, while twenty processes read its map again and again."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import growing
import h5py
import numpy as np
import pytest
from loopback import HOST, Mount, daemon, fuse_missing, mount, until

from tools.eiger_files import CODECS, DATASET
from tools.scan_maker import ScanMade, make_scan

pytestmark = [pytest.mark.mount, pytest.mark.slow]
READERS = 20
HORZ, VERT, FRAMES_A_FILE = 20, 16, 64
RESULTS = ("darkfield/horz=20.npy", "dpc/horz=20.h5", "radial/bins=7/horz=20.npy", "sum/full.tif")


@pytest.fixture
def truth(tmp_path: Path) -> ScanMade:
    """The scan as it will be: five data files, each a patch."""
    return make_scan(
        tmp_path / "made", name="g", horz=HORZ, vert=VERT, images_per_file=FRAMES_A_FILE, unique=8
    )


@pytest.fixture(params=["embedded", "cluster"])
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mount]:
    """A mount of `tmp_path / "raw"`: by itself, or of a server with a peer."""
    if reason := fuse_missing():
        pytest.skip(reason)
    raw = tmp_path / "raw"
    raw.mkdir()
    with ExitStack() as stack:
        if request.param == "embedded":
            yield stack.enter_context(mount(raw))
            return
        listen = ("--listen", f"{HOST}:0")
        server = stack.enter_context(daemon(tmp_path / "s", "server", "--root", raw, *listen))
        address = f"{HOST}:{server.port}"
        stack.enter_context(daemon(tmp_path / "p", "peer", "--server", address, *listen))
        made = stack.enter_context(mount(f"tcp://{address}", "--no-local-peer"))
        until(lambda: made.peers() or None, "the peer is listed")
        yield made


def rename_into_place(source: Path, target: Path) -> None:
    """A file that is older than those that are there: one of several writers was late."""
    part = target.with_name(f".{target.name}.part")
    part.write_bytes(source.read_bytes())
    os.utime(part, (1e9, 1e9))
    part.rename(target)


def copy_slowly(source: Path, target: Path) -> None:
    """What is there of the file is no HDF5 file for a while."""
    data = source.read_bytes()
    with target.open("wb", buffering=0) as file:
        for begin in range(0, len(data), len(data) // 20):
            file.write(data[begin : begin + len(data) // 20])
            time.sleep(0.05)


def write_frames(source: Path, target: Path, *, flush_every: int = FRAMES_A_FILE) -> None:
    """As the file writer does: frame after frame, the index of chunks at a flush and at the end."""
    with h5py.File(source) as have, h5py.File(target, "w") as file:
        frames = have[DATASET]
        stack = file.create_dataset(
            DATASET,
            (0, *frames.shape[1:]),
            frames.dtype,
            chunks=frames.chunks,
            maxshape=frames.maxshape,
            **CODECS["bitshuffle"],
        )
        stack.attrs["image_nr_low"] = frames.attrs["image_nr_low"]
        for number in range(len(frames)):
            stack.resize(number + 1, 0)
            chunk = frames.id.read_direct_chunk((number, 0, 0))[1]
            stack.id.write_direct_chunk((number, 0, 0), chunk)
            if (number + 1) % flush_every == 0:
                file.flush()
            time.sleep(0.02)


def test_every_reader_sees_each_value_appear_and_never_a_wrong_one(
    mounted: Mount, truth: ScanMade, tmp_path: Path
) -> None:
    expected = truth.sums.astype(float).reshape(VERT, HORZ)
    np.save(tmp_path / "truth.npy", expected)
    target = tmp_path / "raw/g"
    target.mkdir()
    assert truth.master is not None
    for file in (truth.master, truth.data_files[0]):  # all other links of the master dangle
        os.link(file, target / file.name)
    path = mounted.mnt / "g/g/darkfield/horz=20.npy"
    complete = FRAMES_A_FILE

    def known() -> bool:
        try:
            return np.count_nonzero(~np.isnan(growing.load(path))) == complete
        except OSError as exc:
            if exc.errno != errno.ESTALE:
                raise
            return False  # it changed while it was read

    def computed() -> int:
        stats = until(all_answer, "all answer")
        return int(stats["frames_computed"])

    def all_answer() -> dict[str, Any]:
        stats = mounted.stats()
        return {} if None in stats["peers"] else stats

    until(known, "the first file is seen")
    readers = subprocess.Popen(
        [sys.executable, growing.__file__, path, tmp_path / "truth.npy", str(READERS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        for number, add in enumerate((rename_into_place, copy_slowly, write_frames), 1):
            file = truth.data_files[number]
            add(file, target / file.name)
            complete += FRAMES_A_FILE
            until(known, f"{complete} values are seen")
            about = json.loads((mounted.mnt / "g/g/scan.json").read_text())
            assert (about["complete"], about["frames_present"]) == (False, complete)
        assert computed() == complete  # each patch once, when it was there
        file = truth.data_files[-1]
        write_frames(file, target / file.name, flush_every=16)
        complete += FRAMES_A_FILE
        until(known, "all is seen")
        time.sleep(1.5)  # longer than the kernel remembers a stat
        last = path.stat().st_mtime_ns
        time.sleep(0.5)
        told = json.loads(readers.communicate("", timeout=30)[0])
    finally:
        readers.kill()
        readers.communicate()  # until the last of them lets go of the mount
    assert len(told) == READERS
    for one in told:
        assert one["reads"] > 10
        assert (one["errors"], one["wrong"], one["gone"]) == ([], [], 0)
        assert one["least"].get(str(last), complete) == complete  # or rsync would miss the rest
    assert any(str(last) in one["least"] for one in told)
    about = json.loads((mounted.mnt / "g/g/scan.json").read_text())
    assert (about["complete"], about["problems"]) == (True, [])
    found = {name: (mounted.mnt / "g/g" / name).read_bytes() for name in RESULTS}
    with mount(tmp_path / "raw") as static:
        for name in RESULTS:
            assert (static.mnt / "g/g" / name).read_bytes() == found[name], name
