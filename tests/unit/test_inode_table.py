"""Inode numbers are stable, distinct, and remembered exactly as long as the kernel does."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dadafs.client.fuse import inodes
from dadafs.client.fuse.inodes import ROOT_INODE, InodeTable

NAMES = st.sampled_from([b"", b"a", b"b", b"a/b", b"\xff", b"scan/dpc/full.npy"])


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(NAMES, st.integers(-3, 3))))
def test_table_counts_as_the_kernel_does(steps: list[tuple[bytes, int]]) -> None:
    """Positive steps look up so often, others forget so many lookups."""
    table = InodeTable()
    counts: Counter[bytes] = Counter()
    for name, step in steps:
        for _ in range(step):
            assert table.remember(name, name) == table.number(name)
            counts[name] += 1
        if step <= 0:
            table.forget(table.number(name), -step)
            counts[name] = max(counts[name] + step, 0)
        held = {name for name, count in counts.items() if count} | {b""}
        assert len(table) == len(held)
        assert {table[table.number(name)].path for name in held} == held
        for name in held - {b""}:
            assert table[table.number(name)].lookups == counts[name]


@settings(deadline=None, derandomize=True)
@given(st.sets(st.binary(max_size=20)))
def test_numbers_are_distinct_stable_and_fit_an_inode(names: set[bytes]) -> None:
    table, other = InodeTable(), InodeTable()
    numbers = {name: table.remember(name, name) for name in sorted(names)}
    assert len(set(numbers.values())) == len(names)
    assert {name: other.number(name) for name in names} == numbers
    for name, number in numbers.items():
        assert (number == ROOT_INODE) == (name == b"")
        assert 0 < number < 2**63


def test_number_survives_being_forgotten() -> None:
    table = InodeTable()
    first = table.remember(b"a", b"a")
    table.forget(first, 1)
    with pytest.raises(KeyError):
        table[first]
    assert table.remember(b"a", b"a") == first


def test_asking_for_a_number_remembers_nothing() -> None:
    table = InodeTable()
    table.number(b"a")
    assert len(table) == 1


def test_equal_requests_are_one_file() -> None:
    table = InodeTable()
    first = table.remember(b"s/dpc/a=1/b=2.npy", b"s/dpc/a=1/b=2.npy")
    assert table.remember(b"s/dpc/b=2/a=1.npy", b"s/dpc/a=1/b=2.npy") == first
    assert table[first].lookups == 2
    assert len(table) == 2


def test_root_is_never_forgotten() -> None:
    table = InodeTable()
    assert table.remember(b"", b"") == ROOT_INODE
    table.forget(ROOT_INODE, 1000)
    assert table[ROOT_INODE].path == b""


def test_forgetting_what_is_unknown_or_more_than_was_counted() -> None:
    table = InodeTable()
    table.forget(12345, 1)
    number = table.remember(b"a", b"a")
    table.forget(number, 5)
    table.forget(number, 5)
    assert len(table) == 1


def test_identities_whose_hashes_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    def same(identity: bytes, *, digest_size: int) -> SimpleNamespace:
        return SimpleNamespace(digest=lambda: bytes(digest_size))

    monkeypatch.setattr(inodes, "blake2b", same)
    table = InodeTable()
    numbers = [table.remember(name, name) for name in (b"a", b"b", b"c")]
    assert numbers == [2, 3, 4]  # 0 is no inode and 1 is the root
    assert [table[number].path for number in numbers] == [b"a", b"b", b"c"]
    table.forget(2, 1)
    assert table.number(b"b") == 3  # keeps its number while it is known
    assert table.remember(b"d", b"d") == 2
    assert table.remember(b"a", b"a") == 5
