"""Which pixels of the detector count: S in the definitions of the analyses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.plan import Geometry, Plan


def offsets(
    shape: tuple[int, int], cx: float, cy: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """dx of each column, float64 (width,), and dy of each row, float64 (height,), in pixels.

    Pixel centres sit at integer coordinates; dy points down.
    """
    height, width = shape
    return np.arange(width, dtype=np.float64) - cx, np.arange(height, dtype=np.float64) - cy


def radius(shape: tuple[int, int], cx: float, cy: float) -> NDArray[np.float64]:
    """r = hypot(dx, dy) of every pixel, float64 (height, width), in pixels."""
    dx, dy = offsets(shape, cx, cy)
    return np.hypot(dx[None, :], dy[:, None])


def scattering_vector(r: NDArray[np.float64], geometry: Geometry) -> NDArray[np.float64]:
    """q = 4 pi / lambda * sin(atan(r * pixel / distance) / 2) in 1/nm, shape of `r` (pixels)."""
    two_theta = np.arctan(r * (geometry.pixel_m / geometry.distance_m))
    return np.asarray(4 * np.pi / geometry.wavelength_nm * np.sin(two_theta / 2))


def selected(plan: Plan) -> NDArray[np.bool_]:
    """S without the sentinel, bool (height, width): mask, roi, radius and q limits of `plan`.

    The sentinel is a property of each frame and stays with the kernels. Limits are inclusive.
    ValueError where the plan has limits but not the centre or geometry they need.
    """
    return area(plan) & ~plan.invalid()


def area(plan: Plan) -> NDArray[np.bool_]:
    """S but for the mask: roi, radius and q limits of `plan`. ValueError as `selected`."""
    inside = np.ones(plan.shape, np.bool_)
    if plan.roi is not None:
        roi = np.zeros(plan.shape, np.bool_)
        x, y, w, h = plan.roi.x, plan.roi.y, plan.roi.w, plan.roi.h
        roi[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = True
        inside &= roi
    radial = (plan.rmin, plan.rmax)
    reciprocal = (plan.qmin, plan.qmax)
    if radial == (None, None) and reciprocal == (None, None):
        return inside
    if plan.cx is None or plan.cy is None:
        raise ValueError("radial limits need the beam centre")
    r = radius(plan.shape, plan.cx, plan.cy)
    if plan.rmin is not None:
        inside &= r >= plan.rmin
    if plan.rmax is not None:
        inside &= r <= plan.rmax
    if reciprocal != (None, None):
        if plan.geometry is None:
            raise ValueError("q limits need the geometry")
        q = scattering_vector(r, plan.geometry)
        if plan.qmin is not None:
            inside &= q >= plan.qmin
        if plan.qmax is not None:
            inside &= q <= plan.qmax
    return inside
