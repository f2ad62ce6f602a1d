"""Series of single images are found from names alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dadafs.scans.names import ScanFiles, group, number_of, scan_of

names = st.builds(
    lambda stem, number, width, ending: b"%b%0*d.%b" % (stem, width, number, ending),
    st.sampled_from([b"a", b"a_", b"a-", b"b_1_", b"_", b"", b".a_", b"a.cbf"]),
    st.integers(0, 11),
    st.integers(1, 3),
    st.sampled_from([b"cbf", b"edf", b"tif", b"tiff", b"TIF", b"png", b"cbf.gz", b"edf.gz"]),
)
others = st.sampled_from(
    [b"a_master.h5", b"a_data_1.h5", b"a.nxs", b"a", b"a.scan", b"a_1.cbf.tmp"]
)


def test_numbered_images_make_a_scan() -> None:
    scans, loose = group([b"run_10.cbf", b"run_9.cbf", b"lone_1.cbf", b"run_9.txt", b"run_1.edf"])
    assert scans == {b"run": ScanFiles(None, (b"run_9.cbf", b"run_10.cbf"), "cbf")}
    assert loose == [b"lone_1.cbf", b"run_9.txt", b"run_1.edf"]
    assert [number_of(name) for name in scans[b"run"].all] == [9, 10]
    packed = (b"run_0009.cbf.gz", b"run_0010.cbf", b"run_0011.cbf.gz")  # some packed already
    assert group(packed) == ({b"run": ScanFiles(None, packed, "cbf")}, [])
    assert group([b"a_1.gz", b"a_2.gz"]) == ({}, [b"a_1.gz", b"a_2.gz"])


def test_what_is_no_series() -> None:
    files = [
        b"1.cbf",
        b"2.cbf",
        b"_1.tif",
        b"_2.tif",
        b".a_1.cbf",
        b".a_2.cbf",
        b"c_1.tif",
        b"c_01.tif",
    ]
    assert group(files) == ({}, files)


def test_names_that_several_would_like() -> None:
    files = [b"a_master.h5", b"a.nxs", b"a_1.cbf", b"a_2.cbf", b"a-1.cbf", b"a-2.cbf", b"b_1.tif"]
    scans, loose = group([*files, b"b_2.tif"], [b"b"])
    assert scans[b"a"].master == b"a_master.h5"
    made = {b"a.scan", b"a.scan.scan", b"a.scan.scan.scan", b"b.scan"}
    assert (set(scans) - {b"a"}, loose) == (made, [])


@given(st.sets(st.one_of(names, others)))
def test_every_image_is_in_one_place(files: set[bytes]) -> None:
    scans, loose = group(files)
    placed = [file for members in scans.values() for file in members.all] + loose
    assert sorted(placed) == sorted(files)
    assert len({*scans, *loose}) == len(scans) + len(loose)
    for name, members in scans.items():
        assert len({scan_of(file) for file in members.all}) == 1
        assert b"\0" not in name
        assert name
        if members.images:
            numbers = [number_of(file) or 0 for file in members.data]
            assert numbers == sorted(numbers)
            assert len(set(numbers)) > 1
    assert group(sorted(files, reverse=True))[0] == scans
