"""Analyses that users write, mounted: the examples of the documentation, and what goes wrong."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flatfields import give_flatfield, usable
from mounting import Site
from numpy.typing import NDArray

from tools.scan_maker import ScanMade, make_scan

pytestmark = pytest.mark.mount

PAGE = Path(__file__).resolve().parents[2] / "docs/plugins.md"
BAD = """
from analysis.plugins import frame_analysis, number

@frame_analysis(title="fails", channels={"a": ""}, parameters={"at": number(0)})
def fails(frame, geometry, params):
    if params.at:
        raise ArithmeticError("this frame\\nis odd")
    return frame.max()
"""


def examples() -> list[str]:
    """The Python examples of the page."""
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(found) == 3
    return found


@pytest.fixture
def with_plugins(unmounted: Site) -> Iterator[tuple[Site, ScanMade]]:
    """A mount with the examples of the page and one that fails."""
    directory = unmounted.base / "plugins"
    directory.mkdir()
    for number, text in enumerate([*examples(), BAD]):
        (directory / f"example{number}.py").write_text(text)
    made = make_scan(unmounted.raw, name="s", horz=7, vert=10, unique=20)
    unmounted.mount("--plugins", str(directory))
    yield unmounted, made
    if unmounted.mounted():
        unmounted.unmount()


def test_examples_of_the_page(with_plugins: tuple[Site, ScanMade]) -> None:
    site, made = with_plugins
    counts = np.where(made.mask | (made.frames == 65535), 0, made.frames).astype(float)
    above = np.where(counts > 2, counts, 0)
    expected = np.stack([(above > 0).sum((1, 2)), above.sum((1, 2))])[:, made.which]
    assert "bright" in [path.name for path in (site.mnt / "s").iterdir()]
    assert "threshold=" in (site.mnt / "s/bright/README.txt").read_text()
    found = site.load("s/bright/threshold=2/horz=7/vert=10.npy")
    assert np.array_equal(found, expected.reshape(2, 10, 7))
    one = site.load("s/bright/channel=pixels/threshold=2/horz=7/vert=10.npy")
    assert np.array_equal(one, expected[0].reshape(10, 7))
    cx, cy = made.geometry.cx, made.geometry.cy
    rows, columns = np.indices(made.detector.shape)
    square = (columns - cx) ** 2 + (rows - cy) ** 2
    mean = (counts * square).sum((1, 2)) / counts.sum((1, 2))
    found = site.load("s/spread/horz=7/vert=10.npy")
    assert np.allclose(found, mean[made.which].reshape(10, 7), rtol=1e-6)
    with site.computing(frames=0):
        site.load("s/spread/vert=7/horz=10.npy")


def test_corrections_of_what_users_wrote(with_plugins: tuple[Site, ScanMade]) -> None:
    site, _ = with_plugins
    made = make_scan(site.raw / "more", name="s", horz=3, vert=2)
    factors = usable(give_flatfield(made))
    monitor = np.array([900.0, 1000, 1100, 1000, 950, 1050])
    rows = "".join(f"{one}\n" for one in monitor)
    log = f"!\n%c\nmesh x 0 1 2 y 0 1 1 0.02\n!\n%p\nx = 0.0\n!\n%d\n Col 1 ic1 DOUBLE\n{rows}"
    (site.raw / "more/s.fio").write_text(log)
    mask = np.zeros(made.detector.shape, np.bool_)
    mask[20:60, 30:50] = True
    np.save(site.raw / "more/gap.npy", mask)
    mask |= made.mask
    cx, cy = (int(np.floor(2 * one + 0.5)) for one in (made.geometry.cx, made.geometry.cy))
    there = np.indices(mask.shape)
    mirrored = cy - there[0], cx - there[1]
    inside = (mirrored[0] >= 0) & (mirrored[0] < mask.shape[0])
    inside &= (mirrored[1] >= 0) & (mirrored[1] < mask.shape[1])
    y, x = (np.where(mask & inside, *pair) for pair in zip(mirrored, there, strict=True))

    def halves(weights: NDArray[np.float64], heal: bool = False) -> NDArray[np.float64]:
        """Of every frame, (2, frames)."""
        good = (~mask & (made.frames != 65535)) * weights
        products = np.where(good > 0, made.frames, 0) * good
        if heal:
            products = products[:, y, x]
        middle = mask.shape[0] // 2
        parts = products[:, :middle], products[:, middle:]
        return np.stack([part.sum((1, 2)) for part in parts])[:, made.which]

    def found(corrections: str) -> NDArray[np.float64]:
        return site.load(f"more/s/halves/mask=gap.npy/{corrections}.npy").reshape(2, -1)

    ones = np.ones(mask.shape)
    own, flat = halves(ones), halves(factors)
    assert np.array_equal(found("full"), own)
    assert np.array_equal(found("heal=1"), halves(ones, True))
    assert (halves(ones, True) > own).any()
    assert np.allclose(found("flat=1"), flat, rtol=1e-12)
    assert np.allclose(found("heal=1/flat=1"), halves(factors, True), rtol=1e-12)
    scale = monitor.mean() / monitor
    assert np.allclose(found("norm=ic1"), own * scale, rtol=1e-12)
    net = own - own[:, 1:3].mean(axis=1, keepdims=True)
    assert np.allclose(found("background=1..2"), net, rtol=1e-12)
    every = flat * scale
    net = every - every[:, 1:3].mean(axis=1, keepdims=True)
    assert np.allclose(found("background=1..2/flat=1/norm=ic1"), net, rtol=1e-10, atol=1e-9)
    where = "more/s/spread/flat=1.npy"
    counts = np.where(made.mask | (made.frames == 65535), 0, made.frames) * factors
    square = (there[1] - made.geometry.cx) ** 2 + (there[0] - made.geometry.cy) ** 2
    spread = (counts * square).sum((1, 2)) / counts.sum((1, 2))
    assert np.allclose(site.load(where).ravel(), spread[made.which], rtol=1e-9)
    told = site.run("verify", site.mnt / where, "--plugins", site.base / "plugins")
    assert (told.returncode, told.stdout.count("general  equal")) == (0, 1)
    for refused in ("norm=ic1", "background=1..2"):
        assert not (site.mnt / f"more/s/spread/{refused}.npy").exists()
        assert "it is not declared linear=True" in site.errors().splitlines()[-1]


def test_errors_of_a_function_harm_nobody(with_plugins: tuple[Site, ScanMade]) -> None:
    site, made = with_plugins
    with pytest.raises(OSError, match="Input/output") as caught:
        site.load("s/fails/at=1/full.npy")
    assert caught.value.errno == errno.EIO
    assert "fails: ArithmeticError: this frame is odd" in site.errors()
    assert "/s/fails/at=1/full.npy" in site.errors()
    pid = site.pid_of("peer")
    assert np.array_equal(site.load("s/darkfield/full.npy").ravel(), made.sums)
    assert site.load("s/fails/full.npy").size == 70
    assert site.pid_of("peer") == pid


def test_parameters_are_validated(with_plugins: tuple[Site, ScanMade]) -> None:
    site, _ = with_plugins
    for name in ("threshold=-1", "thresold=1", "threshold=many"):
        assert not (site.mnt / f"s/bright/{name}").exists()
    assert "did you mean 'threshold'?" in site.errors()


def test_edited_source_is_computed_anew(unmounted: Site) -> None:
    file = unmounted.base / "plugins/one.py"
    file.parent.mkdir()
    make_scan(unmounted.raw, name="s", horz=3, vert=3)
    for value in (1, 2):
        text = 'from analysis.plugins import frame_analysis\n@frame_analysis(title="t", '
        file.write_text(text + f'channels={{"a": ""}})\ndef one(f, g, p):\n    return {value}\n')
        unmounted.mount("--plugins", str(file.parent))
        assert np.array_equal(unmounted.load("s/one/full.npy"), np.full((1, 9), float(value)))
        unmounted.unmount()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("import does_not_exist\n", "ModuleNotFoundError"),
        ("x = 1\n", "nothing in it is decorated with frame_analysis"),
        (
            "from analysis.plugins import frame_analysis\n"
            '@frame_analysis(title="t", channels={"a": ""})\ndef dpc(f, g, p):\n    return 1\n',
            "'dpc' is taken by dadafs",
        ),
    ],
)
def test_files_that_cannot_be_loaded_are_refused(
    unmounted: Site, text: str, complaint: str
) -> None:
    file = unmounted.base / "plugins/one.py"
    file.parent.mkdir()
    file.write_text(text)
    done = unmounted.run("mount", unmounted.raw, unmounted.mnt, "--plugins", file.parent)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
    unmounted.wait_gone()


def test_results_of_plugins_are_verified_by_their_own_code(
    with_plugins: tuple[Site, ScanMade],
) -> None:
    site, _ = with_plugins
    path = site.mnt / "s/bright/threshold=2/horz=7/vert=10.npy"
    told = site.run("verify", path, "--plugins", site.base / "plugins")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.count("general  equal") == 2
    told = site.run("verify", path)
    assert told.returncode == 2
    assert told.stderr == "dadafs: 'plugin:bright' is a plug-in: say where it is with --plugins\n"
