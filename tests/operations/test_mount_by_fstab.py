"""mount(8), and so fstab, mounts by the type fuse.dadafs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mounting import Site

from dadafs.cli import main
from dadafs.commands.mounting import called_by_mount
from dadafs.errors import UsageError

LINK = Path("/usr/local/bin/dadafs")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["/d", "/m"], ["mount", "/d", "/m"]),
        (["/d", "/m", "-o", "rw,_netdev,nofail,x-systemd.automount"], ["mount", "/d", "/m"]),
        (
            ["tcp://h:1", "/m", "-o", "allow_other,tls=/t,threads=2,results_size=1GiB"],
            [
                *("mount", "tcp://h:1", "/m"),
                *("--allow-other", "--tls=/t", "--threads=2", "--results-size=1GiB"),
            ],
        ),
        (["/d", "/m", "-n", "-oro,no_local_peer"], ["mount", "/d", "/m", "--no-local-peer"]),
        (["/d", "/m", "-o", "local_peer,config=/c"], ["mount", "/d", "/m", "--config=/c"]),
    ],
)
def test_options_of_fstab_are_ours(given: list[str], meant: list[str]) -> None:
    assert called_by_mount(given) == meant


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("alow_other", "did you mean allow_other"),
        ("threads", "no mount option 'threads'"),
        ("allow_other=yes", "no mount option"),
        ("qqq", "known are cache, threads"),
    ],
)
def test_an_option_that_is_none_is_refused(option: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        called_by_mount(["/d", "/m", "-o", option])
    assert main(["/d", "/m", "-o", option]) == 2


@pytest.fixture
def installed() -> Iterator[None]:
    """The command where mount(8) looks for it."""
    program = Path(sys.executable).with_name("dadafs")
    if os.geteuid() != 0 or shutil.which("mount.fuse3") is None or not program.exists():
        pytest.skip("needs root, mount.fuse3 of the package fuse3, and dadafs installed")
    if os.path.lexists(LINK):
        pytest.skip(f"{LINK} is there already")
    LINK.symlink_to(program)
    yield
    LINK.unlink()


@pytest.mark.mount
def test_mount_mounts(bare: Site, installed: None) -> None:
    options = f"_netdev,ro,allow_other,threads=1,memory=16MiB,cache={bare.cache}/chosen"
    done = subprocess.run(
        ["mount", "-t", "fuse.dadafs", "-o", options, str(bare.raw), str(bare.mnt)],
        env=bare.env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert bare.load("raster/darkfield/horz=13.npy").shape == (11, 13)
    assert (bare.cache / "chosen" / "index").is_dir()
    done = subprocess.run(["umount", str(bare.mnt)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    bare.wait_gone()
