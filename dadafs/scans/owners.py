"""Who may read what is made of several files."""

from __future__ import annotations

from collections.abc import Sequence

from dadafs.scans.model import Attributes


def common_mode(files: Sequence[Attributes]) -> int:
    """The permissions, for owner and group of the first file, that every one of the files gives.

    What one file gives to its own owner, who is not the first file's, that file gives the first
    file's owner only as one of the others.
    """
    mode = files[0].mode
    for one in files:
        others = one.mode & 0o007
        group = one.mode & 0o070 if one.gid == files[0].gid else others << 3
        owner = one.mode & 0o700 if one.uid == files[0].uid else others << 6
        mode &= owner | group | others
    return mode
