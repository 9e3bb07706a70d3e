"""Lengths rebuilt from the statistics a benchmark tool prints when it keeps no single requests."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from planner.workload.traces import Integers, Vector

#: power of the way from one quantile to the next: from most at the upper to most at the lower
WEAKEST, STRONGEST = 1e-3, 1e3
#: error of the mean that is left
CLOSE = 1e-4


def lengths_from_statistics(statistics: Mapping[float, float], mean: float, count: int) -> Vector:
    """``count`` lengths with these quantiles and this mean, increasing, (count,), [tokens].

    ``statistics``: {probability: length}, 0 and 1 for the shortest and the longest; with fewer than two
    all lengths are the mean. Between two quantiles the logarithm is a straight line. The mean is then met
    by bending that line between the last two, where a maximum says least, and, when that is not enough,
    between the two before them.

    >>> lengths = lengths_from_statistics({0.0: 100, 0.5: 200, 1.0: 400}, 220.0, 1000)
    >>> round(float(np.median(lengths))), round(float(lengths.mean()), 1)
    (200, 220.0)
    """
    known = {q: x for q, x in statistics.items() if np.isfinite(x) and x > 0}
    if len(known) < 2:
        return np.full(count, max(mean, 1.0))
    q = np.array(sorted(known))
    x = np.maximum.accumulate(np.maximum([known[p] for p in q], 1.0))
    at = (np.arange(count) + 0.5) / count
    lengths = np.exp(np.interp(at, q, np.log(x)))
    for gap in reversed(range(len(q) - 1)):
        if abs(lengths.mean() / mean - 1) > CLOSE:
            _bend(lengths, np.flatnonzero((at > q[gap]) & (at < q[gap + 1])), mean)
    return lengths


def _bend(lengths: Vector, free: Integers, mean: float) -> None:
    """Move the free lengths between the least and the greatest of them, towards the mean, in place."""
    if len(free) < 3 or lengths[free[0]] == lengths[free[-1]]:
        return
    low, high = lengths[free[0]], lengths[free[-1]]
    place = (lengths[free] - low) / (high - low)
    wanted = (mean * len(lengths) - (lengths.sum() - lengths[free].sum())) / len(free)
    weak, strong = WEAKEST, STRONGEST
    for _ in range(60):
        power = np.sqrt(weak * strong)
        over = np.mean(low + (high - low) * place**power) > wanted
        weak, strong = (power, strong) if over else (weak, power)
    lengths[free] = low + (high - low) * place ** np.sqrt(weak * strong)
