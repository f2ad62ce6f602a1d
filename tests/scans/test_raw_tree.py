"""Raw files are reached inside the root and nowhere else."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from dadafs.errors import BadData, NoSuchPath, NotPermitted, UsageError
from dadafs.scans.names import show
from dadafs.scans.tree import RawTree


def names(tree: RawTree, path: bytes = b"") -> dict[bytes, str]:
    return {entry.name: entry.attributes.kind for entry in tree.listing(path)}


def content(tree: RawTree, path: bytes) -> bytes:
    fd = tree.open(path)
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_bytes(b"secret")
    return path


def test_attributes_are_those_of_stat(root: Path, tree: RawTree) -> None:
    (root / "a").mkdir()
    (root / "a/b").write_bytes(b"12345")
    (root / "a/b").chmod(0o640)
    about = os.stat(root / "a/b")
    found = tree.attributes(b"a/b")
    assert (found.kind, found.size, found.mode) == ("file", 5, 0o640)
    assert (found.mtime_ns, found.inode) == (about.st_mtime_ns, about.st_ino)
    assert (found.uid, found.gid) == (about.st_uid, about.st_gid)
    identity = tree.identity(b"a/b")
    assert (identity.size, identity.mtime_ns, identity.inode) == (
        5,
        about.st_mtime_ns,
        about.st_ino,
    )
    assert tree.attributes(b"").kind == tree.attributes(b"a").kind == "directory"
    assert names(tree) == {b"a": "directory"}
    assert names(tree, b"a") == {b"b": "file"}
    assert tree.listing(b"a")[0].attributes == found
    assert content(tree, b"a/b") == b"12345"


@pytest.mark.parametrize(
    "path",
    [b"..", b"../outside/secret", b"a/../../outside/secret", b".", b"a//b", b"a/", b"/a", b"a/./b"],
)
def test_paths_that_could_lead_up_do_not_exist(
    root: Path, tree: RawTree, outside: Path, path: bytes
) -> None:
    (root / "a").mkdir()
    (root / "a/b").write_bytes(b"x")
    for ask in (tree.attributes, tree.listing, tree.open, tree.identity, tree.kinds):
        with pytest.raises(NoSuchPath, match="not a path of the raw tree"):
            ask(path)


@pytest.mark.parametrize("path", [b"a\0b", b"x" * 300, b"no/such", b"file/below"])
def test_impossible_names_do_not_exist(root: Path, tree: RawTree, path: bytes) -> None:
    (root / "file").write_bytes(b"x")
    for ask in (tree.attributes, tree.listing, tree.open, tree.identity):
        with pytest.raises(NoSuchPath):
            ask(path)


def test_symlinks_out_of_the_root_are_hidden_and_refused(
    root: Path, tree: RawTree, outside: Path
) -> None:
    (root / "file").symlink_to(outside / "secret")
    (root / "directory").symlink_to(outside)
    (root / "relative").symlink_to("../outside/secret")
    (root / "sub").mkdir()
    (root / "sub/up").symlink_to("../..")
    assert names(tree) == {b"sub": "directory"}
    assert names(tree, b"sub") == {}
    assert [name for name, _, _ in tree.kinds(b"")] == [b"sub"]
    for path in (b"file", b"relative", b"directory/secret", b"sub/up/outside/secret"):
        for ask in (tree.attributes, tree.open, tree.identity):
            with pytest.raises(NotPermitted, match="leads out of the raw tree"):
                ask(path)
    for path in (b"directory", b"sub/up"):
        with pytest.raises(NotPermitted):
            tree.listing(path)
        with pytest.raises(NotPermitted):
            tree.attributes(path)


def test_root_with_a_sibling_of_longer_name_contains_only_itself(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw2").mkdir()
    (tmp_path / "raw2/secret").write_bytes(b"s")
    (tmp_path / "raw/link").symlink_to("../raw2/secret")
    with pytest.raises(NotPermitted):
        RawTree(tmp_path / "raw").open(b"link")


def test_symlinks_to_files_inside_are_files(root: Path, tree: RawTree) -> None:
    (root / "real").write_bytes(b"12345")
    (root / "absolute").symlink_to(root / "real")
    (root / "sub").mkdir()
    (root / "sub/relative").symlink_to("../real")
    assert names(tree) == {b"real": "file", b"absolute": "file", b"sub": "directory"}
    assert names(tree, b"sub") == {b"relative": "file"}
    assert tree.attributes(b"sub/relative") == tree.attributes(b"real")
    assert content(tree, b"absolute") == content(tree, b"sub/relative") == b"12345"


def test_symlinks_to_directories_inside_stay_symlinks(root: Path, tree: RawTree) -> None:
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/file").write_bytes(b"x")
    (root / "c").mkdir()
    (root / "c/absolute").symlink_to(root / "a/b")
    (root / "c/loop").symlink_to("..")
    found = tree.attributes(b"c/absolute")
    assert (found.kind, found.target, found.size) == ("symlink", b"../a/b", 6)
    assert tree.attributes(b"c/loop").target == b".."
    assert names(tree, b"c") == {b"absolute": "symlink", b"loop": "symlink"}
    assert tree.attributes(b"c/absolute/file").kind == "file"
    # a link reached through a link: its target counts from where it really lies
    assert tree.attributes(b"c/loop/c/absolute").target == b"../a/b"


def test_symlinks_to_nothing_are_hidden(root: Path, tree: RawTree) -> None:
    (root / "dangling").symlink_to("nowhere")
    (root / "self").symlink_to("self")
    assert names(tree) == {}
    for path in (b"dangling", b"self"):
        with pytest.raises(NoSuchPath, match="leads nowhere"):
            tree.attributes(path)
        with pytest.raises(NoSuchPath):
            tree.open(path)


def test_special_files_are_hidden_and_never_block(root: Path, tree: RawTree) -> None:
    os.mkfifo(root / "fifo")
    (root / "link").symlink_to("fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(root / "socket"))
        assert names(tree) == {}
        assert tree.kinds(b"") == []
        for path in (b"fifo", b"link", b"socket"):
            for ask in (tree.attributes, tree.open, tree.identity):
                with pytest.raises(NoSuchPath, match="neither a file nor a directory"):
                    ask(path)


def test_directories_do_not_open(root: Path, tree: RawTree) -> None:
    (root / "a").mkdir()
    with pytest.raises(NoSuchPath, match="a is a directory"):
        tree.open(b"a")


def test_names_may_be_any_bytes(root: Path, tree: RawTree) -> None:
    name = b"caf\xe9\n\xff"
    (Path(os.fsdecode(os.fsencode(root) + b"/" + name))).write_bytes(b"x")
    assert names(tree) == {name: "file"}
    assert tree.kinds(b"") == [(name, "file", False)]
    assert tree.attributes(name).kind == "file"
    assert content(tree, name) == b"x"
    assert show(name) == "caf\\xe9\\n\\xff"
    with pytest.raises(NoSuchPath) as caught:
        tree.open(name + b"!")
    assert str(caught.value).encode() == b"caf\\xe9\\n\\xff! does not exist"


def test_refusals_of_the_system_are_told(
    root: Path, tree: RawTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "a").mkdir()

    def refuse(*arguments: Any, **options: Any) -> int:
        raise PermissionError(13, "Permission denied")

    def fail(*arguments: Any, **options: Any) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(NotPermitted, match="a may not be read"):
        tree.listing(b"a")
    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(BadData, match="a cannot be reached: Input/output error"):
        tree.attributes(b"a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_directory(root: Path, tree: RawTree) -> None:
    (root / "a").mkdir(0)
    with pytest.raises(NotPermitted):
        tree.listing(b"a")


def test_descriptors_do_not_leak(root: Path, tree: RawTree) -> None:
    (root / "a").mkdir()
    (root / "link").symlink_to("/")
    before = len(os.listdir("/proc/self/fd"))
    for path in (b"a", b"link", b"none", b""):
        for ask in (tree.attributes, tree.listing, tree.kinds, tree.identity, tree.open):
            try:
                ask(path)
            except (NoSuchPath, NotPermitted):
                continue
    assert len(os.listdir("/proc/self/fd")) == before


def test_root_must_be_a_directory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a directory"):
        RawTree(tmp_path / "none")
