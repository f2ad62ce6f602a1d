"""The commands on a real mount: what they print, their exit codes, and a mount that hangs."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import select
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mounting import COMMAND, Site, contents, until

from dadafs.client.asking.fetching import Progress
from dadafs.commands.checking import allow_other, descriptors
from dadafs.commands.fetching import bar_line
from dadafs.commands.showing import duration, jobs_text, peers_text, size

pytestmark = pytest.mark.mount
MAP = "raster/darkfield/horz=13/vert=11.npy"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(working: Site, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command within this process: exit code, output, complaints."""
    return lambda *words: working.command(capsys, *words)


def test_status_is_a_table_and_json(working: Site, command: Command) -> None:
    code, out, err = command("status", working.mnt)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"{working.mnt}  {working.raw}"
    assert "peers     1 answer, with" in out
    told = json.loads(command("status", working.mnt, "--json")[1])
    assert told["server"]["pid"] > 0
    assert f"{working.mnt}" in command("status")[1]


def test_peers_and_top(working: Site, command: Command) -> None:
    code, out, _ = command("peers", working.mnt)
    assert (code, len(out.splitlines())) == (0, 2)
    assert "answers" in out
    assert json.loads(command("peers", working.mnt, "--json")[1])["peers"][0]["answers"]
    code, out, _ = command("top", working.mnt, "--once")
    assert code == 0
    assert "nobody waits for a computation" in out


def test_top_refreshes_until_q(working: Site) -> None:
    master, slave = pty.openpty()
    words = [*COMMAND, "top", str(working.mnt)]
    process = subprocess.Popen(
        words, stdin=slave, stdout=slave, stderr=slave, env=working.env, start_new_session=True
    )
    os.close(slave)
    try:
        seen, deadline = b"", time.monotonic() + 20
        while b"frames/s: 0" not in seen:
            assert time.monotonic() < deadline, seen[-2000:]
            assert select.select([master], [], [], 20)[0], seen
            seen += os.read(master, 65536)
        os.write(master, b"q")
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_get_is_what_cp_gives(working: Site, command: Command, tmp_path: Path) -> None:
    dest = tmp_path / "map.npy"
    code, out, err = command("get", working.mnt / MAP, dest)
    assert (code, err) == (0, "")
    assert dest.read_bytes() == contents(working.mnt / MAP)
    assert f"{dest.stat().st_size} bytes" in out
    for name in ("raster/raw/raster_data_000001.h5", "README.txt", "raster/scan.json"):
        source = working.mnt / name
        assert command("get", source, tmp_path)[0] == 0
        assert (tmp_path / source.name).read_bytes() == contents(source)
    assert command("get", working.mnt / ".dadafs/stats.json", tmp_path)[0] == 0
    assert json.loads((tmp_path / "stats.json").read_text())["pid"]
    assert sorted(one.suffix for one in tmp_path.iterdir() if ".part" in one.name) == []


