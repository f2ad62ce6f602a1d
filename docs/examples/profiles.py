"""Profiles with their q axis, and where they come from: python profiles.py MNT/scan42"""

import sys
from pathlib import Path

import h5py

with h5py.File(Path(sys.argv[1]) / "radial/bins=100.h5", "r") as file:
    entry = file[file.attrs["default"]]
    result = entry[entry.attrs["default"]]  # NXdata: what silx view and h5web plot
    intensity = result[result.attrs["signal"]]  # (line, point, bin)
    axis = result[result.attrs["axes"][-1]]  # q, or r where the geometry is unknown
    profile = intensity[0, 0]  # computes the patches around it
    print(f"{axis.name} from {axis[0]:g} to {axis[-1]:g} {axis.attrs['units']}")
    print(f"profile of the first point: {profile.shape[0]} bins, {intensity.attrs['units']}")
    for name in ("program", "version", "scan", "definition"):
        print(f"{name}: {entry['process'][name][()].decode()}")
    for name, value in entry["process/parameters"].items():
        print(f"  {name} = {value[()]}")
