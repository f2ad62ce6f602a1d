"""A tree that was walked is walked again without a word to the server."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from loopback import HOST, Mount, daemon, fuse_missing, mount, until

from dadafs.config import FRESH_S
from tools.scan_maker import make_scan

pytestmark = [pytest.mark.mount, pytest.mark.slow]
DIRECTORIES, FILES = 100, 99  # with the directories, 10 000 entries
MEMORY_BYTES = 250 << 20


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount of a server with many files and a few scans."""
    if reason := fuse_missing():
        pytest.skip(reason)
    base = tmp_path_factory.mktemp("wide")
    for number in range(DIRECTORIES):
        directory = base / f"raw/d{number:03}"
        directory.mkdir(parents=True)
        for other in range(FILES):
            (directory / f"f{other:03}.txt").touch()
    for number in range(3):
        make_scan(base / "raw/d000", name=f"s{number}", horz=4, vert=2)
    with (
        daemon(base / "server", "server", "--root", base / "raw", "--listen", f"{HOST}:0") as made,
        mount(f"tcp://{HOST}:{made.port}", "--no-local-peer") as mounted,
    ):
        yield mounted


def calls(made: Mount) -> int:
    """How often the mount has asked the server, this question apart."""
    found = made.stats()["link"]
    return int(found["calls"])


def walk(made: Mount) -> int:
    """All that `ls -lR` shows."""
    done = subprocess.run(["ls", "-lR", made.mnt], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return len(done.stdout.splitlines())


def quietly(made: Mount, what: str, walk_it: object) -> None:
    """Assert that something done twice asks nothing the second time, while it is fresh."""
    assert callable(walk_it)

    def asks_nothing() -> bool:
        began = time.monotonic()
        walk_it()
        before = calls(made)
        walk_it()
        asked = calls(made) - before - 1
        late = time.monotonic() - began > FRESH_S - 0.5
        assert late or asked == 0, f"{asked} calls"
        return asked == 0

    until(asks_nothing, what, 60)


def test_warm_walk_asks_nothing(tree: Mount) -> None:
    began = time.monotonic()
    shown = walk(tree)
    cold_s = time.monotonic() - began
    assert shown > DIRECTORIES * (FILES + 1)
    quietly(tree, "a warm walk without a call", lambda: walk(tree))
    print(f"cold walk {cold_s:.1f} s")
    assert tree.stats()["memory_bytes"] < MEMORY_BYTES


def test_names_that_are_not_there(tree: Mount) -> None:
    """Shells, editors and desktops ask for many a name that is not there."""
    names = [f"d{n:03}/{name}" for n in range(20) for name in (".git", "nothing", ".hidden/x")]
    names += ["d000/s0/darkfeld", "d000/s0/darkfield/full.xyz", "d000/s9", "nowhere/at/all"]

    def look() -> None:
        for name in names:
            with suppress(FileNotFoundError):
                (tree.mnt / name).stat()
                raise AssertionError(name)

    quietly(tree, "names that are known not to be there", look)


def test_new_files_are_seen(tree: Mount, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is believed, is believed for a few seconds."""
    raw = tmp_path_factory.getbasetemp() / "wide0/raw"
    name = Path("d001/new.txt")
    assert not (tree.mnt / name).exists()
    (raw / name).write_text("new")
    began = time.monotonic()
    until((tree.mnt / name).exists, "the new file", 20)
    assert time.monotonic() - began < FRESH_S + 3
    assert (tree.mnt / name).read_text() == "new"


def test_raw_file_that_changes_is_stale(
    tree: Mount, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What was open of it is not mixed with what it is now; who opens it anew gets that."""
    raw = tmp_path_factory.getbasetemp() / "wide0/raw/changing"
    size = 24 << 20  # more than is read ahead
    raw.write_bytes(b"a" * size)
    shown = tree.mnt / "changing"
    until(shown.exists, "the file is seen", 20)
    with shown.open("rb", buffering=0) as file:
        assert file.read(4096) == b"a" * 4096
        raw.write_bytes(b"b" * size)
        os.utime(raw, (2e9, 2e9))
        file.seek(size - 4096)
        with pytest.raises(OSError, match="tale") as caught:
            file.read(4096)
        assert caught.value.errno == errno.ESTALE
    assert "changing has changed" in tree.text("errors.log")

    def anew() -> bool:
        with suppress(OSError):
            return shown.read_bytes() == b"b" * size
        return False

    until(anew, "the new content", 20)