def test_get_goes_on_where_it_stopped(working: Site, command: Command, tmp_path: Path) -> None:
    source = working.mnt / "raster/raw/raster_data_000001.h5"
    dest = tmp_path / "data.h5"
    part, note = tmp_path / "data.h5.part", tmp_path / "data.h5.part.json"
    whole = contents(source)
    assert command("get", source, dest)[0] == 0
    # as if it had been killed: half is there, and what it is half of
    from dadafs.client.asking.fetching import facts
    from dadafs.commands.fetching import _noted

    about = facts(working.mnt, b"raster/raw/raster_data_000001.h5")
    half = len(whole) // 2
    part.write_bytes(whole[:half])
    note.write_text(_noted(about))
    code, out, _ = command("get", source, dest)
    assert (code, dest.read_bytes() == whole) == (0, True)
    assert f"{half} of them from before" in out
    # of another content: from the beginning
    part.write_bytes(b"x" * half)
    note.write_text("[]")
    code, out, _ = command("get", source, dest)
    assert (code, dest.read_bytes() == whole) == (0, True)
    assert "from before" not in out
    assert not part.exists()
    assert not note.exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("get", "@/raster/nix.npy", "/tmp"), 1, "nix.npy"),
        (("get", "@/raster/darkfield", "/tmp"), 1, "is a directory; name a file"),
        (("get", "/etc/passwd", "/tmp"), 2, "is not within a dadafs mount"),
        (("get", "@/README.txt", "@/raster"), 2, "read-only"),
        (("get", "@/README.txt", "/no/such/place/x"), 2, "is no directory"),
        (("warm", "@/raster/darkfeld/full.npy"), 1, "darkfield"),
        (("status", "/etc"), 2, "is not a dadafs mount"),
        (("cache", "stats", "--cache", "/no/such"), 2, "is no directory"),
        (("config", "show", "--config", "/no/such"), 2, "no such configuration file"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(
    working: Site, command: Command, words: tuple[str, ...], code: int, said: str
) -> None:
    got, out, err = command(*(word.replace("@", str(working.mnt)) for word in words))
    assert (got, out) == (code, "")
    (line,) = err.splitlines()
    assert said in line


def test_warm_computes_once(working: Site, command: Command) -> None:
    path = working.mnt / "raster/dpc/roi=3,4,9,8/horz=13.npy"
    with working.computing(frames=143):
        code, out, _ = command("warm", path, path)
        assert (code, len(out.splitlines())) == (0, 2)
        contents(path)


def test_cache_of_a_mount_is_seen_and_not_cleared(working: Site, command: Command) -> None:
    contents(working.mnt / MAP)
    code, out, _ = command("cache", "stats")
    assert code == 0
    assert out.count("in use") == len(out.splitlines()) == 2
    code, out, err = command("cache", "clear")
    assert (code, out) == (1, "")
    assert "is in use by a mount, server or peer; end it first" in err
    assert contents(working.mnt / MAP)


def test_cache_is_verified_and_cleared(bare: Site, capsys: pytest.CaptureFixture[str]) -> None:
    bare.mount()
    assert bare.command(capsys, "warm", bare.mnt / MAP)[0] == 0
    bare.unmount()
    code, out, _ = bare.command(capsys, "cache", "verify")
    assert (code, out.count("all sound")) == (0, 2)
    (store,) = bare.cache.glob("dadafs/*/results/data.mdb")
    data = bytearray(store.read_bytes())
    used = [n for n in range(16384, len(data) - 4096, 4096) if any(data[n : n + 4096])]
    for page in used:  # the end of a page of LMDB holds values
        data[page + 4090] ^= 0x55
    store.write_bytes(data)
    code, out, err = bare.command(capsys, "cache", "verify")
    assert code == 1
    assert "damaged" in out + err or "dadafs: " in err
    code, out, _ = bare.command(capsys, "cache", "clear")
    assert (code, out.count("removed")) == (0, 2)
    assert bare.command(capsys, "cache", "stats")[1].startswith("no cache in")
    bare.mount()
    assert bare.load(MAP).shape == (11, 13)


def test_doctor_looks_at_everything(working: Site, command: Command) -> None:
    code, out, _ = command("doctor", "--quick", "--server", "127.0.0.1:1")
    for what in (
        "/dev/fuse",
        "fusermount3",
        "allow_other",
        "packages",
        "memory",
        "open files",
        "caches",
    ):
        assert what in out
    assert f"{working.mnt} answers" in out
    assert re.search(r"SILENT +server .*does not answer", out)
    assert code == (1 if "WRONG" in out else 3)


def test_doctor_on_descriptors() -> None:
    states = [descriptors(hard).state for hard in (64, 1024, 8192, resource.RLIM_INFINITY)]
    assert states == ["WRONG", "note", "ok", "ok"]


def test_doctor_on_fuse_conf(tmp_path: Path) -> None:
    conf = tmp_path / "fuse.conf"
    assert allow_other(conf).state == "note"
    conf.write_text("#user_allow_other\n")
    assert allow_other(conf).state == "note"
    conf.write_text(" user_allow_other \n")
    assert allow_other(conf).state == "ok"


def pages(report: Path) -> dict[str, str]:
    with tarfile.open(report) as tar:
        files = {member.name.partition("/")[2]: tar.extractfile(member) for member in tar}
        return {name: file.read().decode() for name, file in files.items() if file}


def test_bugreport(working: Site, command: Command, tmp_path: Path) -> None:
    report = tmp_path / "report.tar.gz"
    assert command("bugreport", working.mnt, "--output", report)[0] == 0
    told = pages(report)
    assert json.loads(told["mount0/stats.json"])["pid"] == working.pid_of("mount")
    assert "dadafs.client.mounting.mount" in told["mount0/mount.log"]
    assert "numba" in told["versions.txt"]
    assert report.stat().st_mode & 0o077 == 0
    assert report.stat().st_size < 1 << 20


def started(site: Site, *words: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, words)],
        env=site.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def stopped(working: Site) -> Iterator[int]:
    """The process of the mount, which hangs."""
    pid = working.pid_of("mount")
    os.kill(pid, signal.SIGSTOP)
    until(lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "T", "is stopped")
    yield pid
    os.kill(pid, signal.SIGCONT)
    until(lambda: (working.mnt / ".dadafs/stats.json").read_text(), "goes on")


