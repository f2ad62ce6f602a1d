"""A peer that returns something else than it was asked for: the map is right all the same."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import trio
from loopback import HOST, Daemon, Mount, certify, daemon, fuse_missing, mount, until

from dadafs.cache.values import SUM_BYTES, PatchValues
from dadafs.keys import patch_key
from dadafs.rpc.messages import Announce, AskReport, Compute, KeepResults, Report
from dadafs.rpc.pool import Pool, tcp_connector
from dadafs.rpc.security import Credentials
from dadafs.rpc.service import Answer, Service, listening
from tools.scan_maker import ScanMade, make_scan

pytestmark = [pytest.mark.mount, pytest.mark.slow]
THREADS = 3  # of the false peer: it is given more patches than the good one


class FalsePeer:
    """Has patches computed by a good peer, and falsifies what comes."""

    def __init__(self, certificates: Path, server: int, good: int) -> None:
        self.how = "honest"
        self.falsified = 0
        self.maps = 0
        self._credentials = Credentials(certificates)
        connect = tcp_connector(HOST, server, self._credentials, "server")
        self._server = Pool(connect, name="the server")
        self._good = Pool(
            tcp_connector(HOST, good, self._credentials, "peer"), name="the good peer"
        )
        self._last = b""
        self._done = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread = threading.Thread(target=trio.run, args=(self._main,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        assert self._token is not None
        self._token.run_sync_soon(self._done.set)
        self._thread.join(20)
        assert not self._thread.is_alive()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        listener = socket.create_server((HOST, 0))
        port = listener.getsockname()[1]
        service = Service(
            "false peer",
            {Compute: self._compute, AskReport: self._report},
            credentials=self._credentials,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.serve, listening(listener))
            nursery.start_soon(self._announce, port)
            await self._done.wait()
            nursery.cancel_scope.cancel()
        self._server.close()
        self._good.close()

    async def _announce(self, port: int) -> None:
        while True:
            await self._server.call(Announce("false", port, THREADS))
            await trio.sleep(0.5)

    async def _report(self, request: AskReport) -> Answer:
        return Report(1, THREADS, {}), b""

    async def _compute(self, request: Compute) -> Answer:
        if self.how == "poison":
            key = patch_key(request.plan.digest(), request.frames)
            await self._server.call(KeepResults(((key, self._last),)))
            self.falsified += 1
            return None, b""  # so that it is computed elsewhere
        _, payload = await self._good.call(request)
        values, last = bytes(payload), self._last
        self._last = values
        if self.how == "honest":
            return None, values
        self.falsified += 1
        key = patch_key(request.plan.digest(), request.frames)
        match self.how:
            case "damaged":
                values = values[:-3] + bytes([values[-3] ^ 1]) + values[-2:]
            case "another":
                values = last
            case "shape":
                body = values[SUM_BYTES:] + bytes(8)
                status = np.frombuffer(body[:0], np.uint8)
                values = PatchValues(status, np.frombuffer(body, np.uint8)).encode(key)
            case "empty":
                values = b""
        return None, values


Site: TypeAlias = tuple[Mount, FalsePeer, ScanMade, Daemon]


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Mount, FalsePeer, ScanMade, Daemon]]:
    """A server, a good peer, a false one, a mount; a scan of 12 patches."""
    if reason := fuse_missing():
        pytest.skip(reason)
    base = tmp_path_factory.mktemp("false")
    raw = base / "raw"
    raw.mkdir()
    scan = make_scan(raw, name="s", horz=64, vert=12)
    tls = certify(base / "ca", "server:server", "peer:good", "peer:false", "client:client")
    words = ("--root", raw, "--listen", f"{HOST}:0", "--tls", tls / "server")
    stores = ("--results", base / "results", "--results-size", "64MiB")
    with daemon(base / "server", "server", *words, *stores) as server:
        where = ("--server", f"{HOST}:{server.port}", "--tls", tls / "good")
        with daemon(base / "good", "peer", *where, "--name", "good", "--threads", "1") as good:
            liar = FalsePeer(tls / "false", server.port, good.port)
            source = f"tcp://{HOST}:{server.port}"
            with mount(source, "--tls", tls / "client", "--no-local-peer") as made:
                until(lambda: made.peers() == {"good", "false"}, "both peers")
                assert load(made, scan, 0)
                yield made, liar, scan, good
            liar.stop()


def load(made: Mount, scan: ScanMade, number: int) -> bool:
    """Whether a map that nobody has computed yet, one for each number, is right."""
    y, x = divmod(number, 20)
    found = np.load(made.mnt / f"s/darkfield/roi={x},{y},100,100/full.npy")
    valid = ~scan.mask[None] & (scan.frames != np.iinfo(scan.frames.dtype).max)
    sums = np.where(valid, scan.frames, 0)[:, y : y + 100, x : x + 100].sum((1, 2), dtype=np.uint64)
    return np.array_equal(found.ravel(), sums[scan.which].astype(np.float64))


def falsify(site: Site, how: str) -> None:
    """Read maps, which are all right, until the false peer has had a part in one: after what it
    did before it is left alone for a while."""
    made, liar, scan, _ = site
    before = liar.falsified
    liar.how = how

    def had_a_part() -> bool:
        liar.maps += 1
        assert load(made, scan, liar.maps)
        return liar.falsified > before

    try:
        until(had_a_part, "the false peer is asked")
    finally:
        liar.how = "honest"


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("damaged", "values of a patch are damaged"),
        ("another", "values of a patch are damaged"),
        ("shape", "values of a patch have another shape"),
        ("empty", "values of a patch are damaged"),
    ],
)
def test_false_values(site: Site, how: str, line: str) -> None:
    made = site[0]
    known = made.text("errors.log").count(line)
    falsify(site, how)
    assert made.text("errors.log").count(line) > known


def test_false_results_at_the_server(site: Site) -> None:
    """What a peer stores for all under the key of another patch is not believed."""
    good = site[3]
    falsify(site, "poison")
    until(lambda: "a stored result was bad and is computed again" in good.log(), "it is noticed")
