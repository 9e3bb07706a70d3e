"""Skip-ahead against the step-by-step loop, and what the simulator refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_loop import run_step_by_step

from planner.errors import InputError
from planner.serving import LinearStepTime, RequestRecord, simulate
from planner.serving.engine_limits import EngineLimits
from planner.serving.requests import read_requests
from planner.serving.simulator import draw_all_steps, run_replica
from planner.serving.step_time import PiecewiseStepTime, PromptAttention, StepTime, Table

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


def with_prefixes(requests: list[dict[str, Any]], families: int, shared: int, own: int) -> list[dict[str, Any]]:
    """Hashes of a prefix shared by a family of requests, and of what follows."""
    rng = np.random.default_rng(9)
    found = []
    for k, r in enumerate(requests):
        family = int(rng.integers(families))
        hashes = [("shared", family, j) for j in range(shared)] + [(k, j) for j in range(own)]
        found.append({**r, "prefix": hashes[: int(r["input_tokens"]) // 64]})
    return found


#: as a model with windowed layers, a sparse selection, and an operator that turns compute-bound
SPARSE = PiecewiseStepTime(
    base=tuple(4e-3 + 2e-5 * b for b in range(257)),
    terms=(((0.0, 3e-8, 0.0, 0.0),), ((0.0, 0.0, 4e-8, 0.0), (3e-5, 0.0, 1e-8, 0.0)),
           ((2e-6, 0.0, 0.0, 9e-8), (0.0, 4e-9, 0.0, 7e-8))),
    limits=(128.0, 2048.0),
    ranks=2,
    data=2,
    matmul=Table((0.0, 1.0, 64.0, 512.0, 2048.0, 4096.0), (0.0, 3e-3, 3.1e-3, 8e-3, 32e-3, 64e-3)),
    experts=Table((0.0, 1.0, 64.0, 4096.0), (0.0, 1e-3, 5e-3, 30e-3)),
    prompt=PromptAttention((0.0, 1000.0, 64_000.0), (0.0, 256.0, 4096.0),
                           ((0.0, 1e-7, 1e-6), (1e-6, 1.1e-6, 2e-6), (3e-5, 3e-5, 4e-5)), 1e-4),
)  # fmt: skip
#: prefill and decode of the same rows compete; a roofline branch gives way as contexts grow
BRANCHES = PiecewiseStepTime(
    base=tuple(5e-3 + 1e-5 * b for b in range(257)),
    terms=(((1e-4, 1e-9), (0.0, 9e-8)),),
    matmul=Table((0.0, 256.0, 4096.0), (0.0, 5e-3, 80e-3)),
)

CASES: dict[str, tuple[list[dict[str, Any]], StepTime, dict[str, Any]]] = {
    "light": (poisson(200, 1, 500, 100), H100_8B, LIMITS),
    "moderate": (poisson(400, 8, 1000, 250), H100_8B, LIMITS),
    "near saturation": (poisson(400, 20, 1000, 250), H100_8B, {**LIMITS, "max_sequences": 48}),
    "overload": (poisson(300, 60, 1000, 250), H100_8B, {**LIMITS, "max_sequences": 32}),
    "preemptions": (poisson(300, 12, 800, 300), H100_8B, {**LIMITS, "kv_tokens": 30_000}),
    "many preemptions": (poisson(300, 30, 300, 600), H100_8B, {**LIMITS, "kv_tokens": 12_000}),
    "preemptions, blocks of one": (poisson(200, 30, 300, 400), H100_8B, {**LIMITS, "kv_tokens": 12_000, "block_tokens": 1}),
    "blocks of 64": (poisson(200, 30, 300, 400), H100_8B, {**LIMITS, "kv_tokens": 16_000, "block_tokens": 64}),
    "prompts of 32k": (poisson(60, 0.5, 32_000, 200, cv=0.3), H100_8B, LIMITS),
    "prompts of 32k, small chunks": (poisson(40, 0.4, 32_000, 200, cv=0.3), H100_8B,
                                     {"token_budget": 256, "max_sequences": 64, "kv_tokens": 200_000}),
    "chunks of one prompt are capped": (poisson(100, 1, 8000, 200), H100_8B, {**LIMITS, "max_chunk_tokens": 512}),
    "prompts of 32k, capped chunks": (poisson(40, 1.0, 32_000, 200, cv=0.3), H100_8B, {**LIMITS, "max_chunk_tokens": 512}),
    "prompts of 32k, capped chunks, windows": (poisson(40, 0.5, 32_000, 200, cv=0.3), SPARSE,
                                               {"token_budget": 4096, "max_sequences": 12, "max_chunk_tokens": 512}),
    "capped chunks, priorities, tight": ([{**r, "priority": k % 2} for k, r in enumerate(poisson(60, 3, 5000, 200))], SPARSE,
                                         {**LIMITS, "max_chunk_tokens": 128, "kv_tokens": 50_000}),
    "small chunks": (poisson(200, 4, 3000, 200), H100_8B, {"token_budget": 256, "max_sequences": 64}),
    "budget below the slots": (poisson(200, 20, 300, 200), H100_8B, {"token_budget": 24, "max_sequences": 64}),
    "one token": (poisson(200, 20, 400, 1, cv=0.5), H100_8B, LIMITS),
    "all at once": ([{**r, "arrival_s": 0.0} for r in poisson(300, 1, 700, 200)], H100_8B, {**LIMITS, "max_sequences": 64}),
    "heavy tails": (poisson(300, 4, 800, 400, cv=3.0), H100_8B, {**LIMITS, "kv_tokens": 200_000}),
    "cached prefixes": ([{**r, "cached_tokens": int(0.8 * r["input_tokens"])} for r in poisson(300, 8, 4000, 250)],
                        H100_8B, {**LIMITS, "kv_tokens": 120_000}),
    "cached prefixes, preemptions": ([{**r, "cached_tokens": 256} for r in poisson(300, 20, 500, 400)],
                                     H100_8B, {**LIMITS, "kv_tokens": 14_000}),
    "one sequence at a time": (poisson(80, 0.3, 500, 200), H100_8B, {"token_budget": 2048, "max_sequences": 1}),
    "window, top-k and branches": (poisson(200, 5, 1500, 600, cv=1.5), SPARSE, LIMITS),
    "window, top-k, preemptions": (poisson(200, 12, 900, 600), SPARSE, {**LIMITS, "kv_tokens": 40_000}),
    "a branch gives way": (poisson(200, 6, 400, 900), BRANCHES, LIMITS),
    "speculation": (poisson(300, 10, 900, 300), H100_8B, {**LIMITS, "acceptance": (0.8, 0.7, 0.6)}),
    "speculation, preemptions": (poisson(300, 25, 600, 500), H100_8B,
                                 {**LIMITS, "acceptance": (0.8, 0.7), "kv_tokens": 25_000}),
    "speculation, top-k, branches": (poisson(150, 6, 1500, 900), SPARSE, {**LIMITS, "acceptance": (0.9, 0.6)}),
    "shared prefixes": (with_prefixes(poisson(300, 10, 3000, 250), 80, 24, 60), H100_8B,
                        {**LIMITS, "kv_tokens": 110_000, "prefix_block_tokens": 64}),
    "shared prefixes, tight": (with_prefixes(poisson(300, 20, 1500, 400), 4, 10, 30), H100_8B,
                               {**LIMITS, "kv_tokens": 20_000, "prefix_block_tokens": 64, "block_tokens": 32}),
    "priorities, preemptions": ([{**r, "priority": k % 3} for k, r in enumerate(poisson(300, 20, 500, 400))],
                                H100_8B, {**LIMITS, "kv_tokens": 14_000}),
    "prompts first": (poisson(300, 8, 1000, 250), H100_8B, {**LIMITS, "mixed": False}),
    "prompts of 32k first": (poisson(60, 0.5, 32_000, 200, cv=0.3), H100_8B, {**LIMITS, "mixed": False}),
    "prompts first, preemptions": (poisson(300, 30, 300, 600), SPARSE, {**LIMITS, "kv_tokens": 12_000, "mixed": False}),
    "prompts first, closed loop, chunks capped": (poisson(200, 1, 3000, 200), H100_8B,
                                                  {**LIMITS, "concurrency": 24, "max_chunk_tokens": 512, "mixed": False}),
    "closed loop": (poisson(200, 1, 800, 200), H100_8B, {**LIMITS, "concurrency": 24}),
    "closed loop with pauses, preemptions": (poisson(200, 1, 800, 300), H100_8B,
                                             {**LIMITS, "concurrency": 64, "think_time_s": 0.7, "kv_tokens": 30_000}),
}  # fmt: skip


def by_steps(requests: list[dict[str, Any]], step: StepTime, limits: dict[str, Any]) -> tuple[list[Any], int]:
    """The reference loop under the same limits, with the same drawn numbers of verification steps."""
    known = dict(limits)
    acceptance = known.pop("acceptance", ())
    known["steps"] = draw_all_steps(read_requests(requests), acceptance, 0)
    known["sequence_tokens"] = 1 + len(acceptance)
    return run_step_by_step(requests, step, **known)


@pytest.mark.parametrize("name", CASES)
def test_equals_the_step_by_step_loop(name: str) -> None:
    requests, step, limits = CASES[name]
    fast = simulate(requests, step, **limits)
    slow, steps = by_steps(requests, step, limits)
    assert steps > len(requests) / 4
    for a, b in zip(fast, slow, strict=True):
        assert a.first_token_s == pytest.approx(b.first, abs=1e-6)
        assert a.completion_s == pytest.approx(b.end, abs=1e-6)
        assert a.preemptions == b.preemptions
    if "preemptions" in name:
        assert sum(r.preemptions for r in fast) > 20


def test_prefixes_are_found_and_forgotten() -> None:
    requests, step, limits = CASES["shared prefixes"]
    hits = sum(r.cached_tokens for r in simulate(requests, step, **limits))
    endless = sum(r.cached_tokens for r in simulate(requests, step, **{**limits, "kv_tokens": 10**8}))
    assert 0.2 * endless < hits < endless


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 60),
    rate=st.floats(0.5, 50),
    length=st.integers(1, 3000),
    output=st.integers(1, 300),
    seed=st.integers(0, 10**6),
    block=st.sampled_from([1, 16, 64]),
    sparse=st.booleans(),
    acceptance=st.sampled_from([(), (0.7,), (0.9, 0.5, 0.3)]),
    extra=st.sampled_from(
        [{}, {"concurrency": 5}, {"max_chunk_tokens": 100}, {"families": 2}, {"levels": 2}, {"mixed": False}]
    ),
)
def test_equals_it_on_any_workload(
    n: int, rate: float, length: int, output: int, seed: int, block: int, sparse: bool,
    acceptance: tuple[float, ...], extra: dict[str, Any],
) -> None:  # fmt: skip
    requests: list[dict[str, Any]] = poisson(n, rate, length, output, seed)
    limits = dict(extra)
    if limits.pop("families", None):
        requests, limits["prefix_block_tokens"] = with_prefixes(requests, 3, 8, 30), 64
    if limits.pop("levels", None):
        requests = [{**r, "priority": k % 2} for k, r in enumerate(requests)]
    largest = max(int(r["input_tokens"] + r["output_tokens"]) for r in requests)
    limits |= {"token_budget": 512, "max_sequences": 16, "kv_tokens": 2 * largest + 10 * block,
               "block_tokens": block, "acceptance": acceptance}  # fmt: skip
    step = SPARSE if sparse else H100_8B
    slow, _ = by_steps(requests, step, limits)
    for a, b in zip(simulate(requests, step, **limits), slow, strict=True):
        assert (a.first_token_s, a.completion_s) == pytest.approx((b.first, b.end), abs=1e-6)


def test_prefilled_prompts_join_at_once() -> None:
    """The decode side of a disaggregated pair: no prefill, unless a request was preempted."""
    requests = poisson(200, 12, 800, 400)
    limits = EngineLimits(2048, 256, 30_000)
    run = run_replica(read_requests(requests), H100_8B, limits, prefilled=True)
    slow, _ = run_step_by_step(
        requests, H100_8B, token_budget=2048, max_sequences=256, kv_tokens=30_000, prefilled=True
    )
    assert sum(r.preemptions for r in run.records) > 5
    for a, b in zip(run.records, slow, strict=True):
        assert (a.first_token_s, a.completion_s) == pytest.approx((b.first, b.end), abs=1e-6)


def check_invariants(requests: list[dict[str, Any]], records: list[RequestRecord], closed: bool = False) -> None:
    assert len(records) == len(requests)
    for request, record in zip(requests, records, strict=True):
        assert closed or record.arrival_s == request["arrival_s"]
        assert record.arrival_s < record.first_token_s <= record.completion_s
        assert (record.output_tokens == 1) == (record.first_token_s == record.completion_s)


@pytest.mark.parametrize("name", CASES)
def test_causality_and_conservation(name: str) -> None:
    requests, step, limits = CASES[name]
    records = simulate(requests, step, **limits)
    check_invariants(requests, records, "concurrency" in limits)
    assert records == simulate(requests, step, **limits)
    # never more in service than slots
    events = sorted([(r.first_token_s, 1) for r in records] + [(r.completion_s, -1) for r in records])
    assert max(np.cumsum([e for _, e in events])) <= limits["max_sequences"]


@pytest.mark.parametrize(("request_", "limits", "says"), [
    ({"arrival_s": 0, "input_tokens": 10}, LIMITS, "malformed"),
    ({"arrival_s": "x", "input_tokens": 10, "output_tokens": 1}, LIMITS, "malformed"),
    ({"arrival_s": -1, "input_tokens": 10, "output_tokens": 1}, LIMITS, "impossible"),
    ({"arrival_s": 0, "input_tokens": 0, "output_tokens": 1}, LIMITS, "impossible"),
    ({"arrival_s": float("nan"), "input_tokens": 1, "output_tokens": 1}, LIMITS, "impossible"),
    ({"arrival_s": 0, "input_tokens": 1000, "output_tokens": 1}, {**LIMITS, "kv_tokens": 512}, "never fits"),
    ({"arrival_s": 0, "input_tokens": 10, "output_tokens": 1}, {"token_budget": 0, "max_sequences": 8}, "token_budget is 0"),
    ({"arrival_s": 0, "input_tokens": 10, "output_tokens": 1}, {**LIMITS, "concurrency": 0}, "concurrency is 0"),
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
