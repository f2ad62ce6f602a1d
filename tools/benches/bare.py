"""The smallest pyfuse3 file system: one file in memory, the yardstick for what FUSE can do."""

from __future__ import annotations

import errno
import stat
import sys

import pyfuse3
import trio

INODE = 2


class Bare(pyfuse3.Operations):
    """A root directory with `file` in it; an answer to a read is a slice of memory."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__()
        self._data = memoryview(bytes(size_bytes))

    async def getattr(
        self, inode: int, ctx: pyfuse3.RequestContext | None = None
    ) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        file = inode == INODE
        entry.st_mode = stat.S_IFREG | 0o444 if file else stat.S_IFDIR | 0o555
        entry.st_size = len(self._data) if file else 0
        entry.attr_timeout = entry.entry_timeout = 1
        return entry

    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        if name != b"file":
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(INODE)

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=1, keep_cache=True)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return bytes(self._data[off : off + size])


def serve(mountpoint: str, size_bytes: int) -> None:
    """Serve until unmounted."""
    pyfuse3.init(Bare(size_bytes), mountpoint, {"fsname=bare", "ro"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=False)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
