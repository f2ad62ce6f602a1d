"""What a cluster promises while its nodes are killed, its lines cut and its pool damaged."""

from __future__ import annotations

import errno
import socket
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from loopback import HOST, fuse_missing, hung_up

from tools.cluster_soaking import Growing, soak_cluster
from tools.relay import relaying
from tools.scan_maker import make_scan
from tools.soaked import TROUBLE, Told, allowed, growth, judged, summary
from tools.soaking import Held

PAGE = Path(__file__).resolve().parents[2] / "docs/operations.md"


@pytest.mark.mount
@pytest.mark.slow
def test_all_promises_hold() -> None:
    if reason := fuse_missing():
        pytest.skip(reason)
    told = soak_cluster(seconds=36, round_s=12, seed=3)
    assert told.broken == []
    assert told.done["wrong bytes"] == 0
    assert {what: told.done[what] for what in TROUBLE if not told.done[what]} == {}
    for kind in ("raw", "results", "growing"):
        assert told.done[kind] > 20, kind
    assert all(may for _, may in told.errors)
    assert len(told.mended) == 3
    assert told.held.keys() == {"server", "peer a", "peer b", "peer c", "m1", "m2"}
    assert all(len(noted) == 3 for noted in told.held.values())
    assert len(told.lines) == 6


@pytest.mark.parametrize(
    ("code", "seconds", "growing", "away", "may"),
    [
        (errno.ESTALE, 0.1, True, False, True),
        (errno.ESTALE, 0.1, False, True, False),
        (errno.ETIMEDOUT, 60.0, False, True, True),
        (errno.EHOSTUNREACH, 41.0, False, True, True),
        (errno.EHOSTUNREACH, 41.0, False, False, False),  # nothing was away
        (errno.EHOSTUNREACH, 5.0, True, True, False),  # it did not wait
        (errno.EIO, 60.0, True, True, False),
        (errno.ENOENT, 60.0, True, True, False),
    ],
)
def test_what_a_read_may_fail_with(
    code: int, seconds: float, growing: bool, away: bool, may: bool
) -> None:
    assert allowed(code, seconds, growing=growing, away=away) == may


def test_lines_that_no_log_should_have() -> None:
    log = "dadafs: INFO: a\n2026-05-04 10:11:12,345 dadafs: WARNING: b\nTraceback (most\n"
    assert judged(log + "dadafs: ERROR: c\n") == (
        Counter(INFO=1, WARNING=1, wrong=2),
        ["Traceback (most", "dadafs: ERROR: c"],
    )


def test_growth_is_that_of_one_process() -> None:
    noted = [
        (60.0 * n, Held(pid, 9, 2, size)) for n, pid, size in ((0, 1, 7), (1, 2, 3), (3, 2, 9))
    ]
    assert growth(noted) == pytest.approx(3.0)
    assert growth(noted[:2]) is None


def test_values_of_a_scan_that_grows(tmp_path: Path) -> None:
    scan = make_scan(tmp_path / "made", name="g", horz=4, vert=3, images_per_file=6, unique=4)
    growing = Growing(tmp_path, scan)
    growing.add()
    names = {path.name for path in (tmp_path / "grow0").iterdir()}
    assert names == {"g_master.h5", "g_data_000001.h5"}

    def wrong(values: np.ndarray[tuple[int], np.dtype[np.float64]], complete: bool) -> int:
        np.save(file := BytesIO(), values)
        return growing.wrong_bytes(file.getvalue(), complete=complete)

    values = scan.sums.astype(float)
    assert wrong(values, True) == 0
    values[3] = np.nan
    assert wrong(values, False) == 0
    assert wrong(values, True) > 0
    values[4] = 0
    assert wrong(values, False) == 8
    growing.add()
    assert growing.complete == [Path("grow0/g/darkfield/full.npy")]
    growing.add()
    assert growing.map == Path("grow1/g/darkfield/full.npy")


def test_a_line_that_is_cut() -> None:
    with socket.create_server((HOST, 0)) as server, relaying(server.getsockname()[1]) as relay:
        for _ in range(2):
            caller = socket.create_connection((HOST, relay.port), 10)
            answering, _ = server.accept()
            with caller, answering:
                caller.sendall(b"question")
                assert answering.recv(100) == b"question"
                answering.sendall(b"answer")
                assert caller.recv(100) == b"answer"
                relay.cut()
                with pytest.raises(ConnectionResetError):
                    caller.recv(100)
                assert hung_up(answering)  # type: ignore[arg-type]


def test_summary_tells_what_broke() -> None:
    told = Told(7, 60.0, Counter(raw=5, bytes=2_000_000), Counter({("EIO", False): 1}), 3.21, [1.5])
    told.held = {"m1": [(0.0, Held(1, 20, 4, 80 << 20)), (30.0, Held(1, 21, 5, 81 << 20))]}
    told.lines = {"server": Counter(INFO=1, WARNING=2)}
    lines = summary(told).splitlines()
    assert lines[0] == "seed 7, 1.0 min"
    (row,) = (line.split() for line in lines if line.startswith("m1"))
    assert row == ["m1", "20", "21", "21", "4", "5", "5", "80", "81", "81", "+2.0"]
    assert ["EIO,", "NOT", "PROMISED", "1"] in [line.split() for line in lines]
    assert lines[-1] == "All promises held."
    told.broken = ["m1/x: 3 of 9 bytes are wrong"]
    assert summary(told).splitlines()[-1] == told.broken[0]
    page = PAGE.read_text(encoding="utf-8")
    end = next(number for number, line in enumerate(lines) if line.startswith("EIO"))
    assert [line for line in lines[2:end] if f"    {line[:38]}" not in page] == []
