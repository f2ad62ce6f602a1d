"""Files of BLISS: one holds all scans of a dataset, their frames lie in directories beside it.

Which scan a directory of frames is of, its virtual dataset or its external link says. The number
in the directory's name is where to look first, and counts alone only as long as the scan runs,
because the links are made at its end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from posixpath import normpath

import h5py
import msgspec
import numpy as np
from h5py import h5d, h5g, h5l
from numpy.typing import NDArray

from analysis.codec import Codec
from dadafs.errors import BadData
from dadafs.scans.beside.blisscommands import Parameters, command_of
from dadafs.scans.beside.columns import Column
from dadafs.scans.beside.commands import MAX_POINTS, Command
from dadafs.scans.beside.fio import Recorded
from dadafs.scans.beside.travel import Travel, axes_of, order_of
from dadafs.scans.formats import hdf5
from dadafs.scans.formats.decode import decoded_chunks
from dadafs.scans.names import ScanFiles, join, scan_number, scan_of, split

ENTRY = re.compile(rb"([0-9]{1,9})\.[0-9]{1,9}")
MAX_ENTRIES = 2000  # looked at where the directory's number is not the scan's: 0.5 ms each
MAX_DEVICES = 2000  # in one scan; it has some hundred
MAX_CHUNKS = 100_000  # of one column
RECORDED_AS = ("", "_center", "_position")  # behind a motor's name: BLISS's, fscan's, kmap's
PARAMETERS = {
    b"instrument/fscan_parameters/": (
        *("fast_motor", "fast_npoints", "fast_motor_mode", "slow_motor", "slow_npoints"),
        *("motor", "npoints"),
    ),
    b"technique/": ("dim0", "dim1"),
}


class Wanted(msgspec.Struct, frozen=True):
    """The frames whose scan is looked for."""

    directory: bytes
    """Of the frames: `sample_0001/scan0001`."""
    number: int
    key: bytes
    """Of the scan that the files make, `names.scan_of`."""

    @property
    def camera(self) -> bytes:
        """Its name, as LImA's files have it."""
        return self.key.partition(b"\0")[0]

    def is_at(self, target: bytes, place: bytes) -> bool:
        """Whether a link in a file in the directory `place` leads to one of its files.

        A path from the root is that of the computer where it was recorded: there the same file
        lies in the same dataset.
        """
        if target.startswith(b"/"):
            here = self.directory.split(b"/")[-2:]
            *above, name = target.split(b"/")
            same = above[-len(here) :] == here
        else:
            directory, name = split(normpath(b"/" + join(place, target))[1:])
            same = directory == self.directory
        return same and scan_of(name, self.directory) == self.key


class _Unclear(Exception):
    """Why it is not known which scan is meant. Never leaves this module."""


def wanted(directory: bytes, files: ScanFiles) -> Wanted | None:
    """What to look for; None where the directory is none that BLISS makes for a scan."""
    number = scan_number(directory)
    key = scan_of(files.all[0], directory)
    return None if number is None or key is None else Wanted(directory, number, key)


def read_bliss(fd: int, place: bytes, source: str, sought: Wanted) -> Recorded | None:
    """What a file in the directory `place` says of a scan; None where it does not know it."""
    try:
        with hdf5.opened(fd) as file:
            entry = _entry(file, place, sought)
            return _recorded(file, entry, f"{source} /{entry.decode()}") if entry else None
    except _Unclear as exc:
        return Recorded(source, problems=(f"{source}: {exc}",))
    except hdf5.ERRORS as exc:
        return Recorded(source, problems=(f"{source} {hdf5.reason(exc)}",))


def bliss_column(fd: int, place: bytes, source: str, sought: Wanted, name: str) -> Column | None:
    """A counter or motor of its `measurement`, one number a point; None as above. BadData."""
    try:
        with hdf5.opened(fd) as file:
            entry = _entry(file, place, sought)
            if not entry:
                return None
            names = dict(_columns(file, entry))
            found = names.get(name)
            values = None if found is None else _values(found).astype("<f8").tobytes()
            return Column(f"{source} /{entry.decode()}", tuple(names), values)
    except (_Unclear, BadData) as exc:
        raise BadData(f"{source}: {exc}") from exc
    except hdf5.ERRORS as exc:
        raise BadData(f"{source} {hdf5.reason(exc)}") from exc


def _entry(file: h5py.File, place: bytes, sought: Wanted) -> bytes:
    """The scan whose data links lead to the frames; b"" where none does."""
    own: list[bytes] = []
    others: list[bytes] = []
    for name in hdf5.root(file):
        if match := ENTRY.fullmatch(name):
            (own if int(match[1]) == sought.number else others).append(name)
    found = (
        _leading(file, own, place, sought)
        or [name for name in own if _runs(file, name, sought.camera)]
        or _leading(file, own, place, sought, thorough=True)
        or _leading(file, others[:MAX_ENTRIES], place, sought)
    )
    if len(found) > 1:
        names = " and ".join(name.decode() for name in found)
        raise _Unclear(f"{names} have the same frames: none is used")
    return found[0] if found else b""


def _leading(
    file: h5py.File, entries: list[bytes], place: bytes, sought: Wanted, *, thorough: bool = False
) -> list[bytes]:
    """Those with a link to the frames, at the name of the camera or, `thorough`, at any."""
    names = None if thorough else (sought.camera,)
    return [
        entry
        for entry in entries
        if any(sought.is_at(target, place) for target in _targets(file, entry, names))
    ]


