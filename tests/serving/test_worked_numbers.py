"""Worked numbers and limits of the serving formulae."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from planner.serving.fanout import (
    draws_that_pay,
    expected_maximum,
    maximum_quantile,
    repeated_sampling,
    turn_usefulness,
    useful_work,
)
from planner.serving.kv_capacity import kv_demand, max_stable_rate
from planner.serving.latency import chunked_gap, mixed_step_latency, percentiles
from planner.serving.occupancy import dense_steps, occupancy
from planner.serving.queueing import (
    erlang_c,
    pooled_wait,
    power_of_two_tail,
    replicas,
    single_server_wait,
    spare_replicas,
)
from planner.workload.lengths import Lognormal

CONSTANT, PER_TOKEN, PER_CONTEXT = 5.886e-3 + 1.207e-3, 2.101e-5, 3.926e-8
ONE_PERCENT = 0.01


def steps(slots: int, context: float) -> np.ndarray:
    n = np.arange(1, slots + 1)
    return (CONSTANT + PER_TOKEN * n + PER_CONTEXT * n * context)[None, :]


def test_chunked_prefill_both_ways() -> None:
    decode = CONSTANT + PER_TOKEN * 32 + PER_CONTEXT * 32 * 1500
    assert decode * 1e3 == pytest.approx(9.6498, rel=1e-4)
    simple = mixed_step_latency(decode, 8 * 1000 * PER_TOKEN)
    assert simple * 1e3 == pytest.approx(11.599, rel=ONE_PERCENT)
    assert chunked_gap(decode, 8, 1000, 2048, PER_TOKEN, 32) == pytest.approx(simple, rel=1e-9)


def test_occupancy_of_llama_8b_at_eight_requests_per_second() -> None:
    rho = 8 * 1000 * PER_TOKEN
    state = occupancy(np.array([[8.0]]), 249.0, steps(512, 1205.0), np.array([[512.0]]), rho)
    assert float(state.mean[0, 0]) == pytest.approx(20.50, rel=ONE_PERCENT)
    assert float(state.mean[0, 0]) / (8 * 249) * 1e3 == pytest.approx(10.29, rel=ONE_PERCENT)
    assert float(state.variance[0, 0]) == pytest.approx(24.511, rel=ONE_PERCENT)
    assert float(state.quantile(0.99)[0, 0]) == 33
    needed = kv_demand(state.mean, state.variance, 1205.0, 2_501_894.67, 2.326)
    assert float(needed[0, 0]) == pytest.approx(42_282, rel=ONE_PERCENT)


def test_stable_rate_of_the_cache() -> None:
    assert max_stable_rate(1e5, 301_250.0, 13e-3) == pytest.approx(25.535, rel=ONE_PERCENT)


@pytest.mark.parametrize(
    ("servers", "variability", "expected"), [(8, 1.0, 0.015157), (1, 1.0, 0.2), (8, 5.2, 0.046986)]
)
def test_pooled_wait(servers: int, variability: float, expected: float) -> None:
    rate = 0.8 * servers / 0.05
    assert pooled_wait(rate, 0.05, servers, variability) == pytest.approx(expected, rel=ONE_PERCENT)


def test_constant_service_is_a_queue_with_many_servers() -> None:
    """With T(n) = T the system is M/M/c with c slots: the probability to wait is Erlang's C."""
    slots, service, rate = 8, 0.05, 128.0
    flat = np.full((1, slots), 0.01)
    tokens = service / 0.01
    state = occupancy(np.array([[rate]]), tokens, flat * np.arange(1, slots + 1) / np.arange(1, slots + 1),
                      np.array([[float(slots)]]))  # fmt: skip
    # each sequence progresses at 1/T whatever n: service time is tokens * T
    assert float(state.wait_probability[0, 0]) == pytest.approx(erlang_c(slots, rate * service), rel=1e-9)
    waiting = erlang_c(slots, rate * service) * 0.8 / 0.2
    assert float(state.waiting[0, 0]) == pytest.approx(waiting, rel=1e-9)


def test_processor_sharing_limit() -> None:
    """With T(n) proportional to n the slots share one server: the number is geometric."""
    slots = 400
    n = np.arange(1, slots + 1)
    state = occupancy(np.array([[8.0]]), 1.0, (0.1 * n)[None, :].astype(float), np.array([[float(slots)]]))
    assert float(state.mean[0, 0]) == pytest.approx(0.8 / 0.2, rel=1e-6)
    assert float(state.cumulative[0, 3]) == pytest.approx(1 - 0.8**4, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.1, 12), st.floats(1.01, 1.5))
def test_occupancy_grows_with_rate(rate: float, more: float) -> None:
    slots = np.array([[512.0]])
    low, high = (occupancy(np.array([[r]]), 249.0, steps(512, 1205.0), slots, 0.1) for r in (rate, rate * more))
    assert float(high.mean[0, 0]) >= float(low.mean[0, 0])
    assert float(high.quantile(0.99)[0, 0]) >= float(low.quantile(0.99)[0, 0])


def test_overload_is_not_stable() -> None:
    state = occupancy(np.array([[1e4]]), 249.0, steps(64, 1205.0), np.array([[64.0]]), 0.1)
    assert not bool(state.stable[0, 0])


def test_dense_steps_keep_grid_points() -> None:
    grid, times = np.array([1.0, 2.0, 4.0, 8.0]), np.array([[1.0, 1.5, 2.0, 4.0]])
    dense = dense_steps(grid, times, 8)
    assert dense[0, [0, 1, 3, 7]] == pytest.approx(times[0])
    assert np.all(np.diff(dense) > 0)


