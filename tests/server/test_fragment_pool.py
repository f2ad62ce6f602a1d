"""The pool gives back what was put, or nothing, and stays within its bounds."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import OrderedDict
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from poolmaking import Clock, data, files, fill, get, key, opened, path_of, put, small_disk

from dadafs.blocks import PAGE_BYTES, page_aligned
from dadafs.fragments import FRAGMENT_BYTES, checksum
from dadafs.scans.model import Identity
from dadafs.server.pooling import pool as module
from dadafs.server.pooling.files import HEADER_BYTES, fragment_key
from dadafs.server.pooling.order import surplus
from dadafs.server.pooling.pool import FragmentPool

FILE = 3 * PAGE_BYTES  # what data(number) takes


def test_fragments_survive_a_restart(tmp_path: Path) -> None:
    pool = opened(tmp_path / "pool")
    assert get(pool, 1) is None
    put(pool, 1)
    assert get(pool, 1) == data(1)
    pool.flush()
    assert get(pool, 1) == data(1)
    pool.close()
    pool.close()
    pool = opened(tmp_path / "pool")
    assert (get(pool, 1), get(pool, 2)) == (data(1), None)
    assert pool.counters == {
        "hits": 1,
        "misses": 1,
        "held": 1,
        "held_bytes": FILE,
        "pending_bytes": 0,
    }
    pool.close()


def test_a_fragment_is_read_into_a_buffer_with_its_checksum(tmp_path: Path) -> None:
    pool = opened(tmp_path / "pool")
    for size in (1, 5000, FRAGMENT_BYTES):
        put(pool, size, size)
        for _ in ("pending", "on disk"):
            buffer = memoryview(bytearray(size))
            assert pool.read_into(key(size), buffer) == checksum(data(size, size))
            assert buffer == data(size, size)
            assert pool.read_into(key(size), memoryview(bytearray(size + 1))) is None
            put(pool, size, size)
            pool.flush()
    pool.close()


def test_what_is_no_fragment_is_dropped(tmp_path: Path) -> None:
    pool = opened(tmp_path / "pool")
    put(pool, 1, FRAGMENT_BYTES + 1)
    pool.flush()
    assert get(pool, 1, FRAGMENT_BYTES + 1) is None
    assert pool.counters["dropped"] == 1
    pool.close()
    put(pool, 2)
    assert get(pool, 2) is None


def test_keys_tell_path_content_and_index_apart() -> None:
    identity = Identity(10, 20, 30)
    keys = {
        fragment_key(b"a", identity, 1),
        fragment_key(b"1 a", identity, 1),
        fragment_key(b"a", identity, 2),
        fragment_key(b"a", Identity(11, 20, 30), 1),
        fragment_key(b"a", Identity(10, 21, 30), 1),
        fragment_key(b"a", Identity(10, 20, 31), 1),
        fragment_key(b"a", Identity(-10, 2**80, 0), 1),
    }
    assert len(keys) == 7


@pytest.mark.parametrize(
    ("used", "coming", "spare", "expected"),
    [
        (50, 10, 10, 0),
        (100, 1, 0, 6),
        (0, 10, 5, 0),
        (50, 0, -100, 50),
        (50, 0, 0, 0),
        (10**6, 1, 0, 20_001),
    ],
)
def test_surplus(used: int, coming: int, spare: int, expected: int) -> None:
    assert surplus(used, coming, spare, 20_000) == expected


def test_least_recently_used_go_first(tmp_path: Path) -> None:
    pool = opened(tmp_path / "pool", 40 * FILE)
    fill(pool, range(40))
    assert all(get(pool, number) for number in range(10))
    fill(pool, range(40, 50))
    kept = [number for number in range(50) if path_of(tmp_path / "pool", number).exists()]
    assert kept[:10] == list(range(10))
    assert kept[10:] == list(range(50 - len(kept) + 10, 50))
    assert len(files(tmp_path / "pool")) == pool.counters["held"] == len(kept) <= 40
    pool.close()


Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "get", "get", "damage", "remove", "restart"]),
        st.integers(0, 30),
        st.sampled_from([1, 5000, 9000]),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_against_a_plain_model(steps: list[Step]) -> None:
    """Exactly what an ordered dict with the same rules would hold, and never another byte."""
    quota = 20
    held: OrderedDict[int, int] = OrderedDict()  # sizes, in order of use
    damaged: set[int] = set()
    with TemporaryDirectory() as name:
        directory = Path(name)
        pool = opened(directory, quota * PAGE_BYTES)
        for step, number, size in steps:
            if step == "put":
                put(pool, number, size)
                pool.flush()
                pages = -(-(size + HEADER_BYTES) // PAGE_BYTES)
                used = sum(-(-(s + HEADER_BYTES) // PAGE_BYTES) for s in held.values())
                if used + pages > quota:
                    while held and used + pages > int(0.95 * quota):
                        gone, s = held.popitem(last=False)
                        damaged.discard(gone)
                        used -= -(-(s + HEADER_BYTES) // PAGE_BYTES)
                held.pop(number, None)
                held[number] = size
                damaged.discard(number)
            elif step == "get":
                there = number in held and number not in damaged
                expected = data(number, held[number]) if there else None
                assert get(pool, number, held.get(number, 1)) == expected
                if there:
                    held.move_to_end(number)
                else:
                    held.pop(number, None)
                    damaged.discard(number)
            elif step == "damage" and number in held:
                path = path_of(directory, number)
                content = bytearray(path.read_bytes())
                content[size % len(content)] ^= 1 + number
                path.write_bytes(content)
                damaged ^= {number} if number not in damaged else set()
            elif step == "remove" and number in held:
                path_of(directory, number).unlink()
                damaged.add(number)
                assert get(pool, number, held[number]) is None
                del held[number]
                damaged.discard(number)
            elif step == "restart":
                pool.close()
                for age, one in enumerate(held):
                    os.utime(path_of(directory, one), (age, age))
                pool = opened(directory, quota * PAGE_BYTES)
                for one in held:  # was used long ago, which is noted on the next use
                    now = time.time()
                    os.utime(path_of(directory, one), (now, now))
        on_disk = {path.name for path in files(directory)}
        assert on_disk == {key(number).hex() for number in held}
        assert pool.counters["held"] == len(held)
        assert sum(path.stat().st_size for path in files(directory)) <= quota * PAGE_BYTES
        pool.close()


def test_slow_disk_drops_fragments_instead_of_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE_BYTES", 50_000)
    pool = opened(tmp_path / "pool")
    may_write = threading.Event()
    keep = pool._keep
    monkeypatch.setattr(pool, "_keep", lambda *item: (may_write.wait(30), keep(*item)))
    for number in range(100):
        put(pool, number)
    assert pool.counters["dropped"] == 90
    assert [n for n in range(100) if get(pool, n) == data(n)] == list(range(10))
    may_write.set()
    pool.close()
    assert pool.counters["written"] == 10


def test_hits_before_the_files_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was used meanwhile is younger than what the listing finds."""
    pool = opened(tmp_path / "pool")
    fill(pool, range(20))
    pool.close()
    for number in range(20):
        os.utime(path_of(tmp_path / "pool", number), (number, number))
    may_list = threading.Event()
    shard = FragmentPool._shard
    monkeypatch.setattr(
        FragmentPool, "_shard", lambda self, d: may_list.wait(30) and shard(self, d)
    )
    pool = FragmentPool(tmp_path / "pool", 20 * FILE, keep_free=0.0)
    assert get(pool, 3) == data(3)
    assert get(pool, 20) is None
    put(pool, 20)
    assert get(pool, 20) == data(20)
    may_list.set()
    pool.flush()
    assert list(pool._order)[-2:] in ([key(3), key(20)], [key(20), key(3)])
    assert pool.counters["held"] in (20, 21)
    fill(pool, range(21, 36))
    left = [number for number in range(36) if path_of(tmp_path / "pool", number).exists()]
    assert 3 in left
    assert 4 not in left
    assert 20 * FILE >= pool.counters["held_bytes"] == len(left) * FILE
    pool.close()


