"""The simulator in its limits, against queueing theory; every mean within its own confidence interval."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import t as student

from planner.serving import LinearStepTime, RequestRecord, simulate
from planner.serving.engine_limits import EngineLimits
from planner.serving.fleet import Routing, simulate_fleet
from planner.serving.occupancy import occupancy
from planner.serving.queueing import erlang_c, power_of_two_tail, single_server_wait
from planner.serving.requests import Requests
from planner.serving.simulator import run_replica
from planner.serving.statistics import in_system

Vector = npt.NDArray[np.float64]
BATCHES = 20
POINT = float(student.ppf(0.995, BATCHES - 1))


def interval(sample: Vector) -> tuple[float, float]:
    """Mean of a sample in order of time after a tenth of warm-up, and its 99 % half-width by batch means."""
    kept = sample[len(sample) // 10 :]
    each = len(kept) // BATCHES
    means = kept[-each * BATCHES :].reshape(BATCHES, each).mean(axis=1)
    return float(means.mean()), POINT * float(means.std(ddof=1)) / np.sqrt(BATCHES)


def columns(arrivals: Vector, outputs: npt.NDArray[np.int64], prompt: int = 1) -> Requests:
    n = len(arrivals)
    return Requests(arrivals.tolist(), [prompt] * n, outputs.tolist(), [0] * n)


def poisson(rng: np.random.Generator, n: int, rate: float) -> Vector:
    return np.cumsum(rng.exponential(1 / rate, n))


def times(records: list[RequestRecord]) -> Vector:
    return np.array([r.completion_s - r.arrival_s for r in records])


@pytest.mark.parametrize("rho", [0.5, 0.8])
def test_single_server_with_constant_service(rho: float) -> None:
    """One sequence at a time, one token each: M/D/1, exactly."""
    service = 0.1
    arrivals = poisson(np.random.default_rng(11), 60_000, rho / service)
    records = simulate(columns(arrivals, np.ones(60_000, int)), LinearStepTime(service, 0, 0),
                       token_budget=10, max_sequences=1)  # fmt: skip
    mean, half = interval(times(records) - service)
    assert half < 0.15 * mean
    assert abs(mean - single_server_wait(rho / service, service, service**2)) < half


@pytest.mark.parametrize(("servers", "rho"), [(1, 0.6), (1, 0.8), (4, 0.7), (16, 0.9)])
def test_every_slot_is_a_server(servers: int, rho: float) -> None:
    """Steps of constant time, geometric outputs: M/M/c, but for arrivals that wait for a step to end."""
    step, mean_tokens, n = 0.001, 200, 40_000
    rng = np.random.default_rng(servers)
    service = step * mean_tokens
    rate = rho * servers / service
    arrivals, outputs = poisson(rng, n, rate), rng.geometric(1 / mean_tokens, n)
    records = simulate(columns(arrivals, outputs), LinearStepTime(step, 0, 0),
                       token_budget=4 * servers, max_sequences=servers)  # fmt: skip
    mean, half = interval(times(records) - step * outputs)
    waits = erlang_c(servers, rho * servers)
    # a geometric number of steps has a squared variation of 1 - 1/mean, well inside the interval
    expected = waits * service / (servers * (1 - rho))
    assert half < 0.35 * expected
    assert -half < mean - expected < half + step
    # the share that waits for a slot, more than for the end of a step
    share, half = interval((times(records) - step * outputs > step * 1.001).astype(float))
    assert abs(share - waits) < half + 2 / mean_tokens


@pytest.mark.parametrize("group", [2, 8])
def test_arrivals_in_batches(group: int) -> None:
    """M[K]/D/1: a group waits for those before it, and its members for each other."""
    service, rho, groups = 0.1, 0.7, 60_000 // group
    arrivals = np.repeat(poisson(np.random.default_rng(3), groups, rho / service / group), group)
    records = simulate(columns(arrivals, np.ones(groups * group, int)), LinearStepTime(service, 0, 0),
                       token_budget=10, max_sequences=1)  # fmt: skip
    mean, half = interval(times(records) - service)
    expected = single_server_wait(rho / service, service, service**2) + (group - 1) * service / (2 * (1 - rho))
    assert half < 0.15 * mean
    assert abs(mean - expected) < half


def windows(records: list[RequestRecord], states: int) -> Vector:
    """Share of time with each number decoding, in successive spans of arrivals, (BATCHES, states)."""
    first, last = records[len(records) // 10].arrival_s, records[-1].arrival_s
    edges = np.linspace(first, last, BATCHES + 1)
    starts = np.sort([r.first_token_s for r in records])
    ends = np.sort([r.completion_s for r in records])
    moments = np.sort(np.concatenate([starts, ends, edges]))
    middle, span = (moments[1:] + moments[:-1]) / 2, np.diff(moments)
    level = np.searchsorted(starts, middle) - np.searchsorted(ends, middle)
    held = np.zeros((BATCHES, states))
    inside = (middle > first) & (middle < last)
    np.add.at(held, (np.searchsorted(edges, middle[inside]) - 1, level[inside]), span[inside])
    return held / held.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("lengths", ["geometric", "lognormal", "constant", "two"])
def test_occupancy_does_not_depend_on_the_distribution(lengths: str) -> None:
    """Steps linear in the batch: state-dependent processor sharing, which knows only the mean length."""
    n, mean_tokens, slots = 80_000, 250, 256
    step = LinearStepTime(4e-3, 2e-4, 0.0)
    rng = np.random.default_rng(8)
    outputs = (
        1
        + {
            "geometric": lambda: rng.geometric(1 / mean_tokens, n),
            "lognormal": lambda: rng.lognormal(np.log(mean_tokens) - 0.5, 1.0, n).astype(int),
            "constant": lambda: np.full(n, mean_tokens),
            "two": lambda: rng.choice([50, 1050], n, p=[0.8, 0.2]),
        }[lengths]()
    )
    rate = 12.0
    records = simulate(columns(poisson(rng, n, rate), outputs), step, token_budget=4096, max_sequences=slots)
    resident = np.arange(1, slots + 1)
    state = occupancy(np.array([[n / records[-1].arrival_s]]), float(outputs.mean() - 1),
                      (step.c0 + step.c1 * resident)[None, :], np.array([[float(slots)]]))  # fmt: skip
    held = windows(records, slots + 1)
    means = held @ np.arange(slots + 1)
    half = POINT * means.std(ddof=1) / np.sqrt(BATCHES)
    expected = float(state.mean[0, 0])
    assert expected > 20
    assert half < 0.1 * expected
    assert abs(means.mean() - expected) < half
    for q in (0.1, 0.5, 0.9, 0.99):
        number = int(state.quantile(q)[0, 0])
        below = held[:, : number + 1].sum(axis=1)
        half = POINT * below.std(ddof=1) / np.sqrt(BATCHES)
        assert half < 0.12
        assert abs(below.mean() - state.cumulative[0, number]) < half


def test_groups_spread_the_occupancy() -> None:
    """Groups of K on endless slots: mean as before, variance (K+1)/2 times as large with exponential lives."""
    group, groups, mean_tokens, step = 5, 6000, 400, 0.005
    rng = np.random.default_rng(2)
    arrivals = np.repeat(poisson(rng, groups, 2.0), group)
    outputs = 1 + rng.geometric(1 / mean_tokens, groups * group)
    records = simulate(columns(arrivals, outputs), LinearStepTime(step, 0, 0), token_budget=8192, max_sequences=4096)
    held = windows(records, 400)
    number = np.arange(held.shape[1])
    means = held @ number
    expected = len(arrivals) / arrivals[-1] * (outputs.mean() - 1) * step
    assert abs(means.mean() - expected) < POINT * means.std(ddof=1) / np.sqrt(BATCHES)
    variances = np.sum(held * (number - means.mean()) ** 2, axis=1)
    half = POINT * variances.std(ddof=1) / np.sqrt(BATCHES)
    assert half < 0.35 * expected * (group + 1) / 2
    assert abs(variances.mean() - expected * (group + 1) / 2) < half


def tails(routing: Routing, rho: float, servers: int, n: int) -> tuple[Vector, Vector, Vector]:
    """Share of servers with at least 0, 1, ... in them over time, its half-width, and times in the system."""
    step, mean_tokens = 0.01, 100
    rng = np.random.default_rng(21)
    arrivals = poisson(rng, n, rho * servers / (step * mean_tokens))
    run = simulate_fleet(columns(arrivals, rng.geometric(1 / mean_tokens, n)), LinearStepTime(step, 0, 0),
                         EngineLimits(8, 1), replicas=servers, routing=routing, seed=4)  # fmt: skip
    # after a quarter of warm-up, server by server: they are nearly independent
    begin, end = arrivals[n // 4], arrivals[-1]
    found = np.zeros((servers, 200))
    for k in range(servers):
        own = [r._replace(arrival_s=min(max(r.arrival_s, begin), end), completion_s=min(r.completion_s, end))
               for r in run.records if r.replica == k and r.completion_s > begin]  # fmt: skip
        held, _ = in_system(own, lambda r: r.arrival_s)
        busy = np.cumsum(held[:0:-1])[::-1]
        found[k, 1 : len(held)] = busy / (end - begin)
    half = POINT * found.std(axis=0, ddof=1) / np.sqrt(servers)
    return found.mean(axis=0), half, times(run.records)[n // 4 :] / (step * mean_tokens)


def test_two_choices_shorten_the_queues() -> None:
    """Power of two: a share rho^(2^i - 1) of servers holds i or more; at random rho^i."""
    rho, servers = 0.9, 40
    random, random_half, at_random = tails("random", rho, servers, 60_000)
    for i in (1, 2, 5, 10):
        assert random_half[i] < 0.2
        assert abs(random[i] - rho**i) < random_half[i]
    two, two_half, of_two = tails("power-of-two", rho, servers, 60_000)
    for i in (1, 2, 3, 4, 5):
        # 1/servers: the limit is that of many servers
        assert abs(two[i] - power_of_two_tail(rho, i)) < two_half[i] + 1 / servers
    assert two[5] < 0.1 < 0.4 < random[5]
    assert of_two.mean() < at_random.mean() / 2.5


def test_least_loaded_is_one_pool_but_for_the_wait_at_a_server() -> None:
    """Joining the shortest queue: between one pool of servers and two random choices."""
    rho, servers, n, step, mean_tokens = 0.9, 8, 30_000, 0.01, 100
    rng = np.random.default_rng(5)
    rate = rho * servers / (step * mean_tokens)
    requests = columns(poisson(rng, n, rate), rng.geometric(1 / mean_tokens, n))
    by: dict[str, float] = {}
    for routing in ("least-loaded", "power-of-two"):
        run = simulate_fleet(
            requests, LinearStepTime(step, 0, 0), EngineLimits(8, 1), replicas=servers, routing=routing
        )
        by[routing] = float(times(run.records).mean())
    pool = run_replica(requests, LinearStepTime(step, 0, 0), EngineLimits(64, servers))
    assert times(pool.records).mean() < by["least-loaded"] < 0.9 * by["power-of-two"]


def test_closed_form_occupancy_agrees() -> None:
    """The product form's mean and the simulation's, with contexts in the step and prefill stretching it."""
    rng = np.random.default_rng(3)
    n, sigma = 20_000, np.sqrt(np.log1p(0.8**2))
    i = np.maximum(1, rng.lognormal(np.log(1000) - sigma**2 / 2, sigma, n)).astype(int)
    o = np.maximum(1, rng.lognormal(np.log(250) - sigma**2 / 2, sigma, n)).astype(int)
    arrivals = poisson(rng, n, 8)
    step = LinearStepTime(7.093e-3, 2.101e-5, 3.926e-8, 2.101e-5)
    records = simulate(Requests(arrivals.tolist(), i.tolist(), o.tolist(), [0] * n), step,
                       token_budget=2048, max_sequences=256)  # fmt: skip
    context = float((i * o + o**2 / 2).sum() / o.sum())
    resident = np.arange(1, 257)
    seconds = (step.c0 + step.c1 * resident + step.c2 * resident * context)[None, :]
    rate = n / arrivals[-1]
    state = occupancy(np.array([[rate]]), float(o.mean() - 1), seconds, np.array([[256.0]]), rate * i.mean() * step.c3)
    means = windows(records, 257) @ np.arange(257)
    assert float(state.mean[0, 0]) == pytest.approx(means.mean(), rel=0.03)