def _runs(file: h5py.File, entry: bytes, camera: bytes) -> bool:
    """Whether a scan has this camera, has not ended, and has no frames yet."""
    group = hdf5.find(file, entry + b"/instrument/" + camera)
    return (
        isinstance(group, h5g.GroupID)
        and not any(group.links.exists(name) for name in (b"data", b"image"))
        and hdf5.find(file, entry + b"/end_time") is None
    )


def _targets(file: h5py.File, entry: bytes, names: tuple[bytes, ...] | None) -> Iterator[bytes]:
    """The files that links of a scan lead to, of the detectors of these names or of all."""
    for group, ends in ((b"/measurement", (b"",)), (b"/instrument", (b"/data", b"/image"))):
        found = hdf5.find(file, entry + group) if names is None else None
        below = islice(found, MAX_DEVICES) if isinstance(found, h5g.GroupID) else names or ()
        for name in below:
            for end in ends:
                yield from _target(file, entry + group + b"/" + name + end)


def _target(file: h5py.File, path: bytes) -> Iterator[bytes]:
    directory, name = split(path)
    group = hdf5.find(file, directory)
    if not isinstance(group, h5g.GroupID) or not group.links.exists(name):
        return
    if group.links.get_info(name).type == h5l.TYPE_EXTERNAL:
        yield group.links.get_val(name)[0]
        return
    found = hdf5.find(file, path)
    if isinstance(found, h5d.DatasetID):
        properties = found.get_create_plist()
        if properties.get_layout() == h5d.VIRTUAL and properties.get_virtual_count():
            yield properties.get_virtual_filename(0).encode("utf-8", "surrogateescape")


def _recorded(file: h5py.File, entry: bytes, source: str) -> Recorded:
    """The command of a scan, and how its motors went."""
    title, _ = hdf5.scalar(file, entry + b"/title")
    if not isinstance(title, str):
        return Recorded(source)
    told: Parameters = {
        name: hdf5.scalar(file, b"%b/%b%b" % (entry, group, name.encode()))[0]
        for group, names in PARAMETERS.items()
        for name in names
    }
    try:
        command = command_of(title, told)
        if command is None:
            return Recorded(source)
        travels = _travels(file, entry, command)
        fast = travels.get(command.fast[0].motor)
        order = order_of(fast, command.horz, command.vert) if fast is not None else ""
    except (ValueError, BadData) as exc:
        return Recorded(source, problems=(f"{source}: {exc}",))
    ended = hdf5.find(file, entry + b"/end_time") is not None
    known = [name for name, value in told.items() if value is not None]
    problems = []
    if fast is None and "fast_motor_mode" not in known and command.vert > 1 and ended:
        problems.append(
            f"{source}: where {command.fast[0].motor} was is not recorded: all lines are taken to"
            " run the same way; give order=, or [raster] in geometry.toml"
        )
    snake = order == "snake" if order else command.snake
    axes = axes_of(command, travels, snake) if ended else ()
    return Recorded(source, command, axes, snake, tuple(problems))


def _travels(file: h5py.File, entry: bytes, command: Command) -> dict[str, Travel]:
    """Where the motors of a command were at each point, of those that were recorded."""
    found = {}
    for motor in (one.motor for one in (*command.fast, *command.slow)):
        for ending in RECORDED_AS:
            path = entry + b"/measurement/" + (motor + ending).encode("utf-8", "surrogateescape")
            dataset = hdf5.dataset(file, path)
            if motor and dataset is not None and _is_column(dataset):
                values = _values(dataset)
                ends = np.flatnonzero(~np.isfinite(values))
                unit = hdf5.text_of(dataset, "units")
                found[motor] = Travel(values[: ends[0]] if len(ends) else values, unit)
                break
    return found


def _columns(file: h5py.File, entry: bytes) -> Iterator[tuple[str, h5d.DatasetID]]:
    group = hdf5.find(file, entry + b"/measurement")
    if isinstance(group, h5g.GroupID):
        for name in islice(group, MAX_DEVICES):
            found = hdf5.dataset(file, entry + b"/measurement/" + name)
            if found is not None and _is_column(found):
                yield name.decode("utf-8", "replace"), found


def _is_column(found: h5d.DatasetID) -> bool:
    return len(found.shape) == 1 and found.dtype.kind in "iuf" and found.dtype.itemsize <= 8


def _values(found: h5d.DatasetID) -> NDArray[np.float64]:
    """The numbers of a column (points,), NaN where none was written. BadData."""
    (count,) = found.shape
    properties = found.get_create_plist()
    if count > MAX_POINTS:
        raise BadData(f"a column of {count} points is not believed")
    if properties.get_layout() != h5d.CHUNKED:
        return np.asarray(h5py.Dataset(found)[()], np.float64)
    (length,) = properties.get_chunk()
    if length > MAX_POINTS or found.get_num_chunks() > MAX_CHUNKS:
        raise BadData(f"a column in {found.get_num_chunks()} chunks of {length} is not believed")
    codec = Codec(1, length, found.dtype.str, hdf5.filters(found))
    values = np.full(count, np.nan)
    for (at,), part in decoded_chunks(found, codec):
        values[at : at + length] = part[0, : count - at]
    return values
