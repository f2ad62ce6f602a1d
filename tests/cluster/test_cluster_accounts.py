"""What is told of results, and verifying them, where server, peers and client are others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from loopback import HOST, daemon, fuse_missing, mount, until

from tools.scan_maker import make_scan

pytestmark = pytest.mark.mount


def test_a_client_tells_and_verifies_what_peers_computed(tmp_path: Path) -> None:
    if reason := fuse_missing():
        pytest.skip(reason)
    made = make_scan(tmp_path / "raw", horz=20, vert=10)
    serving = ("server", "--root", tmp_path / "raw", "--listen", f"{HOST}:0")
    with (
        daemon(tmp_path / "server", *serving) as server,
        daemon(
            tmp_path / "peer",
            *("peer", "--server", f"{HOST}:{server.port}", "--listen", f"{HOST}:0"),
            *("--name", "one", "--threads", "1"),
        ),
        mount(f"tcp://{HOST}:{server.port}", "--no-local-peer") as mounted,
    ):
        until(lambda: mounted.peers() == {"one"}, "the peer is there")
        path = mounted.mnt / "scan42/darkfield/horz=20.npy"
        told = json.loads(path.with_suffix(".json").read_text())
        assert {file["name"] for file in told["files"]} >= {file.name for file in made.data_files}
        assert os.getxattr(path, "user.dadafs.state") == b"absent"
        assert np.load(path).sum() == made.sums.sum()
        assert os.getxattr(path, "user.dadafs.state") == b"cached"
        verified = mounted.dadafs("verify", path, "--patches", "9")
        assert verified.count("numpy    equal") == 4
        assert mounted.dadafs("verify", path.parents[1] / "sum/full.npy").count("equal") == 1
        assert "at the rate measured" in mounted.dadafs("explain", path.with_name("rmax=9.npy"))
