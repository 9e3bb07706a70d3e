"""What is read off a finished simulation, on records with known answers and on real runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.serving import LinearStepTime, RequestRecord, simulate
from planner.serving.requests import Requests
from planner.serving.statistics import (
    BATCHES,
    STUDENT_T,
    WARM_UP,
    Distribution,
    columns,
    distribution,
    in_system,
    occupancy_quantile,
    verdict,
)


def record(arrival: float, first: float, end: float, tokens: int = 2, kind: str = "") -> RequestRecord:
    return RequestRecord(arrival, first, end, 1, tokens, request_class=kind)


def test_percentiles_are_values_of_the_sample() -> None:
    rng = np.random.default_rng(1)
    sample = rng.permutation(np.arange(1.0, 1001.0))
    found = distribution(sample)
    assert (found.mean, found.p50, found.p95, found.p99) == (500.5, 500.0, 950.0, 990.0)
    assert distribution(np.array([])) == Distribution(0.0, 0.0, 0.0, 0.0)
    assert distribution(np.array([7.0])) == Distribution(7.0, 7.0, 7.0, 7.0)


def test_interval_by_batch_means() -> None:
    from scipy.stats import t

    assert pytest.approx(float(t.ppf(0.975, BATCHES - 1)), abs=5e-4) == STUDENT_T
    assert distribution(np.arange(5.0 * BATCHES - 1)).half_width is None
    assert distribution(np.ones(200)).half_width == 0.0
    # batches of known means 0, 1, ... 19, and a remainder at the start that is left out
    sample = np.concatenate([np.full(7, 1e6), np.repeat(np.arange(float(BATCHES)), 10)])
    deviation = math.sqrt(sum((k - 9.5) ** 2 for k in range(BATCHES)) / (BATCHES - 1))
    assert distribution(sample).half_width == pytest.approx(STUDENT_T * deviation / math.sqrt(BATCHES))


def test_interval_holds_the_mean_as_often_as_it_says() -> None:
    """95 of 100 independent samples; 400 of them, so between 93 % and 98 %."""
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(400):
        found = distribution(rng.exponential(2.0, 600))
        assert found.half_width is not None
        held += abs(found.mean - 2.0) < found.half_width
    assert 0.925 < held / 400 < 0.98


def test_columns_by_class_after_a_warm_up() -> None:
    records = [record(float(k), k + 0.5, k + 0.5 + 2 * (k % 3), 1 + 2 * (k % 3), "ab"[k % 2]) for k in range(100)]
    found = columns(records[::-1])
    assert len(found.ttft) == len(found.e2e) == 100 - int(WARM_UP * 100)
    assert np.all(found.ttft == 0.5)
    # requests of one token have no time per output token; the others took a second for each
    assert len(found.tpot) == sum(k % 3 > 0 for k in range(10, 100))
    assert np.all(found.tpot == 1.0)
    assert len(columns(records, 0.0, kind="b").e2e) == 50
    assert len(columns(records, 0.0, kind="c").e2e) == 0
    assert np.array_equal(columns(records, 0.0).e2e[:3], [0.5, 2.5, 4.5])
    assert np.array_equal(columns(records, 0.0, 0.97).e2e, [0.5, 2.5, 4.5])


def test_numbers_in_the_system() -> None:
    records = [record(0.0, 1.0, 4.0), record(2.0, 3.0, 6.0), record(6.0, 6.5, 7.0), record(9.0, 9.0, 9.0)]
    held, number = in_system(records, lambda r: r.arrival_s)
    # alone from 0 to 2, two until 4, alone until 6 and again until 7, nobody until 9
    assert held.tolist() == [2.0, 5.0, 2.0]
    assert number.tolist() == [0.0, 1.0, 2.0]
    held, _ = in_system(records, lambda r: r.first_token_s)
    assert held.tolist() == [2.5, 4.5, 1.0]
    assert occupancy_quantile(held, 2.5 / 8) == 0
    assert occupancy_quantile(held, 0.5) == 1
    assert occupancy_quantile(held, 1.0) == 2


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 50)), min_size=1, max_size=60))
def test_littles_law_on_any_records(times: list[tuple[float, float]]) -> None:
    records = [record(a, a, a + d) for a, d in times]
    held, number = in_system(records, lambda r: r.arrival_s)
    assert np.all(held >= 0)
    assert float(held @ number) == pytest.approx(math.fsum(r.e2e_s for r in records), abs=1e-9)
    span = max(r.completion_s for r in records) - min(r.arrival_s for r in records)
    assert float(held.sum()) == pytest.approx(span, abs=1e-9)


def test_occupancy_quantile_of_a_single_server() -> None:
    """M/M/1: P(N <= n) = 1 - rho^(n+1)."""
    rng = np.random.default_rng(2)
    n, rho = 60_000, 0.6
    requests = Requests(
        np.cumsum(rng.exponential(1 / rho, n)).tolist(), [1] * n, rng.geometric(0.01, n).tolist(), [0] * n
    )
    records = simulate(requests, LinearStepTime(0.01, 0, 0), token_budget=8, max_sequences=1)
    held, _ = in_system(records, lambda r: r.arrival_s)
    for q in (0.5, 0.9, 0.95):
        assert occupancy_quantile(held, q) == math.ceil(math.log(1 - q) / math.log(rho) - 1)


# -- verdicts ----------------------------------------------------------------------------------------

STEP = LinearStepTime(7e-3, 2e-4, 0.0, 1e-5)
SLOTS = 16


def run(rho: float, n: int, seed: int = 1, burst: int = 0, mean_tokens: int = 100) -> list[RequestRecord]:
    """Poisson arrivals at a share of what all slots together serve; a burst of more at the very end."""
    rng = np.random.default_rng(seed)
    capacity = SLOTS / (mean_tokens * (STEP.c0 + STEP.c1 * SLOTS) + SLOTS * 100 * STEP.c3)
    arrivals = np.cumsum(rng.exponential(1 / (rho * capacity), n))
    late = arrivals[-1] + np.sort(rng.random(burst)) * 0.1
    outputs = rng.geometric(1 / mean_tokens, n + burst)
    every = Requests([*arrivals.tolist(), *late.tolist()], [100] * (n + burst), outputs.tolist(), [0] * (n + burst))
    return simulate(every, STEP, token_budget=2048, max_sequences=SLOTS)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("rho", "n"), [(0.5, 100), (0.5, 2000), (0.85, 400), (0.95, 10_000)])
def test_less_than_the_capacity_is_stable(rho: float, n: int, seed: int) -> None:
    assert verdict(run(rho, n, seed)) == "stable"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("rho", "n"), [(1.1, 10_000), (1.3, 2000), (1.6, 400)])
def test_more_than_the_capacity_is_an_overload(rho: float, n: int, seed: int) -> None:
    """The longer the run, the smaller an excess that chance cannot explain."""
    assert verdict(run(rho, n, seed)) == "overloaded"


@pytest.mark.parametrize("seed", range(6))
def test_a_burst_at_the_end_is_a_backlog(seed: int) -> None:
    assert verdict(run(0.5, 800, seed, burst=250)) == "backlogged"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("constant", [False, True])
def test_filling_an_empty_replica_is_not_an_overload(constant: bool, seed: int) -> None:
    """Endless slots, and a run of a few times the life of a request."""
    n, mean_tokens = 1500, 2000
    rng = np.random.default_rng(seed)
    arrivals = np.arange(n) * 0.1 if constant else np.cumsum(rng.exponential(0.1, n))
    outputs = np.full(n, mean_tokens) if constant else rng.geometric(1 / mean_tokens, n)
    records = simulate(Requests(arrivals.tolist(), [1] * n, outputs.tolist(), [0] * n), LinearStepTime(0.01, 0, 0),
                       token_budget=2048, max_sequences=1024)  # fmt: skip
    assert verdict(records) in (("stable",) if constant else ("stable", "backlogged"))


def test_too_few_to_say() -> None:
    assert verdict(run(3.0, 39)) == "stable"
    assert verdict([]) == "stable"


def test_order_does_not_matter_to_the_verdict() -> None:
    records = run(1.3, 400)
    assert verdict(records[::-1]) == verdict(records)
