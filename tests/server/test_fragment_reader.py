"""Fragments are of the content that was asked for, wherever they come from."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from poolmaking import files, opened

from dadafs import fragments
from dadafs.errors import BadData, NoSuchPath, NotPermitted, Stale
from dadafs.fragments import checksum, fragment_sizes
from dadafs.scans.model import Identity
from dadafs.scans.tree import RawTree
from dadafs.server import fragments as module
from dadafs.server.fragments import FragmentReader, FragmentRun, runs
from dadafs.server.pooling.files import fragment_key
from dadafs.server.pooling.pool import FragmentPool

SMALL = 4096  # instead of 1 MiB
TIMES = 50
LONG_AGO_NS = 10**18


@pytest.fixture(autouse=True)
def _small_fragments(monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (module, fragments):
        monkeypatch.setattr(room, "FRAGMENT_BYTES", SMALL)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


@pytest.fixture
def tree(root: Path) -> RawTree:
    return RawTree(root)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[FragmentPool]:
    made = opened(tmp_path / "pool")
    yield made
    made.close()


@pytest.fixture
def reader(tree: RawTree, pool: FragmentPool) -> Iterator[FragmentReader]:
    made = FragmentReader(tree, pool)
    yield made
    made.close()


def write(path: Path, content: bytes, mtime_ns: int = LONG_AGO_NS) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(mtime_ns, mtime_ns))


def swap(path: Path, content: bytes, mtime_ns: int = LONG_AGO_NS) -> None:
    """Replace the file by another one."""
    write(path.with_suffix(".new"), content, mtime_ns)
    os.replace(path.with_suffix(".new"), path)


def content_of(number: int, size: int) -> bytes:
    return random.Random(number).randbytes(size)


def check(run: FragmentRun, content: bytes, first: int, count: int) -> None:
    expected = content[first * SMALL : (first + count) * SMALL]
    pieces = [expected[at : at + SMALL] for at in range(0, len(expected), SMALL)]
    assert b"".join(run.pieces) == expected
    assert run.sizes == tuple(map(len, pieces))
    assert run.sums == tuple(map(checksum, pieces))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 20 * SMALL),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 16)), max_size=12),
)
def test_reads_are_those_of_the_file(size: int, pooled: bool, reads: list[tuple[int, int]]) -> None:
    with TemporaryDirectory() as name:
        root = Path(name) / "raw"
        root.mkdir()
        content = content_of(size, size)
        write(root / "f", content)
        pool = opened(Path(name) / "pool", 10 * 8192) if pooled else None
        reader = FragmentReader(RawTree(root), pool)
        identity = RawTree(root).identity(b"f")
        for first, count in reads:
            if (first + count - 1) * SMALL < size:
                check(reader.read(b"f", identity, first, count), content, first, count)
            else:
                with pytest.raises(BadData, match="ends before"):
                    reader.read(b"f", identity, first, count)
        reader.close()
        if pool is not None:
            pool.close()


def test_a_second_read_leaves_the_source_alone(
    root: Path, reader: FragmentReader, pool: FragmentPool, tree: RawTree
) -> None:
    content = content_of(1, 10 * SMALL + 7)
    write(root / "f", content)
    identity = tree.identity(b"f")
    check(reader.read(b"f", identity, 2, 3), content, 2, 3)
    pool.flush()
    check(reader.read(b"f", identity, 0, 11), content, 0, 11)
    pool.flush()
    check(reader.read(b"f", identity, 0, 11), content, 0, 11)
    assert reader.counters == {"from_pool": 14, "from_source": 11}
    assert pool.counters["written"] == 11


def test_damage_in_the_pool_is_read_again(
    root: Path, reader: FragmentReader, pool: FragmentPool, tree: RawTree, tmp_path: Path
) -> None:
    chance = random.Random(5)
    content = content_of(1, 5 * SMALL + 7)
    write(root / "f", content)
    identity = tree.identity(b"f")
    for _ in range(TIMES):
        reader.read(b"f", identity, 0, 6)
        pool.flush()
        path = chance.choice(files(tmp_path / "pool"))
        stored = bytearray(path.read_bytes())
        stored[chance.randrange(len(stored))] ^= 1 << chance.randrange(8)
        path.write_bytes(stored)
        check(reader.read(b"f", identity, 0, 6), content, 0, 6)
    assert pool.counters["bad_files"] == TIMES
    assert reader.counters["from_source"] == 6 + TIMES


def test_what_cannot_be_asked_for(root: Path, reader: FragmentReader, tree: RawTree) -> None:
    write(root / "f", b"x" * 20 * SMALL)
    write(root / "empty", b"")
    identity = tree.identity(b"f")
    for first, count in [(-1, 1), (0, 0), (0, -1), (0, 17), (20, 1), (19, 2), (2**70, 1)]:
        with pytest.raises(BadData):
            reader.read(b"f", identity, first, count)
    with pytest.raises(BadData, match="ends before fragment 0"):
        reader.read(b"empty", tree.identity(b"empty"), 0, 1)
    with pytest.raises(NoSuchPath):
        reader.read(b"g", identity, 0, 1)
    with pytest.raises(NoSuchPath):
        reader.read(b"", identity, 0, 1)
    with pytest.raises(NoSuchPath):
        reader.read(b"../raw/f", identity, 0, 1)
    (root / "out").symlink_to("/etc/passwd")
    with pytest.raises(NotPermitted):
        reader.read(b"out", identity, 0, 1)
    for wrong in (Identity(0, 0, 0), Identity(-1, 2**100, -1), Identity(2**100, 0, 0)):
        with pytest.raises(Stale):
            reader.read(b"f", wrong, 0, 1)


def replaced(path: Path) -> bytes:
    content = content_of(2, 6 * SMALL)
    swap(path, content, path.stat().st_mtime_ns + 1000)
    return content


def rewritten(path: Path) -> bytes:
    content = content_of(3, 6 * SMALL)
    write(path, content, path.stat().st_mtime_ns + 1000)
    return content


def appended(path: Path) -> bytes:
    before = path.read_bytes()
    content = before + content_of(4, 3000)
    with path.open("ab") as file:
        file.write(content[len(before) :])
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return content


def truncated(path: Path) -> bytes:
    os.truncate(path, 4 * SMALL + 3)
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return path.read_bytes()


CHANGES = [replaced, rewritten, appended, truncated]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_file_that_changed_is_stale_and_its_new_content_is_read(
    root: Path,
    reader: FragmentReader,
    pool: FragmentPool,
    tree: RawTree,
    change: Callable[[Path], bytes],
) -> None:
    for number in range(TIMES):
        content = content_of(1, 6 * SMALL)
        write(root / "f", content, LONG_AGO_NS - 1 - number)
        before = tree.identity(b"f")
        check(reader.read(b"f", before, 0, 6), content, 0, 6)
        pool.flush()
        content = change(root / "f")
        after = tree.identity(b"f")
        for _ in range(2):
            with pytest.raises(Stale, match="f has changed"):
                reader.read(b"f", before, 0, 6)
            check(reader.read(b"f", after, 0, 5), content, 0, 5)
            pool.flush()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_file_that_changes_while_it_is_read(
    root: Path,
    reader: FragmentReader,
    pool: FragmentPool,
    tree: RawTree,
    change: Callable[[Path], bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Either what it was, or an error; and nothing of it comes into the pool under a wrong name."""
    preadv = os.preadv
    for number in range(TIMES):
        content = content_of(1, 6 * SMALL)
        swap(root / "f", content, LONG_AGO_NS - 1 - number)
        before = tree.identity(b"f")
        changed = b""

        def read_half(fd: int, buffers: list[memoryview], offset: int) -> int:
            """Half before, half after."""
            nonlocal changed
            if "/raw/" not in os.readlink(f"/proc/self/fd/{fd}"):
                return preadv(fd, buffers, offset)
            if not changed:
                got = preadv(fd, buffers[: len(buffers) // 2], offset)
                changed = change(root / "f")
                return got
            return preadv(fd, buffers, offset)

        with monkeypatch.context() as patch:
            patch.setattr(os, "preadv", read_half)
            try:
                check(reader.read(b"f", before, 0, 6), content, 0, 6)
                assert change is replaced
            except Stale:
                pass
        assert changed
        pool.flush()
        for index in range(6):
            expected = content[index * SMALL : (index + 1) * SMALL]
            held = memoryview(bytearray(len(expected)))
            found = pool.read_into(fragment_key(b"f", before, index), held)
            assert found is None or held == expected
        after = tree.identity(b"f")
        check(reader.read(b"f", after, 0, 5), changed, 0, 5)


def test_a_file_that_is_replaced_all_the_time(
    root: Path, reader: FragmentReader, tree: RawTree
) -> None:
    """Each content is one byte value, so that a mixture would show."""
    values: dict[Identity, int] = {}
    stop = threading.Event()
    outcomes = {"read": 0, "stale": 0}
    wrong: list[str] = []

    def replace_it() -> None:
        for number in range(1, 150):
            write(root / "g", bytes([number % 251]) * 8 * SMALL, LONG_AGO_NS + number)
            values[tree.identity(b"g")] = number % 251
            os.replace(root / "g", root / "f")
        stop.set()

    def read_it() -> None:
        last = False
        while not last:
            last = stop.is_set()  # the last read finds a file that stays
            identity = tree.identity(b"f")
            try:
                run = reader.read(b"f", identity, 0, 8)
            except Stale:
                outcomes["stale"] += 1
                continue
            outcomes["read"] += 1
            if b"".join(run.pieces) != bytes([values[identity]]) * 8 * SMALL:
                wrong.append(f"{identity} is not {values[identity]}")

    write(root / "f", bytes(8 * SMALL))
    values[tree.identity(b"f")] = 0
    with ThreadPoolExecutor(4) as threads:
        works = [threads.submit(work) for work in (read_it, read_it, read_it, replace_it)]
    for work in works:
        work.result()
    assert not wrong
    assert outcomes["read"] >= 3


def test_what_changed_just_now_is_not_pooled(root: Path, tree: RawTree, pool: FragmentPool) -> None:
    now = LONG_AGO_NS
    reader = FragmentReader(tree, pool, now_ns=lambda: now)
    write(root / "f", b"x" * SMALL, LONG_AGO_NS - 10**9)
    identity = tree.identity(b"f")
    reader.read(b"f", identity, 0, 1)
    pool.flush()
    assert pool.counters["held"] == 0
    now += 10**9
    reader.read(b"f", identity, 0, 1)
    pool.flush()
    assert pool.counters["held"] == 1
    reader.close()


def test_equal_misses_are_one_read_of_the_source(
    root: Path, reader: FragmentReader, tree: RawTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = content_of(1, 20 * SMALL)
    write(root / "f", content)
    identity = tree.identity(b"f")
    read = module._read_exactly
    began, may_read = threading.Event(), threading.Event()

    def slow(*args: object) -> bool:
        began.set()
        assert may_read.wait(30)
        return read(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_read_exactly", slow)
    with ThreadPoolExecutor(8) as threads:
        pending = [threads.submit(reader.read, b"f", identity, 4, 8)]
        assert began.wait(30)
        spans = [(4, 8), (0, 16), (6, 2), (8, 12), (4, 8), (0, 5), (11, 3)]
        pending += [threads.submit(reader.read, b"f", identity, *span) for span in spans]
        may_read.set()
        for span, one in zip([(4, 8), *spans], pending, strict=True):
            check(one.result(30), content, *span)
    assert reader.counters["from_source"] == 20
    assert not reader._flying


def test_those_who_wait_share_the_error(
    root: Path, tree: RawTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root / "f", b"x" * 4 * SMALL)
    identity = tree.identity(b"f")
    reader = FragmentReader(tree, None)
    flight = module._Flight(error=BadData("f cannot be read: Input/output error"))
    flight.landed.set()
    reader._flying[b"f", identity, 2] = flight
    with pytest.raises(BadData, match="Input/output"):
        reader.read(b"f", identity, 0, 4)
    assert list(reader._flying) == [(b"f", identity, 2)]
    reader.close()


def test_those_who_wait_take_over_from_a_thread_that_was_interrupted(
    root: Path, tree: RawTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = content_of(1, 4 * SMALL)
    write(root / "f", content)
    identity = tree.identity(b"f")
    reader = FragmentReader(tree, None)
    read = module._read_exactly
    interrupted = [MemoryError()]

    def fail(*args: object) -> bool:
        if interrupted:
            raise interrupted.pop()
        return read(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_read_exactly", fail)
    with pytest.raises(MemoryError):
        reader.read(b"f", identity, 0, 4)
    assert not reader._flying
    gone = module._Flight()
    reader._flying[b"f", identity, 2] = gone
    waiting = threading.Thread(
        target=lambda: check(reader.read(b"f", identity, 0, 4), content, 0, 4)
    )
    waiting.start()
    del reader._flying[b"f", identity, 2]
    gone.landed.set()
    waiting.join(30)
    assert not waiting.is_alive()
    assert not reader._flying
    reader.close()


@pytest.mark.parametrize(("number", "error"), [(errno.EIO, BadData), (errno.ESTALE, Stale)])
def test_a_source_that_fails(
    root: Path,
    reader: FragmentReader,
    tree: RawTree,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[Exception],
) -> None:
    content = content_of(1, 4 * SMALL)
    write(root / "f", content)
    identity = tree.identity(b"f")

    def fail(*_: object) -> bool:
        raise OSError(number, os.strerror(number))

    for _ in range(TIMES):
        with monkeypatch.context() as patch:
            patch.setattr(module, "_read_exactly", fail)
            with pytest.raises(error, match=r"^f (has changed|cannot be read: Input)"):
                reader.read(b"f", identity, 0, 4)
    assert not open_raw_files(root)
    check(reader.read(b"f", identity, 0, 4), content, 0, 4)


def open_raw_files(root: Path) -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue
        if target.startswith(os.fspath(root) + "/"):
            found.append(target)
    return found


def test_few_descriptors_stay_open(
    root: Path, tree: RawTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = FragmentReader(tree, None)
    for number in range(100):
        write(root / f"f{number}", content_of(number, 2 * SMALL))
    identities = [tree.identity(b"f%d" % number) for number in range(100)]

    def work(number: int) -> None:
        content = content_of(number, 2 * SMALL)
        check(reader.read(b"f%d" % number, identities[number], 0, 2), content, 0, 2)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, [n % 100 for n in range(400)]))
    assert 32 <= len(open_raw_files(root)) <= module.DESCRIPTORS
    (root / "f99").unlink()
    with pytest.raises(NoSuchPath):
        reader.read(b"f99", identities[99], 0, 1)
    assert not [path for path in open_raw_files(root) if "deleted" in path]
    monkeypatch.setattr(module, "IDLE_S", -1.0)
    reader.read(b"f1", identities[1], 0, 1)
    assert not open_raw_files(root)
    monkeypatch.undo()
    for room in (module, fragments):
        monkeypatch.setattr(room, "FRAGMENT_BYTES", SMALL)
    work(2)
    reader.close()
    assert not open_raw_files(root)


def test_sizes_and_runs() -> None:
    assert fragment_sizes(2 * SMALL + 5, 0, 3) == (SMALL, SMALL, 5)
    assert fragment_sizes(2 * SMALL, 1, 3) == (SMALL,)
    assert fragment_sizes(0, 0, 3) == ()
    assert runs([]) == []
    assert runs([1, 2, 4, 5, 6, 9]) == [[1, 2], [4, 5, 6], [9]]
