"""A forked task while its branches end one after the other: how long how many of them are at work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.serving.fanout import useful_work

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]

#: lengths the integral over a branch's distribution is taken at
POINTS = 1500


def tokens_with_alive(quantile: Callable[[Any], Any], most: int, q: float | None = None) -> Matrix:
    """Tokens a task decodes while exactly j of its K branches are at work, (most, most + 1), [tokens].

    Row K - 1, column j, mean over tasks: the integral over x of ``C(K,j) S(x)^j F(x)^(K-j)`` with the
    ``quantile`` [tokens] of F and S = 1 - F. A row adds up to the mean of the longest, and weighted with
    j to K times the mean. With ``q`` of the tasks whose longest is at its quantile q: the others are then
    independent draws below it.

    Source: order statistics, David and Nagaraja, "Order Statistics", 2003; binomial number of survivors.

    >>> from planner.workload.lengths import Constant, Lognormal
    >>> [round(float(x)) for x in tokens_with_alive(Constant(100).quantile, 2)[1]]
    [0, 0, 100]
    >>> lengths = Lognormal(6.774, 0.97)
    >>> alive = tokens_with_alive(lengths.quantile, 8)[7]
    >>> round(float(alive.sum()) / lengths.mean, 2), round(float(alive @ range(9)) / lengths.mean, 2)
    (3.01, 8.0)
    """
    t = np.arange(POINTS, 0, -1) / POINTS
    edges = np.concatenate([1 - t**3, [1.0]])[1:]  # dense where the quantile is steep
    k = np.arange(1, most + 1)
    top = np.ones(most) if q is None else q ** (1 / k)
    lengths = np.asarray(quantile(np.clip(top[:, None] * edges, 0.0, 1 - 1e-13)), dtype=float)
    gaps = np.diff(lengths, prepend=0.0, axis=1)
    below = (edges + np.concatenate([[0.0], edges[:-1]])) / 2
    others = k if q is None else k - 1
    found = np.zeros((most, most + 1))
    for row in range(most):
        n = int(others[row])
        found[row, k[row] - n : k[row] + 1] = _binomial(n, 1 - below) @ gaps[row]
    found[:, 0] = 0.0  # after the last one there is no task
    return found


def _binomial(n: int, p: Vector) -> Matrix:
    """P(j of n) for j = 0..n at every p, (n + 1, points)."""
    j = np.arange(n + 1)
    choose = np.ones(n + 1)
    for i in range(n):
        choose[i + 1] = choose[i] * (n - i) / (i + 1)
    found: Matrix = choose[:, None] * p[None, :] ** j[:, None] * (1 - p[None, :]) ** (n - j)[:, None]
    return found


def useful_work_curve(most: int, success: float, correlation: float = 0.0, avenues: int | None = None) -> Vector:
    """:func:`planner.serving.fanout.useful_work` of 1 to ``most`` branches, (most,), [1]. Source: there.

    >>> [round(float(u), 3) for u in useful_work_curve(4, 0.3, 0.3)]
    [0.3, 0.447, 0.536, 0.597]
    """
    return np.array([useful_work(k, success, correlation, avenues) for k in range(1, most + 1)])
