"""Waiting in queues, in closed form; all arguments broadcast, overload gives infinity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def erlang_c(servers: int, load: Any) -> Any:
    """Probability that an arrival waits in M/M/c with offered ``load`` [erlang], [1].

    In the shape of ``load``; one from full load on.

    Source: Erlang's C formula by the recurrence of Erlang B.

    >>> round(erlang_c(8, 6.4), 4)
    0.4576
    """
    offered = np.minimum(np.asarray(load, dtype=float), servers)
    blocked = np.ones_like(offered)
    for i in range(1, servers + 1):
        blocked = offered * blocked / (i + offered * blocked)
    waits = servers * blocked / (servers - offered * (1 - blocked))
    return waits if np.ndim(load) else float(waits)


def pooled_wait(rate: Any, service: Any, servers: Any, arrival_cv2: Any = 1.0, service_cv2: Any = 1.0) -> Any:
    """Mean wait for one of ``servers`` pooled servers, [s].

    ``(Ca^2 + Cs^2)/2 * S/c * rho^(sqrt(2(c+1)) - 1) / (1 - rho)``: rate [1/s], service S [s], squared
    coefficients of variation [1]. With one server it is Kingman's bound.

    Source: Allen-Cunneen; Sakasegawa 1977.

    >>> round(float(pooled_wait(0.8 * 8 / 0.05, 0.05, 8)) * 1e3, 2)
    15.16
    """
    rho = np.asarray(rate * service / servers, dtype=float)
    power = rho ** (np.sqrt(2 * (np.asarray(servers) + 1)) - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        wait = (arrival_cv2 + service_cv2) / 2 * service / servers * power / (1 - rho)
    return np.where(rho < 1, wait, np.inf)[()]


def single_server_wait(rate: Any, mean: Any, second: Any) -> Any:
    """Mean wait in M/G/1: ``rate*E[S^2] / (2(1 - rho))``, [s]; rate [1/s], mean [s], second [s^2].

    Source: Pollaczek-Khinchine.

    >>> round(float(single_server_wait(16.0, 0.05, 2 * 0.05**2)), 3)
    0.2
    """
    rho = np.asarray(rate * mean, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        wait = rate * second / (2 * (1 - rho))
    return np.where(rho < 1, wait, np.inf)[()]


def power_of_two_tail(utilisation: float, queue: int) -> float:
    """P(a server's queue holds at least ``queue``) when arrivals pick the shorter of two, [1].

    ``rho^(2^i - 1)`` against ``rho^i`` for one random choice. Source: Mitzenmacher 1996.

    >>> round(power_of_two_tail(0.9, 3), 4)
    0.4783
    """
    return float(utilisation ** (2**queue - 1))


def spare_replicas(replicas: int) -> int:
    """Spares for a fleet of ``replicas``: one per failure domain, two from twenty, [replicas].

    Source: N+k redundancy, common practice.

    >>> spare_replicas(1), spare_replicas(20)
    (1, 2)
    """
    return 2 if replicas >= 20 else 1


def replicas(peak_rate: float, rate_per_replica: float, spares: int | None = None) -> int:
    """Replicas for a peak rate [1/s] at ``rate_per_replica`` [1/s], spares included, [replicas].

    Source: ``ceil(peak/capacity) + k``.

    >>> replicas(16 * 2.655, 8.0, 1)
    7
    """
    serving = max(1, math.ceil(peak_rate / rate_per_replica - 1e-9))
    return serving + (spare_replicas(serving) if spares is None else spares)
