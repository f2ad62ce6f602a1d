"""The raw tree: the only way to raw files, read-only, and never out of the root."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dadafs.errors import BadData, DadaError, NoSuchPath, NotPermitted, UsageError
from dadafs.scans.model import Attributes, Entry, Identity
from dadafs.scans.names import join, show

PERMISSIONS = 0o777
_HANDLE = os.O_PATH | os.O_CLOEXEC  # names a file without opening it: blocks on no FIFO or tape
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
_FORBIDDEN = (errno.EACCES, errno.EPERM)


class RawTree:
    """Directories and files below a root.

    A file is opened first and then asked, through its descriptor, where it lies; so whatever is
    swapped for a symlink in between, nothing outside the root is ever read. Symlinks to files
    inside the root are followed. Those to directories are shown as symlinks, with a target that
    holds in the mount too, so that the tree has no loops. What leads out of the root, leads
    nowhere, or is neither file nor directory is not listed.

    Has no state but the root, hence may be used by any number of threads.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(os.fsencode(root))
        self._inside = self._root.rstrip(b"/") + b"/"
        if not os.path.isdir(self._root):
            raise UsageError(f"{show(os.fsencode(root))} is not a directory")

    def attributes(self, path: bytes) -> Attributes:
        """What is at `path`. NoSuchPath, NotPermitted."""
        with self._handle(path, os.O_NOFOLLOW) as fd:
            found = os.fstat(fd)
            if stat.S_ISLNK(found.st_mode):
                return self._followed(path, found, os.path.dirname(_location(fd)))
        return _attributes(path, found)

    def listing(self, path: bytes) -> list[Entry]:
        """What a directory holds, in no order. NoSuchPath, NotPermitted."""
        with self._directory(path) as fd:
            return list(self._entries(path, fd, map(os.fsencode, os.listdir(fd))))

    def entries(self, path: bytes, names: Iterable[bytes]) -> list[Entry]:
        """Those of `names` that the directory holds. NoSuchPath, NotPermitted."""
        with self._directory(path) as fd:
            return list(self._entries(path, fd, names))

    def kinds(self, path: bytes) -> list[tuple[bytes, str, bool]]:
        """Name, kind and whether it is a symlink, of all a directory holds; cheap, without stat."""
        found: list[tuple[bytes, str, bool]] = []
        with self._directory(path) as fd, os.scandir(fd) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if entry.is_symlink():
                    for one in self._entries(path, fd, [name]):
                        found.append((name, one.attributes.kind, True))
                elif entry.is_dir(follow_symlinks=False):
                    found.append((name, "directory", False))
                elif entry.is_file(follow_symlinks=False):
                    found.append((name, "file", False))
        return found

    def identity(self, path: bytes) -> Identity:
        """Of the content of a file as it is now. NoSuchPath, NotPermitted."""
        with self._handle(path) as fd:
            return identity_of(_regular(path, os.fstat(fd)))

    def open(self, path: bytes) -> int:
        """A descriptor to read a regular file; the caller closes it. NoSuchPath, NotPermitted."""
        with self._handle(path) as fd:
            _regular(path, os.fstat(fd))
            with _translated(path):
                return os.open(f"/proc/self/fd/{fd}", _READ)

    @contextmanager
    def opened(self, path: bytes) -> Iterator[tuple[int, Identity]]:
        """A descriptor to read a regular file, and its identity. NoSuchPath, NotPermitted."""
        fd = self.open(path)
        try:
            yield fd, identity_of(os.fstat(fd))
        finally:
            os.close(fd)

    def _entries(self, path: bytes, directory: int, names: Iterable[bytes]) -> Iterator[Entry]:
        """The entries of an open directory that are shown."""
        here = _location(directory)
        for name in names:
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except OSError as exc:
                if exc.errno in _ABSENT:  # vanished since its directory was read
                    continue
                raise _error(join(path, name), exc) from exc
            kind = stat.S_IFMT(found.st_mode)
            if kind == stat.S_IFREG:
                yield Entry(name, _plain("file", found))
            elif kind == stat.S_IFDIR:
                yield Entry(name, _plain("directory", found))
            elif kind == stat.S_IFLNK:
                try:
                    yield Entry(name, self._followed(join(path, name), found, here))
                except DadaError:  # leads nowhere, or out
                    continue

    def _followed(self, path: bytes, link: os.stat_result, directory: bytes) -> Attributes:
        """What a symlink in `directory` is shown as."""
        try:
            fd = self._reach(path, _HANDLE)
        except NoSuchPath as exc:
            raise NoSuchPath(f"{show(path)} is a symlink that leads nowhere") from exc
        try:
            found = os.fstat(fd)
            if not stat.S_ISDIR(found.st_mode):
                return _attributes(path, found)
            target = os.path.relpath(_location(fd), directory)
        finally:
            os.close(fd)
        return Attributes(
            "symlink",
            len(target),
            link.st_mtime_ns,
            PERMISSIONS,
            link.st_uid,
            link.st_gid,
            link.st_ino,
            target,
        )

    @contextmanager
    def _handle(self, path: bytes, flags: int = 0) -> Iterator[int]:
        """A descriptor that only names what is at `path`."""
        fd = self._reach(path, _HANDLE | flags)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _directory(self, path: bytes) -> Iterator[int]:
        """A descriptor to read a directory."""
        fd = self._reach(path, _DIRECTORY)
        try:
            with _translated(path):
                yield fd
        finally:
            os.close(fd)

    def _reach(self, path: bytes, flags: int) -> int:
        """Open `path`, then make sure that it lies inside the root."""
        if path:
            parts = path.split(b"/")
            if b"" in parts or b"." in parts or b".." in parts or b"\0" in path:
                raise NoSuchPath(f"{show(path)} is not a path of the raw tree")
        with _translated(path):
            fd = os.open(self._inside + path, flags)
        try:
            location = _location(fd)
            if location != self._root and not location.startswith(self._inside):
                raise NotPermitted(f"{show(path)} leads out of the raw tree")
        except BaseException:
            os.close(fd)
            raise
        return fd


