"""The frames of one scan, over all its data files."""

from __future__ import annotations

from collections.abc import Sequence

from dadafs.errors import DadaError, NoSuchPath, Stale
from dadafs.scans.formats.counts import counts_of
from dadafs.scans.frames.index import FileIndex, FrameIndexer
from dadafs.scans.metadata.layout import Count, Counted, Part, Regular, counted, placed, regular
from dadafs.scans.metadata.masters import MAX_ANNOUNCED, Link
from dadafs.scans.model import ChunkRun, DataFile, FrameSlice
from dadafs.scans.names import ScanFiles, join, number_of, show, split
from dadafs.scans.tree import RawTree

MANY_FILES = 200  # more are not opened to say how complete they are: 1 ms each
MAX_PROBLEMS = 20
WIDEST_GAP = 1000  # in the numbers of data files, beyond which they are not positions
MISSING = "missing"


class Contradiction(Exception):
    """A data file, by name, is not what the layout takes it for. Stays in this module."""


class Series:
    """Where the frames of a scan are, as of one version of its files.

    Only the first data file is opened to know how all are laid out, if that goes with what the
    master announces. Each file is held to it when it is indexed; the first contradiction makes
    all files be counted, once. What does not fit is missing, and a problem says so.

    Not safe for threads: its caller lets one in at a time.
    """

    def __init__(
        self,
        tree: RawTree,
        indexer: FrameIndexer,
        links: Sequence[Link],
        announced: int,
        expected: tuple[int, int, str] = (0, 0, ""),
    ) -> None:
        self._tree = tree
        self._indexer = indexer
        self._announced = announced
        self._problems: dict[str, None] = {}
        self.links = links
        self._said = [link.part for link in links if link.part is not None]
        """Where a virtual dataset says that each file lies; of all links or of none."""
        self.height, self.width, self.dtype = expected
        self.recounted = False
        """The layout has turned out another than it first seemed."""
        self.grid: tuple[int, int] | None = None
        """Points and lines, where one dataset with an axis for each holds all frames."""
        self.layout: Regular | Counted = self._arrange()

    @property
    def problems(self) -> tuple[str, ...]:
        """What was found wrong so far, one line each."""
        return tuple(self._problems)

    @property
    def frames(self) -> int:
        """Recorded or announced, whichever is more; 0 as long as nothing says what they are."""
        known = self.height > 0 and self.width > 0 and self.dtype
        return self.layout.frames if known else 0

    def slice(self, first: int, count: int) -> FrameSlice:
        """Where the frames `[first, first + count)` lie.

        Stale beyond the end: who asks knows the scan as it was when it had more frames.
        """
        if first < 0 or count < 0 or first + count > self.frames:
            raise Stale(f"there are no frames [{first}, {first + count}), only {self.frames}")
        try:
            runs = self._runs(first, count)
        except Contradiction:
            self._recount()
            try:
                runs = self._runs(first, count)
            except Contradiction as exc:
                raise Stale(f"{exc} changes while it is read") from exc
        return FrameSlice(first, count, tuple(runs))

    def data_files(self) -> list[DataFile]:
        """Every data file that is or should be there."""
        links = range(len(self.links))
        if len(links) > MANY_FILES:
            return [self._described(link, self._state(link)) for link in links]
        found = [self._index(link) for link in links]
        if any(self._contradicts(self.layout, link, found[link]) for link in links):
            self._recount()
        return [self._described(link, found[link]) for link in links]

    def _described(self, link: int, index: FileIndex | str) -> DataFile:
        name = self._name(link)
        place = self.layout.part(link)
        if isinstance(index, FileIndex):
            state = f"holds {misfit}" if (misfit := self._misfit(index)) else "present"
            count = min(index.frames, place.count) if self._said else index.frames
            return DataFile(name, place.first, count, state)
        return DataFile(name, place.first, place.count, index or "present")

    def _state(self, link: int) -> str:
        """Why a file cannot be read, without opening it; empty when it seems it can."""
        path = self.links[link].path
        try:
            if path:
                self._tree.identity(path)
                return ""
        except NoSuchPath:
            pass
        except DadaError as exc:
            return str(exc)
        return MISSING

    def _arrange(self) -> Regular | Counted:
        """The layout, from the first file that can be read if that will do."""
        for link in range(len(self.links)):
            index = self._index(link)
            if isinstance(index, str) or not index.frames:
                continue
            self.height, self.width, self.dtype = *index.codec.shape, counts_of(index.codec)
            self.grid = index.grid if len(self.links) == 1 else None
            if self._said:
                break
            layout = regular(len(self.links), self._announced, index.frames)
            if layout is not None and not self._contradicts(layout, link, index):
                return layout
            return self._count()
        if self._said:
            return placed(self._announced, self._said)
        return counted(self._announced, [None] * len(self.links))

    def _recount(self) -> None:
        self.layout = self._count()
        self.recounted = True

    def _count(self) -> Counted:
        """The layout, from every file."""
        counts: list[Count | None] = []
        for link in range(len(self.links)):
            index = self._index(link)
            if isinstance(index, str):
                counts.append(None)
            elif misfit := self._misfit(index):
                self._note(f"{self._name(link)} holds {misfit}")
                counts.append(None)
            elif index.start is not None and index.start + index.frames > MAX_ANNOUNCED:
                self._note(f"{self._name(link)} says that it begins at frame {index.start}")
                counts.append(None)
            else:
                counts.append(Count(index.frames, index.start))
        layout = counted(self._announced, counts)
        for begin, end in layout.overlaps:
            self._note(f"frames {begin} to {end - 1} are claimed by more than one data file")
        return layout

    def _runs(self, first: int, count: int) -> list[ChunkRun]:
        """Where these frames lie. Contradiction when a file is not what the layout takes it for."""
        runs: list[ChunkRun] = []
        for part in self.layout.parts(first, count):
            index = self._index(part.link)
            if isinstance(index, str):
                continue
            if misfit := self._misfit(index):
                self._note(f"{self._name(part.link)} holds {misfit}")
            elif self._contradicts(self.layout, part.link, index):
                raise Contradiction(self._name(part.link))
            else:
                runs.extend(self._part_runs(part, index))
        return runs

    def _part_runs(self, part: Part, index: FileIndex) -> list[ChunkRun]:
        end = min(part.skip + part.count, index.frames)
        if part.skip >= end:
            return []
        return list(index.runs(self.links[part.link].path, part.skip, end, part.first))

    def _contradicts(self, layout: Regular | Counted, link: int, index: FileIndex | str) -> bool:
        """Whether a file is not what the layout takes it for.

        A file shorter than expected may be the end of an aborted scan; one in the middle must
        say where it begins to be believed.
        """
        if isinstance(index, str) or self._misfit(index) or self._said:
            return False
        part = layout.part(link)
        if index.start not in (None, part.first):
            return True
        if isinstance(layout, Counted) or index.frames >= part.count:
            return index.frames != part.count
        later = range(link + 1, len(self.links))
        return index.start is None and not all(self._state(one) for one in later)

    def _misfit(self, index: FileIndex) -> str:
        """Why the frames of a file are not those of this scan; empty when they are."""
        codec, dtype = index.codec, counts_of(index.codec)
        if (*codec.shape, dtype) == (self.height, self.width, self.dtype):
            return ""
        return (
            f"frames of {codec.height} x {codec.width} {dtype}"
            f" in a scan of {self.height} x {self.width} {self.dtype}"
        )

    def _index(self, link: int) -> FileIndex | str:
        """The index of a file, or why there is none."""
        path = self.links[link].path
        if not path:
            return MISSING
        try:
            index = self._indexer.index(path, self.links[link].dataset)
        except NoSuchPath:
            return MISSING
        except DadaError as exc:
            self._note(str(exc))
            return str(exc)
        if index.problem:
            self._note(index.problem)
            return index.problem
        if index.note:
            self._note(index.note)
        return index

    def _name(self, link: int) -> str:
        path = self.links[link].path
        return show(split(path)[1]) if path else f"link {link + 1}"

    def _note(self, problem: str) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems[problem] = None
        else:
            self._problems["and more problems like these"] = None


def links_by_number(directory: bytes, files: ScanFiles, at_least: int = 0) -> list[Link]:
    """Links to data files as their names number them, those that are missing between them too."""
    numbered = {number: name for name in files.data if (number := number_of(name)) is not None}
    if not numbered:
        return []
    begin = 0 if files.lima else min(1, *numbered)
    end = max(*numbered, begin + at_least - 1) + 1
    if end - begin > 2 * len(files.data) + at_least + WIDEST_GAP:
        return [Link(join(directory, name), b"") for name in files.data]
    links = []
    stem, _, digits = files.data[0][: -len(b".h5")].rpartition(b"_")
    for number in range(begin, end):
        name = numbered.get(number, b"%b_%0*d.h5" % (stem, len(digits), number))
        links.append(Link(join(directory, name), b""))
    return links
