"""What a mount has at its root beside the raw tree: a README, and `.dadafs` which tells of it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from dadafs.client.tree import texts
from dadafs.client.tree.items import DIRECTORY_BYTES, Item, attributes_like
from dadafs.client.upstream.link import Link
from dadafs.errors import NoSuchPath
from dadafs.paths import README
from dadafs.scans.names import join, split

DIAGNOSIS = b".dadafs"
ROOT_README = README.encode()

Texts: TypeAlias = dict[bytes, Callable[[], Awaitable[str]]]
"""By name, made when they are asked for."""


class OwnFiles:
    """The README at the root, and the directory `.dadafs` with the texts of `diagnosis`."""

    def __init__(self, link: Link, diagnosis: Texts) -> None:
        self._link = link
        self._diagnosis = diagnosis

    def __contains__(self, path: bytes) -> bool:
        return path == ROOT_README or path.split(b"/", 1)[0] == DIAGNOSIS

    async def item(self, path: bytes) -> Item:
        """What is at `path`. NoSuchPath."""
        root = (await self._link.resolve(b"")).attributes
        if path == DIAGNOSIS:
            return Item(attributes_like(root, "directory", DIRECTORY_BYTES, 0o555), path)
        if path == ROOT_README:
            size = len(await self.text(path))
            return Item(attributes_like(root, "file", size, root.mode & 0o444), path, live=True)
        name = path.removeprefix(DIAGNOSIS + b"/")
        if name not in self._diagnosis:
            known = b", ".join(self._diagnosis).decode()
            raise NoSuchPath(f".dadafs has no {os.fsdecode(name)!r}, it has {known}")
        return Item(attributes_like(root, "file", 0, 0o444), path, live=True)

    async def children(self, directory: bytes) -> list[tuple[bytes, Item]]:
        """Of the root or of `.dadafs`."""
        names = [DIAGNOSIS, ROOT_README] if directory == b"" else list(self._diagnosis)
        return [(name, await self.item(join(directory, name))) for name in names]

    async def text(self, path: bytes) -> bytes:
        """What is in the file at `path`."""
        if path != ROOT_README:
            return (await self._diagnosis[split(path)[1]]()).encode()
        scans = (entry.name for entry in await self._link.list(b"") if entry.scan)
        example = next(scans, None)
        return texts.root_readme(None if example is None else os.fsdecode(example)).encode()
