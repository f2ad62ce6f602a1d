"""What counts as the memory of a process."""

from __future__ import annotations

import mmap
from pathlib import Path

from dadafs.processes import memory_bytes

SIZE = 64 << 20


def test_mapped_files_are_not_its_memory(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.write_bytes(b"x" * SIZE)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        before = memory_bytes()
        assert mapped[:: mmap.PAGESIZE].count(b"x") == SIZE // mmap.PAGESIZE
        assert memory_bytes() - before < SIZE // 4
        own = bytearray(b"x") * SIZE
        assert memory_bytes() - before > SIZE * 3 // 4
        assert len(own) == SIZE
