"""One server for each directory that it takes to be its own."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dadafs.errors import UsageError

log = logging.getLogger(__name__)


@contextmanager
def claimed(option: str, directory: Path | None) -> Iterator[None]:
    """No other server has `directory` within. UsageError, one line, where one has.

    Two servers on one pool would each keep its quota, evict the files of the other and miscount
    the disk. The lock is the kernel's, on the directory itself: it ends with the process, however
    that ends, and leaves no file behind. A directory that cannot be locked is used as it is.
    """
    if directory is None:
        yield
        return
    try:
        os.makedirs(directory, exist_ok=True)
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # whoever uses it says what is wrong, and goes on without
        yield
        return
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            if exc.errno == errno.EWOULDBLOCK:
                line = f"{option} {directory} is in use by another server; give each its own"
                raise UsageError(line) from exc
            log.warning("%s %s cannot be locked: %s", option, directory, exc.strerror)
        yield
    finally:
        os.close(held)
