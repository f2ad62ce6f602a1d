"""Scans are found from names alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dadafs.scans.names import ScanFiles, group, number_of, scan_of

stems = st.sampled_from([b"a", b"b", b"a.scan", b"a_data_1", b"\xff\n", b".hidden", b"."])
digits = st.text("0123456789", min_size=1, max_size=7).map(str.encode)
files = st.one_of(
    stems,
    stems.map(lambda stem: stem + b"_master.h5"),
    st.tuples(stems, digits).map(lambda both: b"%b_data_%b.h5" % both),
    st.sampled_from(
        [b"_master.h5", b"_data_1.h5", b"a_master.h5~", b"a_data_.h5", b"a_data_1.h5x"]
    ),
    st.binary(min_size=1, max_size=9),
)


def test_master_and_data_make_a_scan() -> None:
    names = [b"s_data_000010.h5", b"s_master.h5", b"notes.txt", b"s_data_9.h5", b"t_data_1.h5"]
    scans, loose = group(names)
    assert scans == {
        b"s": ScanFiles(b"s_master.h5", (b"s_data_9.h5", b"s_data_000010.h5")),
        b"t": ScanFiles(None, (b"t_data_1.h5",)),
    }
    assert loose == [b"notes.txt"]
    assert scans[b"s"].all == (b"s_master.h5", b"s_data_9.h5", b"s_data_000010.h5")


def test_taken_names_get_a_suffix() -> None:
    scans, loose = group([b"s_master.h5", b"t_master.h5", b"t"], [b"s", b"s.scan"])
    assert (set(scans), loose) == ({b"s.scan.scan", b"t.scan"}, [b"t"])
    # a scan that bears the name by itself goes before one that would be given it
    scans, _ = group([b"s_master.h5", b"s.scan_master.h5"], [b"s"])
    assert scans[b"s.scan"].master == b"s.scan_master.h5"
    assert scans[b"s.scan.scan"].master == b"s_master.h5"


def test_names_that_make_no_scan() -> None:
    names = [b"_master.h5", b"_data_1.h5", b".s_master.h5", b"._s_data_1.h5", b"s_data_.h5", b"h5"]
    assert group(names) == ({}, names)
    assert all(scan_of(name) is None for name in names)


def test_numbers() -> None:
    assert number_of(b"a_data_2_data_000010.h5") == 10
    assert scan_of(b"a_data_2_data_000010.h5") == b"a_data_2"
    assert number_of(b"a_master.h5") is None
    assert number_of(b"a_data_%b.h5" % (b"9" * 5000)) is None
    huge = b"a_data_1%b.h5" % (b"0" * 5000)
    assert group([huge, b"a_data_2.h5"])[0][b"a"].data == (b"a_data_2.h5", huge)


@given(st.sets(files), st.sets(files))
def test_every_file_is_in_one_place(names: set[bytes], others: set[bytes]) -> None:
    others -= names
    scans, loose = group(names, others)
    placed = [file for members in scans.values() for file in members.all] + loose
    assert sorted(placed) == sorted(names)
    shown = [*scans, *loose, *others]
    assert len(set(shown)) == len(shown)
    assert not {b"", b".", b".."} & set(scans)
    for name, members in scans.items():
        own = {scan_of(file) for file in members.all}
        assert len(own) == 1
        stem = own.pop()
        assert stem is not None
        assert name == stem or (name.startswith(stem + b".scan") and stem in {*loose, *others})
        numbers = [number_of(file) for file in members.data]
        assert numbers == sorted(numbers, key=lambda number: -1 if number is None else number)
    assert group(sorted(names, reverse=True), others)[0] == scans
    assert all(scan_of(file) is None for file in loose)
