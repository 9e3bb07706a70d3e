"""Waiting in a fleet of replicas under five ways to route, each replica a first-come queue.

Every function takes the fleet's ``rate`` [1/s], the mean ``service`` of a request [s], the number of
``replicas`` [1], and squared coefficients of variation of arrivals and service [1]; all broadcast. They
return :class:`Wait`; an overloaded fleet waits for ever. Service is the time a request keeps one server:
a replica with many slots has more than one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.errors import InputError, nearest
from planner.serving.queueing import erlang_c


@dataclass(frozen=True)
class Wait:
    """Time before service begins: ``probability`` that it is not zero [1] and its ``mean`` [s].

    Tails take the wait of those who wait as exponential, exact for M/M/c, M/M/1 and GI/M/1. For the
    shorter of two queues it is above a simulation by up to 8 % at the 95th and 20 % at the 99th
    percentile (exponential service, up to 90 % load); for service cv^2 of 4 the 99th percentile is up to 17 %
    below it.
    """

    probability: Any
    mean: Any

    def tail(self, seconds: Any) -> Any:
        """P(wait > ``seconds``), [1]. Broadcasts. Source: exponential conditional wait."""
        with np.errstate(divide="ignore", invalid="ignore"):
            exponent = np.where(self.mean > 0, np.asarray(seconds) * self.probability / self.mean, np.inf)
        tail = self.probability * np.exp(-exponent)
        return np.where(np.isinf(self.mean), 1.0, np.where(np.asarray(self.mean) == 0, 0.0, tail))[()]

    def quantile(self, q: Any) -> Any:
        """Wait not exceeded with probability ``q``, [s]; zero when fewer wait. Broadcasts.

        Source: inverse of :meth:`tail`.
        """
        p = np.asarray(self.probability, dtype=float)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.asarray(self.mean) / p * np.log(p / (1 - np.asarray(q)))
        return np.where(np.isinf(self.mean), np.inf, np.where(p <= 1 - np.asarray(q), 0.0, value))[()]


def one_replica(rate: Any, service: Any, arrival_cv2: Any = 1.0, service_cv2: Any = 1.0) -> Wait:
    """A single GI/G/1 queue: ``rho/(1 - rho) * S * (Ca^2 + Cs^2)/2 * g``, [s].

    rate [1/s], service S [s], squared coefficients of variation [1]; broadcasts. g is one for Poisson arrivals,
    and less for smoother and burstier ones: ``exp(-2(1 - rho)(1 - Ca^2)^2 / (3 rho (Ca^2 + Cs^2)))`` and
    ``exp(-(1 - rho)(Ca^2 - 1)/(Ca^2 + 4 Cs^2))``. What this misses for exponential service, where gamma gaps have
    an exact answer, is corrected, to the power of Cs^2 below one.

    Source: Kraemer & Langenbach-Belz, "Approximate formulae for the delay in the queueing system
    GI/G/1", ITC 8, 1976; GI/M/1 root; exact for M/G/1 (Pollaczek-Khinchine).

    >>> round(float(one_replica(16.0, 0.05).mean), 3), round(float(one_replica(16.0, 0.05, 0.5).mean), 3)
    (0.2, 0.142)
    """
    a, s = np.asarray(arrival_cv2, dtype=float), np.asarray(service_cv2, dtype=float)
    load = np.asarray(rate * np.asarray(service, dtype=float))
    rho = np.clip(load, 1e-6, 1 - 1e-9)
    root = _gamma_root(rho, a)
    power = np.minimum(s, 1.0)
    mean = _delay(rho, a, s) * (root / (1 - root) / np.maximum(_delay(rho, a, 1.0), 1e-300)) ** power
    waits = _delay_probability(rho, a, s) * (root / _delay_probability(rho, a, 1.0)) ** power
    over, idle = load >= 1, load <= 0
    mean = np.where(over, np.inf, np.where(idle, 0.0, service * mean))
    return Wait(np.where(over, 1.0, np.where(idle, 0.0, np.minimum(waits, 1.0)))[()], mean[()])


def _delay(rho: Any, a: Any, s: Any) -> Any:
    """Kraemer & Langenbach-Belz: mean wait over service."""
    smooth = -2 * (1 - rho) * (1 - a) ** 2 / (3 * rho * np.maximum(a + s, 1e-12))
    bursty = -(1 - rho) * (np.maximum(a, 1) - 1) / (np.maximum(a, 1) + 4 * s)
    return rho / (1 - rho) * (a + s) / 2 * np.exp(np.where(a < 1, smooth, bursty))


def _delay_probability(rho: Any, a: Any, s: Any) -> Any:
    """Kraemer & Langenbach-Belz: probability of a wait."""
    smooth = (1 + a + rho * s) / (1 + rho * (s - 1) + rho**2 * (4 * a + s))
    bursty = 4 * rho / (np.maximum(a, 1) + rho**2 * (4 * a + s))
    return np.clip(rho + (a - 1) * rho * (1 - rho) * np.where(a < 1, smooth, bursty), 1e-12, 1.0)


def _gamma_root(rho: Any, a: Any) -> Any:
    """Probability of a wait in GI/M/1 with gamma gaps: the root of ``x = E[e^(-(1 - x) gap)]`` below one."""
    low, high = np.broadcast_arrays(np.zeros(()), rho * 0 + a * 0 + 1 - 1e-12)
    spread = np.maximum(a, 1e-9)
    for _ in range(60):
        x = (low + high) / 2
        under = np.exp(-np.log1p((1 - x) * spread / rho) / spread) > x
        low, high = np.where(under, x, low), np.where(under, high, x)
    return np.maximum((low + high) / 2, 1e-300)


def pooled_replicas(rate: Any, service: Any, replicas: Any, arrival_cv2: Any = 1.0, service_cv2: Any = 1.0) -> Wait:
    """One queue for all: ``(Ca^2 + Cs^2)/2 * C(c, a) * S/(c(1 - rho))``, [s]; the best any routing can do.

    Exact for M/M/c. For service cv^2 of 0.25 to 4 within 10 % of a simulation at 50 and 80 % load where
    more than 1 % wait; a lower bound for bursty arrivals (at cv^2 of 4 the wait of 4 replicas is 2.3
    times as long at 50 % load, 1.2 times at 80 %).

    Source: Allen, "Probability, Statistics, and Queueing Theory", 1990 (Allen-Cunneen with Erlang's C).

    >>> wait = pooled_replicas(128.0, 0.05, 8)
    >>> round(float(wait.mean) * 1e3, 2), round(float(wait.quantile(0.95)) * 1e3, 1)
    (14.3, 69.2)
    """

    def one(fleet: int, rho: Any) -> tuple[Any, Any]:
        waits = np.asarray(erlang_c(fleet, fleet * rho))
        return waits, waits / (fleet * (1 - rho))

    return _fleet(one, rate, service, replicas, (np.asarray(arrival_cv2) + service_cv2) / 2)


def shortest_queue(rate: Any, service: Any, replicas: Any, arrival_cv2: Any = 1.0, service_cv2: Any = 1.0) -> Wait:
    """Each request joins the replica with the fewest: M/M mean times ``(Ca^2 + Cs^2)/2``, [s].

    The M/M mean is that of a chain of (busy replicas, waiting requests) in which those who wait are
    spread evenly over the busy; it has no state with a replica idle and more waiting than busy, so
    it is finite: order replicas^2 operations. Against a simulation of 2 to 16 replicas at 50 to 90 % load
    within 5 % for exponential service, and 8 % for service cv^2 of 0.25 to 4. A lower bound for bursty
    arrivals.

    Source: balance equations of that chain; the idea of conditioning on the number of jobs is of Lin
    & Raghavendra, IEEE Trans. Parallel Distrib. Syst. 7(3) 1996.

    >>> round(float(shortest_queue(128.0, 0.05, 8).mean) * 1e3, 2)
    22.09
    """
    return _fleet(_balanced_chain, rate, service, replicas, (np.asarray(arrival_cv2) + service_cv2) / 2)


def power_of_two(rate: Any, service: Any, replicas: Any, arrival_cv2: Any = 1.0, service_cv2: Any = 1.0) -> Wait:
    """Each request joins the shorter of two replicas drawn at random, [s].

    ``m + (j - m)/(R - 1)``, never below the shortest of all: m for endless replicas, ``sum of rho^(2^i - 1),
    i > 0, over rho, less one``, where two draws smooth any arrivals; j the shortest of exactly two. So it
    is both where R is 2 and where R is large. Against a simulation of 2 to 16 replicas at 50 to 90 %
    load 1 to 7 % low for service cv^2 of 0.25 to 4. A lower bound
    for bursty arrivals.

    Source: Mitzenmacher 1996 and Vvedenskaya et al. 1996 for m; the finite fleet is an interpolation.

    >>> round(float(power_of_two(128.0, 0.05, 8).mean) * 1e3, 2)
    54.09
    """

    def endless(rho: Any) -> Any:
        return np.sum(rho[..., None] ** (2.0 ** np.arange(1, 40) - 2), axis=-1) - 1

    def many(fleet: int, rho: Any) -> tuple[Any, Any]:
        p, _ = _balanced_chain(min(fleet, 2), rho)
        return (p if fleet < 3 else rho**2 + (p - rho**2) / (fleet - 1)), np.zeros_like(rho)

    def of_service(fleet: int, rho: Any) -> tuple[Any, Any]:
        return rho, endless(rho) * (0 if fleet < 3 else (fleet - 2) / (fleet - 1))

    def of_both(fleet: int, rho: Any) -> tuple[Any, Any]:
        return rho, _balanced_chain(min(fleet, 2), rho)[1] / max(1, fleet - 1)

    both = (np.asarray(arrival_cv2) + service_cv2) / 2
    waits = _fleet(many, rate, service, replicas, both).probability
    alone = _fleet(of_service, rate, service, replicas, (1 + np.asarray(service_cv2)) / 2).mean
    paired = _fleet(of_both, rate, service, replicas, both).mean
    floor = shortest_queue(rate, service, replicas, arrival_cv2, service_cv2)
    return Wait(np.maximum(waits, floor.probability)[()], np.maximum(alone + paired, floor.mean)[()])


def round_robin(rate: Any, service: Any, replicas: Any, arrival_cv2: Any = 1.0, service_cv2: Any = 1.0) -> Wait:
    """Replicas in turn, each a GI/G/1 queue with arrivals of ``Ca^2/R``, [s].

    Within 2 % of a simulation at 50 and 80 % load for service cv^2 of 1 to 4 and arrivals of 1 to 4. A lower
    bound for less variable service (cv^2 of 0.25: 2 to 10 % low at 4 replicas, 12 % at 16 and 80 % load, 39 %
    at 50 %). With constant service it is as good as one pool, and better than two choices.

    Source: sums of R gaps; Kraemer & Langenbach-Belz, "Approximate formulae for the delay in the
    queueing system GI/G/1", ITC 8, 1976, as in :func:`one_replica`.

    >>> round(float(round_robin(128.0, 0.05, 8).mean) * 1e3, 2)
    98.99
    """
    each = np.asarray(rate) / replicas
    return one_replica(each, service, np.asarray(arrival_cv2) / replicas, service_cv2)


def random_routing(rate: Any, service: Any, replicas: Any, arrival_cv2: Any = 1.0, service_cv2: Any = 1.0) -> Wait:
    """A replica drawn at random: M/G/1, or GI/G/1 with ``1 + (Ca^2 - 1)/R``, [s].

    Exact mean for Poisson arrivals; for bursty ones (cv^2 of 4) within 4 % of a simulation.

    Source: Pollaczek-Khinchine; thinning of a renewal process; Kraemer & Langenbach-Belz 1976.

    >>> round(float(random_routing(128.0, 0.05, 8).mean) * 1e3, 2)
    200.0
    """
    each = np.asarray(rate) / replicas
    return one_replica(each, service, 1 + (np.asarray(arrival_cv2) - 1) / replicas, service_cv2)


POLICIES: dict[str, Callable[..., Wait]] = {
    "pooled": pooled_replicas,
    "shortest-queue": shortest_queue,
    "power-of-two": power_of_two,
    "round-robin": round_robin,
    "random": random_routing,
}


def routing_policy(name: str) -> Callable[..., Wait]:
    """The function of a policy by name; InputError with the nearest one.

    Its waits are in [s]. Source: the functions of this module.

    >>> routing_policy("random") is random_routing
    True
    """
    if name not in POLICIES:
        raise InputError(
            f"unknown routing policy {name!r}",
            expected="one of " + ", ".join(POLICIES),
            suggestion=nearest(name, POLICIES),
        )
    return POLICIES[name]


def _fleet(
    one: Callable[[int, Any], tuple[Any, Any]], rate: Any, service: Any, replicas: Any, variability: Any
) -> Wait:
    """Apply ``one(replicas, rho)``, in units of service, to every size of fleet that occurs."""
    fleets = np.asarray(replicas)
    if np.any(fleets < 1) or np.any(fleets != np.rint(fleets)):
        raise InputError(f"a fleet of {np.min(fleets):g} replicas", expected="a whole number, at least 1")
    rho, fleets, factor = np.broadcast_arrays(
        np.asarray(rate * service / fleets, dtype=float), fleets, np.asarray(variability, dtype=float) * service
    )
    probability, mean = np.ones(rho.shape), np.full(rho.shape, np.inf)
    for size in np.unique(fleets):
        here = (fleets == size) & (rho < 1)
        if np.any(here):
            p, w = one(int(size), np.maximum(rho[here], 1e-12))
            probability[here], mean[here] = p, w * factor[here]
    return Wait(probability[()], mean[()])


def _balanced_chain(fleet: int, rho: Any) -> tuple[Any, Any]:
    """P(wait) and mean wait over service of the shortest of ``fleet`` queues, (n,) each.

    Levels of q waiting requests, states b = q..R of busy replicas; level R and beyond has all busy. The cut
    between two levels gives pi(R, q), then a tridiagonal system the rest of the level.
    """
    rate = fleet * rho
    above = np.zeros((fleet + 1, *rho.shape))
    above[fleet] = 1.0
    tail = rho / (1 - rho)
    waiting = fleet * (1 + tail) + tail / (1 - rho)
    busy, total = 1 + tail, 1 + tail
    for q in range(fleet - 1, -1, -1):
        down = above * np.minimum(q + 1, np.arange(fleet + 1))[:, None]
        level = np.zeros_like(above)
        level[fleet] = down.sum(axis=0) / rate
        # b = q..R-1:  (rate + b) x[b] - rate x[b-1] - (b + 1 - q) x[b+1] = down[b]
        upper: list[Any] = []
        right: list[Any] = []
        for b in range(q, fleet):
            lower = rate if b > q else 0.0
            pivot = rate + b - (lower * upper[-1] if upper else 0.0)
            upper.append((b + 1 - q) / pivot)
            right.append((down[b] + (lower * right[-1] if right else 0.0)) / pivot)
        for b in range(fleet - 1, q - 1, -1):
            level[b] = right[b - q] + upper[b - q] * level[b + 1]
        waiting = waiting + q * level.sum(axis=0)
        busy, total = busy + level[fleet], total + level.sum(axis=0)
        above = level
    return busy / total, waiting / total / rate
