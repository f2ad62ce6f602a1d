"""Programs that know nothing of us open files of the mount: each cell of the README's table."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import fabio
import h5py
import hdf5plugin  # noqa: F401  registers its filters
import imageio.v3 as imageio
import numpy as np
import pytest
import scipy.io
import tifffile
from mounting import Site, contents
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image

from dadafs.containers import CONTAINERS
from tools.scan_maker import make_scan

pytestmark = pytest.mark.mount

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
STEMS = ["darkfield/horz=7", "dpc/horz=6", "radial/bins=7/horz=6", "sum/full", "frames/000003"]
MAPS = ["darkfield/horz=7", "dpc/horz=6", "orientation/horz=6"]


@pytest.fixture(scope="module")
def scan(shared: Site) -> Path:
    """24 frames; lines of 7 points leave four points without a frame, NaN."""
    make_scan(shared.raw, name="foreign", horz=6, vert=4, detector="70x64")
    return shared.mnt / "foreign"


def run(*command: str | Path) -> bytes:
    """What a program writes; the test is skipped where there is no such program."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is missing: tools/setup test installs it")
    done = subprocess.run([*map(str, command)], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def octave(code: str) -> bytes:
    return run("octave-cli", "--quiet", "--norc", "--no-history", "--eval", code)


def octave_array(code: str, value: str, dtype: Any = np.float64) -> NDArray[Any]:
    """A matrix of Octave, as its numbers in doubles, column after column."""
    write = "fwrite(stdout, [ndims(v) size(v)], 'double'); fwrite(stdout, v, class(v));"
    out = octave(f"{code} v = {value}; {write}")
    rank = int(np.frombuffer(out, "<f8", 1)[0])
    shape = np.frombuffer(out, "<f8", rank, 8).astype(int)
    return np.frombuffer(out, dtype, offset=8 * (1 + rank)).reshape(shape, order="F")


def array(scan: Path, stem: str) -> NDArray[Any]:
    found: NDArray[Any] = np.load(io.BytesIO(contents(scan / f"{stem}.npy")))
    return found


def channel(scan: Path, stem: str) -> tuple[str, NDArray[Any]]:
    """Name and numbers of the last channel."""
    with h5py.File(scan / f"{stem}.h5", "r") as file:
        result = file["entry/result"]
        names = [result.attrs["signal"], *result.attrs.get("auxiliary_signals", [])]
    whole = array(scan, stem)
    return names[-1], whole[-1] if len(names) > 1 else whole


def first(array: NDArray[Any]) -> NDArray[Any]:
    """The first channel."""
    return array[0] if array.ndim == 3 else array


def sentinel(frame: NDArray[Any]) -> NDArray[np.bool_]:
    """The pixels that were not measured."""
    return np.asarray(frame == np.iinfo(frame.dtype).max)


@pytest.mark.parametrize("stem", STEMS)
def test_octave_loads_mat(scan: Path, stem: str) -> None:
    name, expected = channel(scan, stem)
    found = octave_array(f"s = load('{scan}/{stem}.mat');", f"s.{name}", expected.dtype)
    assert_array_equal(found, expected.T if expected.ndim == 3 else expected)


@pytest.mark.parametrize("stem", STEMS)
def test_scipy_loads_mat(scan: Path, stem: str) -> None:
    name, expected = channel(scan, stem)
    found = scipy.io.loadmat(scan / f"{stem}.mat")[name]
    assert_array_equal(found, expected.T if expected.ndim == 3 else expected)


@pytest.mark.parametrize("stem", STEMS)
def test_octave_loads_h5(scan: Path, stem: str) -> None:
    """Dimensions reversed, as Octave and Matlab do with every HDF5 file."""
    name, expected = channel(scan, stem)
    code = f"s = load('{scan}/{stem}.h5');"
    assert_array_equal(octave_array(code, f"s.entry.result.{name}", expected.dtype), expected.T)
    assert octave(f"{code} printf('%s', s.entry.process.program)") == b"dadafs"


@pytest.mark.parametrize("stem", STEMS)
def test_octave_reads_csv(scan: Path, stem: str) -> None:
    expected = array(scan, stem)
    found = octave_array("", f"csvread('{scan}/{stem}.csv', 3, 0)")
    assert_array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize("stem", STEMS)
def test_octave_freads_npy(scan: Path, stem: str) -> None:
    expected = array(scan, stem)
    kind = {"f8": "double", "u8": "uint64", "u2": "uint16"}[expected.dtype.str[1:]]
    code = f"f = fopen('{scan}/{stem}.npy'); fseek(f, 4096); n = fread(f, Inf, '*{kind}');"
    found = octave_array(code, "n", expected.dtype)
    assert_array_equal(found.reshape(expected.shape), expected)


def test_octave_reads_frames_as_tif(scan: Path) -> None:
    """Integers only: its imread makes 16 bits of every tif."""
    expected = array(scan, "frames/000003")
    assert_array_equal(octave_array("", f"imread('{scan}/frames/000003.tif')", np.uint16), expected)


@pytest.mark.parametrize("stem", [*MAPS, "sum/full", "frames/000003"])
def test_octave_reads_png(scan: Path, stem: str) -> None:
    expected = imageio.imread(io.BytesIO(contents(scan / f"{stem}.png")), mode="RGBA")
    code = f"[p, m, a] = imread('{scan}/{stem}.png'); if ndims(p) == 2, p = cat(3, p, p, p); end;"
    found = octave_array(code, "p", np.uint8)
    shown = expected[..., 3] > 0
    assert_array_equal(found[shown], expected[shown][:, :3])


@pytest.mark.parametrize("stem", [*MAPS, "sum/full", "frames/000003"])
def test_imagemagick_converts_png(scan: Path, stem: str) -> None:
    path = scan / f"{stem}.png"
    expected = imageio.imread(io.BytesIO(contents(path)), mode="RGBA")
    height, width = array(scan, stem).shape[-2:]
    assert run("identify", "-format", "%m %w %h", path) == f"PNG {width} {height}".encode()
    found = np.frombuffer(run("convert", path, "-depth", "8", "rgba:-"), np.uint8)
    found = found.reshape(height, width, 4)
    assert_array_equal(found[..., 3], expected[..., 3])
    shown = expected[..., 3] > 0
    assert_array_equal(found[shown], expected[shown])


def test_imagemagick_reads_frames_as_tif(scan: Path) -> None:
    expected = array(scan, "frames/000003")
    path = scan / "frames/000003.tif"
    raw = run("convert", "-quiet", path, "-depth", "16", "-endian", "LSB", "gray:-")
    assert_array_equal(np.frombuffer(raw, "<u2").reshape(expected.shape), expected)


@pytest.mark.parametrize("stem", [*MAPS, *STEMS])
def test_tifffile_reads_tif(scan: Path, stem: str) -> None:
    expected = array(scan, stem)
    found = tifffile.imread(scan / f"{stem}.tif")
    assert_array_equal(found.reshape(expected.shape), expected.astype(found.dtype))


@pytest.mark.parametrize("stem", STEMS)
def test_numpy_maps_npy(scan: Path, stem: str) -> None:
    mapped = np.load(scan / f"{stem}.npy", mmap_mode="r")
    assert_array_equal(mapped, array(scan, stem))


@pytest.mark.parametrize("stem", STEMS)
def test_numpy_reads_csv(scan: Path, stem: str) -> None:
    expected = array(scan, stem)
    found = np.loadtxt(scan / f"{stem}.csv", delimiter=",", ndmin=2, dtype=expected.dtype)
    assert_array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize("stem", STEMS)
def test_h5py_opens_h5(scan: Path, stem: str) -> None:
    name, expected = channel(scan, stem)
    with h5py.File(scan / f"{stem}.h5", "r") as file:
        assert_array_equal(file["entry/result"][name][()], expected)


@pytest.mark.parametrize("stem", STEMS)
def test_hdf5_tools_list_and_dump_h5(scan: Path, stem: str) -> None:
    name, expected = channel(scan, stem)
    path = scan / f"{stem}.h5"
    listed = run("h5ls", "-r", path).decode()
    shape = ", ".join(map(str, expected.shape))
    assert f"/entry/result/{name}" in listed
    assert f"Dataset {{{shape}}}" in listed
    dumped = run("h5dump", path).decode()
    for file in (scan / "raw").iterdir():
        assert f'"{file.name}' in dumped
        assert f"{file.stat().st_mtime_ns}" in dumped
    assert "background_frame_status" not in dumped
    assert 'DATASET "frame_status"' in dumped
    command = ["h5dump", "-d", f"/entry/result/{name}", "-b", "LE", "-o", "/dev/stdout"]
    assert expected.tobytes() in run(*command, path)


@pytest.mark.parametrize("stem", STEMS)
def test_silx_finds_the_plot_in_h5(scan: Path, stem: str) -> None:
    """What `silx view` shows when it opens the file."""
    pytest.importorskip("silx", reason="silx is missing: tools/setup test installs it")
    import silx.io
    from silx.io.nxdata import get_default

    name, expected = channel(scan, stem)
    with silx.io.open(str(scan / f"{stem}.h5")) as file:
        plot = get_default(file)
        assert plot is not None
        assert plot.is_valid
        assert plot.is_image or plot.is_curve
        shown = [plot.signal, *plot.auxiliary_signals]
        assert shown[-1].name == f"/entry/result/{name}"
        assert_array_equal(shown[-1][()], expected)
        lengths = [axis.shape[0] for axis in plot.axes]
        assert lengths == list(expected.shape)


@pytest.mark.parametrize("stem", [*MAPS, "frames/000003"])
def test_pillow_reads_tif(scan: Path, stem: str) -> None:
    """The first page; imageio, which reads by tifffile, all of them."""
    expected = array(scan, stem)
    path = scan / f"{stem}.tif"
    with Image.open(path) as picture:
        assert_array_equal(np.asarray(picture), first(expected).astype(np.asarray(picture).dtype))
    found = imageio.imread(path)
    assert_array_equal(found, expected.astype(found.dtype))


@pytest.mark.parametrize("stem", [*MAPS, "sum/full", "frames/000003"])
def test_pillow_reads_png(scan: Path, stem: str) -> None:
    """What is not a number or not measured is transparent, all else is not."""
    expected = array(scan, stem)
    with Image.open(scan / f"{stem}.png") as picture:
        found = np.asarray(picture.convert("RGBA"))
    assert_array_equal(found, imageio.imread(scan / f"{stem}.png", mode="RGBA"))
    if expected.dtype.kind == "f":
        blank = np.isnan(first(expected))
    else:
        with h5py.File(scan / "raw/foreign_master.h5") as master:
            blank = master["entry/instrument/detector/detectorSpecific/pixel_mask"][()] != 0
        blank |= sentinel(expected)
    assert_array_equal(found[..., 3] == 0, blank)


@pytest.mark.parametrize("stem", [*MAPS, "sum/full", "frames/000003"])
def test_fabio_reads_npy(scan: Path, stem: str) -> None:
    """Channels are frames to it."""
    expected = array(scan, stem)
    with fabio.open(str(scan / f"{stem}.npy")) as opened:
        found = np.stack([opened.get_frame(number).data for number in range(opened.nframes)])
    assert_array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize("stem", [*MAPS, "sum/full", "frames/000003"])
def test_fabio_reads_tif(scan: Path, stem: str) -> None:
    found = fabio.open(str(scan / f"{stem}.tif")).data
    assert_array_equal(found, first(array(scan, stem)).astype(found.dtype))


@pytest.mark.parametrize("stem", ["darkfield/horz=7", "dpc/horz=6", "sum/full", "frames/000003"])
def test_fabio_reads_h5(scan: Path, stem: str) -> None:
    name, expected = channel(scan, stem)
    found = fabio.open(f"{scan}/{stem}.h5::/entry/result/{name}").data
    assert_array_equal(found, expected)


def test_fabio_reads_raw(scan: Path) -> None:
    master = fabio.open(str(scan / "raw/foreign_master.h5"))
    assert master.nframes == 24
    assert_array_equal(master.get_frame(3).data, array(scan, "frames/000003"))


def test_h5py_opens_raw(scan: Path) -> None:
    """Through the external link to the data file, which is on the mount too."""
    with h5py.File(scan / "raw/foreign_master.h5", "r") as file:
        assert_array_equal(file["entry/data/data_000001"][3], array(scan, "frames/000003"))


def test_silx_opens_raw(scan: Path) -> None:
    """What `silx view` shows when it opens a master."""
    silx = pytest.importorskip("silx.io", reason="silx is missing: tools/setup test installs it")
    with silx.open(str(scan / "raw/foreign_master.h5")) as file:
        assert_array_equal(file["entry/data/data_000001"][3], array(scan, "frames/000003"))


def test_hdf5_tools_list_raw(scan: Path) -> None:
    listed = run("h5ls", "-r", "-E", scan / "raw/foreign_master.h5").decode()
    assert "data_000001" in listed
    assert "{24/Inf, 70, 64}" in listed


@pytest.mark.parametrize("ending", [*CONTAINERS, "raw"])
def test_copies_are_the_files(scan: Path, ending: str, tmp_path: Path) -> None:
    """Of cp, rsync and tar, times included; rsync then has nothing more to do."""
    path = scan / f"dpc/horz=6.{ending}"
    if ending == "raw":
        path = scan / "raw/foreign_master.h5"
    expected = contents(path)
    for command in (
        ["cp", "--preserve=timestamps", path, tmp_path / "cp"],
        ["rsync", "--times", path, tmp_path / "rsync"],
        ["tar", "-C", path.parent, "-cf", tmp_path / "a.tar", path.name],
        ["tar", "-C", tmp_path, "-xf", tmp_path / "a.tar"],
    ):
        run(*command)
    for copy in (tmp_path / "cp", tmp_path / "rsync", tmp_path / path.name):
        assert copy.read_bytes() == expected
        assert int(copy.stat().st_mtime) == int(path.stat().st_mtime)
    again = run("rsync", "--times", "--itemize-changes", path, tmp_path / "rsync")
    assert again == b""


def test_bins_are_the_same_in_every_container(scan: Path) -> None:
    """Without limits their places follow from the pixels: known when read, not at stat."""
    stem = "radial/bins=7/full"
    with h5py.File(scan / f"{stem}.h5", "r") as file:
        places = file["entry/result/q"][()]
    assert np.all(np.diff(places) > 0)
    assert_array_equal(scipy.io.loadmat(scan / f"{stem}.mat")["axis_q"][0], places)
    header = contents(scan / f"{stem}.csv").decode().splitlines()[2]
    written = np.array([float(cell) for cell in header.lstrip("#").split(",")])
    np.testing.assert_allclose(written, places, rtol=1e-14)
    assert_array_equal(octave_array(f"s = load('{scan}/{stem}.mat');", "s.axis_q")[0], places)


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir()))
def test_examples_of_the_documents_run(scan: Path, name: str) -> None:
    path = EXAMPLES / name
    if path.suffix == ".py":
        out = run(sys.executable, path, scan).decode()
    else:
        out = run("octave-cli", "--quiet", "--norc", "--no-history", path, scan).decode()
    assert out.strip()
    assert "the same: 0" not in out
    assert "the same: False" not in out


def test_every_cell_of_the_table_is_a_test_and_every_test_a_cell() -> None:
    """A cell is a test of this module that runs the container of its column, or a dash."""
    text = (EXAMPLES.parents[1] / "README.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|") and "`test_" in line]
    head = next(line for line in text.splitlines() if line.endswith("| raw |"))
    columns = [cell.strip() for cell in head.strip("|").split("|")][1:]
    assert columns == [*CONTAINERS, "raw"]
    named = set()
    for line in lines:
        program, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        assert len(cells) == len(columns), program
        for column, cell in zip(columns, cells, strict=True):
            if cell == "-":
                continue
            name = cell.strip("`")
            assert callable(globals().get(name)), f"{program}, {column}: no test {name}"
            assert name.endswith(f"_{column}") or name == "test_copies_are_the_files", name
            named.add(name)
    reads = {name for name in globals() if name.startswith("test_")}
    assert named == reads - {
        "test_bins_are_the_same_in_every_container",
        "test_examples_of_the_documents_run",
        "test_every_cell_of_the_table_is_a_test_and_every_test_a_cell",
    }
