"""What corrections name outside a scan: masks, monitors, other scans, asked of the server."""

from __future__ import annotations

import os

from dadafs.client.upstream.link import Link
from dadafs.corrections import BACKGROUND, MASK, NORM, NOTHING, Supplies
from dadafs.errors import NoSuchScan
from dadafs.paths import Parameters, frame_range
from dadafs.scans.model import Monitor, Scan
from dadafs.scans.names import join, split


async def supplies_for(link: Link, scan: Scan, parameters: Parameters) -> Supplies:
    """All that these parameters name. NoSuchPath, one line, for what is not there."""
    values = {name: str(value) for name, value in parameters}
    if not {MASK, NORM, BACKGROUND} & set(values) or not scan.frames:
        return NOTHING
    mask = await link.mask(scan.path, values[MASK]) if MASK in values else None
    monitor = await link.monitor(scan.path, values[NORM]) if NORM in values else None
    other: Scan | None = None
    other_monitor: Monitor | None = None
    name = values.get(BACKGROUND)
    if name is not None and frame_range(name) is None:
        path = join(split(scan.path)[0], os.fsencode(name))
        try:
            other = await link.scan(path)
        except NoSuchScan as exc:
            raise NoSuchScan(f"background={name}: {exc}") from exc
        if monitor is not None:
            other_monitor = await link.monitor(path, values[NORM])
    return Supplies(mask, monitor, other, other_monitor)
