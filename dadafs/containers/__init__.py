"""Containers: the file formats of results, each with an exact size before anything is computed."""

from __future__ import annotations

from dadafs.containers.base import Container, Content, Items, Shell
from dadafs.containers.csv import CSV
from dadafs.containers.h5 import H5
from dadafs.containers.mat import MAT
from dadafs.containers.npy import NPY
from dadafs.containers.png import PNG
from dadafs.containers.tif import TIF

CONTAINERS: dict[str, Container] = {
    container.extension: container for container in (NPY, TIF, H5, MAT, PNG, CSV)
}
"""Every container by its extension, in the order of listings."""

__all__ = ["CONTAINERS", "Container", "Content", "Items", "Shell"]
