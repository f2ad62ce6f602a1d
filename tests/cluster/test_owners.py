"""Who may read what: the raw files' modes and owners hold in the mount, for results too."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import HOST, Mount, daemon, fuse_missing, mount, until

from tools.scan_maker import make_scan

pytestmark = [pytest.mark.mount, pytest.mark.slow]
SEEN_S = 12.0  # what the server and the kernel said before is no longer believed

CODE = """
import os, sys, time
uid, gid = map(int, sys.argv[1:3])
os.setgroups([]); os.setgid(gid); os.setuid(uid)
for path in sys.argv[3:]:
    try:
        with open(path, "rb") as file:
            print(len(file.read()))
    except OSError as exc:
        print(exc.strerror)
"""


@pytest.fixture(scope="module", params=["embedded", "tcp"])
def site(request: pytest.FixtureRequest) -> Iterator[tuple[Mount, Path]]:
    """A mount that others may enter, of scans that not everybody may read."""
    if reason := fuse_missing() or ("" if os.geteuid() == 0 else "only root can be somebody else"):
        pytest.skip(reason)
    base = Path(tempfile.mkdtemp(prefix="dadao", dir="/tmp"))
    raw = base / "raw"
    raw.mkdir(mode=0o755)
    base.chmod(0o755)
    modes = {"secret": (0o600, 0o600), "shared": (0o644, 0o644), "half": (0o644, 0o600)}
    for name, (master, data) in modes.items():
        scan = make_scan(raw, name=name, horz=4, vert=2)
        assert scan.master is not None
        scan.master.chmod(master)
        for file in scan.data_files:
            file.chmod(data)
    (raw / "secret.txt").write_text("secret")
    (raw / "secret.txt").chmod(0o600)
    (raw / "shared.txt").write_text("shared")
    (raw / "shared.txt").chmod(0o644)
    (raw / "closed").mkdir(mode=0o700)
    (raw / "closed/within.txt").write_text("within")
    try:
        if request.param == "embedded":
            with mount(raw, "--allow-other") as made:
                made.base.chmod(0o755)
                yield made, raw
        else:
            words = ("server", "--root", raw, "--listen", f"{HOST}:0")
            with (
                daemon(base / "server", *words) as server,
                mount(f"tcp://{HOST}:{server.port}", "--allow-other") as made,
            ):
                made.base.chmod(0o755)
                yield made, raw
    finally:
        shutil.rmtree(base)


def read_as_nobody(made: Mount, *paths: str) -> list[str]:
    """What an unprivileged user gets of these files: a size, or why not."""
    nobody = pwd.getpwnam("nobody")
    done = subprocess.run(
        [
            *(sys.executable, "-S", "-c", CODE, str(nobody.pw_uid), str(nobody.pw_gid)),
            *(str(made.mnt / path) for path in paths),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def test_raw_files(site: tuple[Mount, Path]) -> None:
    made, raw = site
    for name in ("secret.txt", "shared.txt", "closed"):
        seen, there = (made.mnt / name).stat(), (raw / name).stat()
        assert (seen.st_mode, seen.st_uid, seen.st_gid) == (
            there.st_mode,
            there.st_uid,
            there.st_gid,
        )
    paths = ("shared.txt", "secret.txt", "closed/within.txt", "shared/raw/shared_master.h5")
    found = read_as_nobody(made, *paths)
    size = str((raw / "shared_master.h5").stat().st_size)
    assert found == ["6", "Permission denied", "Permission denied", size]
    assert (made.mnt / "secret.txt").read_text() == "secret"


def test_results_are_as_their_scan(site: tuple[Mount, Path]) -> None:
    made, _ = site
    result = "darkfield/full.npy"
    size = str(len((made.mnt / "shared" / result).read_bytes()))
    for scan in ("secret", "half"):
        assert len((made.mnt / scan / result).read_bytes()) == int(size)  # computed, and cached
        assert not (made.mnt / scan / result).stat().st_mode & 0o077
    paths = ("darkfield/full.npy", "frames/000000.npy", "scan.json", "README.txt")
    for scan in ("secret", "half"):
        for found in read_as_nobody(made, *(f"{scan}/{path}" for path in paths)):
            assert found == "Permission denied"
    assert read_as_nobody(made, f"shared/{result}") == [size]


def test_mode_that_changes_is_seen(site: tuple[Mount, Path]) -> None:
    made, raw = site
    (data,) = raw.glob("shared_data_*.h5")
    path = "shared/darkfield/full.npy"
    data.chmod(0o600)
    until(lambda: read_as_nobody(made, path) == ["Permission denied"], "it is closed", SEEN_S)
    data.chmod(0o644)
    until(lambda: read_as_nobody(made, path) != ["Permission denied"], "it is open", SEEN_S)
