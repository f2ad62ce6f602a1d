"""Scans that the tools make bear their scan command, as a beamline's do."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from dadafs.scans.catalog import Catalog
from tools.scan_maker import make_scan


@pytest.mark.parametrize("log", ["spec", "fio"])
@pytest.mark.parametrize("order", ["raster", "snake"])
def test_logs(
    root: Path,
    catalog: Catalog,
    log: Literal["spec", "fio"],
    order: Literal["raster", "snake"],
) -> None:
    for number in (1, 2):
        make_scan(
            root, name=f"s_0000{number}", horz=3 + number, vert=2, unique=1, log=log, order=order
        )
    raster = catalog.scan(b"s_00002").raster
    assert raster is not None
    assert (raster.horz, raster.vert, raster.order) == (5, 2, order)


def test_a_log_needs_a_number(root: Path) -> None:
    with pytest.raises(ValueError, match="a name with a number at its end"):
        make_scan(root, name="s", horz=2, vert=2, unique=1, log="spec")
