"""The programs that do the same today, set up as their manuals tell, each on one core."""

from __future__ import annotations

import logging
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import h5py
import numpy as np

from tools.benches.sources import Source
from tools.benches.stopwatch import Pass
from tools.eiger_files import DATASET

BINS = 200  # the default of `radial`
SLOW_FRAMES = 8  # of pyFAI in a pass: at 14 frames/s all would take seconds


class NotInstalled(Exception):
    """A program to compare with is not there; says what to type."""


def passes_of(peer: str, source: Source) -> dict[str, Pass]:
    """The passes of LiberTEM or pyFAI, by name."""
    module, make = {"libertem": ("libertem", _libertem), "pyfai": ("pyFAI", _pyfai)}[peer]
    if find_spec(module) is None:
        raise NotInstalled(f"skipped {module}, which is not installed: pip install .[peers]")
    return make(source)


def _libertem(source: Source) -> dict[str, Pass]:
    masks, centre = import_module("libertem.udf.masks"), import_module("libertem.udf.com")
    context = import_module("libertem.api").Context.make_with("inline")
    logging.getLogger("libertem").setLevel(logging.ERROR)  # it finds a mask of a detector large
    raster = (2, len(source.chunks) // 2)  # more than one line, else CoMUDF refuses
    frames = context.load("hdf5", path=str(source.path), ds_path=DATASET, nav_shape=raster)
    settings, mask = source.settings, (~source.invalid).astype(np.float32)

    def running(udf: Any) -> Pass:
        def work() -> int:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that compressed files are slow, and threads few
                context.run_udf(frames, udf)
            return len(source.chunks)

        return work

    return {
        "LiberTEM mask sum": running(masks.ApplyMasksUDF(mask_factories=[lambda: mask])),
        "LiberTEM centre of mass": running(
            centre.CoMUDF.with_params(cx=settings.cx, cy=settings.cy)
        ),
    }


def _pyfai(source: Source) -> dict[str, Pass]:
    settings = source.settings
    geometry = settings.geometry
    assert geometry is not None
    assert settings.cx is not None
    assert settings.cy is not None
    integrator = import_module("pyFAI.integrator.azimuthal").AzimuthalIntegrator(
        dist=geometry.distance_m,
        poni1=(settings.cy + 0.5) * geometry.pixel_m,
        poni2=(settings.cx + 0.5) * geometry.pixel_m,
        pixel1=geometry.pixel_m,
        pixel2=geometry.pixel_m,
        wavelength=geometry.wavelength_nm * 1e-9,
    )
    dataset = h5py.File(source.path, "r")[DATASET]
    frame = np.zeros((1, *source.codec.shape), source.codec.dtype)
    count = min(SLOW_FRAMES, len(source.chunks))

    def work() -> int:
        for index in range(count):
            dataset.read_direct(frame, np.s_[index : index + 1])
            integrator.integrate1d(
                frame[0],
                BINS,
                unit="q_nm^-1",
                mask=source.invalid,
                method=("no", "csr", "cython"),
                correctSolidAngle=False,
            )
        return count

    return {"pyFAI integrate1d": work}
