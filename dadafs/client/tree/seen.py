"""What became of the frames that a result was made of, as far as it is known. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dadafs.containers.base import UNUSED, FrameRun
from dadafs.corrections import Chosen
from dadafs.planning import Patch, frames_in

UNSEEN = 254  # of a frame that no values have come of yet


class SeenFrames:
    """Statuses of the frames of each run of a provenance.

    Invariant: what a result does not use is UNUSED, the rest UNSEEN until it is added.
    """

    def __init__(self, chosen: Sequence[Chosen], runs: Sequence[FrameRun]) -> None:
        """`runs` are those of the provenance, in the order of `chosen`."""
        self._chosen = chosen
        self._runs = runs
        self._known: dict[int, NDArray[np.uint8]] = {}

    def of(self, number: int) -> NDArray[np.uint8]:
        """The statuses of a run: `Status`, UNSEEN or UNUSED of each frame."""
        if number not in self._known:
            run, layout = self._runs[number], self._chosen[number].layout
            known = np.full(run.count, UNUSED, np.uint8)
            known[layout.used - run.first] = UNSEEN
            self._known[number] = known
        return self._known[number]

    def unseen(self, number: int, start: int, stop: int) -> list[Patch]:
        """The patches of the frames `[start, stop)` of a run that are UNSEEN."""
        frames = start + np.flatnonzero(self.of(number)[start:stop] == UNSEEN)
        return self._chosen[number].layout.patches_of(self._runs[number].first + frames)

    def add(self, number: int, patches: Sequence[Patch], status: NDArray[np.uint8]) -> None:
        """The statuses of all frames of some patches, among which may be unused ones."""
        known = self.of(number)
        at = frames_in(patches) - self._runs[number].first
        within = (at >= 0) & (at < len(known))
        at, status = at[within], status[within]
        used = known[at] != UNUSED
        known[at[used]] = status[used]
