"""The pictures of the documents: made from a mount, small, and all shown."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PICTURES = {"darkfield", "dpc", "orientation", "composite", "radial"}
MAX_BYTES = 100_000

pytestmark = pytest.mark.mount


@pytest.mark.usefixtures("_fuse")
def test_the_tool_makes_all_of_them(tmp_path: Path) -> None:
    command = [ROOT / "tools/make_pictures", tmp_path, "--horz=16", "--vert=18"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    found = {path.stem: path for path in tmp_path.glob("*.png")}
    assert found.keys() == PICTURES
    for path in found.values():
        with Image.open(path) as picture:
            assert 200 <= picture.width <= 400
            assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 20
    with Image.open(found["darkfield"]) as picture:
        assert picture.size == (16 * 25, 18 * 25)
    mounts = Path("/proc/self/mountinfo").read_text()
    assert "dadafs-pictures-" not in mounts


def test_the_documents_show_them_with_the_paths_they_are_from() -> None:
    source = (ROOT / "tools/pictures.py").read_text()
    shown = set()
    for page in (ROOT / "README.md", ROOT / "docs/containers.md"):
        text = page.read_text()
        for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
            path = page.parent / name
            assert 0 < path.stat().st_size < MAX_BYTES, name
            shown.add(path.stem)
        for path in re.findall(r"\| `([^`]*(?:png|npy))`[:,]", text):
            assert path.replace("0,30,", "0,{vert // 2},") in source, path
    assert shown == PICTURES
    assert {path.stem for path in (ROOT / "docs/pictures").iterdir()} == PICTURES
