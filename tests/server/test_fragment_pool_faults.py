"""Whatever happens to its disk, the pool serves no wrong byte, raises nothing, and recovers."""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from poolmaking import (
    Clock,
    data,
    files,
    fill,
    get,
    key,
    opened,
    path_of,
    put,
    small_disk,
)

from dadafs.server.pooling import pool as module
from dadafs.server.pooling.files import HEADER_BYTES
from dadafs.server.pooling.pool import FragmentPool

TIMES = 50


def flip(content: bytearray, chance: random.Random) -> None:
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def flip_in_header(content: bytearray, chance: random.Random) -> None:
    content[chance.randrange(HEADER_BYTES)] ^= 1 << chance.randrange(8)


def truncate(content: bytearray, chance: random.Random) -> None:
    del content[chance.randrange(len(content)) :]


def tear(content: bytearray, chance: random.Random) -> None:
    """The length is right but some pages never came to the disk."""
    begin = chance.randrange(len(content))
    size = min(4096, len(content) - begin)
    content[begin : begin + size] = bytes(size)


def lengthen(content: bytearray, chance: random.Random) -> None:
    content += chance.randbytes(chance.randrange(1, 9000))


def replace(content: bytearray, chance: random.Random) -> None:
    content[:] = chance.randbytes(len(content))


