"""What dadafs does to the frames of a file, and h5py's `read_direct`, each as a pass over all."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
from msgspec.structs import replace

from analysis.reductions import REDUCTIONS
from dadafs.scans.formats.decode import decode
from tools.benches.sources import Source
from tools.benches.stopwatch import Pass
from tools.eiger_files import DATASET

SHOWN = {
    "darkfield": ("darkfield", "counts"),
    "darkfield, dpc, orientation": ("dpc", "moments"),
    "radial": ("radial", "radial"),
    "azimuthal, symmetry": ("azimuthal", "azimuthal"),
    "exponent": ("exponent", "placed"),
    "harmonic, errors of orientation": ("harmonic", "directions"),
    "crystal": ("crystal", "above"),
}
"""By the name that is printed: the analysis, and the pass that computes it."""


def passes_over(source: Source) -> dict[str, Pass]:
    """By name; h5py's comes first."""
    return {
        "h5py read_direct": read_direct(source),
        **{name: _fused(source, *names) for name, names in SHOWN.items()},
        "sum, max, average": _patterns(source),
        "any other filter, then moments": _decoded(source),
    }


def read_direct(source: Source) -> Pass:
    """Decode every frame into the same array."""
    file = h5py.File(source.path, "r")
    dataset = file[DATASET]
    frame = np.zeros((1, *source.codec.shape), source.codec.dtype)

    def work() -> int:
        for index in range(len(source.chunks)):
            dataset.read_direct(frame, np.s_[index : index + 1])
        return len(source.chunks)

    return work


def _over_chunks(source: Source, reduce: Callable[[bytes], Any]) -> Pass:
    def work() -> int:
        for offset, length in source.chunks:
            reduce(os.pread(source.fd, length, offset))
        return len(source.chunks)

    return work


def _fused(source: Source, analysis: str, reduction: str) -> Pass:
    """Straight from the chunks to values."""
    prepared = REDUCTIONS[reduction].prepare(replace(source.plan(analysis), reduction=reduction))
    assert prepared.fuses(source.codec)
    values = np.zeros(prepared.value_shape, prepared.value_dtype)

    def reduce(chunk: bytes) -> None:
        if not prepared.chunk(chunk, source.codec, values):
            raise ValueError("a good chunk was refused")

    return _over_chunks(source, reduce)


def _patterns(source: Source) -> Pass:
    """All frames into one pattern."""
    prepared: Any = REDUCTIONS["patterns"].prepare(source.plan("average"))
    pattern = prepared.new()
    return _over_chunks(source, lambda chunk: prepared.accumulate(chunk, source.codec, pattern))


def _decoded(source: Source) -> Pass:
    """Frame by frame: what becomes of a codec that no kernel reads."""
    prepared = REDUCTIONS["moments"].prepare(source.plan("dpc"))
    values = np.zeros(prepared.value_shape, prepared.value_dtype)
    return _over_chunks(source, lambda chunk: prepared.frame(decode(chunk, source.codec), values))
