"""docs/operations.md works as it is written, on hosts of namespaces; its transcript is current."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tools.rehearsal import PAGE, TRANSCRIPT, Block, blocks, rehearsal, statements
from tools.scan_maker import make_scan
from tools.wheels import dependencies, make_wheel

HORZ, VERT = 17, 9


def typed(transcript: str) -> list[str]:
    """The first lines of what was typed."""
    lines = transcript.splitlines()
    return [line.removeprefix("    # ") for line in lines if line.startswith("    # ")]


def hosts_missing() -> str:
    """Why no hosts can be made here; empty when they can."""
    if os.geteuid() != 0:
        return "namespaces need root"
    if missing := [name for name in ("ip", "unshare", "nsenter") if shutil.which(name) is None]:
        return f"{missing[0]} is missing: install iproute2 and util-linux"
    probe = ["unshare", "--mount", "--uts", "--net", "--pid", "--fork", "true"]
    return subprocess.run(probe, capture_output=True, text=True).stderr


def test_blocks_and_statements() -> None:
    page = "text\n```sh\n# on h001 and h002: why\nfor a in 1 2; do\n    b\ndone\nc <<E\nd\nE\n```\n"
    (block,) = blocks(page + "```sh\n# anything\ne\n```\n")
    assert block == Block(("h001", "h002"), "for a in 1 2; do\n    b\ndone\nc <<E\nd\nE\n")
    assert statements(block.text) == ["for a in 1 2; do\n    b\ndone\n", "c <<E\nd\nE\n"]
    with pytest.raises(ValueError, match="nobody is called h009"):
        blocks("```sh\n# on h009\na\n```\n")


def test_transcript_is_of_this_page() -> None:
    wanted = [
        one.splitlines()[0]
        for block in blocks(PAGE.read_text(encoding="utf-8"))
        for one in statements(block.text)
    ]
    assert len(wanted) > 15
    assert typed(TRANSCRIPT.read_text(encoding="utf-8")) == wanted, "run tools/rehearse"


@pytest.mark.mount
@pytest.mark.slow
def test_the_page_is_followed_to_the_letter(tmp_path: Path) -> None:
    if reason := hosts_missing():
        pytest.skip(reason)
    scan = make_scan(tmp_path / "raw", horz=HORZ, vert=VERT)
    tmp_path.chmod(0o755)
    needed = dependencies(tmp_path / "needed")
    with rehearsal(make_wheel(tmp_path), needed, tmp_path / "raw") as site:
        said = site.follow(PAGE.read_text(encoding="utf-8"))
        lab = site.hosts["lab1"]
        lab.run(f"cp full.npy {site.shared}")
        found = np.load(site.shared / "full.npy")
        assert "fuse.dadafs" in lab.run("cat /proc/self/mounts")
        assert "Traceback" not in lab.run("cat /tmp/dadafs-0/dadafs/*/mount.log")
        for name in ("heinzelfrau", "h001", "h002"):
            log = site.hosts[name].run("cat /run/*.log")
            assert "answers on" in log
            assert "Traceback" not in log
            assert "/proc/" in site.hosts[name].run("find /proc -maxdepth 1 -user dadafs")
        init = lab.init
    assert typed(said) == typed(TRANSCRIPT.read_text(encoding="utf-8"))
    frames = np.where(scan.mask | (scan.frames == 65535), 0, scan.frames)
    truth = frames.sum((1, 2), dtype=np.uint64)[scan.which].reshape(1, -1)
    np.testing.assert_array_equal(found, truth)
    assert not Path(f"/proc/{init}").exists()
