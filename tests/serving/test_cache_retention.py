"""Retention of idle contexts against a simulated least-recently-used cache, and tiers behind it."""

from __future__ import annotations

import heapq
from collections import OrderedDict

import numpy as np
import pytest
from scipy import integrate, stats

from planner.errors import InputError
from planner.hardware.database import database_root
from planner.hardware.offload import load_offload
from planner.serving.cache_retention import (
    IdleContexts,
    characteristic_time,
    hit_ratio,
    reload_seconds,
    reload_wins,
    resident_tokens,
    return_seconds,
    tier_shares,
)
from planner.serving.pauses import Pause, PauseMixture, gamma_cdf

WITHIN = 0.03
TOOLS = Pause(8.0, 1.0, "exponential")
PEOPLE = Pause(180.0, 1.5)


def draw(rng: np.random.Generator, pause: Pause | PauseMixture) -> float:
    if isinstance(pause, PauseMixture):
        pause = pause.parts[rng.choice(len(pause.parts), p=np.array(pause.weights) / sum(pause.weights))]
    if pause.cv == 0:
        return pause.mean
    if pause.shape == "lognormal":
        s2 = np.log1p(pause.cv**2)
        return float(rng.lognormal(np.log(pause.mean) - s2 / 2, np.sqrt(s2)))
    return float(rng.gamma(1 / pause.cv**2, pause.mean * pause.cv**2))


def simulated_shares(
    classes: list[IdleContexts], capacities: list[float], ttl: float = np.inf, turns: int = 120_000, cv: float = 0.5
) -> np.ndarray:
    """Share of returning turns found in the first cache, the next, nowhere; contexts are evicted whole.

    Sessions arrive as a Poisson process; each has turns until its last one, a context of its own size,
    and no memory but the caches, each of which sees every turn (copies are written through).
    """
    rng = np.random.default_rng(20_261_125)
    coming: list[tuple[float, int, int, float]] = []  # time, session, class, tokens
    born = [0.0] * len(classes)
    names = 0
    caches = [OrderedDict[int, tuple[float, float]]() for _ in capacities]
    used = [0.0] * len(capacities)
    found, returns = np.zeros(len(capacities) + 1), 0
    spread = np.log1p(cv**2)
    known: set[int] = set()

    def begin(c: int) -> None:
        nonlocal names
        born[c] += rng.exponential(1 / (classes[c].rate * classes[c].last))
        tokens = rng.lognormal(np.log(classes[c].tokens) - spread / 2, np.sqrt(spread))
        heapq.heappush(coming, (born[c], names, c, float(tokens)))
        names += 1

    for c in range(len(classes)):
        begin(c)
    for turn in range(turns):
        now, name, c, tokens = heapq.heappop(coming)
        if name in known:
            hits = [name in cache and now - cache[name][1] < ttl for cache in caches]
            if turn > turns // 4:
                returns += 1
                found[hits.index(True) if any(hits) else -1] += 1
        else:
            known.add(name)
            begin(c)
        for i, cache in enumerate(caches):
            if name in cache:
                used[i] -= cache.pop(name)[0]
            cache[name] = (tokens, now)
            used[i] += tokens
            while used[i] > capacities[i] or (cache and now - next(iter(cache.values()))[1] >= ttl):
                used[i] -= cache.popitem(last=False)[1][0]
        if rng.random() >= classes[c].last:
            heapq.heappush(coming, (now + draw(rng, classes[c].pause), name, c, tokens))
    return found / returns


CASES = {
    "tools": ([IdleContexts(20.0, 10_000, TOOLS, 0.02)], 1.0e6, np.inf),
    "people": ([IdleContexts(2.0, 20_000, PEOPLE, 0.2)], 5.0e6, np.inf),
    "gamma": ([IdleContexts(2.0, 20_000, Pause(60.0, 2.0, "gamma"), 0.1)], 2.0e6, np.inf),
    "two classes": ([IdleContexts(5.0, 60_000, TOOLS, 0.02), IdleContexts(1.0, 15_000, PEOPLE, 0.25)], 3.0e6, np.inf),
    "mixture": ([IdleContexts(8.0, 20_000, PauseMixture((TOOLS, PEOPLE), (0.9, 0.1)), 0.02)], 2.0e6, np.inf),
    "time to live": ([IdleContexts(2.0, 20_000, PEOPLE, 0.2)], 2.0e7, 60.0),
}


@pytest.mark.parametrize("case", list(CASES))
def test_hits_of_a_simulated_cache(case: str) -> None:
    classes, capacity, ttl = CASES[case]
    time = characteristic_time(classes, capacity, ttl)
    shares = simulated_shares(classes, [capacity], ttl)
    assert 0.1 < shares[0] < 0.99, "the case says nothing"
    assert float(hit_ratio(classes, time)) == pytest.approx(shares[0], abs=WITHIN)


def test_shares_of_simulated_tiers() -> None:
    classes, capacity, _ = CASES["people"]
    shares = simulated_shares(classes, [capacity, 3 * capacity])
    found = tier_shares(classes, [capacity, 3 * capacity])
    assert found == pytest.approx(shares, abs=WITHIN)
    # tiers that hold only what the faster ones evicted reach as far as their sum
    apart = tier_shares(classes, [capacity, 2 * capacity], exclusive=True)
    assert apart == pytest.approx(found)


