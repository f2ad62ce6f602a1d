"""Processes that are killed and crowds that read: the numbers are right, and nothing hangs."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path

import plain
import pytest
from mounting import PATIENCE_S, Site, contents, done, until
from numpy.testing import assert_array_equal

from dadafs.client.farming.farm import STALL_S
from tools.scan_maker import ScanMade, make_scan

pytestmark = pytest.mark.mount

COPY = """
import sys
with open(sys.argv[1], "rb") as there, open(sys.argv[2], "wb") as here:
    here.write(there.read())
"""
# So much that the kernel reads ahead of it, as of what is read to its end.
BEGINNING = """
import sys, time
with open(sys.argv[1], "rb", buffering=0) as file:
    while file.tell() < 384 << 10:
        file.read(128 << 10)
    print("here", flush=True)
    time.sleep(1000)
"""
# All readers begin at once; each tells the number of its file and the digest of what it read.
CROWD = """
import hashlib, json, os, sys, threading
threading.stack_size(256 << 10)
paths, readers = json.loads(open(sys.argv[1]).read()), int(sys.argv[2])
together = threading.Barrier(readers)
found = [None] * readers

def read(number):
    together.wait()
    try:
        with open(paths[number % len(paths)], "rb") as file:
            found[number] = hashlib.md5(file.read()).hexdigest()
    except OSError as error:
        found[number] = str(error)

threads = [threading.Thread(target=read, args=[n], daemon=True) for n in range(readers)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(60)
print(json.dumps(found))
os._exit(0)
"""


def slow_scan(site: Site) -> ScanMade:
    """A scan that takes seconds: 24 patches of frames that no kernel reads."""
    return make_scan(
        site.raw, horz=64, vert=24, detector="400x400", codec="gzip", unique=4, keep_frames=False
    )


def read_aside(site: Site, path: str, *, patches: int = 1) -> tuple[subprocess.Popen[bytes], Path]:
    """A process that copies a file of the mount, when so many of its patches are there."""
    copy = site.base / "copy"
    process = site.reading(COPY, site.mnt / path, copy)
    until(lambda: any(job["patches_done"] >= patches for job in jobs(site)), "patches are computed")
    return process, copy


def jobs(site: Site) -> list[dict[str, int]]:
    """What is read now and has to be computed."""
    found: list[dict[str, int]] = json.loads((site.mnt / ".dadafs/jobs.json").read_text())["jobs"]
    return found


def stop(pid: int) -> None:
    """Have a process do nothing any more."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "T", "is stopped")


def held(site: Site) -> bool:
    """Whether patches are wanted of a peer that is stopped. Looks twice: what it had sent before
    is taken by the mount between two answers of its own."""
    before, after = (
        [(job["patches_done"], job["patches_wanted"]) for job in jobs(site)] for _ in range(2)
    )
    return before == after and any(done < wanted for done, wanted in after)


def test_a_peer_that_is_killed_in_the_middle_of_a_read(own: Site) -> None:
    made = slow_scan(own)
    path = "scan42/darkfield/horz=64/vert=24.npy"
    killed = own.pid_of("peer")
    process, copy = read_aside(own, path, patches=6)  # on connections that were used before
    stop(killed)  # so that what it is about to compute stays with it
    until(lambda: held(own), "the peer is waited for")
    os.kill(killed, signal.SIGKILL)
    done(process)
    assert copy.read_bytes() == contents(own.mnt / path)
    assert_array_equal(own.load(path), plain.folded(made.sums, 64, 24))
    stats = own.stats()
    assert stats["processes"] == {"server": 1, "peer": 2}
    assert stats["farm"]["patches_retried"] >= 1
    assert "patch lost, attempt 1 of 4" in own.errors()
    assert own.pid_of("peer") != killed
    assert "the peer ended (signal 9); it is started again" in own.errors()


def test_a_server_that_is_killed(own: Site) -> None:
    first = make_scan(own.raw, name="first", horz=5, vert=4)
    assert_array_equal(own.load("first/darkfield/horz=5.npy"), plain.folded(first.sums, 5, 4))
    killed = own.pid_of("server")
    os.kill(killed, signal.SIGKILL)
    second = make_scan(own.raw, name="second", horz=6, vert=4)
    assert_array_equal(own.load("second/darkfield/horz=6.npy"), plain.folded(second.sums, 6, 4))
    assert_array_equal(own.load("first/darkfield/horz=4.npy"), plain.folded(first.sums, 4, 5))
    assert "the server ended (signal 9); it is started again" in own.errors()
    assert own.pid_of("server") != killed


def test_sigterm_under_load(own: Site) -> None:
    slow_scan(own)
    mount = own.pid_of("mount")
    peer = own.pid_of("peer")
    process, _ = read_aside(own, "scan42/darkfield/full.npy")
    stop(peer)  # so that what is read comes only long after the end
    until(lambda: held(own), "the peer is waited for")
    os.kill(mount, signal.SIGTERM)
    own.wait_gone(STALL_S / 2)
    _, complaint = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert b"OSError" in complaint or b"ConnectionAbortedError" in complaint
    assert os.listdir(own.mnt) == []


def test_umount_while_what_was_read_ahead_is_computed(own: Site) -> None:
    make_scan(
        own.raw,
        horz=1024,
        vert=128,
        detector="8x8",
        codec="gzip",
        unique=4,
        images_per_file=1024 * 128,
        keep_frames=False,
    )
    peer = own.pid_of("peer")
    process = own.reading(BEGINNING, own.mnt / "scan42/darkfield/full.npy")
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    stop(peer)
    until(lambda: held(own), "the peer is waited for")
    process.kill()
    process.communicate()
    own.unmount()


def test_an_abandoned_read_is_not_computed_to_its_end(own: Site) -> None:
    slow_scan(own)
    process, _ = read_aside(own, "scan42/darkfield/full.npy")
    process.kill()
    process.communicate()
    until(lambda: own.stats()["open"]["open_files"] == 0, "the file is closed")
    assert own.stats()["frames_computed"] < 64 * 24


def test_a_thousand_readers_of_two_hundred_results(shared: Site) -> None:
    made = make_scan(shared.raw, name="crowd", horz=12, vert=8, detector="48x40")
    names, expected = [], []
    for number in range(200):
        x, y = number % 20, number // 20
        extension = "npy" if number % 2 else "tif"
        names.append(f"crowd/darkfield/roi={x},{y},20,30/horz=12.{extension}")
        chosen = plain.selection(made, roi=(x, y, 20, 30))
        expected.append(plain.folded(plain.counts(made, chosen), 12, 8))
    listed = shared.base / "crowd.json"
    listed.write_text(json.dumps([str(shared.mnt / name) for name in names]))
    with shared.computing(frames=200 * 96):  # whoever wants the same waits for the same
        found = json.loads(done(shared.reading(CROWD, listed, "1000"), 90))
    sums = [hashlib.md5(contents(shared.mnt / name)).hexdigest() for name in names]
    assert [found[number] for number in range(1000)] == sums * 5
    for name, numbers in zip(names, expected, strict=True):
        if name.endswith("npy"):
            assert_array_equal(shared.load(name), numbers)
    until(lambda: shared.stats()["open"]["open_files"] == 0, "nothing is open")
