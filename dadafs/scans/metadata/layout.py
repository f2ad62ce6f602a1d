"""Which frames of a scan lie in which of its data files. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import msgspec


class Part(msgspec.Struct, frozen=True):
    """Consecutive frames of a scan that lie in one data file."""

    link: int
    """Which of the scan's links."""
    first: int
    """Number, in the scan, of the first of them."""
    count: int
    skip: int = 0
    """Frames of the file before it."""

    @property
    def end(self) -> int:
        """Number of the frame after the last."""
        return self.first + self.count

    def cut(self, first: int, end: int) -> Part:
        """What of it is in `[first, end)`, which it must overlap."""
        begin = max(self.first, first)
        return Part(self.link, begin, min(self.end, end) - begin, self.skip + begin - self.first)


class Regular(msgspec.Struct, frozen=True):
    """Every file but the last holds the same number of frames, so nothing need be counted."""

    frames: int
    per_file: int

    def parts(self, first: int, count: int) -> Iterator[Part]:
        """Where the frames `[first, first + count)` lie, in order."""
        end = min(first + count, self.frames)
        for link in range(first // self.per_file, -(-end // self.per_file)):
            yield self.part(link).cut(first, end)

    def part(self, link: int) -> Part:
        """All that one file holds."""
        begin = link * self.per_file
        return Part(link, begin, min(self.per_file, self.frames - begin))


class Counted(msgspec.Struct, frozen=True):
    """The frames of every file were counted."""

    frames: int
    places: tuple[Part, ...]
    """Of every link, claimed or, for a file that cannot be read, assumed."""
    ordered: tuple[Part, ...]
    """In order, disjoint. Frames in none are missing."""
    overlaps: tuple[tuple[int, int], ...] = ()
    """Ranges of frames that more than one file claims; they are in no part."""

    def parts(self, first: int, count: int) -> Iterator[Part]:
        """Where the frames `[first, first + count)` lie, in order."""
        end = first + count
        at = bisect_right(self.ordered, first, key=lambda part: part.end)
        while at < len(self.ordered) and self.ordered[at].first < end:
            yield self.ordered[at].cut(first, end)
            at += 1

    def part(self, link: int) -> Part:
        """All that one file holds."""
        return self.places[link]


class Count(msgspec.Struct, frozen=True):
    """What a data file says of its frames."""

    frames: int
    start: int | None = None
    """Number, in the scan, of the first, if it says so."""


def regular(links: int, announced: int, per_file: int) -> Regular | None:
    """The layout that follows if every file but the last holds `per_file` frames.

    None when that does not go with as many links as there are.
    """
    if links <= 0 or per_file <= 0 or -(-announced // per_file) != links:
        return None
    return Regular(announced, per_file)


def counted(announced: int, counts: Sequence[Count | None]) -> Counted:
    """The layout of files of these counts, None for those that cannot be read.

    A file lies where it says; one that does not say so follows the one before it, and a file that
    cannot be read is taken to be as long as the first that can. Frames claimed by several files
    are missing rather than wrong.
    """
    usual = next((count.frames for count in counts if count is not None), 0)
    position = 0
    places = []
    for link, count in enumerate(counts):
        begin = position if count is None or count.start is None else count.start
        places.append(Part(link, begin, usual if count is None else count.frames))
        position = places[-1].end
    claims = [part for part in places if counts[part.link] is not None and part.count]
    claims.sort(key=lambda part: (part.first, part.link))
    overlaps = _overlaps(claims)
    ordered = tuple(piece for part in claims for piece in _without(part, overlaps))
    recorded = claims if announced else places
    frames = max([announced, *(part.end for part in recorded)])
    return Counted(frames, tuple(places), ordered, tuple(overlaps))


def placed(announced: int, parts: Sequence[Part]) -> Counted:
    """The layout that is said, part by part in order and disjoint."""
    places = tuple(Part(link, part.first, part.count, part.skip) for link, part in enumerate(parts))
    return Counted(max([announced, *(part.end for part in places)]), places, places)


def _overlaps(claims: list[Part]) -> list[tuple[int, int]]:
    """Ranges in more than one of the claims, which are sorted by begin; disjoint, in order."""
    found: list[tuple[int, int]] = []
    reached = 0
    for part in claims:
        begin, end = part.first, min(part.end, reached)
        if begin < end:
            if found and begin <= found[-1][1]:
                begin, end = found[-1][0], max(end, found[-1][1])
                found.pop()
            found.append((begin, end))
        reached = max(reached, part.end)
    return found


def _without(part: Part, ranges: list[tuple[int, int]]) -> Iterator[Part]:
    """The pieces of `part` outside the ranges, which are disjoint and in order."""
    begin = part.first
    for at in range(bisect_right(ranges, begin, key=lambda one: one[1]), len(ranges)):
        low, high = ranges[at]
        if low >= part.end:
            break
        if begin < low:
            yield part.cut(begin, low)
        begin = high
    if begin < part.end:
        yield part.cut(begin, part.end)
