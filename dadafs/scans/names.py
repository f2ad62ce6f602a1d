"""Which files make a scan, told from their names alone. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import msgspec

MASTER = re.compile(rb"(.+)_master\.h5", re.DOTALL)
DATA = re.compile(rb"(.+)_data_([0-9]+)\.h5", re.DOTALL)
NEXUS = re.compile(rb"(.+)\.nxs", re.DOTALL)
LIMA = re.compile(rb"(.+)_([0-9]{4}|[1-9][0-9]{4,8})\.h5", re.DOTALL)  # its `%04d`
LIMA_DIRECTORY = re.compile(rb"scan([0-9]{4,9})")  # that BLISS makes for a scan
IMAGES = {b"cbf": b"cbf", b"edf": b"edf", b"tif": b"tif", b"tiff": b"tif"}
IMAGES |= {ending.upper(): kind for ending, kind in IMAGES.items()}
HDF5_MASKS = ("h5", "hdf5", "nxs")
MASKS = ("npy", "tif", "tiff", "edf", *HDF5_MASKS)
"""The endings of files that may be masks."""
STACKS = ("edf", "tif")
"""The formats of images that may hold several frames."""
STACKED = frozenset(ending for ending, kind in IMAGES.items() if kind.decode() in STACKS)
LONE = b"="  # marks the kind in the key of an image that is no part of a series
DIGITS = b"0123456789"
SUFFIX = b".scan"  # of a scan whose own name is taken


class ScanFiles(msgspec.Struct, frozen=True):
    """The names of the files of one scan, all in one directory."""

    master: bytes | None
    data: tuple[bytes, ...]
    """By number."""
    images: str = ""
    """The format of image files, `cbf`, `edf` or `tif`; empty for HDF5."""
    lima: bool = False
    """LImA wrote them: `eiger_0000.h5`, `eiger_0001.h5`, ... in `scan0001`."""

    @property
    def all(self) -> tuple[bytes, ...]:
        """Every file, the master first."""
        return self.data if self.master is None else (self.master, *self.data)


def scan_of(name: bytes, directory: bytes = b"") -> bytes | None:
    """The key of the scan that a file of this name belongs to; None for a loose file.

    The key of a master and its data files is the scan's name. Other keys, of NeXus files, of
    LImA's and of images, are no names. An image alone has a key, and makes a scan if it holds
    several frames.
    Hidden files never belong to one: they are other programs' temporary files, or what macOS
    leaves beside every file.
    """
    if name.startswith(b"."):
        return None
    if name.endswith(b".h5"):
        if match := MASTER.fullmatch(name) or DATA.fullmatch(name):
            return match[1]
        match = LIMA.fullmatch(name) if scan_number(directory) is not None else None
        return match[1] + b"\0lima" if match else None
    if match := NEXUS.fullmatch(name):
        return match[1] + b"\0nxs"
    image = _image(name)
    return image[0] if image else _lone_key(name)


def image_kind(name: bytes) -> str:
    """`cbf`, `edf` or `tif` by the ending of a file's name; empty for other files."""
    stem, _, ending = name.rpartition(b".")
    if ending == b"gz":
        stem, _, ending = stem.rpartition(b".")
    return IMAGES.get(ending, b"").decode() if stem else ""


def _lone_key(name: bytes) -> bytes | None:
    """The key of an image that is no part of a series by its name; None for another file."""
    stem, _, ending = name.rpartition(b".")
    return b"%b\0%b%b" % (stem, LONE, ending) if ending in STACKED and stem else None


def _image(name: bytes) -> tuple[bytes, bytes] | None:
    """The key and the digits of the name of an image; None for another. Fast: 0.6 us."""
    stem, _, ending = name.rpartition(b".")
    if ending == b"gz":
        stem, _, ending = stem.rpartition(b".")
    kind = IMAGES.get(ending)
    if kind is None:
        return None
    bare = stem.rstrip(DIGITS)
    return (bare + b"\0" + kind, stem[len(bare) :]) if bare and bare != stem else None


def scan_number(directory: bytes) -> int | None:
    """The number of the BLISS scan whose frames a directory of that path is for."""
    match = LIMA_DIRECTORY.fullmatch(split(directory)[1])
    return int(match[1]) if match else None


def number_of(name: bytes) -> int | None:
    """The number in the name of a data file or an image; None for another file."""
    image = _image(name)
    match = None if image else DATA.fullmatch(name) or LIMA.fullmatch(name)
    digits = image[1] if image else match[2] if match else b""
    return int(digits) if 0 < len(digits) <= 18 else None


def with_number(name: bytes, number: int) -> bytes:
    """The name of an image with another number, as wide."""
    image = _image(name)
    assert image is not None
    key, digits = image
    bare = key.partition(b"\0")[0]
    return b"%b%0*d%b" % (bare, len(digits), number, name[len(bare) + len(digits) :])


def _none(names: Sequence[bytes]) -> frozenset[bytes]:
    return frozenset()


