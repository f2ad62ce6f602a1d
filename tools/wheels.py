"""The package as a wheel, and what an installation of it needs here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("analysis", "dadafs", "pyproject.toml", "README.md")


def make_wheel(place: Path) -> Path:
    """The wheel, built from a copy of the sources as anybody builds it."""
    sources = place / "sources"
    sources.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, sources / name, ignore=ignored)
        else:
            shutil.copyfile(ROOT / name, sources / name)
    pip(Path(sys.executable), "wheel", "--no-deps", "-w", place / "dist", sources)
    (wheel,) = (place / "dist").glob("dadafs-*.whl")
    return wheel


def dependencies(place: Path) -> Path:
    """A directory for PYTHONPATH with what is installed here, but for dadafs itself: to fetch and
    compile it again would only test the network."""
    place.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        ours = entry.name.startswith(("dadafs", "__editable__", "pip", "setuptools"))
        if not ours and entry.suffix != ".pth":
            (place / entry.name).symlink_to(entry)
    return place


def install_wheel(wheel: Path, place: Path) -> Path:
    """A virtual environment with the wheel; its command `dadafs`."""
    subprocess.run([sys.executable, "-m", "venv", place], check=True, timeout=120)
    pip(place / "bin/python", "install", "--no-deps", "--no-index", wheel)
    return place / "bin/dadafs"


def pip(python: Path, *words: str | Path) -> None:
    """One command of pip."""
    quiet = ("-q", "--disable-pip-version-check")
    done = subprocess.run(
        [python, "-m", "pip", *quiet, *words],
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
