"""The session in the README: its commands, typed on a real mount, and what they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BLOCK = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)
PROMPT = "$ "
COMMAND_S = 120
VARYING = re.compile(r"\d+(\.\d+)?")
VARY = ("  frames", "raw/", "510 frames of")
"""Lines with figures that are others each time: what is verified, and how fast a scan is made."""


def session(page: str) -> str:
    """The block of the README. ValueError where there is none."""
    found = BLOCK.search(page)
    if found is None:
        raise ValueError("the README has no block `console`")
    return found[0]


def typed(place: Path, block: str) -> str:
    """Type the commands of a block in the directory `place`; the block as it comes out.

    The mount that a command makes is taken away, whatever happens.
    """
    (place / "mnt").mkdir()
    (place / "tools").symlink_to(ROOT / "tools")
    run = place / "run"
    run.mkdir(mode=0o700)
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(place / "cache"),
        "XDG_RUNTIME_DIR": str(run),
        "COLUMNS": "80",
        "LC_ALL": "C.UTF-8",
    }
    told = []
    try:
        for command in (line for line in block.splitlines() if line.startswith(PROMPT)):
            done = subprocess.run(
                ["bash", "-c", command.removeprefix(PROMPT)],
                cwd=place,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=COMMAND_S,
            )
            told.append(f"{command}\n{done.stdout}")
    finally:
        gone = ["fusermount3", "-u", "-z", "-q", str(place / "mnt")]
        subprocess.run(gone, stderr=subprocess.DEVNULL, timeout=COMMAND_S)
    return "".join(told)


def comparable(block: str) -> str:
    """A block without the figures that are others each time."""
    lines = [
        VARYING.sub("0", line) if line.startswith(VARY) else line for line in block.split("\n")
    ]
    return "\n".join(" ".join(line.split()) for line in lines)


def renew(place: Path) -> None:
    """Write what the commands print now into the README."""
    page = README.read_text(encoding="utf-8")
    block = session(page)
    README.write_text(page.replace(block, typed(place, block)), encoding="utf-8")