def test_nothing_is_evicted_before_all_files_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = opened(tmp_path / "pool")
    fill(pool, range(20))
    pool.close()
    may_end = threading.Event()
    monkeypatch.setattr(
        FragmentPool, "_listing", lambda self: iter(lambda: may_end.wait(0.001) or None, True)
    )
    pool = FragmentPool(tmp_path / "pool", 3 * FILE, keep_free=0.0)
    for number in range(20, 30):
        put(pool, number)
    while pool.counters["pending_bytes"]:
        may_end.wait(0.001)
    may_end.set()
    pool.flush()
    assert pool.counters["written"] == 3
    assert pool.counters["no_room"] == 7
    assert len(files(tmp_path / "pool")) == 23
    pool.close()


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    directory = tmp_path / "pool"
    others = ["ab/notes.tmp", "ab/" + "cd" * 16, "ab/" + "ab" * 16 + ".txt", "README", "zz/x.1.tmp"]
    for name in others:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(b"mine")
    pool = opened(directory, 3 * FILE)
    fill(pool, range(20))
    assert all((directory / name).read_bytes() == b"mine" for name in others)
    pool.close()


def test_leftovers_of_a_crash_are_removed(tmp_path: Path) -> None:
    directory = tmp_path / "pool"
    pool = opened(directory)
    fill(pool, range(10))
    pool.close()
    for number in range(50):
        path = path_of(directory, number)
        path.parent.mkdir(exist_ok=True)
        path.with_name(f"{path.name}.77-{number:08x}.tmp").write_bytes(data(number)[: 10 * number])
    pool = opened(directory)
    assert pool.counters["leftovers"] == 50
    assert len(files(directory)) == 10
    assert [number for number in range(50) if get(pool, number)] == list(range(10))
    pool.close()


