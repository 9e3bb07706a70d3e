"""Fleets against the runs of their replicas, and disaggregated pools against runs of each pool."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference_loop import run_step_by_step
from test_simulator import H100_8B, SPARSE, poisson, with_prefixes

from planner.errors import InputError
from planner.serving import LinearStepTime, RequestRecord
from planner.serving.engine_limits import EngineLimits
from planner.serving.fleet import ROUTINGS, Pool, Routing, simulate_disaggregated, simulate_fleet
from planner.serving.requests import Requests, read_requests
from planner.serving.simulator import Run, run_replica

LIMITS = EngineLimits(2048, 64, 60_000)


def same(a: RequestRecord, b: RequestRecord) -> None:
    assert (a.arrival_s, a.first_token_s, a.completion_s) == pytest.approx(
        (b.arrival_s, b.first_token_s, b.completion_s), abs=1e-7
    )
    assert (a.preemptions, a.cached_tokens, a.output_tokens) == (b.preemptions, b.cached_tokens, b.output_tokens)


def part(requests: Requests, chosen: list[int]) -> Requests:
    return Requests(
        *(
            [column[k] for k in chosen]
            for column in (requests.arrival, requests.input, requests.output, requests.cached)
        ),
        prefix=[requests.prefix[k] for k in chosen] if requests.prefix else None,
        priority=[requests.priority[k] for k in chosen] if requests.priority else None,
    )


@pytest.mark.parametrize("replicas", [2, 3, 7])
def test_round_robin_is_a_run_for_every_share_of_the_stream(replicas: int) -> None:
    requests = read_requests(with_prefixes(poisson(400, 40, 900, 250), 40, 4, 20))
    limits = EngineLimits(2048, 64, 20_000, prefix_block_tokens=64)
    run = simulate_fleet(requests, H100_8B, limits, replicas=replicas, routing="round-robin")
    parts = []
    for k in range(replicas):
        chosen = list(range(k, len(requests), replicas))
        own = run_replica(part(requests, chosen), H100_8B, limits)
        parts.append(own)
        for i, record in zip(chosen, own.records, strict=True):
            assert run.records[i] == record._replace(replica=k)
    assert run.busy_s == tuple(own.busy_s[0] for own in parts)
    assert run.steps == sum(own.steps for own in parts)
    assert (run.prefilled, run.decoded) == (sum(o.prefilled for o in parts), sum(o.decoded for o in parts))
    assert any(r.preemptions for r in run.records) or replicas == 7


@pytest.mark.parametrize("routing", ROUTINGS)
def test_whatever_the_routing_every_replica_ran_what_it_was_given(routing: Routing) -> None:
    requests = read_requests(with_prefixes(poisson(300, 30, 900, 250), 12, 4, 20))
    limits = EngineLimits(2048, 64, 30_000, prefix_block_tokens=64)
    run = simulate_fleet(requests, SPARSE, limits, replicas=4, routing=routing)
    assert {r.replica for r in run.records} == {0, 1, 2, 3}
    for k in range(4):
        chosen = [i for i, r in enumerate(run.records) if r.replica == k]
        for i, record in zip(chosen, run_replica(part(requests, chosen), SPARSE, limits).records, strict=True):
            same(run.records[i], record)


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("loop", [{}, {"concurrency": 24}, {"concurrency": 40, "think_time_s": 0.4}])
@pytest.mark.parametrize("acceptance", [(), (0.8, 0.6)])
def test_one_replica_is_a_replica(routing: Routing, loop: dict[str, Any], acceptance: tuple[float, ...]) -> None:
    requests = read_requests(poisson(300, 15, 700, 250))
    limits = EngineLimits(2048, 64, 15_000, sequence_tokens=1 + len(acceptance))
    more = {"acceptance": acceptance, "seed": 3, **loop}
    fleet = simulate_fleet(requests, H100_8B, limits, replicas=1, routing=routing, **more)
    alone = run_replica(requests, H100_8B, limits, **more)
    assert any(r.preemptions for r in alone.records)
    for a, b in zip(fleet.records, alone.records, strict=True):
        same(a, b)
    assert fleet.steps == alone.steps
    assert fleet.busy_s[0] == pytest.approx(alone.busy_s[0])


def one_at_a_time(services: list[float], replicas: int, concurrency: int, think: float) -> list[tuple[float, ...]]:
    """A closed loop over single-slot servers in turn, by an event queue: arrival, start of service and end."""
    free, found = [0.0] * replicas, [(0.0, 0.0, 0.0)] * len(services)
    events = [(0.0, i) for i in range(min(concurrency, len(services)))]
    upcoming, turn = len(events), 0
    ends: list[tuple[float, int]] = []
    while events or ends:
        if ends and (not events or ends[0][0] <= events[0][0]):
            end, _ = heapq.heappop(ends)
            if upcoming < len(services):
                heapq.heappush(events, (end + think, upcoming))
                upcoming += 1
            continue
        arrival, i = heapq.heappop(events)
        server, turn = turn % replicas, turn + 1
        start = max(arrival, free[server])
        free[server] = start + services[i]
        found[i] = (arrival, start, free[server])
        heapq.heappush(ends, (free[server], i))
    return found


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), replicas=st.integers(1, 5), concurrency=st.integers(1, 12),
       think=st.sampled_from([0.0, 0.37, 5.0]))  # fmt: skip
def test_closed_loops_keep_the_order_of_time(seed: int, replicas: int, concurrency: int, think: float) -> None:
    """A completion on one replica may send a request to another, that must not have run ahead."""
    rng = np.random.default_rng(seed)
    inputs, outputs = rng.integers(1, 1000, 60).tolist(), rng.integers(1, 400, 60).tolist()
    first = [0.01 + 1.2345678e-5 * i for i in inputs]  # lengths that leave no ties
    services = [t + 0.01 * (o - 1) for t, o in zip(first, outputs, strict=True)]
    run = simulate_fleet(
        Requests([0.0] * 60, inputs, outputs, [0] * 60), LinearStepTime(0.01, 0, 0, 1.2345678e-5), EngineLimits(1000, 1),
        replicas=replicas, routing="round-robin", concurrency=concurrency, think_time_s=think,
    )  # fmt: skip
    expected = one_at_a_time(services, replicas, concurrency, think)
    for record, (arrival, start, end), t in zip(run.records, expected, first, strict=True):
        assert (record.arrival_s, record.first_token_s, record.completion_s) == pytest.approx((arrival, start + t, end))


@pytest.mark.parametrize("routing", ROUTINGS)
def test_closed_loops_keep_their_number_in_flight(routing: Routing) -> None:
    requests = read_requests(poisson(400, 1, 500, 150))
    run = simulate_fleet(requests, H100_8B, LIMITS, replicas=3, routing=routing, concurrency=30)
    events = sorted([(r.arrival_s, 1) for r in run.records] + [(r.completion_s, -1) for r in run.records])
    level = np.cumsum([change for _, change in events])
    assert level.max() == 30
    sent = np.sort([r.arrival_s for r in run.records])[30:]
    assert np.array_equal(sent, np.sort([r.completion_s for r in run.records])[: len(sent)])


@pytest.mark.parametrize("replicas", [0, 1, 3])
def test_turns_that_follow_each_other(replicas: int) -> None:
    """A request without an arrival of its own gets it from the completion it follows."""
    every = read_requests(poisson(60, 4, 300, 60))
    for i in range(1, 60, 2):
        every.arrival[i] = float("inf")

    def follow(i: int, end: float) -> list[tuple[float, int]]:
        return [(end + 0.25, i + 1)] if i % 2 == 0 else []

    if replicas:
        run = simulate_fleet(every, H100_8B, LIMITS, replicas=replicas, follow=follow)
    else:
        run = run_replica(every, H100_8B, LIMITS, follow=follow)
    for first, second in zip(run.records[::2], run.records[1::2], strict=True):
        assert second.arrival_s == first.completion_s + 0.25
        assert second.arrival_s < second.first_token_s <= second.completion_s < 1e3


def test_a_router_sees_a_request_until_its_step_ends() -> None:
    """The step that ends a request is still running when the next one arrives."""
    requests = Requests([0.0, 0.5, 1.6], [1, 1, 1], [1, 1, 1], [0, 0, 0])
    run = simulate_fleet(requests, LinearStepTime(1.0, 0, 0), EngineLimits(8, 1), replicas=2, routing="least-loaded")
    assert [(r.replica, r.completion_s) for r in run.records] == [(0, 1.0), (1, 1.5), (0, 2.6)]


def test_least_loaded_never_waits_beside_an_idle_replica() -> None:
    requests = read_requests(poisson(600, 20, 1, 30))
    run = simulate_fleet(requests, LinearStepTime(0.01, 0, 0), EngineLimits(8, 1), replicas=8, routing="least-loaded")
    waited = 0
    for r in run.records:
        busy = {o.replica for o in run.records if o.arrival_s < r.arrival_s < o.completion_s}
        if r.first_token_s - r.arrival_s > 0.01 + 1e-9:
            waited += 1
            assert len(busy) == 8
    assert waited > 50


def test_affinity_finds_more_of_the_prefixes() -> None:
    """Many families, and a cache that holds the prefixes of a replica's own share of them only."""
    requests = read_requests(with_prefixes(poisson(1500, 12, 2600, 120, cv=0.2), 48, 32, 0))
    limits = EngineLimits(4096, 64, 60_000, prefix_block_tokens=64)
    shares = {}
    for routing in ("round-robin", "prefix-affinity"):
        run = simulate_fleet(requests, H100_8B, limits, replicas=4, routing=routing)
        shares[routing] = sum(r.cached_tokens for r in run.records) / sum(requests.input)
        # what was found was not prefilled
        again = sum(r.preemptions for r in run.records)
        assert again or run.prefilled == sum(r.input_tokens - r.cached_tokens for r in run.records)
    assert shares["prefix-affinity"] > 1.4 * shares["round-robin"]
    by_family: dict[Any, set[int]] = {}
    assert requests.prefix is not None
    for hashes, record in zip(requests.prefix, run.records, strict=True):
        if hashes:
            by_family.setdefault(hashes[0], set()).add(record.replica)
    assert all(len(homes) == 1 for homes in by_family.values())