@pytest.mark.parametrize(
    ("sigma", "draws", "expected"),
    [
        (0.97, 1, 1.0),
        (0.97, 2, 1.5072),
        (0.97, 4, 2.1701),
        (0.97, 8, 3.0058),
        (0.97, 16, 4.0325),
        (0.4, 8, 1.682),
    ],
)
def test_expected_maximum_of_lognormals(sigma: float, draws: int, expected: float) -> None:
    lengths = Lognormal(6.774, sigma)
    assert expected_maximum(lengths.quantile, draws) / lengths.mean == pytest.approx(expected, rel=ONE_PERCENT)


@pytest.mark.parametrize(("draws", "median", "p90"), [(1, 874.8, 3032.4), (4, 2303.5, 5761.2), (8, 3353.1, 7562.9)])
def test_quantiles_of_the_maximum(draws: int, median: float, p90: float) -> None:
    quantile = Lognormal(6.774, 0.97).quantile
    assert maximum_quantile(quantile, draws, 0.5) == pytest.approx(median, rel=ONE_PERCENT)
    assert maximum_quantile(quantile, draws, 0.9) == pytest.approx(p90, rel=ONE_PERCENT)


def test_useful_work_table() -> None:
    table = {
        0.0: {1: 0.3, 2: 0.51, 4: 0.7599, 8: 0.94235, 16: 0.99668},
        0.3: {1: 0.3, 2: 0.447, 4: 0.59719, 8: 0.7254, 16: 0.82103},
        0.7: {1: 0.3, 2: 0.363, 4: 0.41935, 8: 0.4699, 16: 0.5156},
    }
    for correlation, row in table.items():
        for draws, expected in row.items():
            assert useful_work(draws, 0.3, correlation) == pytest.approx(expected, rel=ONE_PERCENT)
    for draws, expected in {1: 0.159, 2: 0.20376, 5: 0.26887, 10: 0.32099, 50: 0.4441, 250: 0.56}.items():
        assert repeated_sampling(draws, 0.159, 0.209) == pytest.approx(expected, rel=ONE_PERCENT)
    assert list(turn_usefulness(0.6, 4)) == pytest.approx([0.6, 0.36, 0.216, 0.1296])


@given(st.floats(0.01, 0.99), st.floats(0, 0.95))
def test_useful_work_is_increasing_and_concave(success: float, correlation: float) -> None:
    values = np.array([useful_work(k, success, correlation) for k in range(12)])
    gains = np.diff(values)
    assert np.all(gains >= -1e-12)
    assert np.all(np.diff(gains) <= 1e-9)


def test_limited_avenues_and_marginal_rule() -> None:
    assert useful_work(8, 0.3, 0.0, avenues=3) == useful_work(3, 0.3)
    pays = draws_that_pay(0.3, 0.3, None, 0.05, 1.0)
    gains = [useful_work(k, 0.3, 0.3) - useful_work(k - 1, 0.3, 0.3) for k in range(1, 12)]
    assert gains[pays - 1] > 0.05 >= gains[pays]


def test_useful_work_against_a_simulation() -> None:
    rng = np.random.default_rng(1)
    a, b = 0.3 * 0.7 / 0.3, 0.7 * 0.7 / 0.3
    p = rng.beta(a, b, 200_000)
    solved = (rng.random((200_000, 4)) < p[:, None]).any(axis=1).mean()
    assert useful_work(4, 0.3, 0.3) == pytest.approx(solved, abs=0.005)


def test_replicas() -> None:
    assert replicas(16 * 2.655, 8.0, 1) == 7
    assert (spare_replicas(1), spare_replicas(19), spare_replicas(20)) == (1, 1, 2)


@given(st.floats(0.1, 1e4), st.floats(1.0, 3.0), st.floats(0.1, 100))
def test_replicas_grow_with_rate(rate: float, more: float, capacity: float) -> None:
    assert replicas(rate * more, capacity) >= replicas(rate, capacity)


@given(st.integers(1, 64), st.floats(0.05, 0.97))
def test_one_server_forms_agree(servers: int, utilisation: float) -> None:
    service = 0.05
    wait = erlang_c(servers, utilisation * servers) * service / (servers * (1 - utilisation))
    exact_at_one = single_server_wait(utilisation / service, service, 2 * service**2)
    if servers == 1:
        assert wait == pytest.approx(float(exact_at_one), rel=1e-9)
        assert float(pooled_wait(utilisation / service, service, 1)) == pytest.approx(float(exact_at_one), rel=1e-9)
    assert 0 <= erlang_c(servers, utilisation * servers) <= 1


def test_overload_waits_for_ever() -> None:
    assert math.isinf(float(pooled_wait(30.0, 0.05, 1)))
    assert math.isinf(float(single_server_wait(30.0, 0.05, 0.005)))


def test_shorter_of_two_queues() -> None:
    assert power_of_two_tail(0.9, 3) < 0.9**3


def test_percentiles_match_numpy_on_equal_weights() -> None:
    sample = np.random.default_rng(3).lognormal(0, 1, (2, 1001))
    curve = percentiles(sample, np.ones(1001))
    assert curve.p95[0, 0] == pytest.approx(np.quantile(sample[0], 0.95, method="inverted_cdf"))
    assert curve.mean[1, 0] == pytest.approx(sample[1].mean())


def test_lognormal_quantiles_against_scipy() -> None:
    q = np.linspace(0.001, 0.999, 50)
    ours = Lognormal(6.0, 0.9).quantile(q)
    assert ours == pytest.approx(stats.lognorm.ppf(q, 0.9, scale=math.exp(6.0)), rel=1e-6)
