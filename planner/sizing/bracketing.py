"""Where a growing figure reaches its limit, for many candidates at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

#: a function that also halves the bracket at least every other step needs no more
MOST_STEPS = 100


def last_within(
    excess: Callable[[Vector, Index], Vector], low: Vector, high: Vector, tolerance: float, first: float = 0.5
) -> tuple[Vector, npt.NDArray[np.bool_]]:
    """The largest x of each candidate with ``excess(x) <= 0``, and whether there is one, (candidates,) each.

    ``excess(x, index)`` is asked at one x for each of the candidates in ``index``, those that are not
    settled yet; it must grow with x, jumps allowed. Where even ``high`` is within, it is the answer;
    where ``low`` is not, there is none, and ``low`` is returned. Otherwise the answer is within its
    limit, and ``tolerance`` above it is not. ``first``: how far from low to high to look first.

    Source: inverse quadratic interpolation, or bisection where it can't be trusted: Chandrupatla,
    Advances in Engineering Software 28(3) 1997.

    >>> x, found = last_within(lambda x, index: x**3 - 2, np.array([0.0]), np.array([2.0]), 1e-9)
    >>> round(float(x[0]), 6), bool(found[0])
    (1.259921, True)
    """
    everyone = np.arange(len(low))
    at_high, at_low = excess(high, everyone), excess(low, everyone)
    found = at_low <= 0
    answer = np.where(found & (at_high <= 0), high, low)
    index = np.flatnonzero(found & (at_high > 0))
    # a is the latest point, b the one across the limit, c the one before
    a, b, c = low[index], high[index], high[index]
    fa, fb, fc = at_low[index], at_high[index], at_high[index]
    t = np.full(len(index), first)
    for _ in range(MOST_STEPS):
        if not len(index):
            break
        x = a + t * (b - a)
        fx = excess(x, index)
        same = (fx <= 0) == (fa <= 0)
        c, fc = np.where(same, a, b), np.where(same, fa, fb)
        b, fb = np.where(same, b, a), np.where(same, fb, fa)
        a, fa = x, fx
        answer[index] = np.where(fa <= 0, a, b)
        width = np.abs(b - a)
        more = width > tolerance
        index, width = index[more], width[more]
        a, b, c, fa, fb, fc = (v[more] for v in (a, b, c, fa, fb, fc))
        t = np.clip(_interpolated(a, b, c, fa, fb, fc), 0.5 * tolerance / width, 1 - 0.5 * tolerance / width)
    return answer, found


def _interpolated(a: Vector, b: Vector, c: Vector, fa: Vector, fb: Vector, fc: Vector) -> Vector:
    """Share of the way from a to b where an inverse parabola through the points is zero; else half."""
    with np.errstate(divide="ignore", invalid="ignore"):
        place, value = (a - b) / (c - b), (fa - fb) / (fc - fb)
        trusted = (value**2 < place) & ((1 - value) ** 2 < 1 - place)
        share = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
    return np.where(trusted & np.isfinite(share), share, 0.5)
