"""Servers, peers and mounts as real processes on loopback, for benchmarks and soaks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DADAFS = (sys.executable, "-m", "dadafs.cli")
HOST = "127.0.0.1"
PATIENCE_S = 60.0  # until a daemon answers
END_S = 30.0


class Node:
    """A dadafs daemon that can be killed and started again."""

    def __init__(self, log: Path, *words: str | Path) -> None:
        self.log = log
        self._command = [*DADAFS, *map(str, words)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of its process now."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """In a process of its own; its sockets are in the directory of its log."""
        env = os.environ | {"XDG_RUNTIME_DIR": str(self.log.parent)}
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                self._command, stdout=out, stderr=out, cwd=ROOT, env=env
            )

    def send(self, number: signal.Signals) -> None:
        """A signal; a process that has ended gets none."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> int:
        """By -9; its exit status, another than -9 where it had ended by itself."""
        self.send(signal.SIGKILL)
        assert self._process is not None
        return self._process.wait(END_S)

    def stop(self) -> int:
        """As an administrator does; its exit status."""
        self.send(signal.SIGTERM)
        assert self._process is not None
        return self._process.wait(END_S)


@contextmanager
def running(node: Node) -> Iterator[Node]:
    """The node, from its start to its end."""
    node.start()
    try:
        yield node
    finally:
        node.stop()


def server_node(raw: Path, place: Path, port: int, *options: str | Path) -> Node:
    """A server on loopback, not yet started."""
    place.mkdir(exist_ok=True)
    words: list[str | Path] = [
        "--root",
        raw,
        "--listen",
        f"{HOST}:{port}",
        "--cache",
        place / "index",
        *options,
    ]
    return Node(place / "server.log", "server", *words)


def peer_node(address: str, place: Path, name: str, *options: str | Path) -> Node:
    """A peer of one thread, not yet started."""
    words = ("--server", address, "--name", name, "--threads", "1", "--cache", place / name)
    return Node(place / f"{name}.log", "peer", *words, *options)


@contextmanager
def server(raw: Path, place: Path, *options: str | Path) -> Iterator[str]:
    """A server on loopback; its address."""
    port = free_port()
    with running(server_node(raw, place, port, *options)):
        wait(lambda: answers(port), "a server starts")
        yield f"{HOST}:{port}"


@contextmanager
def peer(address: str, place: Path, name: str, *options: str | Path) -> Iterator[None]:
    """A peer of one thread, announced and warm."""
    with running(peer_node(address, place, name, *options)):
        time.sleep(3)  # announced, and seen by the mount
        yield


@contextmanager
def mounted(address: str, place: Path, *options: str | Path, name: str = "mnt") -> Iterator[Path]:
    """A mount of the server."""
    mnt = place / name
    mnt.mkdir()
    env = os.environ | {"XDG_RUNTIME_DIR": str(place)}
    words = ["mount", f"tcp://{address}", mnt, "--cache", place / f"cache-{name}", *options]
    subprocess.run([*DADAFS, *map(str, words)], check=True, timeout=90, env=env)
    try:
        yield mnt
    finally:
        subprocess.run([*DADAFS, "umount", "--lazy", mnt], check=True, timeout=30, env=env)


def answers(port: int) -> bool:
    """Whether something listens there."""
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


def wait(look: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Until `look` finds it so. TimeoutError."""
    deadline = time.monotonic() + patience_s
    while not look():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {patience_s:.0f} s: {what}")
        time.sleep(0.05)


def free_port() -> int:
    """A port of loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
