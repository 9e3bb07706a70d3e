"""Times between arrivals: Poisson, gamma and Weibull renewals of a given variability."""

from __future__ import annotations

import math

import numpy as np

from planner.workload.lengths import Vector

#: below this coefficient of variation gaps are all alike
REGULAR = 1e-3


def arrival_kind(cv: float) -> str:
    """The process a coefficient of variation [1] stands for when none is named.

    >>> arrival_kind(1.0), arrival_kind(2.5)
    ('poisson', 'gamma')
    """
    return "poisson" if cv == 1.0 else "gamma"


def weibull_shape(cv: float) -> float:
    """Shape [1] of the Weibull distribution with this coefficient of variation [1].

    ``cv^2 = G(1 + 2/k)/G(1 + 1/k)^2 - 1`` by bisection. Source: moments of the Weibull distribution.

    >>> round(weibull_shape(1.0), 6), round(weibull_shape(2.0), 4)
    (1.0, 0.5427)
    """
    low, high = 0.02, 200.0
    for _ in range(100):
        k = math.sqrt(low * high)
        spread = math.lgamma(1 + 2 / k) - 2 * math.lgamma(1 + 1 / k)
        low, high = (k, high) if spread > math.log1p(cv * cv) else (low, k)
    return math.sqrt(low * high)


def draw_gaps(kind: str, cv: float, mean: float, count: int, rng: np.random.Generator) -> Vector:
    """``count`` independent times between arrivals of mean [s] and cv [1], (count,), [s].

    ``kind`` is poisson, gamma or weibull; poisson leaves ``cv`` aside.

    >>> gaps = draw_gaps("weibull", 2.0, 0.5, 400_000, np.random.default_rng(1))
    >>> round(float(gaps.mean()), 2), round(float(gaps.std() / gaps.mean()), 1)
    (0.5, 2.0)
    """
    if kind == "poisson":
        return mean * rng.standard_exponential(count)
    if cv < REGULAR:
        return np.full(count, mean)
    if kind == "weibull":
        shape = weibull_shape(cv)
        return mean / math.gamma(1 + 1 / shape) * rng.weibull(shape, count)
    return mean * cv**2 * rng.standard_gamma(1 / cv**2, count)
