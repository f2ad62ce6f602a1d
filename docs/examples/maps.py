"""Maps in Python: python maps.py MNT/scan42"""

import sys
from pathlib import Path

import numpy as np

scan = Path(sys.argv[1])

counts = np.load(scan / "darkfield/full.npy")  # (line, point)
print("darkfield", counts.shape, "mean", np.nanmean(counts))

# Only what is read is computed: here the patches of the first line.
lines = np.load(scan / "orientation/full.npy", mmap_mode="r")  # (channel, line, point)
print("anisotropy of the first line", np.nanmean(lines[1, 0]))

# The same as text, for a spreadsheet or R.
again = np.loadtxt(scan / "darkfield/full.csv", delimiter=",", ndmin=2)
print("csv is the same:", np.array_equal(again, counts, equal_nan=True))
