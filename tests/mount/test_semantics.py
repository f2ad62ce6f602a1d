"""What a program may rely on: errnos, attributes, names, and that nothing is kept open."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import plain
import pytest
from mounting import Site, contents, until
from numpy.testing import assert_array_equal

from tools.scan_maker import ScanMade, make_scan

pytestmark = pytest.mark.mount

Capture = pytest.CaptureFixture[str]


def _create(top: Path) -> None:
    os.close(os.open(top / "new", os.O_CREAT | os.O_WRONLY))


@pytest.mark.parametrize(
    "change",
    [
        _create,
        lambda top: os.open(top / "README.txt", os.O_RDWR),
        lambda top: os.unlink(top / "README.txt"),
        lambda top: os.mkdir(top / "new"),
        lambda top: os.rmdir(top / "raster/darkfield"),
        lambda top: os.truncate(top / "raster/darkfield/full.npy", 0),
        lambda top: os.chmod(top / "raster/darkfield/full.npy", 0o777),
        lambda top: os.utime(top / "raster"),
        lambda top: os.rename(top / "raster", top / "other"),
        lambda top: os.symlink("raster", top / "other"),
        lambda top: os.link(top / "README.txt", top / "other"),
    ],
)
def test_every_change_is_erofs(
    shared: Site, raster: ScanMade, change: Callable[[Path], None]
) -> None:
    with pytest.raises(OSError, match="Read-only") as caught:
        change(shared.mnt)
    assert caught.value.errno == errno.EROFS


def test_statfs_is_of_a_full_read_only_file_system(shared: Site) -> None:
    found = os.statvfs(shared.mnt)
    assert found.f_flag & os.ST_RDONLY
    assert (found.f_bavail, found.f_ffree, found.f_namemax) == (0, 0, 255)


def test_the_order_of_parameters_makes_no_other_file(shared: Site, raster: ScanMade) -> None:
    top = shared.mnt / "raster/darkfield"
    names = (
        "horz=13/vert=11/rmax=9.npy",
        "rmax=9.0/vert=11/horz=13.npy",
        "vert=11/rmax=9/horz=13.npy",
    )
    assert len({os.stat(top / name).st_ino for name in names}) == 1
    assert len({contents(top / name) for name in names}) == 1
    others = ("horz=13/vert=11/rmax=8.npy", "horz=13/vert=11/rmax=9.tif", "horz=13/vert=11.npy")
    assert len({os.stat(top / name).st_ino for name in (*others, names[0])}) == 4


def test_another_mount_has_the_same_inodes_and_times_and_computes_nothing(
    unmounted: Site,
) -> None:
    made = make_scan(unmounted.raw, horz=5, vert=4, images_per_file=10)
    newest = 1_700_000_000_123_456_789
    os.utime(made.data_files[1], ns=(newest, newest))
    os.utime(made.data_files[0], ns=(newest - 10**12, newest - 10**12))
    assert made.master is not None
    os.utime(made.master, ns=(newest - 10**15, newest - 10**15))

    def look() -> dict[str, tuple[int, int, int]]:
        found = {}
        for name in (
            "",
            "scan42",
            "scan42/scan.json",
            "scan42/dpc/horz=5.tif",
            "scan42/frames/000003.npy",
            "scan42/raw/scan42_master.h5",
        ):
            of = os.stat(unmounted.mnt / name)
            found[name] = of.st_ino, of.st_mtime_ns, of.st_size
        return found

    unmounted.mount()
    first = look()
    with unmounted.computing(frames=20):
        unmounted.load("scan42/darkfield/horz=5.npy")
    unmounted.unmount()
    unmounted.mount()
    assert look() == first
    with unmounted.computing(frames=0, patches=0):
        result = unmounted.load("scan42/darkfield/horz=5.npy")
    assert_array_equal(result, plain.folded(made.sums, 5, 4))
    unmounted.unmount()
    assert first["scan42"][1] == first["scan42/dpc/horz=5.tif"][1] == newest
    assert first["scan42/raw/scan42_master.h5"][1] == newest - 10**15


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("rastre", "did you mean raster?"),
        ("raster/darkfeld/full.npy", "did you mean 'darkfield'"),
        ("raster/darkfield/hroz=13.npy", "did you mean 'horz'"),
        ("raster/darkfield/full.nyp", "did you mean 'full.npy'"),
        ("raster/darkfield/fill.npy", "did you mean 'full.npy'"),
        ("raster/darkfield/horz=13/ful.h5", "did you mean 'full.h5'"),
        ("raster/darkfield/full.jsn", "did you mean 'full.json'"),
        ("raster/darkfield/full.npy.progres", "did you mean 'full.npy.progress'"),
        ("raster/darkfield/full.progress", "full.npy.progress"),
        ("raster/darkfield/order=snaek.npy", "did you mean 'snake'"),
        ("raster/dpc/chanel=x.npy", "did you mean 'channel'"),
        ("raster/frames/roi=0,0,9,9/bni=2/7.npy", "did you mean 'bin'"),
        ("raster/darkfield/horz=0.npy", "must be at least 1"),
        ("raster/darkfield/horz=x.npy", "no whole number"),
        ("raster/darkfield/horz=5/horz=5.npy", "given twice"),
        ("raster/darkfield/roi=100,100,50,50.npy", "beyond the detector (120 columns, 128 rows)"),
        ("raster/darkfield/first=143.npy", "143 frames"),
        ("raster/dpc/channel=z.npy", "none of x, y"),
        ("raster/radial/qmin=99.npy", "selects nothing"),
        ("raster/sum/horz=13/region=10,10,9,9.npy", "beyond the raster"),
        ("raster/frames/000143.npy", "0 to 142"),
        ("raster/frames/seven.npy", "no frame number"),
        ("raster/raw/raster_data_000009.h5", "no raw file raster_data_000009.h5; did you mean"),
        ("raster_master.h5", "raster/raw/raster_master.h5"),
        (".dadafs/stat.json", "stats.json"),
    ],
)
def test_what_means_nothing_is_enoent_with_a_reason(
    shared: Site, raster: ScanMade, capsys: Capture, path: str, hint: str
) -> None:
    with pytest.raises(FileNotFoundError):
        os.stat(shared.mnt / path)
    lines = [line for line in shared.errors().splitlines() if f"/{path}:" in line]
    lines = lines or [line for line in shared.errors().splitlines() if hint in line]
    assert any(hint in line for line in lines), shared.errors()
    code, out, err = shared.command(capsys, "explain", shared.mnt / path)
    assert (code, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert hint in err
    assert err.startswith(f"dadafs: /{path}: ")


@pytest.mark.parametrize(
    ("name", "number"),
    [
        (b"raster/\xff\xfe", errno.ENOENT),
        (b"raster/darkfield/horz=\xe9.npy", errno.ENOENT),
        (b"raster/darkfield/a\nb=1.npy", errno.ENOENT),
        (b"raster/darkfield/" + b"9" * 255, errno.ENOENT),
        (b"raster/darkfield/horz=" + b"9" * 300, errno.ENOENT),
        (b"raster/darkfield/" + b"horz=13/" * 40 + b"full.npy", errno.ENOENT),
        (b"raster/darkfield/full.npy/more", errno.ENOTDIR),
        (b"raster/README.txt/more", errno.ENOTDIR),
    ],
)
def test_names_that_no_person_types(
    shared: Site, raster: ScanMade, name: bytes, number: int
) -> None:
    with pytest.raises(OSError, match=r".") as caught:
        os.stat(os.fsencode(shared.mnt) + b"/" + name)
    assert caught.value.errno == number
    assert "failed unexpectedly" not in shared.errors()


def test_explain_tells_shape_size_and_cost(shared: Site, raster: ScanMade) -> None:
    path = shared.mnt / "raster/orientation/horz=13/vert=11/channel=l1.npy"
    with shared.computing(frames=0):
        told = shared.run("explain", path)
    assert (told.returncode, told.stderr) == (0, "")
    for fact in ("11 line x 13 point", "float64", "px^2", "143 frames", "3 patches"):
        assert fact in told.stdout
    assert f"{path.stat().st_size} bytes" in told.stdout
    assert "directory" in shared.run("explain", shared.mnt / "raster").stdout
    assert shared.run("explain", "/usr").returncode == 2


def test_explain_tells_what_reading_takes(own: Site) -> None:
    made = make_scan(own.raw, horz=64, vert=24, images_per_file=1000, detector="40x40")
    path = own.mnt / "scan42/darkfield/horz=64/vert=24.npy"
    chunk_bytes = 0
    for file in made.data_files:
        with h5py.File(file, "r") as opened:
            chunk_bytes += opened["entry/data/data"].id.get_storage_size()
    told = own.run("explain", path).stdout
    assert "1536 frames in 24 patches, 0 of them cached" in told
    assert f"read      {chunk_bytes} bytes" in told
    assert "unknown: this mount has computed nothing of this kind yet" in told
    with own.computing(frames=512):  # a page of the map
        np.load(path, mmap_mode="r")[0].sum()
    told = own.run("explain", path.with_suffix(".tif")).stdout
    assert "1536 frames in 24 patches, 8 of them cached" in told
    seconds = re.search(r"about (\d+\.\d) s, at the rate measured in this mount", told)
    assert seconds
    assert float(seconds[1]) < 60
    own.load("scan42/darkfield/horz=64/vert=24.npy")
    told = own.run("explain", path).stdout
    assert "compute   nothing: all 1536 frames in 24 patches are cached" in told


def test_status_tells_what_stats_json_tells(shared: Site) -> None:
    told = shared.run("status", shared.mnt, "--json")
    assert told.returncode == 0
    assert f'"pid": {shared.pid_of("mount")}' in told.stdout
    assert shared.run("status", "/usr").returncode == 2


def test_gauges_return_to_zero(shared: Site, raster: ScanMade) -> None:
    with open(shared.mnt / "raster/README.txt", "rb"), os.scandir(shared.mnt / "raster") as entries:
        next(entries)
        opened = shared.stats()["open"]
        assert opened["open_files"] >= 1
        assert opened["open_directories"] >= 1

    def closed() -> bool:
        opened = shared.stats()["open"]
        return (opened["open_files"], opened["open_directories"]) == (0, 0)

    until(closed, "nothing is open")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can have the kernel forget inodes")
def test_inodes_are_forgotten_with_the_kernel(own: Site) -> None:
    make_scan(own.raw, frames=900, detector="24x24")
    for name in os.listdir(own.mnt / "scan42/frames"):
        os.stat(own.mnt / "scan42/frames" / name)
    assert own.stats()["open"]["inodes"] > 900

    def few() -> bool:
        Path("/proc/sys/vm/drop_caches").write_text("2")
        return bool(own.stats()["open"]["inodes"] < 50)

    until(few, "the kernel forgot the inodes")


def test_a_mount_point_behind_a_symlink(unmounted: Site, capsys: Capture) -> None:
    made = make_scan(unmounted.raw, horz=3, vert=2)
    here = unmounted.base / "here"
    here.symlink_to(unmounted.base)
    assert unmounted.run("mount", unmounted.raw, here / "mnt").returncode == 0
    path = "scan42/darkfield/horz=3.npy"
    assert unmounted.load(path).sum() == made.sums.sum()
    for way in (here / "mnt", unmounted.mnt):
        assert unmounted.command(capsys, "explain", way / path)[::2] == (0, "")
        assert unmounted.command(capsys, "status", way)[::2] == (0, "")
    assert unmounted.run("umount", here / "mnt").returncode == 0
    unmounted.wait_gone()
