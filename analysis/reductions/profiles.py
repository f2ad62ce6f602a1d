"""Radial and azimuthal profiles: counts and valid pixels by bin, in one pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from analysis.codec import Codec
from analysis.healing import Healing, pixels
from analysis.kernels import COMMON
from analysis.kernels.codecs import (
    Blocks,
    Stream,
    bytes_of,
    form_of,
    pack_selection,
    pixels_of,
    plain_pixels,
)
from analysis.plan import Plan
from analysis.reductions.base import Prepared
from analysis.reductions.healed import Healed
from analysis.selection import offsets, scattering_vector, selected
from analysis.version import code_version

MAX_BINS = np.iinfo(np.uint16).max

_SLAB_ROWS = 64  # coordinates are made in slabs of 1 MB, not as frames of 36 MB


def edges(plan: Plan, chosen: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Edges of the bins of a profile, float64 (bins + 1,), equally spaced.

    azimuthal: over [0, 360] degrees.
    radial: q in 1/nm where the plan has a geometry, else r in pixels; over [lo, hi] with lo the
    lower limit of this very coordinate (qmin or rmin) and hi the upper one (qmax or rmax); where
    the plan has no such limit, the smallest or largest coordinate of the selected pixels. Where
    lo = hi, one unit around it, as numpy's histogram does; where no pixel is selected, a missing
    limit is 0 or, for hi, lo + 1.

    A pixel is in the bin whose lower edge is the last that is not above it; at exactly hi it is in
    the last bin. ValueError where the plan lacks the bins or the beam centre.

    `chosen` are the selected pixels, where they are at hand.
    """
    bins = plan.bins
    if bins is None or not 1 <= bins <= MAX_BINS:
        raise ValueError(f"a profile needs 1 to {MAX_BINS} bins, not {bins}")
    if plan.cx is None or plan.cy is None:
        raise ValueError("a profile needs the beam centre")
    if plan.reduction == "azimuthal":
        return np.linspace(0.0, 360.0, bins + 1)
    lo, hi = (plan.rmin, plan.rmax) if plan.geometry is None else (plan.qmin, plan.qmax)
    if lo is None or hi is None:
        lo, hi = _span(plan, Healing(plan).covered if chosen is None else chosen, lo, hi)
    if lo == hi:
        lo, hi = lo - 0.5, hi + 0.5
    if not lo < hi:
        raise ValueError(f"no room for bins between {lo:g} and {hi:g}")
    return np.linspace(lo, hi, bins + 1)


