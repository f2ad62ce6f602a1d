"""Programs that know nothing of us open results on the mount: each cell of docs/containers.md."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

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
    run("h5dump", path)
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


def test_table_in_the_documents_names_tests_that_exist() -> None:
    text = (EXAMPLES.parent / "containers.md").read_text()
    named = {word.strip("`") for word in text.split() if word.startswith("`test_")}
    here = {name for name in globals() if name.startswith("test_")}
    assert named
    assert named <= here