def test_a_mount_that_hangs_is_told_about_soon(working: Site, stopped: int, tmp_path: Path) -> None:
    report = tmp_path / "report.tar.gz"
    began = time.monotonic()
    asked = {
        "status": started(working, "status", working.mnt),
        "json": started(working, "status", working.mnt, "--json"),
        "doctor": started(working, "doctor", "--quick"),
        "bugreport": started(working, "bugreport", working.mnt, "--output", report),
        "peers": started(working, "peers", working.mnt),
    }
    said = {name: process.communicate(timeout=25) for name, process in asked.items()}
    assert time.monotonic() - began < 15  # 5 to 6 s on a quiet machine
    line = f"{working.mnt} does not answer: its process {stopped} is stopped"
    for name in ("status", "json", "doctor", "peers"):
        assert line in "".join(said[name]), name
    for name in ("status", "json", "peers"):
        assert asked[name].returncode == 3
    assert asked["doctor"].returncode in (1, 3)
    assert asked["bugreport"].returncode == 0
    told = pages(report)
    assert line in told["mount0/about.txt"]
    assert "State:\tT" in told["mount0/process.txt"]


def test_nothing_waits_for_a_mount_that_hangs(bare: Site) -> None:
    bare.mount()
    pid = bare.pid_of("mount")
    os.kill(pid, signal.SIGSTOP)
    asked = {
        "explain": started(bare, "explain", bare.mnt / MAP),
        "verify": started(bare, "verify", bare.mnt / MAP),
        "warm": started(bare, "warm", bare.mnt / MAP),
        "get": started(bare, "get", bare.mnt / MAP, bare.base),
        "top": started(bare, "top", "--once", bare.mnt),
        "mount": started(bare, "mount", bare.raw, bare.mnt),
    }
    said = {name: process.communicate(timeout=50)[1] for name, process in asked.items()}
    assert "is a dadafs mount already" in said.pop("mount")
    for name, line in said.items():
        assert f"{bare.mnt} does not answer: its process {pid} is stopped" in line, name
        assert asked[name].returncode == 3
    done = bare.run("umount", bare.mnt)
    assert done.returncode == 3
    line = f"dadafs: {bare.mnt} is taken away, but its process {pid} is stopped; `kill -CONT {pid}`"
    assert done.stderr == f"{line} lets it end\n"
    assert not bare.mounted()
    os.kill(pid, signal.SIGCONT)
    bare.wait_gone()


def test_lines_of_progress() -> None:
    line = bar_line("a.npy", Progress(50, 100), 0, 10.0)
    assert line == "a.npy [############............]  50% 5 B/s, 10 s left"
    line = bar_line("a.npy", Progress(0, 100, 3, 12, 1.5), 0, 2.0)
    assert line.endswith("patch 3 of 12, 1.5/s, 6 s left")
    assert bar_line("a.npy", Progress(0, 0), 0, 0.0).endswith("begins")
    told = [duration(seconds) for seconds in (3, 65, 3700, 90000)]
    assert told == ["3 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]
    assert [size(n) for n in (5, 2048, 3 << 40)] == ["5 B", "2.0 KiB", "3.0 TiB"]


def test_lists_are_bounded() -> None:
    peer = {"name": "h" * 50, "answers": False, "report": None}
    assert len(peers_text({"peers": [peer] * 1000}).splitlines()) < 60
    job = {"path": "p", "patches_done": 1, "patches_wanted": 2, "patches_per_s": 0.0}
    assert len(jobs_text({"jobs": [job] * 1000}).splitlines()) < 30