def test_use_is_noted_for_the_next_start(tmp_path: Path) -> None:
    pool = opened(tmp_path / "pool")
    fill(pool, range(2))
    paths = [path_of(tmp_path / "pool", number) for number in range(2)]
    for path in paths:
        os.utime(path, (1000, 1000))
    assert get(pool, 1) == data(1)
    assert paths[0].stat().st_mtime == 1000
    assert abs(paths[1].stat().st_mtime - time.time()) < 100
    os.utime(paths[1], (time.time() - 100, time.time() - 100))
    before = paths[1].stat().st_mtime_ns
    assert get(pool, 1) == data(1)
    assert paths[1].stat().st_mtime_ns == before  # not again within the hour
    pool.close()


def test_space_and_inodes_are_kept_free(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=2m") as disk:
        pool = opened(disk / "pool", keep_free=0.25)
        for begin in range(0, 500, 10):
            fill(pool, range(begin, begin + 10))
            found = os.statvfs(disk)
            assert found.f_bavail >= 0.25 * found.f_blocks
        assert get(pool, 499) == data(499)
        assert "write_errors" not in pool.counters
        assert pool.counters["held"] > 100
        (disk / "another").write_bytes(bytes(300_000))
        pool._look_around()  # as it does every so often
        found = os.statvfs(disk)
        assert found.f_bavail >= 0.25 * found.f_blocks
        assert pool.counters["held"] > 20
        pool.close()
    with small_disk(tmp_path / "inodes", "size=20m,nr_inodes=500") as disk:
        pool = opened(disk / "pool", keep_free=0.2)
        fill(pool, range(300))
        fill(pool, range(300, 600))
        found = os.statvfs(disk)
        assert found.f_favail >= 0.19 * found.f_files  # directories of the last file apart
        assert "write_errors" not in pool.counters
        assert get(pool, 599) == data(599)
        pool.close()


def test_a_file_system_that_frees_late_does_not_empty_the_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    pool = FragmentPool(tmp_path / "pool", 1 << 30, keep_free=0.0, clock=clock)
    fill(pool, range(100))
    monkeypatch.setattr(pool, "_spare", lambda: module.Spare(10**6, 0, 10**6))
    fill(pool, range(100, 200))
    assert pool.counters["held"] == 200 - 100 - pool.counters["evicted"]
    assert pool.counters["evicted"] < 10
    clock.now += 31
    fill(pool, range(200, 201))
    assert 5 < pool.counters["evicted"] < 20
    pool.close()


def test_threads_share_a_pool(tmp_path: Path) -> None:
    pool = opened(tmp_path / "pool", 50 * FILE)
    wrong: list[int] = []

    def work(begin: int) -> None:
        for number in range(begin, begin + 300):
            put(pool, number % 200)
            other = number * 7 % 200
            if get(pool, other) not in (None, data(other)):
                wrong.append(other)

    threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    pool.flush()
    assert len(files(tmp_path / "pool")) * FILE <= 50 * FILE
    assert not {"write_errors", "read_errors", "bad_files"} & set(pool.counters)
    pool.close()


@pytest.mark.parametrize("size", [PAGE_BYTES, 2 * PAGE_BYTES, 2 * PAGE_BYTES + 1, FRAGMENT_BYTES])
@pytest.mark.parametrize("refused", ["nothing", "opening", "reading", "writing"])
def test_disks_that_cannot_go_past_the_page_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, refused: str
) -> None:
    direct: set[int] = set()
    opened_direct = 0
    real_open, real_read, real_write = os.open, os.preadv, os.writev

    def refusing(kind: str) -> None:
        if kind == refused:
            raise OSError(errno.EINVAL, "Invalid argument")

    def open_file(path: str, flags: int, mode: int = 0o777) -> int:
        nonlocal opened_direct
        if flags & os.O_DIRECT:
            refusing("opening")
            opened_direct += 1
        fd = real_open(path, flags, mode)
        (direct.add if flags & os.O_DIRECT else direct.discard)(fd)
        return fd

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        if fd in direct:
            refusing("reading")
        return real_read(fd, buffers, offset)

    def writev(fd: int, buffers: list[memoryview]) -> int:
        if fd in direct:
            refusing("writing")
        return real_write(fd, buffers)

    with monkeypatch.context() as patch:
        for name, stand_in in (("open", open_file), ("preadv", preadv), ("writev", writev)):
            patch.setattr(os, name, stand_in)
        pool = opened(tmp_path)
        fill(pool, range(3), size)
        found = page_aligned(size)
        for number in range(3):
            assert pool.read_into(key(number), found) == checksum(data(number, size))
            assert bytes(found) == data(number, size)
        assert pool.counters.get("write_errors", 0) == pool.counters.get("read_errors", 0) == 0
        pool.close()
    assert bool(opened_direct) is (refused != "opening")


def test_files_of_an_older_layout_are_misses(tmp_path: Path) -> None:
    pool = opened(tmp_path)
    fill(pool, range(1))
    pool.close()
    path = path_of(tmp_path, 0)
    path.write_bytes(b"ddaf\1" + path.read_bytes()[5:])
    pool = opened(tmp_path)
    assert get(pool, 0) is None
    assert not path.exists()
    pool.close()
