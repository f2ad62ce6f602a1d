"""Man page and completion are those of the commands as they are; help is quick and complete."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dadafs.cli import EPILOG, INTERRUPTED, main, parser
from dadafs.commands.declaring import DONE, REFUSED, SILENT, USAGE
from dadafs.manual import commands, completion, man_page

ROOT = Path(__file__).resolve().parents[2]
PAGE, SCRIPT = ROOT / "docs/man/dadafs.1", ROOT / "docs/completion/dadafs.bash"
HEAVY = ("numpy", "trio", "numba", "h5py", "pyfuse3", "lmdb", "msgspec", "dadafs.client")


def test_man_page_and_completion_are_current() -> None:
    assert PAGE.read_text() == man_page(parser()), "run tools/make_man"
    assert SCRIPT.read_text() == completion(parser()), "run tools/make_man"


@pytest.mark.parametrize("name", sorted(commands(parser())))
def test_every_command_has_an_example_that_it_would_take(name: str) -> None:
    example = (commands(parser())[name].epilog or "").removeprefix("example: ")
    words = example.split()
    assert words[:2] == ["dadafs", name]
    options = parser().parse_args(words[1:])
    assert callable(options.run)


def test_man_page_is_well_formed() -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is missing")
    done = subprocess.run(
        ["groff", "-man", "-ww", "-z", "-Tutf8", str(PAGE)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["dadafs", "sta"], ["status"]),
        (["dadafs", "cache", "v"], ["verify"]),
        (["dadafs", "peer", "--insec"], ["--insecure-network"]),
        (["dadafs", "config", "show", "mou"], ["mount"]),
    ],
)
def test_completion_offers(typed: list[str], offered: list[str], tmp_path: Path) -> None:
    words = " ".join(f"'{word}'" for word in typed)
    script = f"""
        . '{SCRIPT}'; COMP_WORDS=({words}); COMP_CWORD={len(typed) - 1}
        _dadafs; printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=10
    )
    assert (done.stdout.split(), done.stderr) == (offered, "")


def test_exit_codes_are_told_alike() -> None:
    """In the help, the manual page and the page of operations: those that commands return."""
    codes = (DONE, REFUSED, USAGE, SILENT, INTERRUPTED)
    texts = (EPILOG, PAGE.read_text(), (ROOT / "docs/operations.md").read_text())
    for text in texts:
        (found,) = re.findall(r"0 done[^.]*", " ".join(text.split()))
        assert [int(code) for code in re.findall(r"\b\d+\b", found)] == list(codes)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from dadafs.cli import parser; parser().format_help();"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    best = 10.0
    for _ in range(3):
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        best = min(best, time.monotonic() - began)
        assert done.stdout.strip() == "[]"
    assert best < 1.0  # 0.1 s on a quiet machine


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("dadafs ")
    assert "missing" not in out
