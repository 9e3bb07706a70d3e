"""Subagents in numbers: the longest of K, the work they add, and how many pay."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.cost.roofline import Array
from planner.cost.shared_prefix import GroupTokens

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


def join_seconds(
    first_token: float,
    quantile: Callable[[Any], Any],
    draws: int,
    token_seconds: float,
    merge: float = 0.0,
    q: float | None = None,
) -> float:
    """Time from fork to merged answer of ``draws`` subagents: the join waits for the slowest, [s].

    ``TTFT + max(O)*ITL + merge``: first_token of a branch, the shared prefix prefilled once [s],
    ``quantile`` of its length [tokens], token_seconds at the batch with all branches in it [s], ``merge``
    the turn that reads the answers [s]. The mean, or the quantile ``q`` of the slowest.

    Source: order statistics, :func:`expected_maximum` and :func:`maximum_quantile`.

    >>> from planner.workload.lengths import Lognormal
    >>> branch = Lognormal(6.774, 0.97).quantile
    >>> [round(join_seconds(0.5, branch, 4, 0.01, 2.0, q), 1) for q in (None, 0.95)]
    [32.9, 78.9]
    """
    longest = expected_maximum(quantile, draws) if q is None else maximum_quantile(quantile, draws, q)
    return first_token + longest * token_seconds + merge


def fork_tokens(prefix: Array, draws: Array, decoded: Array, alive: Array) -> GroupTokens:
    """Tokens of a forked group when each branch is ``decoded`` tokens past the fork, [tokens].

    Only the ``prefix`` [tokens] up to the fork is shared; what a branch decodes is its own, and dropped
    when it ends. ``alive`` is the probability that a branch is longer than ``decoded`` [1]; of ``draws``
    K are alive K*alive on average. The waiting parent keeps the prefix. Broadcasts.

    Source: paged prefix sharing, Kwon et al., arXiv 2309.06180; a read of the prefix with a cascade
    kernel needs one branch alive, ``1 - (1 - alive)^K``.

    >>> g = fork_tokens(9000, 4, 1500, 0.5)
    >>> g.stored, g.read_without_cascade, g.read_with_cascade
    (12000.0, 21000.0, 11437.5)
    """
    own = draws * alive * decoded
    return GroupTokens(prefix + own, draws * alive * prefix + own, prefix * (1 - (1 - alive) ** draws) + own)


def mean_fork_tokens(prefix: Array, draws: Array, mean: Array, second: Array, longest: Array) -> GroupTokens:
    """The same, averaged over the steps from the fork to the join, [tokens].

    Branch lengths with ``mean`` [tokens] and ``second`` moment [tokens^2], ``longest`` the mean of the
    longest of ``draws`` [tokens]: stored ``P + K*E[O^2]/(2L)``, read ``K*(P*E[O] + E[O^2]/2)/L`` without a
    cascade kernel. Sharing fades twice: branches grow apart, and fewer are left. Broadcasts.

    Source: integral of :func:`fork_tokens` over the life of the group.

    >>> g = mean_fork_tokens(9000, 4, 1000.0, 1000.0**2, 1000.0)  # all of one length: group_tokens at half
    >>> g.stored, g.read_without_cascade
    (11000.0, 38000.0)
    """
    own = draws * second / (2 * longest)
    return GroupTokens(prefix + own, draws * mean * prefix / longest + own, prefix + own)


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