def test_unknown_routing_and_no_replicas() -> None:
    requests = Requests([0.0], [1], [1], [0])
    with pytest.raises(InputError, match="routing 'fastest' is not known"):
        simulate_fleet(requests, H100_8B, LIMITS, replicas=2, routing="fastest")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="replicas is 0"):
        simulate_fleet(requests, H100_8B, LIMITS, replicas=0)


# -- prefill and decode apart ----------------------------------------------------------------------

TRANSFER = {"transfer_latency_s": 0.004, "transfer_s_per_token": 2e-6}


def pools(requests: Requests, prefill: Pool, decode: Pool, **more: Any) -> tuple[Run, Run, Run]:
    return simulate_disaggregated(requests, prefill, decode, **TRANSFER, **more)


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("acceptance", [(), (0.8, 0.6)])
def test_disaggregated_pools_are_two_runs(routing: Routing, acceptance: tuple[float, ...]) -> None:
    listed = with_prefixes(poisson(400, 30, 900, 120, cv=1.5), 10, 6, 30)
    listed = [{**r, "class": "ab"[k % 2], "priority": k % 2} for k, r in enumerate(listed)]
    listed = [{**r, "output_tokens": 1} if k % 10 == 3 else r for k, r in enumerate(listed)]
    requests = read_requests(listed)
    prompts = Pool(H100_8B, EngineLimits(4096, 64, 80_000, prefix_block_tokens=64), 2)
    answers = Pool(H100_8B, EngineLimits(2048, 128, 30_000, sequence_tokens=1 + len(acceptance)), 3)
    whole, first, second = pools(requests, prompts, answers, routing=routing, acceptance=acceptance, seed=5)
    # first tokens: those of a run that only prefills, and the transfer
    only = Requests(
        requests.arrival, requests.input, [1] * len(requests), requests.cached, requests.prefix, requests.priority
    )
    alone = simulate_fleet(only, H100_8B, prompts.limits, replicas=2, routing=routing, seed=5)
    for record, prompt in zip(whole.records, alone.records, strict=True):
        assert record.first_token_s == pytest.approx(prompt.completion_s + 0.004 + 2e-6 * record.input_tokens)
        assert record.cached_tokens == prompt.cached_tokens
    # conservation, causality, and answers of one token that never see the decode pool
    single = sum(o == 1 for o in requests.output)
    assert single == 40
    assert len(second.records) == len(requests) - single
    for given_, record in zip(listed, whole.records, strict=True):
        assert (record.arrival_s, record.input_tokens, record.output_tokens, record.request_class) == (
            given_["arrival_s"], given_["input_tokens"], given_["output_tokens"], given_["class"],
        )  # fmt: skip
        assert record.arrival_s < record.first_token_s <= record.completion_s
        assert (record.output_tokens == 1) == (record.first_token_s == record.completion_s)
    assert whole.busy_s == (*first.busy_s, *second.busy_s)
    assert len(whole.busy_s) == 5
    assert first.decoded == 0
    assert whole.prefilled == first.prefilled + second.prefilled
    recomputed = any(r.preemptions for r in second.records)
    assert (second.prefilled > 0) == recomputed
    if not recomputed:
        assert whole.decoded == sum(o - 1 for o in requests.output)


