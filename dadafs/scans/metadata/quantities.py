"""Numbers and their units in an HDF5 file, believed or not."""

from __future__ import annotations

import math

import h5py

from dadafs.scans.formats import hdf5
from dadafs.scans.names import show

LENGTHS_M = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "micron": 1e-6, "nm": 1e-9}
WAVELENGTHS_NM = {"angstrom": 0.1, "å": 0.1, "a": 0.1, "nm": 1.0, "m": 1e9, "pm": 1e-3}
ENERGIES_EV = {"ev": 1.0, "kev": 1e3}
TIMES_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
PIXELS = {"pixel": 1.0, "pixels": 1.0, "px": 1.0}
INSTEAD = {
    "centre": "cx and cy",
    "distance_m": "distance_m",
    "wavelength_nm": "wavelength_nm",
    "photon_energy_ev": "energy_kev",
    "pixel_m": "pixel_um",
    "pixel_y_m": "pixel_um",
}


class Quantities:
    """What one open file says in numbers, each with its source or why it is not believed."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file
        self.values: dict[str, str | int | float | None] = {}
        self.sources: dict[str, str] = {}
        self.problems: list[str] = []
        self.withheld: dict[str, str] = {}
        """The problem for which a value is not believed that a user may give instead."""

    def refuse(self, key: str, line: str) -> None:
        """Note why a value is not believed, and what would be instead, if anything would."""
        if key in INSTEAD:
            line += f"; give {INSTEAD[key]} in geometry.toml"
            self.withheld[key] = line
        self.problems.append(line)

    def number(self, path: bytes, key: str = "") -> tuple[float | None, str]:
        """A finite number and its unit in lower case; None where there is none."""
        try:
            value, unit = hdf5.scalar(self._file, path)
        except hdf5.ERRORS as exc:
            self.refuse(key, f"{show(path)} {hdf5.reason(exc)}")
            return None, ""
        if not isinstance(value, float):
            return None, ""
        if not math.isfinite(value):
            self.refuse(key, f"{show(path)} is {value}")
            return None, ""
        return value, unit.lower()

    def count(self, path: bytes, key: str = "") -> int | None:
        """A number of things, not negative; noted where there is a `key`."""
        value, _ = self.number(path)
        if value is None:
            return None
        if value < 0 or not value.is_integer():
            self.problems.append(f"{show(path)} is {value:g}, which is no number of things")
            return None
        if key:
            self.values[key] = int(value)
            self.sources[key] = show(path)
        return int(value)

    def measure(self, key: str, path: bytes, units: dict[str, float], default: str) -> float | None:
        """A positive quantity in the unit for which `units` has 1; None where there is none."""
        value, unit = self.number(path, key)
        if value is None:
            return None
        factor = units.get(unit or default)
        if factor is None:
            self.refuse(key, f"{show(path)} is in {unit!r}, which is no unit known here")
            return None
        if value <= 0:
            self.refuse(key, f"{show(path)} is {value:g}: never set")
            return None
        self.sources[key] = show(path)
        self.withheld.pop(key, None)
        return value * factor
