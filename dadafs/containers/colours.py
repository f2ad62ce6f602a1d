"""Colours of numbers: colour maps as tables, and the wheel that shows directions."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_ANCHORS = {  # every eighth colour of matplotlib's tables, which are in the public domain (CC0)
    "viridis": (
        "440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d 33638d 2f6b8e "
        "2c728e 297a8e 26828e 23898e 21918c 1f978b 1f9f88 21a685 27ad81 31b57b 3dbc74 4cc26c "
        "5cc863 6ece58 81d34d 95d840 aadc32 c0df25 d5e21a eae51a fde725"
    ),
    "inferno": (
        "000004 040312 0b0724 150b37 210c4a 2f0a5b 3d0965 4a0c6b 57106e 64156e 71196e 7d1e6d "
        "8a226a 972766 a32c61 b0315b bc3754 c63d4d d04545 da4e3c e35933 eb6429 f1711f f67e14 "
        "f98c0a fb9b06 fcaa0f fbba1f f9c932 f5d949 f2e865 f3f586 fcffa4"
    ),
    "gray": "000000 ffffff",
    "hue": "ff0000 ffff00 00ff00 00ffff 0000ff ff00ff ff0000",
}
CMAPS = tuple(_ANCHORS)
WHEEL = "wheel"
"""Not a table: hue by direction, brightness by strength."""


@lru_cache
def palette(cmap: str, colours: int) -> NDArray[np.uint8]:
    """A colour map as red, green and blue from its lowest to its highest colour (colours, 3)."""
    anchors = np.frombuffer(bytes.fromhex(_ANCHORS[cmap]), np.uint8).reshape(-1, 3)
    at = np.linspace(0, len(anchors) - 1, colours)
    known = np.arange(len(anchors))
    table = np.stack([np.interp(at, known, anchors[:, one]) for one in range(3)], axis=1)
    return np.rint(table).astype(np.uint8)


def wheel(degrees: NDArray[np.float64], brightness: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Red, green and blue (..., 3) of directions in [0, 180) and brightnesses in [0, 1].

    The hue goes once around for half a turn, as a direction has no sign: 0 degrees is red, 30
    yellow, 60 green, 90 cyan, 120 blue, 150 magenta.
    """
    position = degrees[..., None] / 30 + np.array([0.0, 4.0, 2.0])  # of red, green, blue
    rising = np.abs(position % 6 - 3) - 1
    table = np.clip(rising, 0, 1) * brightness[..., None]
    return np.asarray(np.rint(255 * table), np.uint8)