def test_answers_are_not_disturbed_by_prompts() -> None:
    """With room for all, a token takes a decode step of the batch and never a chunk of a prompt."""
    requests = read_requests(poisson(300, 10, 3000, 200))
    step = LinearStepTime(8e-3, 0.0, 0.0, 5e-5)
    whole, _, second = pools(requests, Pool(step, EngineLimits(4096, 64), 4), Pool(step, EngineLimits(2048, 512), 1))
    assert second.prefilled == 0
    for r in whole.records:
        if r.output_tokens > 1:
            # it waits for the end of the step it arrives in, at most
            wait = r.completion_s - r.first_token_s - (r.output_tokens - 1) * 8e-3
            assert -1e-9 < wait < 8e-3 + 1e-9
    together = run_replica(requests, step, EngineLimits(4096, 512))
    slower = [a.time_per_output_token_s > b.time_per_output_token_s
              for a, b in zip(together.records, whole.records, strict=True) if b.output_tokens > 5]  # fmt: skip
    assert np.mean(slower) > 0.9


def test_answers_are_a_run_of_prefilled_prompts() -> None:
    requests = read_requests(poisson(200, 8, 900, 300))
    pool = EngineLimits(512, 64, 14_000)
    whole, first, second = pools(requests, Pool(H100_8B, EngineLimits(4096, 64), 1), Pool(SPARSE, pool, 1))
    rest = [i for i, o in enumerate(requests.output) if o > 1]
    listed = [
        {
            "arrival_s": whole.records[i].first_token_s,
            "input_tokens": requests.input[i],
            "output_tokens": requests.output[i],
        }
        for i in rest
    ]
    slow, _ = run_step_by_step(listed, SPARSE, token_budget=512, max_sequences=64, kv_tokens=14_000, prefilled=True)
    assert sum(r.preemptions for r in second.records) > 10
    for i, reference in zip(rest, slow, strict=True):
        assert whole.records[i].completion_s == pytest.approx(reference.end, abs=1e-6)
        assert whole.records[i].preemptions == reference.preemptions
    assert sum(r.preemptions for r in first.records) == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), rate=st.floats(1, 40), budget=st.sampled_from([48, 128, 1024]),
       spare=st.integers(0, 3000), block=st.sampled_from([1, 16, 64]), levels=st.integers(1, 2))  # fmt: skip
