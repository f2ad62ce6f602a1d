"""Where the frames of scans lie, fetched from the server in blocks of many patches."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from dadafs.client.upstream.link import Link
from dadafs.client.upstream.once import Once
from dadafs.errors import Stale
from dadafs.planning import Patch
from dadafs.scans.frames.slices import concatenated, cut
from dadafs.scans.model import FrameSlice, Scan, SourceFile

BLOCK_FRAMES = 4096  # 64 patches, about 50 kB a block: one call to the server a minute of computing
BLOCKS = 64  # about 3 MB


class Locator:
    """Frame slices by patch. A block is valid as long as its scan's version is."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._blocks: OrderedDict[tuple[bytes, str, int], FrameSlice] = OrderedDict()
        self._once: Once[tuple[bytes, str, int], FrameSlice] = Once()

    async def slices(self, scan: Scan, patches: list[Patch]) -> list[FrameSlice]:
        """The frame slice of each patch, in order. Errors are the server's."""
        found = []
        for patch in patches:
            block = await self._block(scan, patch.first // BLOCK_FRAMES)
            found.append(cut(block, patch.first, patch.count))
        return found

    async def portion(self, scan: Scan, runs: list[Patch]) -> FrameSlice:
        """One slice of just these runs of frames, however long each is."""
        pieces = []
        for run in runs:
            begin, end = run.first, run.first + run.count
            while begin < end:
                stop = min(end, (begin // BLOCK_FRAMES + 1) * BLOCK_FRAMES)
                pieces.append(Patch(begin, stop - begin))
                begin = stop
        return concatenated(await self.slices(scan, pieces))

    async def files(self, scan: Scan) -> tuple[SourceFile, ...]:
        """All the files that a scan is made of. Errors are the server's."""
        return await self._link.files(scan)

    def forget(self, scan: Scan) -> None:
        """Drop what is known of a scan whose files have changed."""
        for key in [key for key in self._blocks if key[0] == scan.path]:
            del self._blocks[key]
        self._link.forget(scan.path)

    async def _block(self, scan: Scan, number: int) -> FrameSlice:
        key = (scan.path, scan.version, number)
        return await self._once.get(
            key, partial(self._look, key), partial(self._fetch, scan, number)
        )

    def _look(self, key: tuple[bytes, str, int]) -> FrameSlice | None:
        block = self._blocks.get(key)
        if block is not None:
            self._blocks.move_to_end(key)
        return block

    async def _fetch(self, scan: Scan, number: int) -> FrameSlice:
        first = number * BLOCK_FRAMES
        count = min(BLOCK_FRAMES, scan.frames - first)
        try:
            block = await self._link.locate(scan, first, count)
        except Stale:
            self.forget(scan)
            raise
        self._blocks[scan.path, scan.version, number] = block
        while len(self._blocks) > BLOCKS:
            self._blocks.popitem(last=False)
        return block
