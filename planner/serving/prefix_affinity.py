"""Routing by prefix: each replica serves its own prefixes, caches more of them, and pools nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from planner.errors import InputError
from planner.serving.routing import Wait, one_replica

Vector = npt.NDArray[np.float64]
HALVINGS = 200


def zipf_popularity(prefixes: int, exponent: float) -> Vector:
    """Share of requests with each prefix, most popular first: ``k^-s`` over its sum, (prefixes,), [1].

    ``exponent`` s [1], zero when all are alike. InputError without a prefix. Source: Zipf's law.

    >>> [round(float(x), 3) for x in zipf_popularity(4, 1.0)]
    [0.48, 0.24, 0.16, 0.12]
    """
    if prefixes < 1:
        raise InputError(f"{prefixes} prefixes", expected="at least 1")
    weight = np.arange(1, prefixes + 1, dtype=float) ** -exponent
    return weight / weight.sum()


def affinity_shares(popularity: Vector, replicas: int) -> Vector:
    """Share of the load each replica gets when prefixes are placed evenly, hottest first, (replicas,), [1].

    Each prefix, most popular first, goes to the replica with the least: what a router that knows
    the load can do. A prefix is never split, so the hottest replica carries at least the hottest one.

    Source: Graham, "Bounds on multiprocessing timing anomalies", SIAM J. Appl. Math. 17(2) 1969.

    >>> [round(float(x), 3) for x in affinity_shares(zipf_popularity(100, 1.0), 4)]
    [0.251, 0.251, 0.249, 0.249]
    >>> [round(float(x), 3) for x in affinity_shares(zipf_popularity(100, 1.5), 4)]
    [0.414, 0.195, 0.195, 0.195]
    """
    shares = np.zeros(replicas)
    for p in np.sort(popularity)[::-1]:
        shares[np.argmin(shares)] += p
    return np.sort(shares)[::-1]


def hashed_share_cv(popularity: Vector, replicas: Any) -> Any:
    """Spread of a replica's load when prefixes are placed by a hash: ``sqrt((R - 1) * sum p^2)``, [1].

    The coefficient of variation between replicas. Broadcasts over ``replicas`` [1].

    Source: variance of a sum of prefixes that fall on a replica with probability 1/R each.

    >>> round(float(hashed_share_cv(zipf_popularity(100, 1.0), 4)), 2)
    0.43
    """
    return np.sqrt((np.asarray(replicas) - 1) * np.sum(popularity**2))


def prefix_hit_ratio(
    popularity: Vector, rate: Any, replicas: Any, cache: Any, prefix_tokens: Any, affinity: bool
) -> Any:
    """Share of requests whose prefix is in the cache of the replica they go to, [1].

    Fleet ``rate`` [1/s], ``cache`` of one replica for prefixes and ``prefix_tokens`` of each [tokens].
    With affinity R caches hold R times as many prefixes, each asked for at its whole rate; without,
    each cache sees every prefix at a rate R times lower. Broadcasts but over ``popularity``.

    Source: Che, Tung & Wang, IEEE JSAC 20(7) 2002, ``sum of tokens*(1 - e^(-lambda*T)) = capacity``.

    >>> popular = zipf_popularity(200, 0.8)
    >>> [round(float(prefix_hit_ratio(popular, 10.0, 4, 200_000, 8000, a)), 3) for a in (True, False)]
    [0.742, 0.353]
    """
    fleet = np.asarray(replicas, dtype=float)
    held, asked = (fleet * cache, rate) if affinity else (np.asarray(cache, dtype=float), rate / fleet)
    room, each = np.broadcast_arrays(np.asarray(held / np.asarray(prefix_tokens), dtype=float), asked)
    requests = np.multiply.outer(each, popularity)
    low, high = np.zeros(room.shape), np.full(room.shape, 1e12)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        fits = np.sum(-np.expm1(-requests * middle[..., None]), axis=-1) <= room
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    hits = np.sum(popularity * -np.expm1(-requests * low[..., None]), axis=-1)
    return np.where(room >= len(popularity), 1.0, hits)[()]


def affinity_wait(rate: Any, service: Any, shares: Any, arrival_cv2: Any = 1.0, service_cv2: Any = 1.0) -> Wait:
    """Wait of a request when replica r gets ``shares[..., r]`` of the load, [s].

    Each replica is a queue of its own, and most requests meet the hottest: ``sum of share*W(share)``. Fleet
    ``rate`` [1/s], ``service`` [s] with the hit ratio affinity gives, broadcasting over the leading axes
    of shares [1]. Infinite as soon as one replica is overloaded. Even shares give random routing.
    Exact mean for Poisson arrivals; the tail is as if all waited alike.

    Source: thinning of a renewal process and :func:`planner.serving.routing.one_replica`.

    >>> even, hot = (affinity_wait(64.0, 0.05, s) for s in (np.full(4, 0.25), np.array([0.3, 0.3, 0.2, 0.2])))
    >>> round(float(even.mean), 3), round(float(hot.mean), 3)
    (0.2, 0.756)
    """
    share = np.asarray(shares, dtype=float)
    part = (np.asarray(x)[..., None] for x in (rate, service, arrival_cv2, service_cv2))
    total, seconds, arrival, spread = part
    wait = one_replica(total * share, seconds, 1 + (arrival - 1) * share, spread)
    mean = np.sum(np.where(share > 0, share * wait.mean, 0.0), axis=-1)
    return Wait(np.sum(share * wait.probability, axis=-1)[()], mean[()])
