"""To come."""

from __future__ import annotations

from dadafs.commands.declaring import Commands


def add(commands: Commands) -> None:
    """Declare nothing."""
