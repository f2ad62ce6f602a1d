"""Mounts whose processes do not get to work: a line soon, and nothing left."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mounting import Site

pytestmark = pytest.mark.mount
ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("h5py", "hdf5plugin", "tifffile", "numba", "PIL")  # each a tenth of a second and more

WEAK = """
import os, sys
from analysis.plugins import frame_analysis

if "{role}" in sys.orig_argv:
    {ends}

@frame_analysis(title="nothing", channels={{"zero": ""}})
def nothing(frame, geometry, params):
    return 0
"""


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ("raise RuntimeError('no such luck')", "RuntimeError: no such luck"),
        ("os.kill(os.getpid(), 9)", "the peer ended 3 times at its start: signal 9"),
    ],
)
@pytest.mark.parametrize("foreground", [(), ("--foreground",)])
def test_a_peer_that_dies_at_its_start(
    bare: Site, ends: str, said: str, foreground: tuple[str, ...]
) -> None:
    plugins = bare.base / "plugins"
    plugins.mkdir()
    (plugins / "weak.py").write_text(WEAK.format(role="peer", ends=ends))
    began = time.monotonic()
    done = bare.run("mount", bare.raw, bare.mnt, "--plugins", plugins, *foreground)
    assert time.monotonic() - began < 20  # 2 to 3 s on a quiet machine
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert lines[-1].startswith("dadafs: the peer ended 3 times at its start: ")
    assert said in lines[-1]
    if not foreground:
        assert len(lines) == 1
    bare.wait_gone()


def test_a_server_that_dies_at_its_start(bare: Site) -> None:
    module = bare.base / "h5py.py"
    module.write_text("raise ImportError('libhdf5.so: cannot open shared object file')\n")
    bare.env["PYTHONPATH"] = str(bare.base)
    done = bare.run("mount", bare.raw, bare.mnt)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "ImportError: libhdf5.so: cannot open shared object file" in line
    bare.wait_gone()


def test_a_mount_loads_no_library_of_formats() -> None:
    mount = "dadafs.client.mounting.mount"
    code = f"import sys, {mount}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_times_that_operators_are_told_are_those_of_the_bench() -> None:
    words = [sys.executable, str(ROOT / "tools/bench"), "start", "--rounds=1", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    page = (ROOT / "docs/operations.md").read_text()
    told = re.findall(r"^\| (.+) \| [\d.]+ \|$", page, re.MULTILINE)
    assert told == [name.removesuffix(", s") for name in json.loads(done.stdout)]


def test_a_mount_in_use_stays_until_it_is_let_go(bare: Site) -> None:
    bare.mount()
    with (bare.mnt / "README.txt").open() as file:
        refused = bare.run("umount", bare.mnt)
        assert refused.returncode == 2
        line = f"dadafs: {bare.mnt} is in use; close what has files or a shell in it, or add --lazy"
        assert refused.stderr.splitlines() == [line]
        assert bare.run("umount", bare.mnt, "--lazy").returncode == 0
        assert not bare.mounted()
        assert file.read()
    bare.wait_gone()
