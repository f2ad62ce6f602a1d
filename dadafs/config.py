"""Where things are and how much of them there may be."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

from dadafs.errors import UsageError

DEFAULT_PORT = 4242
CONTROL = "control.sock"  # in the runtime directory of a mount
RESULTS_BYTES = 8 << 30  # of sparse map; the values of 10^6 frames take about 60 MB
RAW_BYTES = 128 << 20
FRESH_S = 5.0  # of a cluster: a warm listing asks nothing, and new scans are seen soon enough
MEMORY_BYTES = 48 << 20  # recent values in the mount, which is to stay below 150 MB


def cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class MountConfig:
    """What one mount needs to know."""

    root: Path | None
    """The raw tree; None where a server elsewhere has it."""
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
    server: tuple[str, int] | None = None
    """Host and port of a server, where there is no raw tree here."""
    tls: Path | None = None
    """Directory of certificates."""
    fresh_s: float = FRESH_S
    """How long the server's answers about the raw tree are believed."""
    raw_bytes: int = RAW_BYTES
    """Of raw data in RAM, where it comes from a server."""
    metrics_port: int | None = None
    """Of 127.0.0.1; None for no such port."""
    local_peer: bool = True
    """Whether this machine computes when no peer is there."""

    @property
    def source(self) -> str:
        """What is mounted, in a word."""
        return f"tcp://{self.server[0]}:{self.server[1]}" if self.server else str(self.root)


def caches() -> Path:
    """Where the caches of this user are."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "dadafs"


def default_cache(source: str) -> Path:
    """The cache directory for a raw tree or server: one each, below the user's cache directory."""
    return caches() / _digest(source)


def address(text: str, default_port: int = DEFAULT_PORT) -> tuple[str, int]:
    """Host and port of `tcp://host:port`, `host:port`, `[::1]:port` or `host`. UsageError."""
    rest = text.removeprefix("tcp://").rstrip("/")
    host, colon, port = rest.rpartition(":")
    if not colon or rest.endswith("]"):
        host, port = rest, str(default_port)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 <= int(port) < 65536:
        raise UsageError(f"{text!r} is no address; say for instance tcp://heinzelfrau:4242")
    return host, int(port)


def runtime_directory(mountpoint: Path) -> Path:
    """Where the sockets of the mount at `mountpoint` are; only its user can enter.

    `mountpoint` as the kernel names it, without symlinks.
    """
    base = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    if not (os.path.isdir(base) and os.access(base, os.W_OK) and len(base) < 60):
        base = os.path.join(tempfile.gettempdir(), f"dadafs-{os.getuid()}")
        os.makedirs(base, 0o700, exist_ok=True)
        _check_private(base)
    return Path(base) / "dadafs" / _digest(os.fspath(mountpoint))


def _digest(name: str) -> str:
    return blake2b(os.fsencode(name), digest_size=8).hexdigest()


def _check_private(directory: str) -> None:
    """Refuse a directory in which others could put sockets of their own."""
    about = os.lstat(directory)
    if about.st_uid != os.getuid() or about.st_mode & 0o077 or not os.path.isdir(directory):
        raise UsageError(f"{directory} belongs to somebody else; set XDG_RUNTIME_DIR")
