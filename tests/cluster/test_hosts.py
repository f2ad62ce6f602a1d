"""Several hosts: maps stay right, and readable, whatever happens to peers, links and the server."""

from __future__ import annotations

import errno
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from hosts import Cluster, cluster, namespaces_missing, until
from numpy.typing import NDArray

from tools.scan_maker import ScanMade, make_scan

pytestmark = [pytest.mark.mount, pytest.mark.slow]

FRAMES = 384
STALL_S = 60


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[Cluster, ScanMade]]:
    """A server, three peers, a client; an Eiger 4M scan that the server sees."""
    if reason := namespaces_missing():
        pytest.skip(f"no hosts here: {reason}")
    with cluster() as made:
        scan = make_scan(made.raw, name="s", horz=32, vert=FRAMES // 32, detector="eiger4m")
        made.certify("server:server", "client:client", *(f"peer:p{n}" for n in (1, 2, 3, 4)))
        made.start_server(
            *("--pool", made.base / "pool", "--pool-size", "2GiB"),
            *("--results", made.base / "results", "--results-size", "256MiB"),
        )
        for name in ("p1", "p2", "p3"):
            made.start_peer(name)
        made.mount("--no-local-peer")
        until(lambda: made.peers() == {"p1", "p2", "p3"}, "three peers", 90)
        load(made, scan, 0)
        yield made, scan
        until(lambda: gauges(made) == {0}, "all gauges at zero")
        done = made.host("client").dadafs("umount", made.mnt)
        assert (done.returncode, done.stderr) == (0, "")
        for host in made.hosts.values():
            host.stop()
        until(lambda: not made.processes(), "no process is left", 20)


def gauges(made: Cluster) -> set[int]:
    """What is open or under way in the mount."""
    stats = made.stats()
    open_now = {name: n for name, n in stats["open"].items() if name != "inodes"}
    open_now.pop("open_files")  # stats.json itself is one
    return {*open_now.values(), stats["farm"]["in_flight"]}


def path_of(made: Cluster, x: int) -> Path:
    """A map that nobody has computed yet, one for each x."""
    return made.mnt / f"s/darkfield/roi={x},100,400,1900/full.npy"


def expected(scan: ScanMade, x: int) -> NDArray[np.float64]:
    window = np.s_[:, 100:2000, x : x + 400]
    valid = ~scan.mask[None] & (scan.frames != 65535)
    sums = np.where(valid, scan.frames, 0)[window].sum((1, 2), dtype=np.uint64)
    return sums[scan.which].astype(np.float64)


def load(made: Cluster, scan: ScanMade, x: int) -> float:
    """Read a map, which must be right to the bit; the seconds it took."""
    began = time.monotonic()
    found = np.load(path_of(made, x))
    assert np.array_equal(found.ravel(), expected(scan, x))
    return time.monotonic() - began


def reading(made: Cluster, scan: ScanMade, x: int, meanwhile: Callable[[], None]) -> float:
    """Read a map while something happens; the seconds it took."""
    before = made.stats()["farm"].get("patches_farmed", 0)
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(load, made, scan, x)
        until(lambda: made.stats()["farm"].get("patches_farmed", 0) > before, "the first patch")
        meanwhile()
        return reader.result(2 * STALL_S)


def failure(work: Callable[[], object]) -> int | None:
    """The errno with which `work` fails, if it does."""
    try:
        work()
    except OSError as exc:
        return exc.errno
    return None


def test_peer_is_killed(site: tuple[Cluster, ScanMade]) -> None:
    made, scan = site
    reading(made, scan, 100, made.host("p1").kill)
    until(lambda: made.peers() == {"p2", "p3"}, "the dead peer is forgotten")


def test_peer_is_stopped_and_continued(site: tuple[Cluster, ScanMade]) -> None:
    made, scan = site
    peer = made.host("p2")
    seconds = reading(made, scan, 200, lambda: peer.signal(signal.SIGSTOP))
    assert seconds < 30
    peer.signal(signal.SIGCONT)
    until(lambda: "p2" in made.peers(), "the peer is back")
    load(made, scan, 250)


def test_link_goes_down_and_up(site: tuple[Cluster, ScanMade]) -> None:
    made, scan = site
    peer = made.host("p3")
    reading(made, scan, 300, lambda: peer.up(False))
    peer.up(True)
    until(lambda: "p3" in made.peers(), "the peer is back")
    load(made, scan, 350)


def test_peer_joins(site: tuple[Cluster, ScanMade]) -> None:
    made, scan = site
    reading(made, scan, 400, lambda: made.start_peer("p4"))
    until(lambda: "p4" in made.peers(), "the new peer is there", 60)
    load(made, scan, 450)


def test_corrections_are_the_servers_word(site: tuple[Cluster, ScanMade]) -> None:
    made, scan = site
    mask = np.zeros(scan.mask.shape, np.uint8)
    mask[300:700, 900:1000] = 1
    monitor = np.random.default_rng(1).uniform(50, 60, FRAMES)
    rows = "".join(f"{value!r}\n" for value in monitor.tolist())
    for name, data in (("mask.npy", b""), ("s.fio", f"%d\n Col 1 ic1 DOUBLE\n{rows}".encode())):
        (made.raw / name).write_bytes(data)
    np.save(made.raw / "mask.npy", mask)
    path = "s/darkfield/roi=850,100,400,1900/mask=mask.npy/norm=ic1/background=0..63.npy"
    found = np.load(made.mnt / path).ravel()
    window = np.s_[:, 100:2000, 850:1250]
    valid = ~scan.mask & (mask == 0) & (scan.frames != 65535)
    sums = np.where(valid, scan.frames, 0)[window].sum((1, 2), dtype=np.uint64)[scan.which]
    scaled = sums * monitor.mean() / monitor
    np.testing.assert_allclose(found, scaled - scaled[:64].mean(), rtol=1e-12, atol=1e-6)
    found = np.load(made.mnt / "s/max/heal=1/region=0,0,32,1.npy")
    gap = np.argwhere(scan.mask & (found > 0))
    assert len(gap) > 1000
    mirrored = np.floor(2 * np.array([scan.geometry.cy, scan.geometry.cx]) + 0.5) - gap
    there, across = mirrored.astype(int).T
    frames = np.where(scan.frames == 65535, 0, scan.frames)
    counts = frames[scan.which[:32], there[:, None], across[:, None]]
    np.testing.assert_array_equal(found[tuple(gap.T)], counts.max(1))
    assert made.stats()["farm"]["patches_farmed"] > 0


def test_flat_field_reaches_peers(site: tuple[Cluster, ScanMade]) -> None:
    made, _ = site
    scan = make_scan(made.raw, name="f", horz=10, vert=2)
    factors = np.random.default_rng(2).uniform(0.9, 1.1, scan.mask.shape).astype("<f4")
    assert scan.master is not None
    with h5py.File(scan.master, "r+") as file:
        detector = file["entry/instrument/detector"]
        detector.create_dataset("detectorSpecific/flatfield", data=factors, chunks=(64, 64))
        detector.pop("flatfield_correction_applied", None)
        detector["flatfield_correction_applied"] = np.int32(0)
    found = np.load(made.mnt / "f/darkfield/flat=1.npy").ravel()
    valid = ~scan.mask & (scan.frames != 65535)
    sums = (np.where(valid, scan.frames, 0) * factors.astype(float)).sum((1, 2))
    np.testing.assert_allclose(found, sums[scan.which], rtol=1e-12)
    counted = np.load(made.mnt / "f/sum/full.npy").astype(np.float64)
    some = valid[scan.which].any(axis=0)
    found = np.load(made.mnt / "f/sum/flat=1.npy")
    np.testing.assert_array_equal(found, np.where(some, counted * factors, np.nan))


def test_every_map_comes_from_peers(site: tuple[Cluster, ScanMade]) -> None:
    """Several patches, each from whoever has time, are put together by the client."""
    made, scan = site
    frame = np.where(scan.mask | (scan.frames == 65535), 0, scan.frames)
    bright = np.where(frame > 3, frame, 0).sum((1, 2), dtype=np.uint64)[scan.which]
    assert bright.any()
    found = np.load(made.mnt / "s/crystal/threshold=3/channel=counts.npy").ravel()
    np.testing.assert_array_equal(found, bright)
    rows, columns = np.indices(scan.detector.shape)
    turned = np.exp(2j * np.arctan2(scan.geometry.cy - rows, columns - scan.geometry.cx))
    sums = np.array([[(one * turned).sum(), one.sum()] for one in frame])[scan.which]
    found = np.load(made.mnt / "s/harmonic/channel=strength.npy").ravel()
    np.testing.assert_allclose(found, np.abs(sums[:, 0] / sums[:, 1]), rtol=1e-9)
    for path in ("symmetry/fold=6", "exponent/rmin=50", "orientation/channel=sigma_angle"):
        assert np.isfinite(np.load(made.mnt / "s" / f"{path}/full.npy")).all()
    assert made.stats()["farm"]["patches_farmed"] > 0


def test_raw_file_through_server_and_mount(site: tuple[Cluster, ScanMade]) -> None:
    made, scan = site
    source = scan.data_files[0]
    assert (made.mnt / "s/raw" / source.name).read_bytes() == source.read_bytes()


def test_server_is_killed_and_restarted(site: tuple[Cluster, ScanMade]) -> None:
    made, scan = site
    load(made, scan, 500)
    made.host("server").kill()
    assert load(made, scan, 500) < 10  # what was computed stays readable
    began = time.monotonic()
    failed = failure(lambda: load(made, scan, 600))  # None where peers hold the raw data in RAM
    assert failed in (None, errno.ETIMEDOUT, errno.EHOSTUNREACH)
    assert time.monotonic() - began < STALL_S + 20
    made.start_server(
        *("--pool", made.base / "pool", "--pool-size", "2GiB"),
        *("--results", made.base / "results", "--results-size", "256MiB"),
    )
    until(lambda: len(made.peers()) >= 2, "peers are listed again", 60)
    load(made, scan, 650)


def test_map_of_one_client_is_read_by_another(site: tuple[Cluster, ScanMade]) -> None:
    made, scan = site
    load(made, scan, 700)
    time.sleep(2)  # results are given to the server in batches
    other = made.base / "mnt2"
    other.mkdir()
    client = made.host("client2")
    source = f"tcp://{made.host('server').address}:4242"
    tls = made.certificates / "client"
    done = client.dadafs("mount", source, other, "--tls", tls, "--no-local-peer")
    assert (done.returncode, done.stderr) == (0, "")
    try:
        computed = made.stats()["frames_computed"]
        found = np.load(other / path_of(made, 700).relative_to(made.mnt))
        assert np.array_equal(found.ravel(), expected(scan, 700))
        assert made.stats()["frames_computed"] == computed
    finally:
        client.dadafs("umount", other)
