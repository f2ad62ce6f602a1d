"""Files past the page cache: what a pool of terabytes holds would only push other things out of
it, and finding and filling its pages takes several times what the disk needs."""

from __future__ import annotations

import errno
import os


class Opener:
    """Opens files past the page cache, until it turns out that a file system cannot do it."""

    def __init__(self) -> None:
        self.able = True

    def open(self, path: str, flags: int, *, direct: bool) -> int:
        """A descriptor, `direct` where that can be. OSError."""
        if direct and self.able:
            try:
                return os.open(path, flags | os.O_DIRECT, 0o600)
            except OSError as exc:
                if not self.gives_up(exc):
                    raise
        return os.open(path, flags, 0o600)

    def gives_up(self, error: OSError) -> bool:
        """Whether this error is because of `direct` and will not come again."""
        given_up = self.able and error.errno == errno.EINVAL
        self.able = self.able and not given_up
        return given_up
