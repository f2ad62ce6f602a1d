"""Centred moments against exact arithmetic: precision, and what happens where 64 bits end."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis.analyses import dpc, orientation
from analysis.centred import centred, exact_counts
from analysis.definition import Settings
from analysis.plan import Roi

HEIGHT, WIDTH = 2167, 2070
Pixels = list[tuple[int, int, int]]
"""Column, row, counts of each lit pixel."""

COUNTS = st.integers(1, 20) | st.integers(1, 2**32 - 2)
PIXELS = st.lists(
    st.tuples(st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1), COUNTS),
    min_size=1,
    max_size=12,
)
SPOTS = st.builds(
    lambda x, y, spot: [(x + dx, y + dy, counts) for dx, dy, counts in spot],
    st.integers(0, WIDTH - 8),
    st.integers(0, HEIGHT - 8),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), COUNTS), min_size=1, max_size=12),
)
COORDINATES = st.floats(-5000, 5000, allow_subnormal=False) | st.integers(0, 2000).map(float)


def values_of(pixels: Pixels) -> NDArray[np.uint64]:
    """Moments about pixel (0, 0) modulo 2^64, uint64 (1, 6), from Python integers."""
    totals = [
        sum(n * factor(x, y) for x, y, n in pixels)
        for factor in (
            lambda x, y: 1,
            lambda x, y: x,
            lambda x, y: y,
            lambda x, y: x * x,
            lambda x, y: x * y,
            lambda x, y: y * y,
        )
    ]
    return np.array([[total % 2**64 for total in totals]], np.uint64)


class Exact:
    """Rational moments of some pixels."""

    def __init__(self, pixels: Pixels, cx: float, cy: float) -> None:
        total = sum(n for _, _, n in pixels)
        dx = [(Fraction(x) - Fraction(cx), n) for x, _, n in pixels]
        dy = [(Fraction(y) - Fraction(cy), n) for _, y, n in pixels]
        self.x = sum(d * n for d, n in dx) / total
        self.y = sum(d * n for d, n in dy) / total
        self.xx = sum(d * d * n for d, n in dx) / total - self.x**2
        self.yy = sum(d * d * n for d, n in dy) / total - self.y**2
        products = (a * b * n for (a, n), (b, _) in zip(dx, dy, strict=True))
        self.xy = sum(products) / total - self.x * self.y

    def eigenvalues(self, about_beam: bool = True) -> tuple[float, float]:
        """l1, l2 about the beam or about the centre of mass, to 80 digits before rounding."""
        x, y = (self.x, self.y) if about_beam else (Fraction(0), Fraction(0))
        xx, xy, yy = self.xx + x * x, self.xy + x * y, self.yy + y * y
        square = ((xx - yy) / 2) ** 2 + xy**2
        det = xx * yy - xy * xy
        with localcontext(prec=80):
            root = (Decimal(square.numerator) / Decimal(square.denominator)).sqrt()
            half = (xx + yy) / 2
            l1 = Decimal(half.numerator) / Decimal(half.denominator) + root
            l2 = Decimal(det.numerator) / Decimal(det.denominator) / l1 if l1 else Decimal(0)
            return float(l1), float(l2)


def detector(cx: float, cy: float) -> Settings:
    return Settings(cx=cx, cy=cy, height=HEIGHT, width=WIDTH)


@given(PIXELS | SPOTS, COORDINATES, COORDINATES)
@example([(2000, 2001, 3), (2001, 2000, 2)], 2000.4, 2000.7)
@example([(0, 0, 1), (1, 0, 1)], 0.5, 0.0)
def test_first_moments(pixels: Pixels, cx: float, cy: float) -> None:
    out = dpc.finish(values_of(pixels), detector(cx, cy))[:, 0]
    exact = Exact(pixels, cx, cy)
    for value, truth in zip(out, (exact.x, exact.y), strict=True):
        assert abs(Fraction(value) - truth) <= 1e-15 * (abs(truth) + 1)


@given(PIXELS | SPOTS, COORDINATES, COORDINATES)
@example([(2000, 2001, 3), (2001, 2000, 2)], 2000.4, 2000.7)
def test_covariance(pixels: Pixels, cx: float, cy: float) -> None:
    moments = centred(values_of(pixels), detector(cx, cy))
    exact = Exact(pixels, cx, cy)
    assert abs(Fraction(moments.xx[0]) - exact.xx) <= Fraction(1e-14) * exact.xx
    assert abs(Fraction(moments.yy[0]) - exact.yy) <= Fraction(1e-14) * exact.yy
    bound = 1e-14 * float(exact.xx * exact.yy) ** 0.5
    assert abs(float(Fraction(moments.xy[0]) - exact.xy)) <= bound


@given(PIXELS | SPOTS, COORDINATES, COORDINATES)
@example([(0, 0, 5), (100, 100, 5), (50, 51, 1)], 50.0, 50.0)
@example([(7, 7, 1)], 7.0, 7.0)
def test_eigenvalues(pixels: Pixels, cx: float, cy: float) -> None:
    _, anisotropy, l1, l2 = orientation.finish(values_of(pixels), detector(cx, cy))[:, 0]
    exact = Exact(pixels, cx, cy)
    exact_l1, exact_l2 = exact.eigenvalues()
    widest, _ = exact.eigenvalues(about_beam=False)
    assert abs(l1 - exact_l1) <= 1e-14 * exact_l1
    assert abs(l2 - exact_l2) <= 1e-14 * widest + 1e-14 * exact_l2
    assert 0 <= l2 <= l1
    if exact_l1 > 0:
        expected = (exact_l1 - exact_l2) / (exact_l1 + exact_l2)
        assert anisotropy == pytest.approx(expected, abs=1e-14)
    else:
        assert np.isnan(anisotropy)


@pytest.mark.parametrize(("cx", "cy"), [(2000.3, 1900.6), (0.1, 0.2), (-4000.0, 1900.6)])
def test_a_small_spot_far_out_keeps_its_digits(cx: float, cy: float) -> None:
    spot = [(2000 + dx, 1900 + dy, 9 - dx * dx - 2 * dy) for dx in (-1, 0, 1) for dy in (-1, 0, 2)]
    l1, l2 = orientation.finish(values_of(spot), detector(cx, cy))[2:, 0]
    exact_l1, exact_l2 = Exact(spot, cx, cy).eigenvalues()
    assert exact_l2 < 3
    assert l1 == pytest.approx(exact_l1, rel=1e-13)
    assert l2 == pytest.approx(exact_l2, rel=1e-12)


def test_what_fits_every_detector() -> None:
    """No uint16 frame of 4M pixels can have too many counts; the limit for uint32 is 7.8e12."""
    assert exact_counts(WIDTH, HEIGHT, 2) > HEIGHT * WIDTH * 65534
    assert 7.8e12 < exact_counts(WIDTH, HEIGHT, 2) < exact_counts(WIDTH, HEIGHT, 1)
    assert exact_counts(1, 1, 2) == exact_counts(1, 1, 1) == 2**64 - 1


def corners(roi: Roi, counts: int, share: float, odd: bool) -> Pixels:
    """The farthest apart that `counts` can lie: in opposite corners."""
    first = min(int(counts * share), counts)  # the product may round up
    a, b = (roi.x, roi.y), (roi.x + roi.w - 1, roi.y + roi.h - 1)
    if odd:
        a, b = (a[0], b[1]), (b[0], a[1])
    return [(*a, first), (*b, counts - first)]


ROIS = st.builds(
    Roi, st.integers(0, 3000), st.integers(0, 3000), st.integers(1, 3000), st.integers(1, 3000)
)


@given(ROIS, st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1), st.booleans(), COORDINATES)
@example(Roi(0, 0, WIDTH, HEIGHT), 0.5, True, 1000.0)
@example(Roi(0, 0, 2, 2), 0.5, True, 0.0)
@example(Roi(5, 5, 1, 1), 0.5, True, 0.0)
def test_exact_up_to_the_limit(roi: Roi, share: float, odd: bool, cx: float) -> None:
    pixels = corners(roi, exact_counts(roi.w, roi.h, 2), share, odd)
    moments = centred(values_of(pixels), Settings(cx=cx, cy=3.0, roi=roi))
    exact = Exact(pixels, cx, 3.0)
    assert moments.xx[0] == pytest.approx(float(exact.xx), rel=1e-12, abs=1e-15)
    assert moments.xy[0] == pytest.approx(float(exact.xy), rel=1e-12, abs=1e-15)
    assert moments.yy[0] == pytest.approx(float(exact.yy), rel=1e-12, abs=1e-15)


@given(ROIS, st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1), st.booleans())
@example(Roi(0, 0, 2, 2), 0.5, True)
def test_first_moments_exact_up_to_the_limit(roi: Roi, share: float, odd: bool) -> None:
    pixels = corners(roi, exact_counts(roi.w, roi.h, 1), share, odd)
    moments = centred(values_of(pixels), Settings(cx=17.25, cy=3.0, roi=roi))
    exact = Exact(pixels, 17.25, 3.0)
    assert moments.x[0] == pytest.approx(float(exact.x), rel=1e-12, abs=1e-12)
    assert moments.y[0] == pytest.approx(float(exact.y), rel=1e-12, abs=1e-12)


def test_beyond_the_limit_nothing_is_claimed() -> None:
    whole = Roi(0, 0, WIDTH, HEIGHT)
    first, second = (exact_counts(WIDTH, HEIGHT, order) for order in (1, 2))
    at_limits = [first + 1, first, second + 1, second]
    values = np.concatenate([values_of(corners(whole, n, 0.5, False)) for n in at_limits])
    settings = detector(1000.0, 1000.0)
    deflection = dpc.finish(values, settings)
    assert np.isnan(deflection).tolist() == [[True, False, False, False]] * 2
    assert (
        np.isnan(orientation.finish(values, settings)).tolist() == [[True, True, True, False]] * 4
    )


def test_a_roi_allows_more_counts_than_the_detector() -> None:
    counts = exact_counts(WIDTH, HEIGHT, 2) + 1
    roi = Roi(1000, 1000, 10, 10)
    pixels = corners(roi, counts, 0.3, False)
    settings = Settings(cx=1000.0, cy=1000.0, roi=roi, height=HEIGHT, width=WIDTH)
    l1 = orientation.finish(values_of(pixels), settings)[2, 0]
    assert l1 == pytest.approx(Exact(pixels, 1000.0, 1000.0).eigenvalues()[0], rel=1e-13)
