"""Containers: the file formats of results, each with an exact size before anything is computed."""

from __future__ import annotations

from dadafs.containers.base import Container, Content, Shell
from dadafs.containers.npy import NPY
from dadafs.containers.tif import TIF

CONTAINERS: dict[str, Container] = {container.extension: container for container in (NPY, TIF)}
"""Every container by its extension, in the order of listings."""

__all__ = ["CONTAINERS", "Container", "Content", "Shell"]
