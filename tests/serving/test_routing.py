"""Routing in closed form against an independent simulation of first-come queues."""

from __future__ import annotations

import heapq
import itertools
import math

import numpy as np
import pytest

from planner.errors import InputError
from planner.serving.prefix_affinity import (
    affinity_shares,
    affinity_wait,
    hashed_share_cv,
    prefix_hit_ratio,
    zipf_popularity,
)
from planner.serving.queueing import erlang_c, single_server_wait
from planner.serving.routing import POLICIES, one_replica, pooled_replicas, round_robin, routing_policy, shortest_queue

CUSTOMERS = 250_000
TEN_PERCENT = 0.10


def gaps(rng: np.random.Generator, mean: float, cv2: float, n: int) -> np.ndarray:
    return np.full(n, mean) if cv2 == 0 else rng.gamma(1 / cv2, mean * cv2, n)


def simulated(
    policy: str,
    replicas: int,
    load: float,
    arrival_cv2: float = 1.0,
    service_cv2: float = 1.0,
    owner: np.ndarray | None = None,
    customers: int = CUSTOMERS,
) -> np.ndarray:
    """Waits of customers with mean service 1, warm-up left out."""
    rng = np.random.default_rng(20_261_125)
    arrivals = np.cumsum(gaps(rng, 1 / (replicas * load), arrival_cv2, customers)).tolist()
    services = gaps(rng, 1.0, service_cv2, customers).tolist()
    draws = rng.random((customers, 2)).tolist()
    free, number, departures = [0.0] * replicas, [0] * replicas, []
    waits = np.zeros(customers)
    for i, now in enumerate(arrivals):
        while departures and departures[0][0] <= now:
            number[heapq.heappop(departures)[1]] -= 1
        if owner is not None:
            at = int(owner[i])
        elif policy == "pooled":
            at = min(range(replicas), key=free.__getitem__)
        elif policy == "round-robin":
            at = i % replicas
        elif policy == "shortest-queue":
            shortest = [r for r in range(replicas) if number[r] == min(number)]
            at = shortest[int(draws[i][0] * len(shortest))]
        else:
            at = int(draws[i][0] * replicas)
            if policy == "power-of-two":
                other = (at + 1 + int(draws[i][1] * (replicas - 1))) % replicas
                at = at if number[at] <= number[other] else other
        start = max(free[at], now)
        waits[i] = start - now
        free[at] = start + services[i]
        number[at] += 1
        heapq.heappush(departures, (free[at], at))
    return waits[customers // 10 :]


@pytest.mark.parametrize("load", [0.5, 0.8])
@pytest.mark.parametrize("replicas", [2, 8])
@pytest.mark.parametrize("policy", list(POLICIES))
def test_mean_wait_and_tail_of_exponential_service(policy: str, replicas: int, load: float) -> None:
    waits = simulated(policy, replicas, load)
    found = POLICIES[policy](replicas * load, 1.0, replicas)
    assert float(found.mean) == pytest.approx(waits.mean(), rel=TEN_PERCENT)
    assert float(found.probability) == pytest.approx((waits > 0).mean(), rel=TEN_PERCENT)
    assert float(found.quantile(0.95)) == pytest.approx(np.quantile(waits, 0.95), rel=TEN_PERCENT, abs=0.1)


@pytest.mark.parametrize("service_cv2", [0.25, 4.0])
@pytest.mark.parametrize("policy", ["pooled", "shortest-queue", "power-of-two", "random"])
@pytest.mark.parametrize("load", [0.5, 0.8])
def test_mean_wait_of_other_services(policy: str, service_cv2: float, load: float) -> None:
    # rare long services: the sample mean itself needs more customers
    customers = CUSTOMERS if service_cv2 < 1 else 3 * CUSTOMERS
    waits = simulated(policy, 4, load, 1.0, service_cv2, customers=customers)
    found = float(POLICIES[policy](4 * load, 1.0, 4, 1.0, service_cv2).mean)
    assert found == pytest.approx(waits.mean(), rel=TEN_PERCENT)


@pytest.mark.parametrize(("service_cv2", "arrival_cv2"), [(4.0, 1.0), (1.0, 4.0)])
@pytest.mark.parametrize("load", [0.5, 0.8])
def test_round_robin_smooths_any_arrivals(service_cv2: float, arrival_cv2: float, load: float) -> None:
    waits = simulated("round-robin", 4, load, arrival_cv2, service_cv2)
    found = float(round_robin(4 * load, 1.0, 4, arrival_cv2, service_cv2).mean)
    assert found == pytest.approx(waits.mean(), rel=TEN_PERCENT)


@pytest.mark.parametrize("policy", ["pooled", "shortest-queue", "power-of-two"])
def test_bursty_arrivals_make_it_a_lower_bound(policy: str) -> None:
    waits = simulated(policy, 4, 0.5, 4.0)
    found = POLICIES[policy](4 * 0.5, 1.0, 4, 4.0)
    assert 0.3 * waits.mean() < float(found.mean) < waits.mean()


def test_round_robin_of_nearly_constant_services_is_a_lower_bound() -> None:
    waits = simulated("round-robin", 16, 0.5, 1.0, 0.25)
    found = float(round_robin(8.0, 1.0, 16, 1.0, 0.25).mean)
    assert 0.5 * waits.mean() < found < waits.mean()


@pytest.mark.parametrize("replicas", [2, 3, 4, 8, 16, 32])
@pytest.mark.parametrize("load", [0.5, 0.6, 0.8, 0.9, 0.97])
def test_better_routing_waits_less(replicas: int, load: float) -> None:
    means = [float(policy(replicas * load, 1.0, replicas).mean) for policy in POLICIES.values()]
    assert list(POLICIES) == ["pooled", "shortest-queue", "power-of-two", "round-robin", "random"]
    assert all(better <= worse * (1 + 1e-12) for better, worse in itertools.pairwise(means))
    assert means[0] < means[1] < means[3] < means[4]


def test_turns_beat_two_choices_at_low_load_in_simulation_too() -> None:
    """The order is not universal: with regular turns and an easy load, nobody meets anybody."""
    turns, choices = (simulated(p, 16, 0.3).mean() for p in ("round-robin", "power-of-two"))
    assert turns < choices
    assert float(POLICIES["round-robin"](4.8, 1.0, 16).mean) < float(POLICIES["power-of-two"](4.8, 1.0, 16).mean)


def test_one_replica_needs_no_routing() -> None:
    for policy in POLICIES.values():
        wait = policy(0.7, 1.0, 1, 1.0, 2.0)
        assert float(wait.mean) == pytest.approx(float(single_server_wait(0.7, 1.0, 3.0)))
        assert float(wait.probability) == pytest.approx(0.7)


def test_pooled_is_exact_for_poisson_and_exponential() -> None:
    wait = pooled_replicas(6.4, 1.0, 8)
    waits = erlang_c(8, 6.4)
    assert float(wait.mean) == pytest.approx(waits / 1.6)
    assert float(wait.tail(2.0)) == pytest.approx(waits * math.exp(-1.6 * 2))
    assert float(wait.tail(wait.quantile(0.99))) == pytest.approx(0.01)
    assert float(wait.quantile(1 - waits - 0.01)) == 0.0


def test_shortest_of_two_against_the_truncated_chain() -> None:
    """All states (i, j) of two exponential queues, solved as a linear system."""
    most, load = 60, 0.8
    rate, states = 2 * load, [(i, j) for i in range(most) for j in range(most)]
    index = {s: k for k, s in enumerate(states)}
    flow = np.zeros((len(states), len(states)))
    for (i, j), k in index.items():
        moves = [((i - 1, j), 1.0 if i else 0.0), ((i, j - 1), 1.0 if j else 0.0)]
        first, second = (i + 1, j), (i, j + 1)
        share = 0.5 if i == j else float(i < j)
        moves += [(first, rate * share), (second, rate * (1 - share))]
        for to, r in moves:
            if r and to in index:
                flow[k, index[to]] += r
                flow[k, k] -= r
    flow[:, 0] = 1.0
    share = np.linalg.solve(flow.T, np.eye(len(states))[0])
    number = sum(p * (i + j) for p, (i, j) in zip(share, states, strict=True))
    exact = number / rate - 1
    assert float(shortest_queue(rate, 1.0, 2).mean) == pytest.approx(exact, rel=0.05)


def test_arguments_broadcast() -> None:
    rates, fleets = np.array([[1.0], [3.0], [99.0]]), np.array([2, 4, 8])
    for policy in POLICIES.values():
        table = policy(rates, 0.5, fleets, 1.0, 1.0)
        assert np.shape(table.mean) == np.shape(table.probability) == (3, 3)
        assert np.all(np.isinf(table.mean[2])) and np.all(table.probability[2] == 1)
        assert np.all(np.isinf(table.quantile(0.5)[2])) and np.all(table.tail(1.0)[2] == 1)
        assert table.mean[1, 1] == pytest.approx(float(policy(3.0, 0.5, 4).mean))
        assert float(policy(0.0, 0.5, 4).mean) == pytest.approx(0.0, abs=1e-12)


def test_wrong_fleet_and_wrong_policy() -> None:
    with pytest.raises(InputError, match="whole number"):
        pooled_replicas(1.0, 0.5, 0)
    with pytest.raises(InputError, match="Did you mean 'round-robin'"):
        routing_policy("round-robbin")


def test_affinity_is_a_queue_per_replica() -> None:
    rng = np.random.default_rng(7)
    popularity = zipf_popularity(60, 1.2)
    shares = affinity_shares(popularity, 4)
    assert shares.sum() == pytest.approx(1) and shares[0] >= popularity[0]
    owner = rng.choice(4, p=shares, size=CUSTOMERS)
    load = 0.7
    waits = simulated("affinity", 4, load, owner=owner)
    found = affinity_wait(4 * load, 1.0, shares)
    assert float(found.mean) == pytest.approx(waits.mean(), rel=TEN_PERCENT)
    assert float(found.probability) == pytest.approx((waits > 0).mean(), rel=0.02)
    assert float(affinity_wait(4 * load, 1.0, np.full(4, 0.25)).mean) == pytest.approx(
        float(POLICIES["random"](4 * load, 1.0, 4).mean)
    )
    assert float(found.mean) > float(POLICIES["random"](4 * load, 1.0, 4).mean)
    assert math.isinf(float(affinity_wait(4 * 0.9, 1.0, np.array([0.4, 0.2, 0.2, 0.2])).mean))


def test_spread_of_hashed_prefixes() -> None:
    rng = np.random.default_rng(3)
    popularity = zipf_popularity(100, 1.0)
    loads = [np.bincount(rng.integers(4, size=100), popularity, 4) for _ in range(4000)]
    assert float(hashed_share_cv(popularity, 4)) == pytest.approx(np.std(loads) * 4, rel=0.03)


@pytest.mark.parametrize("affinity", [True, False])
def test_prefix_hits_against_simulated_caches(affinity: bool) -> None:
    """Four replicas that each keep 25 prefixes; affinity hashes prefixes, else replicas are random."""
    rng = np.random.default_rng(5)
    popularity = zipf_popularity(400, 0.9)
    owner = rng.permutation(400) % 4
    asked = rng.choice(400, p=popularity, size=200_000)
    where = owner[asked] if affinity else rng.integers(4, size=len(asked))
    caches: list[dict[int, None]] = [{} for _ in range(4)]
    hits = 0
    for i, (prefix, replica) in enumerate(zip(asked.tolist(), where.tolist(), strict=True)):
        cache = caches[replica]
        hits += prefix in cache and i >= 20_000
        cache.pop(prefix, None)
        cache[prefix] = None
        if len(cache) > 25:
            del cache[next(iter(cache))]
    found = prefix_hit_ratio(popularity, 10.0, 4, 25 * 8000.0, 8000.0, affinity)
    assert float(found) == pytest.approx(hits / 180_000, abs=0.03)


def test_hits_grow_with_affinity_and_reach_one() -> None:
    popularity = zipf_popularity(100, 0.7)
    cache = np.array([1e5, 2e5, 4e5, 8e5])
    with_affinity, without = (prefix_hit_ratio(popularity, 5.0, 4, cache, 8000.0, a) for a in (True, False))
    assert np.all(with_affinity >= without) and np.all(np.diff(without) >= 0)
    assert with_affinity[-1] == without[-1] == 1.0


def test_constant_services_in_turn_are_one_pool() -> None:
    turns, pool = (simulated(p, 4, 0.8, 1.0, 0.0) for p in ("round-robin", "pooled"))
    assert turns == pytest.approx(pool, abs=1e-8)
    assert float(one_replica(0.8, 1.0, 0.0, 0.0).mean) == 0.0