def group(
    files: Iterable[bytes],
    others: Iterable[bytes] = (),
    directory: bytes = b"",
    stacks: Callable[[Sequence[bytes]], frozenset[bytes]] = _none,
) -> tuple[dict[bytes, ScanFiles], list[bytes]]:
    """Sort the names of a directory's files into scans, by the name each is shown under, and loose.

    A data file without a master makes a scan too, and so do two images or more that differ in
    their numbers only, and LImA's files in the directory of a BLISS scan if no master has their
    name. Of images that are alone, those make scans that `stacks` picks. A scan whose own name is
    that of a loose file or of one of `others`, the directory's names that are no files, is shown
    as `NAME.scan`. Every file lies in exactly one scan or is loose; shown names are unique; loose
    files keep their order.
    """
    masters: dict[bytes, bytes] = {}
    data: dict[bytes, list[tuple[tuple[int, bytes], bytes]]] = {}
    images: dict[bytes, list[bytes]] = {}
    alone: dict[bytes, bytes] = {}
    lima: dict[bytes, list[tuple[int, bytes]]] = {}
    scans: dict[bytes, ScanFiles] = {}
    loose = []
    by_bliss = scan_number(directory) is not None
    for name in files:
        if name.startswith(b"."):
            loose.append(name)
        elif name.endswith(b".h5"):
            if match := DATA.fullmatch(name):
                data.setdefault(match[1], []).append((_order(match[2]), name))
            elif match := MASTER.fullmatch(name):
                masters[match[1]] = name
            else:
                if by_bliss and (match := LIMA.fullmatch(name)):
                    lima.setdefault(match[1], []).append((int(match[2]), name))
                loose.append(name)
        elif image := _image(name):
            images.setdefault(image[0], []).append(name)
            loose.append(name)
        elif match := NEXUS.fullmatch(name):
            scans[match[1] + b"\0nxs"] = ScanFiles(name, ())
        else:
            if key := _lone_key(name):
                alone[name] = key
            loose.append(name)
    loose = _without_series(images, alone, stacks, scans, loose)
    if free := lima.keys() - masters.keys() - data.keys():
        loose = _without_lima({stem: lima[stem] for stem in free}, scans, loose)
    for key in sorted({*masters, *data, *scans}):
        if key in scans:
            scans[key] = scans.pop(key)  # to the end
            continue
        members = data.get(key, [])
        members.sort()
        scans[key] = ScanFiles(masters.get(key), tuple([name for _, name in members]))
    return _shown(scans, {*loose, *others}), loose


def _without_series(
    images: dict[bytes, list[bytes]],
    alone: dict[bytes, bytes],
    stacks: Callable[[Sequence[bytes]], frozenset[bytes]],
    scans: dict[bytes, ScanFiles],
    loose: list[bytes],
) -> list[bytes]:
    """Add the series of images, and stacks that are alone, to the scans; the files that remain
    loose."""
    taken: set[bytes] = set()
    for key, names in images.items():
        if not name_of(key):
            continue
        if len(names) == 1:
            if _kind_of(key) in STACKS:
                alone[names[0]] = key
        elif members := _by_number(names):
            scans[key] = ScanFiles(None, members, _kind_of(key))
            taken.update(members)
    for name in stacks(sorted(alone)) if alone else ():
        scans[alone[name]] = ScanFiles(None, (name,), _kind_of(alone[name]))
        taken.add(name)
    return [name for name in loose if name not in taken] if taken else loose


def _kind_of(key: bytes) -> str:
    """The format of the images of a key."""
    kind = key.rpartition(b"\0")[2]
    return (IMAGES[kind[len(LONE) :]] if kind.startswith(LONE) else kind).decode()


def _without_lima(
    lima: dict[bytes, list[tuple[int, bytes]]], scans: dict[bytes, ScanFiles], loose: list[bytes]
) -> list[bytes]:
    """Add what LImA wrote to the scans; the files that remain loose."""
    taken: set[bytes] = set()
    for stem, numbered in lima.items():
        key = stem + b"\0lima"
        if name_of(key):
            scans[key] = ScanFiles(None, tuple(name for _, name in sorted(numbered)), lima=True)
            taken.update(scans[key].data)
    return [name for name in loose if name not in taken]


def _by_number(names: list[bytes]) -> tuple[bytes, ...]:
    """The names of images with one key by number; none where all have the same number."""
    ending = names[0][-5:].lstrip(DIGITS)
    length = len(names[0])
    if all(len(name) == length and name.endswith(ending) for name in names):
        return tuple(sorted(names))  # as names usually are: four times as fast
    numbered = sorted((_order(image[1]), name) for name in names if (image := _image(name)))
    return tuple(name for _, name in numbered) if numbered[0][0] != numbered[-1][0] else ()


def _order(digits: bytes) -> tuple[int, bytes]:
    """Sorts as the number does, however long it is."""
    significant = digits.lstrip(b"0")
    return len(significant), significant


def _shown(scans: dict[bytes, ScanFiles], taken: set[bytes]) -> dict[bytes, ScanFiles]:
    """The scans by names that collide with nothing; a scan's own name goes before a made one."""
    shown: dict[bytes, ScanFiles] = {}
    others = []
    for key, files in scans.items():
        name = name_of(key) if b"\0" in key else key
        if name in taken or (name != key and (name in scans or name in shown)):
            others.append((name, files))
        else:
            shown[name] = files
    for name, files in others:
        while name in taken or name in shown:
            name += SUFFIX
        shown[name] = files
    return shown


def name_of(key: bytes) -> bytes:
    """The name that a scan of this key would like to have."""
    name, separator, kind = key.partition(b"\0")
    own = not separator or kind == b"nxs" or kind.startswith(LONE)
    return name if own else name.rstrip(b"_-.")


def join(directory: bytes, name: bytes) -> bytes:
    """The path of `name` in `directory`."""
    return directory + b"/" + name if directory else name


def split(path: bytes) -> tuple[bytes, bytes]:
    """The directory of a path, and its last name."""
    directory, _, name = path.rpartition(b"/")
    return directory, name


def show(path: bytes) -> str:
    """A raw name for people: one line of valid text, whatever bytes it has."""
    if not path:
        return "the raw root"
    text = path.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
