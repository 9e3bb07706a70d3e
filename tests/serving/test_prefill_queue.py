"""A replica that only prefills: limits of queueing theory, and against the simulator."""

from __future__ import annotations

import numpy as np
import pytest

from planner.serving.engine_limits import EngineLimits
from planner.serving.fleet import simulate_fleet
from planner.serving.interference import Boarding
from planner.serving.load import OTHERS, SAMPLES
from planner.serving.prefill_queue import PromptTimes, first_token_times, gathered_rounds, shared_steps
from planner.serving.queueing import single_server_wait
from planner.serving.requests import Requests
from planner.serving.step_time import LinearStepTime
from planner.workload.lengths import normal_quantile, shuffled

BUDGET = 8192
FIXED, PER_TOKEN = 0.01, 50e-6
WEIGHTS = np.ones(SAMPLES)
NO_LARGEST = np.ones(8)


def draws() -> Boarding:
    def uniform(dimension: int) -> np.ndarray:
        return (shuffled(SAMPLES, dimension) + 0.5) / SAMPLES

    gaps = np.stack([-np.log1p(-uniform(6 + j)) for j in range(OTHERS)], axis=1)
    others = np.stack([np.floor(uniform(6 + OTHERS + j) * SAMPLES) for j in range(OTHERS)], axis=1).astype(int)
    return Boarding(uniform(4), np.asarray(normal_quantile(uniform(18))), np.cumsum(gaps, axis=1), others)


def of(tokens: np.ndarray, fixed: float = FIXED) -> PromptTimes:
    """One rank: a fixed time a step, and so much a token."""
    full, rest = np.divmod(tokens, BUDGET)
    steps = full + (rest > 0)
    alone = fixed * steps + PER_TOKEN * tokens
    added = tokens * (fixed / BUDGET + PER_TOKEN)
    one = np.ones((1, 1))
    return PromptTimes(
        alone[None, :], added[None, :], 0 * added[None, :], steps[None, :], one, one, tokens, WEIGHTS, BUDGET
    )


def closed(times: PromptTimes, rate: float, group: float = 1.0) -> np.ndarray:
    at = np.array([[rate]])
    rounds, steps = gathered_rounds(times, at, group, 1.0), shared_steps(times, at, group, NO_LARGEST)
    return first_token_times(draws(), times, rounds, steps, at, group, NO_LARGEST)[0]


def lengths() -> np.ndarray:
    return np.exp(np.log(2000.0) + 0.9 * np.asarray(normal_quantile((shuffled(SAMPLES, 0) + 0.5) / SAMPLES)))


def test_an_empty_replica_adds_nothing() -> None:
    times = of(lengths())
    assert closed(times, 1e-6) == pytest.approx(times.alone[0], rel=1e-3)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_long_prompts_wait_as_in_pollaczek_khinchine(load: float) -> None:
    # prompts of many steps go one after the other, so rounds are busy periods in disguise
    tokens = 20 * lengths()
    times = of(tokens, fixed=0.0)
    work = times.work[0]
    rate = load / work.mean()
    wait = closed(times, rate).mean() - work.mean()
    assert wait == pytest.approx(single_server_wait(rate, work.mean(), (work**2).mean()), rel=0.1)


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7, 0.85])
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_against_the_simulator(load: float, scale: float) -> None:
    tokens = np.maximum(np.rint(scale * lengths()), 1.0)
    times = of(tokens)
    rate = load * float(times.stable_rate()[0, 0])
    rng = np.random.default_rng(1)
    count = 20_000
    arrival = np.cumsum(rng.exponential(1 / rate, count))
    drawn = tokens[rng.integers(0, SAMPLES, count)].astype(int)
    step = LinearStepTime(FIXED, 0.0, 0.0, PER_TOKEN)
    run = simulate_fleet(
        Requests(arrival.tolist(), drawn.tolist(), [1] * count, [0] * count), step, EngineLimits(BUDGET, 4096), replicas=1
    )  # fmt: skip
    simulated = np.array([r.completion_s - r.arrival_s for r in run.records])
    found = closed(times, rate)
    assert found.mean() == pytest.approx(simulated.mean(), rel=0.15)
    assert np.quantile(found, 0.95) == pytest.approx(np.quantile(simulated, 0.95), rel=0.12)


def test_waits_grow_with_the_rate_and_the_group() -> None:
    times = of(lengths())
    most = float(times.stable_rate()[0, 0])
    by_rate = [closed(times, share * most).mean() for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    assert by_rate == sorted(by_rate)
    by_group = [closed(times, 0.5 * most, k).mean() for k in (1.0, 2.0, 4.0)]
    assert by_group == sorted(by_group)