DAMAGES = [flip, flip_in_header, truncate, tear, lengthen, replace]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_files_are_misses(
    tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(1)
    pool = opened(tmp_path)
    fill(pool, range(TIMES), 12_000)
    for number in range(TIMES):
        path = path_of(tmp_path, number)
        content = bytearray(path.read_bytes())
        before = bytes(content)
        while content == before:
            damage(content, chance)  # type: ignore[operator]
        path.write_bytes(content)
        assert pool.read_into(key(number), memoryview(bytearray(12_000))) is None
        assert not path.exists()
        put(pool, number, 12_000)
        pool.flush()
        path.write_bytes(content)
        assert get(pool, number, 12_000) is None
        put(pool, number, 12_000)
        pool.flush()
        assert get(pool, number, 12_000) == data(number, 12_000)
    assert pool.counters["bad_files"] == 2 * TIMES
    assert pool.counters["held"] == TIMES
    assert len([record for record in caplog.records if "bad files" in record.message]) == 1
    pool.close()


def test_files_in_the_place_of_others_are_misses(tmp_path: Path) -> None:
    pool = opened(tmp_path)
    fill(pool, range(TIMES))
    for number in range(1, TIMES):
        os.replace(path_of(tmp_path, number), path_of(tmp_path, 0))
        assert get(pool, 0) is None
        assert get(pool, number) is None
    pool.close()


def test_full_disk(tmp_path: Path) -> None:
    """As it is met when others fill it: between looking at the space and writing."""
    clock = Clock()
    with small_disk(tmp_path / "disk", "size=512k") as disk:
        pool = FragmentPool(disk, 1 << 30, keep_free=0.0, clock=clock)
        pool.flush()
        pool._spare = lambda: module.Spare(10**6, 10**6, 10**6)  # type: ignore[method-assign]
        for number in range(TIMES):
            clock.now += module.RETRY_S + 1
            fill(pool, range(number * 100, number * 100 + 100), 9000)
            for one in range(max(0, number * 100 - 100), number * 100 + 100):
                assert get(pool, one, 9000) in (None, data(one, 9000))
        counters = pool.counters
        assert counters["write_errors"] >= TIMES - 5
        assert counters["dropped"] > 10 * TIMES
        assert counters["written"] > 2 * TIMES  # goes on once there is room
        assert not [path for path in files(disk) if path.suffix]
        pool.close()


def test_read_only_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with small_disk(tmp_path / "disk", "size=4m") as disk:
        pool = FragmentPool(disk / "pool", 1 << 30, keep_free=0.0, clock=clock)
        fill(pool, range(TIMES))
        mode = "ro"
        for number in range(TIMES):
            subprocess.run(["mount", "-o", f"remount,{mode}", os.fspath(disk)], check=True)
            clock.now += module.RETRY_S + 1
            fill(pool, range(TIMES + number, TIMES + number + 1))
            assert get(pool, number) == data(number)
            expected = None if mode == "ro" else data(TIMES + number)
            assert get(pool, TIMES + number) == expected
            mode = "rw" if mode == "ro" else "ro"
        assert pool.counters["write_errors"] == TIMES // 2
        said = [record.message for record in caplog.records]
        assert 1 <= len(said) <= (TIMES * 11) // 60 + 1
        assert "Read-only file system; going on without" in said[0]
        pool.close()


def test_pool_on_a_read_only_disk_from_the_start(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=4m") as disk:
        pool = opened(disk)
        fill(pool, range(10))
        pool.close()
        path = path_of(disk, 3)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        path.with_name(f"{path.name}.1-1.tmp").write_bytes(b"")
        subprocess.run(["mount", "-o", "remount,ro", os.fspath(disk)], check=True)
        pool = opened(disk, 5 * 8192)
        put(pool, 10)
        for _ in range(2):
            got = [get(pool, number) for number in range(11)]
            pool.flush()
        assert got == [*(data(n) if n != 3 else None for n in range(10)), None]
        assert pool.counters["scan_errors"] == 1
        pool.close()


def test_directory_that_goes_and_comes(tmp_path: Path) -> None:
    clock = Clock()
    directory = tmp_path / "pool"
    pool = FragmentPool(directory, 1 << 30, keep_free=0.0, clock=clock)
    for number in range(TIMES):
        fill(pool, range(5))
        assert [get(pool, n) for n in range(5)] == [data(n) for n in range(5)]
        if number % 3 == 0:
            shutil.rmtree(directory)
        elif number % 3 == 1:
            os.rename(directory, tmp_path / f"aside{number}")
        else:
            shutil.rmtree(directory)
            directory.write_bytes(b"a file")
            assert [get(pool, n) for n in range(5)] == [None] * 5
            fill(pool, range(5, 7))
            assert directory.read_bytes() == b"a file"
            directory.unlink()
            clock.now += module.RETRY_S + 1
        assert [get(pool, n) for n in range(5)] == [None] * 5
    assert pool.counters["held"] == 0
    assert {"read_errors", "write_errors"} <= set(pool.counters)
    pool.close()


def test_directory_that_comes_late_is_listed(tmp_path: Path) -> None:
    """An SSD that is mounted after the start."""
    pool = opened(tmp_path / "ssd")
    fill(pool, range(5))
    pool.close()
    pool = opened(tmp_path / "pool")
    put(pool, 10)
    pool.flush()
    os.rename(tmp_path / "pool", tmp_path / "aside")
    os.rename(tmp_path / "ssd", tmp_path / "pool")
    fill(pool, range(11, 12))
    assert pool.counters["held"] == 6
    assert get(pool, 10) is None
    assert get(pool, 4) == data(4)
    pool.close()


def test_no_directory_at_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    pool = opened(tmp_path / "file" / "pool")
    for number in range(TIMES):
        fill(pool, range(number, number + 1))
        assert get(pool, number) is None
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 2  # of reading and of writing
    assert pool.counters["dropped"] == TIMES
    pool.close()


def test_disk_that_fails_to_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    pool = FragmentPool(tmp_path, 1 << 30, keep_free=0.0, clock=clock)
    fill(pool, range(TIMES))
    asked = 0

    def fail(*_: object) -> int:
        nonlocal asked
        asked += 1
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", fail)
        assert [get(pool, number) for number in range(TIMES)] == [None] * TIMES
    assert asked == module.READ_FAILURES  # then it is left in peace for a while
    assert get(pool, TIMES - 1) is None
    clock.now += module.RETRY_S + 1
    assert get(pool, TIMES - 1) == data(TIMES - 1)
    assert len([record for record in caplog.records if "Input/output" in record.message]) == 1
    pool.close()


def test_disk_that_fails_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Halfway through a file, too."""
    clock = Clock()
    pool = FragmentPool(tmp_path, 1 << 30, keep_free=0.0, clock=clock)
    pool.flush()
    chance = random.Random(3)
    write = os.write

    def fail(fd: int, rest: list[memoryview]) -> int:
        if chance.random() < 0.1:
            raise OSError(errno.EIO, "Input/output error")
        return write(fd, rest[0][: chance.randrange(1, len(rest[0]) + 1)])

    monkeypatch.setattr(os, "writev", fail)
    for number in range(TIMES):
        clock.now += module.RETRY_S + 1
        fill(pool, range(number, number + 1))
        assert get(pool, number) in (None, data(number))
    assert pool.counters["write_errors"] + pool.counters["written"] == TIMES
    assert pool.counters["written"] == len(files(tmp_path)) > 0
    pool.close()


KILLED = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from poolmaking import FragmentPool, put

for round in range(int(sys.argv[3])):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        pool = FragmentPool(Path(sys.argv[2]), 60 * 70_000, keep_free=0.0)
        for number in range(10**9):
            put(pool, number % 100, 60_000 + number % 100)
            os.write(writing, b"w" if pool.counters.get("written") else b".")
    for _ in range(3 + 7 * round % 40):
        os.read(reading, 1)
    time.sleep(round % 5 * 0.02)
    while round % 5 == 4 and os.read(reading, 1) != b"w":
        pass  # on a busy machine nothing may be written in any time
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)
    print("killed", flush=True)
    sys.stdin.readline()
"""


def test_killed_while_it_writes(tmp_path: Path) -> None:
    here = os.fspath(Path(__file__).parent)
    directory = tmp_path / "pool"
    expected = {number: data(number, 60_000 + number) for number in range(100)}
    served = 0
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, here, os.fspath(directory), str(TIMES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as killer:
        assert killer.stdin is not None
        assert killer.stdout is not None
        for _ in range(TIMES):
            assert killer.stdout.readline() == "killed\n"
            pool = opened(directory, 60 * 70_000)
            for number in range(100):
                found = get(pool, number, 60_000 + number)
                assert found in (None, expected[number])
                served += found is not None
            assert not [path for path in files(directory) if path.suffix]
            pool.close()
            killer.stdin.write("\n")
            killer.stdin.flush()
    assert killer.returncode == 0
    assert served > 0