def test_the_time_fills_the_cache_for_all_candidates_at_once() -> None:
    classes = [IdleContexts(np.array([1.0, 2.0, 4.0]), 30_000, PEOPLE, 0.1)]
    capacity = np.array([[1e6], [4e6]])
    time = characteristic_time(classes, capacity)
    assert time.shape == (2, 3)
    assert resident_tokens(classes, time) == pytest.approx(np.broadcast_to(capacity, (2, 3)), rel=1e-9)
    assert np.all(np.diff(time, axis=0) > 0) and np.all(np.diff(time, axis=1) < 0)


def test_limits_of_the_characteristic_time() -> None:
    returning = [IdleContexts(1.0, 10_000, TOOLS)]
    assert float(characteristic_time(returning, 1e6)) == np.inf
    assert float(characteristic_time(returning, 1e6, 300.0)) == 300.0
    assert float(characteristic_time(returning, 0.0)) == 0.0
    assert float(hit_ratio(returning, np.inf)) == 1.0 and float(hit_ratio(returning, 0.0)) == 0.0
    # sessions that end fill any cache in the long run
    assert np.isfinite(float(characteristic_time([IdleContexts(1.0, 10_000, TOOLS, 0.1)], 1e6)))
    with pytest.raises(InputError, match="zero or more"):
        characteristic_time(returning, -1.0)


@pytest.mark.parametrize("cv", [0.2, 0.5, 1.0, 3.0])
def test_pauses_against_scipy(cv: float) -> None:
    t = np.array([0.0, 0.5, 5.0, 29.0, 31.0, 100.0, 3000.0, np.inf])
    s2 = np.log1p(cv**2)
    laws = {
        "lognormal": stats.lognorm(np.sqrt(s2), scale=30 * np.exp(-s2 / 2)),
        "gamma": stats.gamma(1 / cv**2, scale=30 * cv**2),
    }
    for shape, law in laws.items():
        pause = Pause(30.0, cv, shape)
        assert pause.cdf(t) == pytest.approx(law.cdf(t), abs=1e-9)
        below = [integrate.quad(law.sf, 0, x, limit=400, points=[x / 1e3, x / 30])[0] for x in t[1:6]]
        assert pause.mean_min(t[1:6]) == pytest.approx(below, rel=1e-5)
        assert float(pause.mean_min(np.inf)) == pytest.approx(30.0)
    assert Pause(30.0, 0.0).mean_min(t) == pytest.approx(np.minimum(t, 30))


def test_incomplete_gamma_against_scipy() -> None:
    x = np.geomspace(1e-6, 1e5, 60)
    for shape in (0.05, 1.0, 7.5, 400.0):
        assert gamma_cdf(shape, x) == pytest.approx(stats.gamma(shape).cdf(x), abs=1e-10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((30.0, 1.0, "lognormall"), "Did you mean 'lognormal'"),
        ((0.0,), "positive number"),
        ((30.0, -1.0), "zero or more"),
        ((30.0, 2.0, "exponential"), "shape gamma"),
    ],
)
def test_wrong_pauses(arguments: tuple[float, float, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pause(*arguments)


def test_wrong_mixtures() -> None:
    with pytest.raises(InputError, match="as many weights"):
        PauseMixture((TOOLS,), (0.5, 0.5))
    with pytest.raises(InputError, match="not all zero"):
        PauseMixture((TOOLS,), (0.0,))


def test_reload_against_recompute_for_llama_8b() -> None:
    """131 072 B a token and 21 us of prefill on H100: the break-even is 6.2 GB/s, about one NVMe drive."""
    tiers = load_offload(database_root())
    assert set(tiers) == {"host-pcie4", "host-pcie5", "host-c2c", "nvme-pcie4", "nvme-pcie5"}
    wins = {name: bool(reload_wins(131_072, tier.bandwidth, 2.101e-5)) for name, tier in tiers.items()}
    assert all(wins.values())
    assert not bool(reload_wins(131_072, 0.9 * tiers["nvme-pcie4"].bandwidth, 2.101e-5))
    assert float(reload_seconds(100_000, 131_072, tiers["host-pcie5"].bandwidth)) == pytest.approx(0.262, rel=0.01)


def test_expected_time_of_a_return() -> None:
    shares = np.array([[0.3, 0.5, 0.2], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    found = return_seconds(shares, 60_000, 131_072, [50e9], 2.1e-5)
    compute, load = 60_000 * 2.1e-5, 60_000 * 131_072 / 50e9
    assert found == pytest.approx([0.5 * load + 0.2 * compute, 0.0, compute])
    # a tier slower than computing is left alone
    assert return_seconds(shares[0], 60_000, 131_072, [1e9], 2.1e-5) == pytest.approx(0.7 * compute)
    with pytest.raises(InputError, match="one for each tier"):
        return_seconds(shares, 60_000, 131_072, [50e9, 5e9], 2.1e-5)


def test_more_memory_never_hurts() -> None:
    classes = CASES["mixture"][0]
    capacity = np.geomspace(1e5, 1e8, 40)
    shares = tier_shares(classes, [capacity, 4 * capacity])
    assert shares.shape == (40, 3) and shares.sum(axis=-1) == pytest.approx(1.0)
    assert np.all(np.diff(shares[:, 0]) >= 0) and np.all(np.diff(shares[:, 2]) <= 0)
    waits = return_seconds(shares, 50_000, 70_272, [50e9], 2e-5)
    assert np.all(np.diff(waits) <= 0)
