"""Lengths rebuilt from the statistics a benchmark tool prints when it keeps no single requests."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from planner.workload.traces import Vector


def lengths_from_statistics(statistics: Mapping[float, float], mean: float, count: int) -> Vector:
    """``count`` lengths with these quantiles and this mean, increasing, (count,), [tokens].

    ``statistics``: {probability: length}, 0 and 1 for the shortest and the longest; empty: all lengths
    are the mean. Between two quantiles the logarithm is a straight line. What is then missing of the
    mean is put where the quantiles say least: between the two furthest apart.

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
    gap = int(np.argmax(np.diff(x) * np.diff(q)))
    free = (at > q[gap]) & (at < q[gap + 1])
    return _with_mean(lengths, free, mean, float(x[gap]), float(x[gap + 1]))


def _with_mean(lengths: Vector, free: np.ndarray, mean: float, low: float, high: float) -> Vector:
    """Lengths with the free ones bent between low and high so that the mean is met if it can be, [tokens]."""
    if not free.any() or not np.isfinite(mean) or high <= low:
        return lengths
    place = (lengths[free] - low) / (high - low)
    wanted = (mean * len(lengths) - lengths[~free].sum()) / free.sum()
    target = (wanted - low) / (high - low)
    if not 0.001 < target < 0.999:
        return lengths
    weak, strong = 1e-3, 1e3
    for _ in range(60):
        power = np.sqrt(weak * strong)
        weak, strong = (power, strong) if np.mean(place**power) > target else (weak, power)
    bent = lengths.copy()
    bent[free] = low + (high - low) * place**power
    return bent
