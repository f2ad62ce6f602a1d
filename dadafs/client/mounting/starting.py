"""Starting a mount in a process of its own. Quick: it loads nothing that only that one needs."""

from __future__ import annotations

import os
import select
import subprocess
import sys

import msgspec

from dadafs.client.mounting.mountpoint import prepare
from dadafs.config import MountConfig, runtime_directory
from dadafs.errors import UsageError

START_S = 60.0  # compiling pyfuse3's and our own modules for the first time takes a few
READY = b"ready"
LOG = "mount.log"


def start(config: MountConfig) -> None:
    """Mount in a process of its own; return when it answers. UsageError says why it does not."""
    prepare(config.root, config.mountpoint)  # what can be said at once, is
    runtime = runtime_directory(config.mountpoint)
    runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
    read_fd, write_fd = os.pipe()
    with open(runtime / LOG, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dadafs.client.mounting.staying", f"--ready-fd={write_fd}"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(write_fd,),
            start_new_session=True,
            cwd="/",
        )
    os.close(write_fd)
    assert process.stdin is not None
    with process.stdin as stdin:
        stdin.write(msgspec.json.encode(config, enc_hook=os.fspath))
    with open(read_fd, "rb") as pipe:
        said = _line(pipe.fileno())
    if said == READY:
        return
    if said is None:
        process.kill()
        raise UsageError(f"the mount did not answer in {START_S:.0f} s; see {runtime / LOG}")
    raise UsageError(said.decode() or f"the mount ended at once; see {runtime / LOG}")


def _line(fd: int) -> bytes | None:
    """What the mount says once: ready, or why not; None when it says nothing in time."""
    if not select.select([fd], [], [], START_S)[0]:
        return None
    return os.read(fd, 65536)
