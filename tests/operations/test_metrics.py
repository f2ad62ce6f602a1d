"""What watches a node from outside: metrics, by file and by port, and stacks at a signal."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
from mounting import COMMAND, Site, contents, until

from dadafs.client.telling.metrics import metrics_text

pytestmark = pytest.mark.mount
ROOT = Path(__file__).resolve().parents[2]
SAMPLE = re.compile(r'dadafs_(\w+)(?:\{\w+="[^"\n]*"\})? -?[\d.e+-]+')


def names(text: str) -> set[str]:
    """The metrics in a text, which is well formed."""
    typed, sampled = set(), set()
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            typed.add(line.split()[2].removeprefix("dadafs_"))
        elif not line.startswith("# HELP"):
            found = SAMPLE.fullmatch(line)
            assert found, line
            sampled.add(found[1])
    assert sampled <= typed
    return typed


def documented(heading: str) -> set[str]:
    """The names in the first column of the table below a heading of the page."""
    page = (ROOT / "docs/operations.md").read_text()
    section = page.partition(heading)[2]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table
    rows = table[0].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetched(port: int, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
    """Status and body of an answer by HTTP."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_the_page_tells_the_metrics_of_a_mount(working: Site) -> None:
    text = (working.mnt / ".dadafs/metrics").read_text()
    assert "dadafs_peers_up 1\n" in text
    assert names(text) == documented("## What to watch")


def test_a_mount_answers_at_its_port(bare: Site) -> None:
    port = free_port()
    bare.mount("--metrics-port", str(port))
    status, text = fetched(port)
    assert (status, names(text)) == (200, documented("## What to watch"))
    contents(bare.mnt / "raster/darkfield/full.npy")
    assert "dadafs_frames_computed_total 143\n" in fetched(port, "/metrics?x=1")[1]
    assert fetched(port, "/")[0] == 404
    assert fetched(port, method="POST")[0] == 405
    with socket.create_connection(("127.0.0.1", port)) as silent:
        assert fetched(port)[0] == 200  # while another one says nothing
        silent.sendall(b"\xff" * 20_000)
        assert fetched(port)[0] == 200
    again = bare.base / "again"
    again.mkdir()
    done = bare.run("mount", bare.raw, again, "--metrics-port", str(port))
    line = f"dadafs: metrics_port: cannot listen on 127.0.0.1:{port}: Address already in use"
    assert (done.returncode, done.stderr.splitlines()) == (2, [line])


@pytest.mark.parametrize("value", ["0.0.0.0:9142", "0", "65536", "heinzelfrau"])
def test_only_a_port_of_this_machine_is_taken(bare: Site, value: str) -> None:
    done = bare.run("mount", bare.raw, bare.mnt, "--metrics-port", value)
    assert done.returncode == 2
    line = f"{value!r} is no port from 1 to 65535; it answers this machine only"
    assert done.stderr.splitlines()[-1].endswith(line)


@contextmanager
def node(site: Site, *words: str | Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)], env=site.env, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_servers_and_peers_answer_too(bare: Site) -> None:
    ports = [free_port() for _ in range(3)]
    address = f"127.0.0.1:{ports[0]}"

    def answers(port: int) -> str:
        try:
            return fetched(port)[1]
        except OSError:
            return ""

    server = ("server", "--root", bare.raw, "--listen", address, "--metrics-port", str(ports[1]))
    peer = ("peer", "--server", address, "--threads=1", "--metrics-port", str(ports[2]))
    with node(bare, *server), node(bare, *peer):
        texts = [until(lambda port=port: answers(port), "answers") for port in ports[1:]]
    wanted = documented("A server and a peer")
    assert [names(text) for text in texts] == [wanted, wanted]
    assert "dadafs_threads 1\n" in texts[1]


def test_every_process_of_a_mount_writes_its_stacks(bare: Site) -> None:
    bare.mount()
    log = next(bare.runtime.glob("dadafs/*/mount.log"))
    for role, room in (("mount", "mount.py"), ("server", "service.py"), ("peer", "service.py")):
        before = log.stat().st_size
        os.kill(bare.pid_of(role), signal.SIGUSR1)

        def told(before: int = before) -> str:
            text = log.read_bytes()[before:].decode()
            return text if "tasks at " in text else ""

        text = until(told, f"stacks of the {role}")
        assert re.search(r"thread .* \(most recent call first\):\n  \S+:\d+ ", text), role
        until(lambda: re.search(rf"{room}:\d+ ", told()), f"tasks of the {role}")  # noqa: B023
    assert bare.stats()["processes"] == {"server": 1, "peer": 1}  # it ended none of them


def test_stacks_of_a_server_that_is_busy_come_all_the_same(bare: Site) -> None:
    """The main thread is written in C: also while Python code does not come to an end."""
    code = (
        "import sys, trio, dadafs.stacks as s\n"
        "async def busy():\n"
        "    s.dump_at_signal(); print('ready', flush=True)\n"
        "    sum(range(10**11))\n"
        "trio.run(busy)\n"
    )
    process = subprocess.Popen(
        [COMMAND[0], "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGUSR1)
        assert b"most recent call first" in process.stderr.readline()
    finally:
        process.kill()
        process.communicate()


def test_metrics_of_a_mount_without_server() -> None:
    stats = {
        "uptime_s": 1.5,
        "memory_bytes": 5,
        "frames_computed": 0,
        "patches_computed": 0,
        "mount": {'odd"name': 1},
        "open": {},
        "farm": {"in_flight": 0},
        "processes": {},
        "link": {},
        "server": None,
        "peers": [None],
        "log_lines": 0,
    }
    text = metrics_text(stats, {"jobs": []})
    assert "dadafs_server_up 0\n" in text
    assert "dadafs_peers_down 1\n" in text
    assert 'event="odd\\"name"' in text
