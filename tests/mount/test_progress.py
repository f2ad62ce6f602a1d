"""How far a result is: told while it is computed, by files and attributes that compute nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess

import pytest
from mounting import Site, contents, done, until
from test_faults import held, jobs, read_aside, slow_scan, stop

from tools.scan_maker import ScanMade, make_scan

pytestmark = pytest.mark.mount

LINE = re.compile(
    r"(\d+) %, (absent|cached|computing, (\d+|\?) frames/s, (\d+|\?) s left, \d+ peers?)"
)


def percent(line: str) -> int:
    """Of a line of progress."""
    found = LINE.fullmatch(line.removesuffix("\n"))
    assert found, line
    return int(found[1])


@pytest.mark.parametrize("name", ["darkfield/horz=64/vert=24.npy", "sum/full.npy"])
def test_progress_moves_from_nothing_to_all(own: Site, name: str) -> None:
    slow_scan(own)
    path = own.mnt / "scan42" / name
    told = path.with_name(path.name + ".progress")
    with own.computing(frames=0):
        assert told.read_text() == "0 %, absent\n"
        assert told.stat().st_size == len("0 %, absent\n")
    process = own.reading("import sys; open(sys.argv[1], 'rb').read()", path)
    seen: list[str] = []

    def complete() -> bool:
        seen.append(told.read_text())
        return process.poll() is not None

    until(complete, "the map is computed", 60)
    done(process)
    assert told.read_text() == "100 %, cached\n"
    assert os.getxattr(path, "user.dadafs.state") == b"cached"
    computing = [line for line in seen if "computing" in line]
    shares = [percent(line) for line in computing]
    assert shares == sorted(shares)
    assert len({share for share in shares if 0 < share < 100}) >= 3
    assert any(re.search(r"[1-9]\d* frames/s, \d+ s left, 1 peer\n", line) for line in computing)


def test_state_of_what_is_computed_is_that(own: Site) -> None:
    slow_scan(own)
    process, _ = read_aside(own, "scan42/darkfield/full.npy")
    path = own.mnt / "scan42/darkfield/full.npy"
    peer = own.pid_of("peer")
    stop(peer)
    try:
        until(lambda: held(own), "the peer is waited for")
        state = os.getxattr(path, "user.dadafs.state")
        of_dpc = os.getxattr(own.mnt / "scan42/dpc/full.tif", "user.dadafs.state")
        line = os.getxattr(path, "user.dadafs.progress").decode()
    finally:
        os.kill(peer, signal.SIGCONT)
        process.kill()
        process.communicate()
    assert state == of_dpc == b"computing"  # the same pass
    assert 0 < percent(line) < 100


def test_progress_is_of_results_alone(shared: Site, raster: ScanMade) -> None:
    top = shared.mnt / "raster"
    for name in (
        "darkfield/full.npy.progress",
        "darkfield/horz=13/full.tif.progress",
        "frames/000007.npy.progress",
        "radial/bins=9.h5.progress",
    ):
        assert LINE.fullmatch((top / name).read_text().rstrip("\n"))
    for name in (
        "darkfield.progress",
        "README.txt.progress",
        "darkfield/README.txt.progress",
        "darkfield/full.progress",
        "darkfield/full.json.progress",
        "darkfield/full.npy.progress.progress",
        "darkfield/horz=0.npy.progress",
        "radial/full.png.progress",
        "raw/raster_master.h5.progress",
    ):
        assert not (top / name).exists(), name
    assert "failed unexpectedly" not in shared.errors()
    contents(top / "darkfield/full.npy")
    assert (top / "dpc/full.tif.progress").read_text() == "100 %, cached\n"


def test_a_copy_that_is_killed_is_not_computed_to_its_end(own: Site) -> None:
    slow_scan(own)
    command = ["cp", own.mnt / "scan42/darkfield/full.npy", own.base / "copy"]
    copy = subprocess.Popen(command)
    until(lambda: any(job["patches_done"] for job in jobs(own)), "a patch is computed")
    copy.kill()
    copy.wait()
    until(lambda: own.stats()["open"]["open_files"] == 0, "the file is closed")
    assert own.stats()["frames_computed"] < 64 * 24
    assert jobs(own) == []


def test_a_reader_that_goes_away_takes_nothing_from_another(own: Site) -> None:
    made = slow_scan(own)
    path = own.mnt / "scan42/darkfield/full.npy"
    first = subprocess.Popen(["cp", path, own.base / "first"])
    second = subprocess.Popen(["cp", path.with_suffix(".tif"), own.base / "second"])
    until(lambda: len(jobs(own)) == 2, "both wait")
    first.kill()
    first.wait()
    assert second.wait(60) == 0
    with own.computing(frames=0):
        assert own.load("scan42/darkfield/full.npy").sum() == made.sums.sum()
        assert (own.base / "second").read_bytes() == contents(path.with_suffix(".tif"))
    assert own.stats()["frames_computed"] == 64 * 24


def test_reads_return_as_their_range_is_ready(own: Site) -> None:
    """What a bar of `pv` or `rsync --progress` shows: the copy grows while the map is computed."""
    make_scan(
        own.raw, horz=400, vert=60, detector="100x100", codec="gzip", unique=4, keep_frames=False
    )
    copy = own.base / "copy"
    source = own.mnt / "scan42/darkfield/full.npy"
    process = subprocess.Popen(["dd", f"if={source}", f"of={copy}", "bs=16k", "status=none"])
    sizes: set[int] = set()

    def ended() -> bool:
        sizes.add(copy.stat().st_size if copy.exists() else 0)
        return process.poll() is not None

    until(ended, "it is copied", 60)
    assert process.returncode == 0
    assert len(sizes) >= 3
