"""Where things are and how much of them there may be."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from dadafs.errors import UsageError

CONTROL = "control.sock"  # in the runtime directory of a mount
RESULTS_BYTES = 8 << 30  # of sparse map; the values of 10^6 frames take about 60 MB
MEMORY_BYTES = 48 << 20  # recent values in the mount, which is to stay below 150 MB


def cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class MountConfig:
    """What one mount needs to know."""

    root: Path
    """The raw tree."""
    mountpoint: Path
    cache: Path
    """Directory of the frame index and the results."""
    threads: int = field(default_factory=cores)
    """Of the embedded peer."""
    results_bytes: int = RESULTS_BYTES
    memory_bytes: int = MEMORY_BYTES
    allow_other: bool = False
    plugins: Path | None = None
    """Directory of analyses that users wrote."""


def default_cache(root: Path) -> Path:
    """The cache directory for a raw tree: one each, below the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "dadafs" / _digest(root)


def runtime_directory(mountpoint: Path) -> Path:
    """Where the sockets of the mount at `mountpoint` are; only its user can enter."""
    base = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    if not (os.path.isdir(base) and os.access(base, os.W_OK) and len(base) < 60):
        base = os.path.join(tempfile.gettempdir(), f"dadafs-{os.getuid()}")
        os.makedirs(base, 0o700, exist_ok=True)
        _check_private(base)
    return Path(base) / "dadafs" / _digest(mountpoint)


def _digest(path: Path) -> str:
    return blake2b(os.fsencode(os.path.abspath(path)), digest_size=8).hexdigest()


def _check_private(directory: str) -> None:
    """Refuse a directory in which others could put sockets of their own."""
    about = os.lstat(directory)
    if about.st_uid != os.getuid() or about.st_mode & 0o077 or not os.path.isdir(directory):
        raise UsageError(f"{directory} belongs to somebody else; set XDG_RUNTIME_DIR")