@example(
    seed=8810, rate=10, budget=48, spare=2228, block=1, levels=2
)  # both at once: newcomers beside a recomputation,
@example(seed=341, rate=3, budget=48, spare=1627, block=1, levels=1)  # a long one alone,
@example(seed=7370, rate=10, budget=64, spare=1632, block=1, levels=1)  # and room for a prompt but not its first step
@example(seed=3949, rate=10, budget=64, spare=2525, block=16, levels=1)
def test_prefilled_prompts_and_recomputed_ones(
    seed: int, rate: float, budget: int, spare: int, block: int, levels: int
) -> None:
    """Long recomputations leave the step's decodes and newcomers as they are, one step at a time."""
    listed = [{**r, "priority": k % levels} for k, r in enumerate(poisson(40, rate, 600, 300, seed))]
    largest = max(int(r["input_tokens"] + r["output_tokens"]) for r in listed)
    kv = largest + spare + block
    run = run_replica(read_requests(listed), H100_8B, EngineLimits(budget, 32, kv, block), prefilled=True)
    slow, _ = run_step_by_step(listed, H100_8B, token_budget=budget, max_sequences=32, kv_tokens=kv,
                               block_tokens=block, prefilled=True)  # fmt: skip
    for a, b in zip(run.records, slow, strict=True):
        assert (a.first_token_s, a.completion_s) == pytest.approx((b.first, b.end), abs=1e-6)
        assert a.preemptions == b.preemptions
