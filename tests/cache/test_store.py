"""The store keeps what it can and never fails its user."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
from hashlib import blake2b
from pathlib import Path

import pytest

from dadafs.cache import store as module
from dadafs.cache.store import Store

MAP = 8 << 20


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def opened(path: Path) -> Store:
    return Store(path, MAP)


def fill(path: Path, count: int = 10, size: int = 1000) -> None:
    store = opened(path)
    for number in range(count):
        store.put(key(number), bytes([number % 256]) * size)
    store.close()


def test_values_survive_a_restart(tmp_path: Path) -> None:
    store = opened(tmp_path / "i")
    assert store.get(key(1)) is None
    store.put(key(1), b"one")
    assert store.get(key(1)) == b"one"
    store.put(key(1), b"eins")
    assert store.get(key(1)) == b"eins"
    store.close()
    store.close()
    store = opened(tmp_path / "i")
    assert (store.get(key(1)), store.get(key(2))) == (b"eins", None)
    assert store.counters == {"hits": 1, "misses": 1}
    store.close()


def test_another_process_reads_what_was_written(tmp_path: Path) -> None:
    fill(tmp_path / "i", 200)
    store = opened(tmp_path / "i")
    code = (
        "import sys; from pathlib import Path; from dadafs.cache.store import Store;"
        f"s = Store(Path(sys.argv[1]), map_bytes={MAP});"
        "print(len(s.get((150).to_bytes(16, 'big')))); s.put(b'new', b'value'); s.close()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, os.fspath(tmp_path / "i")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1000\n"
    assert store.get(b"new") == b"value"
    assert store.get(key(199)) == b"\xc7" * 1000
    store.close()


def test_recent_values_come_from_memory_and_are_bounded(tmp_path: Path) -> None:
    store = Store(tmp_path / "i", MAP, recent_bytes=2500)
    for number in range(50):
        store.put(key(number), b"x" * 1000)
    store.flush()
    assert store._recent.used_bytes == 2000
    assert store.get(key(0)) == store.get(key(49)) == b"x" * 1000
    store.close()


def test_full_store_drops_the_oldest(tmp_path: Path) -> None:
    store = opened(tmp_path / "i")
    for number in range(12000):
        store.put(key(number), bytes([number % 256]) * 1000)
        assert store.get(key(number)) == bytes([number % 256]) * 1000
        if number % 50 == 0:
            store.flush()
    counters = store.counters
    assert counters["evicted"] > 4000
    assert not {"emptied", "full", "write_errors", "dropped"} & set(counters)
    store.close()
    store = opened(tmp_path / "i")
    kept = [number for number in range(12000) if store.get(key(number)) is not None]
    assert kept == list(range(kept[0], 12000))
    assert len(kept) > 0.25 * MAP / 1000  # pages are half full after keys in order
    store.close()


def test_value_written_anew_is_young(tmp_path: Path) -> None:
    store = opened(tmp_path / "i")
    for number in range(12000):
        store.put(key(number), b"x" * 1000)
        if number % 100 == 0:
            store.put(key(0), b"kept")
            store.flush()
    store.flush()
    assert store.get(key(0)) == b"kept"
    assert store.get(key(1)) is None
    store.close()


def test_value_that_never_fits_is_not_kept(tmp_path: Path) -> None:
    fill(tmp_path / "i", 3)
    store = opened(tmp_path / "i")
    store.put(key(9), b"x" * 2 * MAP)
    assert store.get(key(9)) is None
    store.flush()
    assert store.counters["too_large"] == 1
    assert (store.get(key(1)), store.get(key(2))) == (b"\1" * 1000, b"\2" * 1000)
    store.close()


def test_map_that_fills_up_unnoticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FULL", 9.0)
    monkeypatch.setattr(module, "DROPS", 0)
    store = opened(tmp_path / "i")
    for number in range(12000):
        store.put(key(number), bytes([number % 256]) * 1000)
        if number % 50 == 0:
            store.flush()
    store.close()
    assert store.counters["full"] >= 1
    store = opened(tmp_path / "i")
    for number in range(12000):
        assert store.get(key(number)) in (None, bytes([number % 256]) * 1000)
    store.close()


def test_slow_disk_drops_values_instead_of_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path / "i")
    may_write = threading.Event()
    write = store._write
    monkeypatch.setattr(store, "_write", lambda pairs: (may_write.wait(30), write(pairs)))
    monkeypatch.setattr(module, "PENDING_BYTES", 100_000)
    for number in range(1000):
        store.put(key(number), b"x" * 1000)
    assert store.counters["dropped"] > 700
    may_write.set()
    store.close()


def test_damaged_values_are_misses(tmp_path: Path) -> None:
    fill(tmp_path / "i", 10)
    data = tmp_path / "i/data.mdb"
    content = data.read_bytes()
    at = content.index(b"\5" * 1000)
    data.write_bytes(content[: at + 500] + b"!" + content[at + 501 :])
    store = opened(tmp_path / "i")
    assert [number for number in range(10) if store.get(key(number)) is None] == [5]
    assert store.counters["bad_sums"] == 1
    store.put(key(5), b"again")
    store.close()
    store = opened(tmp_path / "i")
    assert store.get(key(5)) == b"again"
    store.close()


@pytest.mark.parametrize("content", [b"garbage" * 10_000, b"\0" * 100_000, b"x"])
def test_unreadable_store_is_replaced(tmp_path: Path, content: bytes) -> None:
    fill(tmp_path / "i")
    (tmp_path / "i/data.mdb").write_bytes(content)
    for _ in range(2):
        store = opened(tmp_path / "i")
        store.put(key(1), b"one")
        assert store.get(key(1)) == b"one"
        store.close()
    assert (tmp_path / "i.unreadable/data.mdb").read_bytes() == content
    store = opened(tmp_path / "i")
    assert store.get(key(1)) == b"one"
    assert "open_errors" not in store.counters
    store.close()


def test_truncated_store_is_replaced(tmp_path: Path) -> None:
    """To read the missing part of a mapped file would end the process."""
    fill(tmp_path / "i", 100)
    data = tmp_path / "i/data.mdb"
    os.truncate(data, data.stat().st_size // 2 // 4096 * 4096)
    store = opened(tmp_path / "i")
    assert [store.get(key(number)) for number in range(100)] == [None] * 100
    assert store.counters["open_errors"] == 1
    store.put(key(1), b"one")
    store.close()


def test_store_that_is_truncated_while_it_is_open(tmp_path: Path) -> None:
    fill(tmp_path / "i", 100)
    store = opened(tmp_path / "i")
    assert store.get(key(1)) is not None
    os.truncate(tmp_path / "i/data.mdb", 8192)
    assert [store.get(key(number)) for number in range(100)] == [None] * 100
    assert store.heads([key(2)], 4) == {}
    store.put(key(200), b"new")
    store.flush()
    assert (store.counters["read_errors"], store.counters["write_errors"]) == (101, 1)
    store.close()
    store = opened(tmp_path / "i")  # is replaced
    assert store.counters["open_errors"] == 1
    store.put(key(1), b"one")
    store.close()


def test_store_that_is_removed_while_it_is_open(tmp_path: Path) -> None:
    fill(tmp_path / "i")
    store = opened(tmp_path / "i")
    shutil.rmtree(tmp_path / "i")
    assert store.get(key(1)) == b"\1" * 1000
    store.put(key(20), b"new")
    store.close()
    assert store.counters["written"] == 1


def test_no_store_at_all(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = opened(tmp_path / "file/i")
    store.put(key(1), b"one")
    assert (store.get(key(1)), store.get(key(2))) == (None, None)
    assert store.counters["open_errors"] == 1
    store.close()


def test_store_that_is_open_already_is_left_alone(tmp_path: Path) -> None:
    store = opened(tmp_path / "i")
    other = opened(tmp_path / "i")
    other.put(key(1), b"one")
    assert other.get(key(1)) is None
    assert other.counters["open_errors"] == 1
    other.close()
    store.put(key(2), b"two")
    store.close()
    assert os.listdir(tmp_path) == ["i"]
    store = opened(tmp_path / "i")
    assert (store.get(key(1)), store.get(key(2))) == (None, b"two")
    store.close()


def test_threads_share_a_store(tmp_path: Path) -> None:
    store = opened(tmp_path / "i")
    wrong: list[int] = []

    def work(begin: int) -> None:
        for number in range(begin, begin + 300):
            store.put(key(number % 400), key(number % 400) * 20)
            found = store.get(key((number * 7) % 400))
            if found is not None and found != key((number * 7) % 400) * 20:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    store.flush()
    assert store.get(key(123)) == key(123) * 20
    store.close()


@pytest.mark.parametrize("size", [600, 3000])
def test_full_store_drops_the_oldest_of_keys_in_no_order(tmp_path: Path, size: int) -> None:
    """Keys are digests: values that come or go together lie far apart, a page each."""
    keys = [blake2b(key(number), digest_size=32).digest() for number in range(3 * MAP // size)]
    store = opened(tmp_path / "i")
    for number, one in enumerate(keys):
        store.put(one, bytes([number % 256]) * size)
        if number % (MAP // 30 // size) == 0:
            store.flush()
    store.flush()
    counters = store.counters
    assert counters["evicted"] > len(keys) / 3
    assert not {"emptied", "full", "write_errors", "dropped"} & set(counters)
    store.close()
    store = opened(tmp_path / "i")
    kept = [number for number, one in enumerate(keys) if store.get(one) is not None]
    assert kept == list(range(kept[0], len(keys)))
    assert len(kept) * size > 0.15 * MAP  # half of a page is keys or free
    store.close()


def test_large_values_find_room_between_small_ones(tmp_path: Path) -> None:
    """A value of twenty pages needs them side by side."""
    chance = random.Random(1)
    store = Store(tmp_path / "i", MAP // 2)
    sizes: dict[bytes, int] = {}
    while sum(sizes.values()) < 3 * MAP:
        one = blake2b(key(len(sizes)), digest_size=32).digest()
        sizes[one] = chance.choice((600, 3000, 3000, chance.randrange(20_000, 79_000)))
        store.put(one, bytes(sizes[one]))
        if store._pending_bytes > MAP // 64:
            store.flush()
    store.flush()
    counters = store.counters
    assert counters["scattered"] > 0
    assert not {"emptied", "full", "write_errors", "dropped"} & set(counters)
    kept = [number for number, one in enumerate(sizes) if store.get(one) == bytes(sizes[one])]
    assert kept == list(range(kept[0], len(sizes)))
    assert sum(list(sizes.values())[kept[0] :]) > 0.3 * MAP / 2
    store.close()


def test_portions_touch_few_pages() -> None:
    pairs = {key(number): bytes(size) for number, size in enumerate((10, 9000, 10, 10, 90000, 10))}
    parts = list(module.portions(pairs, 7))
    assert [len(part) for part in parts] == [2, 2, 1, 1]
    assert list({k: v for part in parts for k, v in part.items()}.items()) == list(pairs.items())
    assert list(module.portions({}, 7)) == []
