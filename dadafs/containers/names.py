"""Names of the arrays in a container."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence


def distinct(names: Sequence[str], taken: Collection[str]) -> list[str]:
    """`names` as letters, digits and `_`, with a `_` more where one is taken already."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^0-9A-Za-z_]", "_", name)
        plain = plain if plain[:1].isalpha() else f"c{plain}"
        while plain in taken or plain in found:
            plain += "_"
        found.append(plain)
    return found
