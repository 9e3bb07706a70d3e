"""Subagents in numbers: the longest of K, the work they add, and how many pay."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

#: points of the integration over the quantile of the maximum
POINTS = 20_000


def expected_maximum(quantile: Callable[[Any], Any], draws: int) -> float:
    """Mean of the longest of ``draws`` independent lengths, in the unit of ``quantile`` [tokens].

    ``integral over u of Q(u^(1/K))``: midpoint rule, dense in the upper tail. Valid for
    distributions with a finite mean.

    Source: order statistics; for the lognormal equal to the integral of e^(mu+sz)*K*Phi^(K-1)*phi.

    >>> from statistics import NormalDist
    >>> import numpy as np
    >>> q = lambda u: np.exp(6.774 + 0.97 * np.array([NormalDist().inv_cdf(x) for x in u]))
    >>> round(expected_maximum(q, 8) / float(np.exp(6.774 + 0.97**2 / 2)), 2)
    3.01
    """
    # u = 1 - t^3 puts most points where the quantile is steep
    t = (np.arange(POINTS) + 0.5) / POINTS
    u = np.clip(1 - t**3, 1e-15, 1 - 1e-15)
    weight = 3 * t**2
    return float(np.sum(weight * quantile(u ** (1 / draws))) / np.sum(weight))


def maximum_quantile(quantile: Callable[[Any], Any], draws: int, q: float) -> float:
    """Quantile ``q`` of the longest of ``draws``, in the unit of ``quantile`` [tokens].

    ``Q(q^(1/K))``. Source: order statistics.
    """
    return float(quantile(q ** (1 / draws)))


def useful_work(draws: int, success: float, correlation: float = 0.0, avenues: int | None = None) -> float:
    """Probability that at least one of ``draws`` attempts succeeds, [1].

    ``success`` p [1] of one; ``correlation`` [1] between attempts makes them beta-binomial:
    ``1 - prod over i < K of ((1-p)(1-r) + i*r) / ((1-r) + i*r)``, that is 1 - B(a, b+K)/B(a, b) with
    a = p(1-r)/r and b = (1-p)(1-r)/r; only ``avenues`` of them differ. r in [0, 1).

    Source: independent trials; Griffiths, "Maximum likelihood estimation for the beta-binomial
    distribution", Biometrics 29(4) 1973.

    >>> round(useful_work(4, 0.3), 4), round(useful_work(4, 0.3, 0.3), 4)
    (0.7599, 0.5972)
    """
    k = min(draws, avenues) if avenues else draws
    # the beta-binomial as a product: no cancellation however small the correlation
    i = np.arange(k)
    spread = i * correlation
    fails = ((1 - success) * (1 - correlation) + spread) / ((1 - correlation) + spread)
    return 1.0 - float(np.prod(fails))


def repeated_sampling(draws: int, single: float, exponent: float) -> float:
    """Share of tasks solved by ``draws`` samples under the power law ``ln U = ln U1 * K^-b``, [1].

    single U1 [1], exponent b [1]. Source: Brown et al., "Large Language Monkeys", arXiv 2407.21787;
    SWE-bench Lite from 15.9 % to 56 % at 250 samples gives b = 0.209.

    >>> round(repeated_sampling(10, 0.159, 0.209), 3)
    0.321
    """
    return math.exp(math.log(single) * draws**-exponent)


def turn_usefulness(quality: float, turns: int) -> npt.NDArray[np.float64]:
    """Probability that speculating t turns ahead is still useful: ``q^t``, (turns,), [1].

    Source: independent turns, the geometry of draft tokens.

    >>> [round(float(x), 4) for x in turn_usefulness(0.6, 4)]
    [0.6, 0.36, 0.216, 0.1296]
    """
    return np.power(quality, np.arange(1, turns + 1, dtype=float))


def draws_that_pay(
    success: float,
    correlation: float,
    avenues: int | None,
    cost_per_draw: float,
    value: float,
    most: int = 64,
) -> int:
    """Largest K whose last attempt adds more value than it costs, [1].

    cost_per_draw and value in one currency [$]. ``U(K+1) - U(K) > c/v``; U is concave, so the first
    failure ends it. Source: marginal rule.

    >>> draws_that_pay(0.3, 0.3, None, 0.05, 1.0)
    4
    """
    best, previous = 0, 0.0
    for k in range(1, most + 1):
        now = useful_work(k, success, correlation, avenues)
        if now - previous <= cost_per_draw / value:
            break
        best, previous = k, now
    return best
