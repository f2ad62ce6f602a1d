"""What is mounted where is read from the kernel's table; a bad mount point is refused in a line."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dadafs.client.mounting import mountpoint as module
from dadafs.client.mounting.mountpoint import (
    Mounted,
    detach,
    is_stale,
    mount_above,
    mount_at,
    mounts,
    prepare,
)
from dadafs.errors import UsageError

Table = Callable[..., None]
OTHERS = [
    "22 28 0:21 / /proc rw,nosuid - proc proc rw",
    "29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw",
    "30 1 8:1 / /odd\rname rw - ext4  rw",
]


def escaped(text: str) -> str:
    """As the kernel writes names."""
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\#" else c for c in text)


def line(where: object, what: str = "/data", kind: str = "fuse.dadafs", minor: int = 50) -> str:
    place = f"36 29 0:{minor} / {escaped(str(where))} ro,nosuid master:3"
    return f"{place} - {kind} {escaped(what)} ro,user_id=0"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    """Write the table of mounts."""
    path = tmp_path / "mountinfo"
    monkeypatch.setattr(module, "MOUNT_TABLE", str(path))

    def write(*lines: str) -> None:
        text = "".join(one + "\n" for one in (*OTHERS, *lines))
        path.write_bytes(text.encode(errors="surrogateescape"))

    write()
    return write


def test_only_our_mounts_are_found(table: Table) -> None:
    assert mounts() == []
    table(line("/mnt/a", minor=51), line("/mnt/x", kind="fuse.sshfs"), line("/mnt/b", "/raw"))
    assert mounts() == [
        Mounted(Path("/mnt/a"), "/data", 51),
        Mounted(Path("/mnt/b"), "/raw", 50),
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("with space", "tab\there", "new\nline", "back\\slash", "back\\040slash", "#1"),
        *("return\rhere", "no-break\u00a0space", "größe", "\udcff", "a - b", "\x1f", "\x85"),
    ],
)
def test_names_with_escapes(table: Table, name: str) -> None:
    table(line(f"/mnt/{name}", f"/data/{name}"))
    assert mounts() == [Mounted(Path(f"/mnt/{name}"), f"/data/{name}", 50)]
    assert mount_at(Path(f"/mnt/{name}")) == mounts()[0]


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_escapes_are_undone(text: str) -> None:
    assert module._unescape(escaped(text)) == text


def test_the_kernels_own_table_is_read() -> None:
    assert isinstance(mounts(), list)


def test_mount_at_is_exact_and_takes_the_topmost(table: Table, tmp_path: Path) -> None:
    table(line("/mnt/a", "/one"), line("/mnt/a", "/two"), line("/mnt/a/b", "/three"))
    found = mount_at(Path("/mnt/x/../a/"))
    assert found is not None
    assert found.source == "/two"
    assert mount_at(Path("/mnt")) is None
    assert mount_at(Path("/mnt/a/c")) is None


def test_mount_above_is_the_nearest(table: Table) -> None:
    table(line("/mnt/a/b", "/inner"), line("/mnt/a", "/outer"), line("/mnt/ab", "/other"))
    sources = {
        path: mount.source if (mount := mount_above(Path(path))) else None
        for path in ("/mnt/a", "/mnt/a/x/y", "/mnt/a/b/c", "/mnt/abc", "/mnt", "/")
    }
    assert sources == {
        "/mnt/a": "/outer",
        "/mnt/a/x/y": "/outer",
        "/mnt/a/b/c": "/inner",
        "/mnt/abc": None,
        "/mnt": None,
        "/": None,
    }


def test_mounts_are_found_through_symlinks(table: Table, tmp_path: Path) -> None:
    (tmp_path / "real/mount").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    table(line(tmp_path / "real/mount"))
    assert mount_at(tmp_path / "link/mount") == mounts()[0]
    assert mount_above(tmp_path / "link/mount/scan/full.npy") == mounts()[0]


@pytest.mark.parametrize(
    ("code", "stale"),
    [(errno.ENOTCONN, True), (errno.ECONNABORTED, True), (errno.EACCES, False), (0, False)],
)
def test_stale_mounts(monkeypatch: pytest.MonkeyPatch, code: int, stale: bool) -> None:
    def statvfs(path: Path) -> None:
        if code:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "statvfs", statvfs)
    assert is_stale(Path("/mnt/a")) is stale


BUSY = "fusermount3: failed to unmount /mnt/a: Device or resource busy\n"


class Fusermount:
    """Stands for the program: keeps its command lines, ends as told."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.code = 0
        self.said = ""
        self.hangs = False
        self.busy = 0
        """So many times at first."""

    def run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        if self.hangs:
            raise subprocess.TimeoutExpired(command, options["timeout"])
        if len(self.commands) <= self.busy:
            return subprocess.CompletedProcess(command, 1, "", BUSY)
        return subprocess.CompletedProcess(command, self.code, "", self.said)


@pytest.fixture
def fusermount(monkeypatch: pytest.MonkeyPatch) -> Fusermount:
    made = Fusermount()
    monkeypatch.setattr(subprocess, "run", made.run)
    monkeypatch.setattr(module, "BUSY_S", -1.0)  # nothing is tried again
    return made


def test_detaching(fusermount: Fusermount) -> None:
    detach(Path("/mnt/a"))
    detach(Path("/mnt/a"), lazy=True)
    assert fusermount.commands == [
        ["fusermount3", "-u", "/mnt/a"],
        ["fusermount3", "-u", "-z", "/mnt/a"],
    ]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            BUSY,
            "/mnt/a is in use; close what has files or a shell in it, or add --lazy",
        ),
        ("fusermount3: not permitted\n", "fusermount3: not permitted"),
        ("", "fusermount3 ended with 1"),
    ],
)
def test_detaching_that_fails(fusermount: Fusermount, said: str, reason: str) -> None:
    fusermount.code, fusermount.said = 1, said
    with pytest.raises(UsageError) as caught:
        detach(Path("/mnt/a"))
    assert str(caught.value) == reason