def identity_of(found: os.stat_result) -> Identity:
    """What tells the content of a file from another."""
    return Identity(found.st_size, found.st_mtime_ns, found.st_ino)


def _location(fd: int) -> bytes:
    """Where an open file lies, without symlinks."""
    with _translated(b"/proc/self/fd"):
        return os.readlink(b"/proc/self/fd/%d" % fd)


def _attributes(path: bytes, found: os.stat_result) -> Attributes:
    if stat.S_ISDIR(found.st_mode):
        return _plain("directory", found)
    return _plain("file", _regular(path, found))


def _plain(kind: str, found: os.stat_result) -> Attributes:
    return Attributes(
        kind,  # type: ignore[arg-type]
        found.st_size,
        found.st_mtime_ns,
        found.st_mode & PERMISSIONS,
        found.st_uid,
        found.st_gid,
        found.st_ino,
    )


def _regular(path: bytes, found: os.stat_result) -> os.stat_result:
    if stat.S_ISDIR(found.st_mode):
        raise NoSuchPath(f"{show(path)} is a directory, not a file")
    if not stat.S_ISREG(found.st_mode):
        raise NoSuchPath(f"{show(path)} is neither a file nor a directory")
    return found


@contextmanager
def _translated(path: bytes) -> Iterator[None]:
    try:
        yield
    except DadaError:
        raise
    except OSError as exc:
        raise _error(path, exc) from exc


def _error(path: bytes, exc: OSError) -> DadaError:
    if exc.errno in _ABSENT:
        return NoSuchPath(f"{show(path)} does not exist")
    if exc.errno in _FORBIDDEN:
        return NotPermitted(f"{show(path)} may not be read by this user")
    return BadData(f"{show(path)} cannot be reached: {exc.strerror}")
