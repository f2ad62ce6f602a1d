"""Scans that grow while others read them, as file writers make them."""

from __future__ import annotations

import time
from io import BytesIO
from pathlib import Path

import numpy as np

from tools.scan_maker import ScanMade

SEEN_S = 8.0  # until names that are new are there: 5 s, and one more in the kernel


class Growing:
    """Scans whose files come one by one, each in a directory of its own; whoever reads a map of one
    sees NaN or what is right."""

    def __init__(self, raw: Path, scan: ScanMade) -> None:
        self._raw = raw
        self._scan = scan
        self._truth = scan.sums.astype(float)
        self._count = 0
        self.seen_from = 0.0
        """When readers can see the scan that grows now."""
        self.complete: list[Path] = []

    @property
    def map(self) -> Path:
        """Of the scan that grows now, from the root of the mount."""
        return Path(f"grow{(self._count - 1) // len(self._scan.data_files)}/g/darkfield/full.npy")

    def add(self) -> None:
        """The next file, as file writers do that rename it into place."""
        number = self._count % len(self._scan.data_files)
        self._count += 1
        place = self._raw / self.map.parts[0]
        place.mkdir(exist_ok=True)
        assert self._scan.master is not None
        sources = [self._scan.data_files[number], *([self._scan.master] if number == 0 else [])]
        for source in sources:
            part = place / f".{source.name}.part"
            part.write_bytes(source.read_bytes())
            part.rename(place / source.name)
        if number == 0:
            self.seen_from = time.monotonic() + SEEN_S
        if number == len(self._scan.data_files) - 1:
            self.complete.append(self.map)

    def wrong_bytes(self, data: bytes, *, complete: bool = False) -> int:
        """How many bytes of a map are neither NaN nor right."""
        found = np.load(BytesIO(data)).ravel()
        missing = np.isnan(found)
        if found.shape != self._truth.shape or (complete and missing.any()):
            return len(data)
        return int((~missing & (found != self._truth)).sum()) * 8