def centres(plan: Plan, chosen: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Centres of the bins of a profile, float64 (bins,). As `edges`."""
    ends = edges(plan, chosen)
    return np.asarray((ends[:-1] + ends[1:]) / 2, np.float64)


def _span(
    plan: Plan, chosen: NDArray[np.bool_], lo: float | None, hi: float | None
) -> tuple[float, float]:
    """The limits, each that is None replaced by what the selected pixels span."""
    parts = [values[chosen[rows]] for rows, values in _coordinates(plan)]
    parts = [part for part in parts if part.size]
    if not parts:
        lo = 0.0 if lo is None else lo
        return lo, lo + 1.0 if hi is None else hi
    return (
        float(min(part.min() for part in parts)) if lo is None else lo,
        float(max(part.max() for part in parts)) if hi is None else hi,
    )


def _coordinates(plan: Plan) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """What the profile is over, for the pixels of a few rows at a time: q, r or phi."""
    assert plan.cx is not None
    assert plan.cy is not None
    dx, dy = offsets(plan.shape, plan.cx, plan.cy)
    for first in range(0, plan.height, _SLAB_ROWS):
        rows = slice(first, min(first + _SLAB_ROWS, plan.height))
        down = dy[rows, None]
        if plan.reduction == "azimuthal":
            phi = np.degrees(np.arctan2(0.0 - down, dx[None, :])) % 360
            phi[phi == 360] = 0  # what % gives for the smallest negative angles
            yield rows, phi
            continue
        r = np.hypot(dx[None, :], down)
        yield rows, r if plan.geometry is None else scattering_vector(r, plan.geometry)


Binned: TypeAlias = tuple[NDArray[np.bool_], NDArray[Any], NDArray[np.uint64]]


def bin_table(plan: Plan, chosen: NDArray[np.bool_]) -> Binned:
    """(selected pixels that are in a bin, bin of each pixel (height, width), pixels by bin)."""
    ends = edges(plan, chosen)
    bins = ends.size - 1
    inside = chosen.copy()
    table = np.zeros(plan.shape, np.uint8 if bins <= 256 else np.uint16)
    for rows, values in _coordinates(plan):
        inside[rows] &= (values >= ends[0]) & (values <= ends[-1])
        index = (values - ends[0]) * (bins / (ends[-1] - ends[0]))
        places = np.clip(index, 0, bins - 1).astype(np.intp)
        places -= (values < ends[places]) & (places > 0)
        places += (values >= ends[places + 1]) & (places < bins - 1)
        table[rows] = places
    counts = np.bincount(table[inside], minlength=bins).astype(np.uint64)
    return inside, table, counts


def healed_tables(plan: Plan) -> tuple[Binned, Binned]:
    """As `bin_table`: of S, and of the pixels that stand in for masked ones, in the bins of these.

    The ends of a radial profile without limits are those of S with what is healed of it.
    """
    healing = Healing(plan)
    targets, sources = healing.targets, healing.sources
    inside, table, counts = bin_table(plan, healing.covered)
    there = inside.reshape(-1)[targets]
    targets, sources = targets[there], sources[there]
    other = np.zeros_like(table)
    other.reshape(-1)[sources] = table.reshape(-1)[targets]
    own = inside.copy()
    own.reshape(-1)[targets] = False
    healed = np.bincount(table.reshape(-1)[targets], minlength=counts.size).astype(np.uint64)
    return (own, table, counts - healed), (pixels(plan, sources), other, healed)


def _add(values: NDArray[np.uint64], more: NDArray[np.uint64]) -> None:
    values += more


class PreparedProfile:
    """A profile of the pixels in one selection, uint64 (2, bins), exact modulo 2^64.

    Row 0 is the sum of the counts by bin, row 1 the number of the selected pixels by bin that are
    valid in this frame.
    """

    value_dtype = np.dtype(np.uint64)

    def __init__(self, plan: Plan, binned: Binned) -> None:
        from analysis.kernels import profiles  # loads numba, which only those who compute need

        self._kernels = profiles
        self._plan = plan
        inside, table, self._static = binned
        self._selection = pack_selection(inside)
        self._table = table.reshape(-1)
        self._table.flags.writeable = self._static.flags.writeable = False
        self._like = np.empty(0, np.dtype(plan.dtype).newbyteorder("="))

    @property
    def value_shape(self) -> tuple[int, ...]:
        """Sum and number of pixels, by bin."""
        return 2, self._static.size

    def frame(self, frame: NDArray[Any], out: NDArray[Any]) -> None:
        """Reduce a decoded frame (height, width) into `out` (2, bins)."""
        pixels = pixels_of(frame, self._plan)
        self._kernels.profile_of_pixels(pixels, self._selection, self._table, self._static, out)

    def fuses(self, codec: Codec) -> bool:
        """Bitshuffle with LZ4 or alone, LZ4, and no filter, of the plan's shape and dtype."""
        return form_of(codec, self._plan) is not None

    def chunk(self, chunk: bytes, codec: Codec, out: NDArray[Any]) -> bool:
        """Reduce a chunk of such a codec into `out` (2, bins); False, `out` zero, when corrupt."""
        tables = self._selection, self._table, self._static, out
        form = form_of(codec, self._plan)
        if form is None:
            raise NotImplementedError(f"no fused profile for {codec}")
        good: bool
        if isinstance(form, Blocks):
            itemsize = self._like.itemsize
            good = self._kernels.profile_of_blocks(
                bytes_of(chunk), form.layout, form.block, itemsize, *tables
            )
        elif isinstance(form, Stream):
            good = self._kernels.profile_of_stream(bytes_of(chunk), self._like, *tables)
        else:
            pixels = plain_pixels(chunk, codec)
            good = pixels is not None
            if good:
                self._kernels.profile_of_pixels(pixels, *tables)
        if not good:
            out[...] = 0
        return good


class Profile:
    """The passes behind `radial` and `azimuthal`."""

    version = code_version(
        "analysis.reductions.profiles",
        "analysis.selection",
        "analysis.healing",
        "analysis.reductions.healed",
        "analysis.reductions.flattened",
        "analysis.kernels.profiles",
        *COMMON,
    )

    def __init__(self, name: str, uses: frozenset[str]) -> None:
        self.name = name
        self.uses = uses

    def prepare(self, plan: Plan) -> Prepared:
        """Build the selection and the table of bins of `plan`."""
        if plan.reduction != self.name:
            raise ValueError(f"a plan for {plan.reduction}, not {self.name}")
        if not plan.heal:
            return PreparedProfile(plan, bin_table(plan, selected(plan)))
        own, other = healed_tables(plan)
        return Healed(PreparedProfile(plan, own), PreparedProfile(plan, other), _add)


RADIAL = Profile("radial", frozenset({"cx", "cy", "geometry", "bins"}))
AZIMUTHAL = Profile("azimuthal", frozenset({"cx", "cy", "bins"}))