def test_detaching_waits_for_who_only_looks(
    fusermount: Fusermount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_S", 60.0)
    fusermount.busy = 3
    detach(Path("/mnt/a"))
    assert fusermount.commands == [["fusermount3", "-u", "/mnt/a"]] * 4


def test_detaching_that_hangs(fusermount: Fusermount) -> None:
    fusermount.hangs = True
    with pytest.raises(UsageError, match="fusermount3 -u /mnt/a does not end"):
        detach(Path("/mnt/a"))


@pytest.fixture
def places(
    tmp_path: Path, table: Table, fusermount: Fusermount, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    """A raw tree and an empty directory, on a machine with FUSE."""
    root, mountpoint = tmp_path / "raw", tmp_path / "mnt"
    root.mkdir()
    mountpoint.mkdir()
    (root / "s_master.h5").touch()
    exists = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: path == "/dev/fuse" or exists(path))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    return root, mountpoint


def refusal(root: Path, mountpoint: Path) -> str:
    with pytest.raises(UsageError) as caught:
        prepare(root, mountpoint)
    reason = str(caught.value)
    assert len(reason.splitlines()) == 1
    return reason


def test_good_places(places: tuple[Path, Path], fusermount: Fusermount) -> None:
    prepare(*places)
    assert fusermount.commands == []


def test_machine_without_fuse(places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert refusal(*places) == "fusermount3 is missing: `apt install fuse3`"
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert refusal(*places) == "/dev/fuse is missing: `modprobe fuse`; in a container, pass it in"


@pytest.mark.parametrize("name", ["absent", "s_master.h5", "x" * 300, "s_master.h5/below"])
def test_raw_tree_that_is_none(places: tuple[Path, Path], name: str) -> None:
    root, mountpoint = places
    assert refusal(root / name, mountpoint) == f"{root / name}: no such directory to mount"


@pytest.mark.parametrize("name", ["absent", "dangling", "x" * 300, "file/below"])
def test_mount_point_that_is_not_there(
    places: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").touch()
    where = tmp_path / name
    reason = f"mount point {where} does not exist; make an empty directory"
    assert refusal(places[0], where) == reason


def test_mount_point_that_is_a_file(places: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is no directory; make an empty directory" in refusal(places[0], tmp_path / "file")


def test_mount_point_that_is_not_empty(places: tuple[Path, Path]) -> None:
    root, mountpoint = places
    (mountpoint / ".hidden").touch()
    assert refusal(root, mountpoint) == f"mount point {mountpoint} is not empty"


def test_mount_point_that_cannot_be_read(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def iterdir(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert refusal(*places) == f"mount point {places[1]} cannot be read: Permission denied"


def test_places_within_one_another(places: tuple[Path, Path], tmp_path: Path) -> None:
    root, mountpoint = places
    (root / "inner").mkdir()
    (mountpoint / "inner").mkdir()
    (tmp_path / "link").symlink_to(root / "inner")
    for raw, mounted in (
        (root, root),
        (root, root / "inner"),
        (root, tmp_path / "link"),
        (mountpoint / "inner", mountpoint),
        (Path("/"), mountpoint),
    ):
        assert "lie within one another" in refusal(raw, mounted)


def test_live_mount_is_left_alone(
    places: tuple[Path, Path], table: Table, fusermount: Fusermount
) -> None:
    root, mountpoint = places
    table(line(mountpoint, "/other"))
    reason = (
        f"{mountpoint} is a dadafs mount already, of /other; `dadafs umount {mountpoint}` ends it"
    )
    assert refusal(root, mountpoint) == reason
    assert fusermount.commands == []


def test_stale_mount_is_taken_away(
    places: tuple[Path, Path],
    table: Table,
    fusermount: Fusermount,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, mountpoint = places
    table(line(mountpoint))
    monkeypatch.setattr(module, "is_stale", lambda path: True)
    prepare(root, mountpoint)
    assert fusermount.commands == [["fusermount3", "-u", "-z", str(mountpoint)]]


def test_stale_mount_that_stays(
    places: tuple[Path, Path],
    table: Table,
    fusermount: Fusermount,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table(line(places[1]))
    monkeypatch.setattr(module, "is_stale", lambda path: True)
    fusermount.code, fusermount.said = 1, "fusermount3: entry not found in /etc/mtab"
    assert refusal(*places) == "fusermount3: entry not found in /etc/mtab"


def test_widening_what_is_not_mounted(table: Table) -> None:
    module.widen(Path("/mnt/a"), 64, 1 << 20)


def test_unmounting_what_is_not_mounted(table: Table, fusermount: Fusermount) -> None:
    with pytest.raises(UsageError, match=r"^/mnt/a is not a dadafs mount$"):
        module.unmount(Path("/mnt/a"))
    assert fusermount.commands == []


@pytest.mark.parametrize("stale", [False, True])
def test_unmounting_takes_a_stale_mount_in_use(
    table: Table, fusermount: Fusermount, monkeypatch: pytest.MonkeyPatch, stale: bool
) -> None:
    table(line("/mnt/a"))
    monkeypatch.setattr(module, "is_stale", lambda path: stale)
    fusermount.code, fusermount.said = 1, "fusermount3: failed to unmount: Device or resource busy"
    with pytest.raises(UsageError, match="is in use"):
        module.unmount(Path("/mnt/a"))
    lazy = [["fusermount3", "-u", "-z", "/mnt/a"]] if stale else []
    assert fusermount.commands == [["fusermount3", "-u", "/mnt/a"], *lazy]
