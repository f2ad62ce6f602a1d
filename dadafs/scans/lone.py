"""Images that are alone in their directories: which of them hold a series of frames."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from dadafs.errors import DadaError
from dadafs.scans.formats.imagestacks import is_series
from dadafs.scans.model import Entry, Identity
from dadafs.scans.names import image_kind, join
from dadafs.scans.tree import RawTree

MOST = 1000  # of a directory: 0.1 s the first time
KEPT = 20_000


class LoneImages:
    """Looks into images that are alone, once for each version of a file. Safe for threads."""

    def __init__(self, tree: RawTree) -> None:
        self._tree = tree
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, tuple[Identity, bool]] = OrderedDict()

    def stacks(self, directory: bytes, names: Sequence[bytes]) -> frozenset[bytes]:
        """Those of `names` that hold a series of frames, by their first headers."""
        if not names:
            return frozenset()
        try:
            return self.among(directory, self._tree.entries(directory, names[:MOST]))
        except DadaError:
            return frozenset()

    def among(self, directory: bytes, entries: Iterable[Entry]) -> frozenset[bytes]:
        """The same of entries whose attributes are known."""
        found = set()
        for entry in entries:
            of = entry.attributes
            if of.kind != "file":
                continue
            path = join(directory, entry.name)
            identity = of.identity
            with self._lock:
                known = self._kept.get(path)
            if known is None or known[0] != identity:
                known = self._look(path, image_kind(entry.name))
                with self._lock:
                    self._kept[path] = known
                    self._kept.move_to_end(path)
                    while len(self._kept) > KEPT:
                        self._kept.popitem(last=False)
            if known[1]:
                found.add(entry.name)
        return frozenset(found)

    def _look(self, path: bytes, kind: str) -> tuple[Identity, bool]:
        """What is in a file, and of which version of it that is said."""
        try:
            with self._tree.opened(path) as (fd, identity):
                return identity, is_series(fd, identity.size, kind)
        except DadaError:
            return Identity(0, 0, 0), False
