"""The frames of a scan that are images: each file is the chunk of its frame, or holds several."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from analysis.codec import Codec
from dadafs.errors import BadData, DadaError, Stale
from dadafs.scans.formats.images import MAX_FILE_BYTES, codec_for, plain, read_image
from dadafs.scans.formats.imagestacks import holds_several
from dadafs.scans.frames.series import WIDEST_GAP
from dadafs.scans.metadata.imageheaders import header_facts
from dadafs.scans.metadata.masters import Link, Master
from dadafs.scans.model import ChunkRun, DataFile, FrameSlice
from dadafs.scans.names import STACKS, ScanFiles, join, number_of, show, with_number
from dadafs.scans.tree import RawTree

TRIED = 4  # files until one tells what frames look like
NOWHERE = np.zeros(1, "<u8").tobytes()  # a chunk begins where its file does


class ImageSeries:
    """Where the frames of a series of images are, as of one version of its files.

    Frame 0 is the first file that is there; numbers that are left out are missing frames. Only
    the first file that can be read is opened, and all the others are taken to be like it: one that
    is not turns out as corrupt when it is decoded. Of a file nothing is known but what `stat`
    says, so ten thousand are indexed as fast as they are listed.

    Not safe for threads: its caller lets one in at a time.
    """

    recounted = False

    def __init__(self, tree: RawTree, directory: bytes, files: ScanFiles) -> None:
        self._tree = tree
        self._directory = directory
        self._codec = Codec(0, 0, "")
        self.master = Master()
        """What the header of the first file says."""
        self._names, self._problems = numbered(files.data)
        self._open(files)

    @property
    def height(self) -> int:
        """Rows of a frame."""
        return self._codec.height

    @property
    def width(self) -> int:
        """Columns of a frame."""
        return self._codec.width

    @property
    def dtype(self) -> str:
        """Of the counts."""
        return self._codec.dtype

    @property
    def grid(self) -> None:
        """Single files have no shape of their own."""
        return None

    @property
    def problems(self) -> tuple[str, ...]:
        """What was found wrong, one line each."""
        return tuple(self._problems)

    @property
    def frames(self) -> int:
        """From the first file to the last."""
        return len(self._names) if self.height else 0

    def slice(self, first: int, count: int) -> FrameSlice:
        """Where the frames `[first, first + count)` lie. Stale beyond the end."""
        if first < 0 or count < 0 or first + count > self.frames:
            raise Stale(f"there are no frames [{first}, {first + count}), only {self.frames}")
        wanted = self._names[first : first + count]
        numbers = {name: first + at for at, name in enumerate(wanted) if name}
        runs = []
        for entry in self._tree.entries(self._directory, numbers):
            of = entry.attributes
            if of.kind == "file" and 0 < of.size <= MAX_FILE_BYTES:
                runs.append(
                    ChunkRun(
                        join(self._directory, entry.name),
                        of.identity,
                        self._codec,
                        numbers[entry.name],
                        NOWHERE,
                        of.size.to_bytes(4, "little"),
                    )
                )
        return FrameSlice(first, count, tuple(sorted(runs, key=lambda run: run.first)))

    def data_files(self) -> list[DataFile]:
        """Files in a row as one."""
        return list(self._rows()) if self.frames else []

    def _rows(self) -> Iterator[DataFile]:
        begin = 0
        for at in range(1, len(self._names) + 1):
            if at < len(self._names) and bool(self._names[at]) == bool(self._names[begin]):
                continue
            there = bool(self._names[begin])
            if there:
                name = show(self._names[begin])
                name += f" to {show(self._names[at - 1])}" if at - begin > 1 else ""
            else:
                name = f"{at - begin} after {show(self._names[begin - 1])}"
            yield DataFile(name, begin, at - begin, "present" if there else "missing")
            begin = at

    def _open(self, files: ScanFiles) -> None:
        """Find out from the first file that can be read what frames look like."""
        for name in files.data[:TRIED]:
            path = join(self._directory, name)
            try:
                data = plain(self._content(path))
                frame = read_image(data, files.images)
            except BadData as exc:
                self._problems.append(f"{show(name)}: {exc}")
            except DadaError as exc:
                self._problems.append(str(exc))
            else:
                self._codec = codec_for(files.images, frame)
                self.master = header_facts(data, files.images)
                return

    def _content(self, path: bytes) -> bytes:
        with self._tree.opened(path) as (fd, identity):
            if not 0 < identity.size <= MAX_FILE_BYTES:
                raise BadData(f"a file of {identity.size} bytes holds no frame")
            return os.pread(fd, identity.size, 0)


def numbered(names: tuple[bytes, ...]) -> tuple[list[bytes], list[str]]:
    """The names of images in order, b"" where a number is left out; and what is odd. Pure."""
    problems: list[str] = []
    by_number: dict[int, bytes] = {}
    for name in names:
        number = number_of(name)
        if number is None:
            return list(names), problems
        if number in by_number:
            problems.append(f"{show(name)} has the number of {show(by_number[number])}")
        by_number.setdefault(number, name)
    begin, end = min(by_number), max(by_number) + 1
    if end - begin > 2 * len(names) + WIDEST_GAP:
        return list(by_number.values()), problems
    missing = end - begin - len(by_number)
    if missing:
        problems.append(f"{missing} of {end - begin} files are missing")
    return [by_number.get(number, b"") for number in range(begin, end)], problems


def stack_links(directory: bytes, names: tuple[bytes, ...]) -> tuple[list[Link], list[str]]:
    """Links to files of several frames, those left out between them too; what is odd. Pure."""
    there, problems = numbered(names)
    begin = number_of(there[0]) or 0
    named = [name or with_number(there[0], begin + at) for at, name in enumerate(there)]
    return [Link(join(directory, name), b"") for name in named], problems


def are_stacks(tree: RawTree, directory: bytes, files: ScanFiles) -> bool:
    """Whether one of the first files of a series, or its last, holds several frames."""
    if files.images not in STACKS:
        return False
    looked_at = dict.fromkeys((*files.data[:TRIED], files.data[-1]))
    return any(_holds_several(tree, join(directory, name), files.images) for name in looked_at)


def _holds_several(tree: RawTree, path: bytes, kind: str) -> bool:
    try:
        with tree.opened(path) as (fd, identity):
            return holds_several(fd, identity.size, kind)
    except (DadaError, OSError):
        return False
