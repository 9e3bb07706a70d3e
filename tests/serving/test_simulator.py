"""Skip-ahead against the step-by-step loop, invariants, and queueing theory."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_loop import run_step_by_step

from planner.errors import InputError
from planner.serving import LinearStepTime, RequestRecord, simulate

H100_8B = LinearStepTime(7.093e-3, 2.101e-5, 3.926e-8, 2.101e-5, 1e-10)
LIMITS = {"token_budget": 2048, "max_sequences": 256}


def poisson(
    n: int, rate: float, mean_in: float, mean_out: float, seed: int = 1, cv: float = 1.0
) -> list[dict[str, float]]:
    rng = np.random.default_rng(seed)
    sigma = np.sqrt(np.log1p(cv**2))
    t = np.cumsum(rng.exponential(1 / rate, n))
    i = np.maximum(1, rng.lognormal(np.log(mean_in) - sigma**2 / 2, sigma, n)).astype(int)
    o = np.maximum(1, rng.lognormal(np.log(mean_out) - sigma**2 / 2, sigma, n)).astype(int)
    return [
        {"arrival_s": float(a), "input_tokens": int(b), "output_tokens": int(c)}
        for a, b, c in zip(t, i, o, strict=True)
    ]


CASES: dict[str, tuple[list[dict[str, float]], dict[str, Any]]] = {
    "light": (poisson(200, 1, 500, 100), LIMITS),
    "moderate": (poisson(400, 8, 1000, 250), LIMITS),
    "near saturation": (poisson(400, 20, 1000, 250), {**LIMITS, "max_sequences": 48}),
    "overload": (poisson(300, 60, 1000, 250), {**LIMITS, "max_sequences": 32}),
    "preemptions": (poisson(300, 12, 800, 300), {**LIMITS, "kv_tokens": 30_000}),
    "many preemptions": (poisson(300, 30, 300, 600), {**LIMITS, "kv_tokens": 12_000}),
    "preemptions, blocks of one": (poisson(200, 30, 300, 400), {**LIMITS, "kv_tokens": 12_000, "block_tokens": 1}),
    "blocks of 64": (poisson(200, 30, 300, 400), {**LIMITS, "kv_tokens": 16_000, "block_tokens": 64}),
    "long prompts": (poisson(60, 0.5, 32_000, 200, cv=0.3), LIMITS),
    "small chunks": (poisson(200, 4, 3000, 200), {"token_budget": 256, "max_sequences": 64}),
    "one token": (poisson(200, 20, 400, 1, cv=0.5), LIMITS),
    "all at once": ([{**r, "arrival_s": 0.0} for r in poisson(300, 1, 700, 200)], {**LIMITS, "max_sequences": 64}),
    "heavy tails": (poisson(300, 4, 800, 400, cv=3.0), {**LIMITS, "kv_tokens": 200_000}),
    "cached prefixes": ([{**r, "cached_tokens": int(0.8 * r["input_tokens"])} for r in poisson(300, 8, 4000, 250)],
                        {**LIMITS, "kv_tokens": 120_000}),
    "cached prefixes, preemptions": ([{**r, "cached_tokens": 256} for r in poisson(300, 20, 500, 400)],
                                     {**LIMITS, "kv_tokens": 14_000}),
    "one sequence at a time": (poisson(80, 0.3, 500, 200), {"token_budget": 2048, "max_sequences": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_equals_the_step_by_step_loop(name: str) -> None:
    requests, limits = CASES[name]
    fast = simulate(requests, H100_8B, **limits)
    slow, steps = run_step_by_step(requests, H100_8B, **limits)
    assert steps > len(requests) / 4
    for a, b in zip(fast, slow, strict=True):
        assert a.first_token_s == pytest.approx(b.first, abs=1e-6)
        assert a.completion_s == pytest.approx(b.end, abs=1e-6)
        assert a.preemptions == b.preemptions
    if "preemptions" in name:
        assert sum(r.preemptions for r in fast) > 20


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 60),
    st.floats(0.5, 50),
    st.integers(1, 3000),
    st.integers(1, 300),
    st.integers(0, 10**6),
    st.sampled_from([1, 16, 64]),
)
def test_equals_it_on_any_workload(n: int, rate: float, length: int, output: int, seed: int, block: int) -> None:
    requests = poisson(n, rate, length, output, seed)
    largest = max(int(r["input_tokens"] + r["output_tokens"]) for r in requests)
    limits = {"token_budget": 512, "max_sequences": 16, "kv_tokens": 2 * largest + 10 * block, "block_tokens": block}
    slow, _ = run_step_by_step(requests, H100_8B, **limits)
    for a, b in zip(simulate(requests, H100_8B, **limits), slow, strict=True):
        assert (a.first_token_s, a.completion_s) == pytest.approx((b.first, b.end), abs=1e-6)


def check_invariants(requests: list[dict[str, float]], records: list[RequestRecord]) -> None:
    assert len(records) == len(requests)
    for request, record in zip(requests, records, strict=True):
        assert record.arrival_s == request["arrival_s"]
        assert record.arrival_s < record.first_token_s <= record.completion_s
        assert (record.output_tokens == 1) == (record.first_token_s == record.completion_s)


@pytest.mark.parametrize("name", CASES)
def test_causality_and_conservation(name: str) -> None:
    requests, limits = CASES[name]
    records = simulate(requests, H100_8B, **limits)
    check_invariants(requests, records)
    assert records == simulate(requests, H100_8B, **limits)
    # never more in service than slots
    events = sorted([(r.first_token_s, 1) for r in records] + [(r.completion_s, -1) for r in records])
    assert max(np.cumsum([e for _, e in events])) <= limits["max_sequences"]


def test_littles_law_is_exact() -> None:
    requests, limits = CASES["moderate"]
    records = simulate(requests, H100_8B, **limits)
    times = sorted({0.0} | {r.arrival_s for r in records} | {r.completion_s for r in records})
    area = 0.0
    for a, b in pairwise(times):
        area += (b - a) * sum(r.arrival_s <= a < r.completion_s for r in records)
    assert area == pytest.approx(sum(r.completion_s - r.arrival_s for r in records), rel=1e-9)


def test_single_server_with_constant_service() -> None:
    """One sequence at a time, one token each: M/D/1, whose mean wait is rho*S/(2(1-rho))."""
    service, rho = 0.1, 0.7
    rng = np.random.default_rng(11)
    arrivals = np.cumsum(rng.exponential(service / rho, 60_000))
    requests = [{"arrival_s": float(t), "input_tokens": 10, "output_tokens": 1} for t in arrivals]
    records = simulate(requests, LinearStepTime(service, 0, 0), token_budget=10, max_sequences=1)
    waits = np.array([r.completion_s - r.arrival_s - service for r in records])
    batches = waits.reshape(30, -1).mean(axis=1)
    error = batches.std(ddof=1) / np.sqrt(30)
    assert abs(waits.mean() - rho * service / (2 * (1 - rho))) < 3 * error


def test_single_server_with_exponential_service() -> None:
    """Geometric outputs on one slot: nearly M/M/1, mean time S/(1-rho)."""
    step, rho, mean = 0.001, 0.6, 200
    rng = np.random.default_rng(5)
    n = 40_000
    arrivals = np.cumsum(rng.exponential(mean * step / rho, n))
    outputs = rng.geometric(1 / mean, n)
    requests = [
        {"arrival_s": float(t), "input_tokens": 1, "output_tokens": int(o)}
        for t, o in zip(arrivals, outputs, strict=True)
    ]
    records = simulate(requests, LinearStepTime(step, 0, 0), token_budget=8, max_sequences=1)
    times = np.array([r.completion_s - r.arrival_s for r in records])
    batches = times.reshape(40, -1).mean(axis=1)
    error = batches.std(ddof=1) / np.sqrt(40)
    assert abs(times.mean() - mean * step / (1 - rho)) < 3 * error + step


def test_closed_form_occupancy_agrees() -> None:
    """The product form's mean and the simulation's, with prefill stretching the steps."""
    from planner.serving.occupancy import occupancy

    requests = poisson(20_000, 8, 1000, 250, seed=3, cv=0.8)
    step = LinearStepTime(7.093e-3, 2.101e-5, 3.926e-8, 2.101e-5)
    records = simulate(requests, step, **LIMITS)
    horizon = max(r.completion_s for r in records)
    measured = sum(r.completion_s - r.first_token_s for r in records) / horizon
    i = np.array([r["input_tokens"] for r in requests])
    o = np.array([r["output_tokens"] for r in requests])
    context = float((i * o + o**2 / 2).sum() / o.sum())
    n = np.arange(1, 257)
    times = (step.c0 + step.c1 * n + step.c2 * n * context)[None, :]
    rate = len(requests) / horizon
    state = occupancy(np.array([[rate]]), float(o.mean() - 1), times, np.array([[256.0]]), rate * i.mean() * step.c3)
    assert float(state.mean[0, 0]) == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize(("request_", "limits", "says"), [
    ({"arrival_s": 0, "input_tokens": 10}, LIMITS, "malformed"),
    ({"arrival_s": "x", "input_tokens": 10, "output_tokens": 1}, LIMITS, "malformed"),
    ({"arrival_s": -1, "input_tokens": 10, "output_tokens": 1}, LIMITS, "impossible"),
    ({"arrival_s": 0, "input_tokens": 0, "output_tokens": 1}, LIMITS, "impossible"),
    ({"arrival_s": float("nan"), "input_tokens": 1, "output_tokens": 1}, LIMITS, "impossible"),
    ({"arrival_s": 0, "input_tokens": 1000, "output_tokens": 1}, {**LIMITS, "kv_tokens": 512}, "never fits"),
    ({"arrival_s": 0, "input_tokens": 10, "output_tokens": 1}, {"token_budget": 4, "max_sequences": 8}, "below max_sequences"),
])  # fmt: skip
def test_bad_requests(request_: dict[str, Any], limits: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        simulate([request_], H100_8B, **limits)


def test_objects_and_order() -> None:
    class Request:
        def __init__(self, arrival_s: float) -> None:
            self.arrival_s, self.input_tokens, self.output_tokens = arrival_s, 10, 5

    records = simulate([Request(5.0), Request(0.0), Request(2.0)], H100_8B, **LIMITS)
    assert [r.arrival_s for r in records] == [5.0, 0.0, 2.0]
    assert simulate([], H100_8B, **LIMITS) == []
