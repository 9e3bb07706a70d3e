"""What holds for every run of the simulator: conservation, causality, capacity, work, and symmetries."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_simulator import BRANCHES, CASES, H100_8B, SPARSE, with_prefixes

from planner.serving import LinearStepTime, RequestRecord
from planner.serving.engine_limits import EngineLimits
from planner.serving.replica import Progress, Replica
from planner.serving.requests import Requests, read_requests
from planner.serving.simulator import Run, closed_loop, collect, draw_all_steps, run_replica, starts
from planner.serving.statistics import in_system
from planner.serving.step_time import StepTime

STEPS: dict[str, StepTime] = {"linear": H100_8B, "sparse": SPARSE, "branches": BRANCHES}
#: a step whose time never falls when a sequence joins it
GROWING = replace(BRANCHES, base=tuple(5e-3 + 1.1e-4 * b for b in range(257)))
TINY = 1e-6  # blocks, of a sum of fractions


class Watched(Replica):
    """A replica that recounts itself at the end of every event."""

    def __init__(self, progress: Progress, step_time: StepTime, limits: EngineLimits, **more: Any) -> None:
        super().__init__(progress, step_time, limits, **more)
        self.capacity = self.free
        self.intervals: list[tuple[float, float]] = []
        self.completed: Counter[int] = Counter()
        self.joins = 0
        self.prefill_seen = 0
        self.preempting = False
        self.abandoned = 0  # tokens of chunks that were prefilled again after a preemption
        self.dropped = 0.0  # parts of tokens that a preemption threw away

    def _pass(self, steps: int, seconds: float) -> None:
        assert steps >= 0 and seconds >= 0
        self.check_work(steps)
        before = self.clock
        super()._pass(steps, seconds)
        assert self.clock >= before
        if steps or seconds:
            self.intervals.append((before, self.clock))
        self.preempting = False
        self.check_cache()

    def check_work(self, steps: int) -> None:
        """A step leaves nobody in line who would have fitted into it."""
        filled, self.prefill_seen = self.prefilled - self.prefill_seen, self.prefilled
        if not self.mixed:  # prompts or decodes
            assert not (steps and filled)
            if not steps:
                return
        spare = steps * (self.budget - self.batch.size * self.each) - filled
        assert spare >= 0
        if spare and self.most_of_one >= self.budget:
            assert all(self.progress.done[i] == self.progress.target[i] for i in self.chunked)
        if self.waiting and steps and spare and not self.preempting:
            fits = self._wanted(self.waiting[0][2]) <= self.free - self._grown(1)
            assert not (fits and len(self.active) < self.slots)

    def _grown(self, steps: int) -> float:
        return self.batch.blocks_grown(steps) if self.capacity != math.inf else 0.0

    def check_cache(self) -> None:
        p, block = self.progress, self.block
        assert len(self.active) <= self.slots
        assert set(self.chunked) <= set(self.active)
        if self.capacity == math.inf:
            return
        assert -TINY <= self.free <= self.capacity + TINY
        used = 0.0
        for i in self.active:
            if i in self.batch:
                since, start, pace = self.batch._joined[i]
                grown = (self.batch.step - since) * pace
                used += -(-start // block) + grown / block if self.batch.fractional else -(-(start + grown) // block)
            else:
                used += -(-p.target[i] // block)
        if self.cache is not None:
            shared = self.cache.blocks
            used += (len(self.cache._used) - sum(p.held[i] for i in self.active)) * shared
            assert len(self.cache._idle) * shared <= self.free + TINY
            assert not set(self.cache._idle) & set(self.cache._used)
            assert sum(self.cache._used.values()) == sum(p.held[i] for i in self.active)
        assert used == pytest.approx(self.capacity - self.free, abs=TINY)

    def _preempt(self, i: int) -> None:
        self.preempting = True
        p = self.progress
        if i in self.batch:
            since, _, pace = self.batch._joined[i]
            made = (self.batch.step - since) * pace
            self.dropped += made - int(made + 1e-9)
        else:
            self.abandoned += p.done[i]
        super()._preempt(i)

    def _join(self, i: int) -> None:
        self.joins += 1
        p = self.progress
        assert p.done[i] == p.target[i] == p.requests.input[i] + p.made[i]
        super()._join(i)
        assert self.progress.made[i] <= self.progress.requests.output[i]

    def _end(self, i: int) -> None:
        self.completed[i] += 1
        super()._end(i)


def watch(
    requests: Requests,
    step: StepTime,
    limits: EngineLimits,
    acceptance: tuple[float, ...] = (),
    concurrency: int | None = None,
    think_time_s: float = 0.0,
    prefilled: bool = False,
) -> tuple[Run, Watched]:
    limits.check(requests)
    progress = Progress(requests, draw_all_steps(requests, acceptance, 0), prefilled)
    follow = closed_loop(progress, concurrency, think_time_s) if concurrency else None
    replica = Watched(progress, step, limits, follow=follow)
    for i in starts(progress, concurrency):
        replica.submit(progress.arrival[i], i)
    replica.advance()
    return collect(progress, [replica]), replica


@st.composite
def workloads(draw: st.DrawFn, plain: bool = False) -> tuple[Requests, EngineLimits, dict[str, Any]]:
    """Requests in bursts and alone, under limits from roomy to hardly enough."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    n = draw(st.sampled_from([40, 60, 10, 2, 1]))
    gaps = rng.exponential(1 / draw(st.sampled_from([50.0, 500.0, 5.0, 0.5])), n)
    gaps *= rng.random(n) > draw(st.sampled_from([0.0, 0.7]))
    longest, most = draw(st.sampled_from([200, 20, 3000, 1])), draw(st.sampled_from([400, 40, 1]))
    lengths, outputs = rng.integers(1, longest + 1, n), rng.integers(1, most + 1, n)
    listed: list[dict[str, Any]] = [
        {"arrival_s": float(a), "input_tokens": int(i), "output_tokens": int(o)}
        for a, i, o in zip(np.cumsum(gaps), lengths, outputs, strict=True)
    ]
    block = draw(st.sampled_from([1, 16, 64]))
    extra: dict[str, Any] = {}
    if not plain:
        if draw(st.booleans()):
            listed = with_prefixes(listed, 3, 8, 30)
        if draw(st.booleans()):
            listed = [{**r, "priority": int(rng.integers(3))} for r in listed]
        if draw(st.booleans()):
            listed = [{**r, "cached_tokens": int(r["input_tokens"]) // 2} for r in listed]
        extra["acceptance"] = draw(st.sampled_from([(), (0.8, 0.6)]))
        extra["concurrency"] = draw(st.sampled_from([None, 7, 1]))
        extra["think_time_s"] = draw(st.sampled_from([0.0, 0.3]))
        extra["prefilled"] = draw(st.booleans())
    need = max(int(r["input_tokens"] + r["output_tokens"]) for r in listed)
    room = draw(st.sampled_from([1.0, 1.3, 2.5, 10.0, None]))
    limits = EngineLimits(
        token_budget=draw(st.sampled_from([512, 64, 3, 4096])), max_sequences=draw(st.sampled_from([64, 4, 1])),
        kv_tokens=None if room is None else int(room * need) + 2 * block, block_tokens=block,
        max_chunk_tokens=draw(st.sampled_from([None, 100])), prefix_block_tokens=64,
        sequence_tokens=1 + len(extra.get("acceptance", ())),
    )  # fmt: skip
    return read_requests(listed), limits, extra


def check_run(requests: Requests, run: Run, replica: Watched) -> None:
    n = len(requests)
    records = run.records
    # conservation of requests: each completes once, and nothing is left behind
    assert replica.completed == Counter(range(n))
    assert not (replica.active or replica.waiting or replica.chunked or replica.batch.size)
    assert replica.free == pytest.approx(replica.capacity, abs=TINY)
    # causality
    for r in records:
        assert r.arrival_s <= r.first_token_s <= r.completion_s
        assert r.output_tokens > 1 or r.first_token_s == r.completion_s
    # the clock is monotone, and the time in steps is what was counted
    assert all(a[1] <= b[0] for a, b in pairwise(replica.intervals))
    assert run.busy_s[0] == pytest.approx(sum(b - a for a, b in replica.intervals))
    # idle only when nobody is there: a gap ends with an arrival and begins after the last completion
    edges = [0.0, *(x for pair in replica.intervals for x in pair)]
    for gap_start, gap_end in zip(edges[::2], edges[1::2], strict=False):
        if gap_end > gap_start:
            assert not any(r.arrival_s < gap_end and r.completion_s > gap_start for r in records)
    # conservation of tokens: every output token by a prompt's end or a decode step
    made = replica.joins + run.decoded - replica.dropped
    assert made == pytest.approx(sum(requests.output), abs=0.51)


@settings(max_examples=400, deadline=None)
@given(workload=workloads(), step=st.sampled_from(sorted(STEPS)))
def test_invariants(workload: tuple[Requests, EngineLimits, dict[str, Any]], step: str) -> None:
    requests, limits, extra = workload
    run, replica = watch(requests, STEPS[step], limits, **extra)
    check_run(requests, run, replica)
    # watching changes nothing, and the same input gives the same result to the last bit
    again = run_replica(requests, STEPS[step], limits, **extra)
    assert again == run


@pytest.mark.parametrize("name", CASES)
def test_invariants_under_load(name: str) -> None:
    listed, step, given_ = CASES[name]
    known = dict(given_)
    extra = {k: known.pop(k) for k in ("acceptance", "concurrency", "think_time_s") if k in known}
    limits = EngineLimits(**known, sequence_tokens=1 + len(extra.get("acceptance", ())))
    requests = read_requests(listed)
    check_run(requests, *watch(requests, step, limits, **extra))


@settings(max_examples=60, deadline=None)
@given(workload=workloads(plain=True), step=st.sampled_from(sorted(STEPS)))
def test_tokens_are_counted(workload: tuple[Requests, EngineLimits, dict[str, Any]], step: str) -> None:
    """Without prefixes: every prompt token is prefilled once, and again what preemptions threw away."""
    requests, limits, _ = workload
    run, replica = watch(requests, STEPS[step], limits)
    records = run.records
    again = run.prefilled - sum(requests.input) - replica.abandoned
    if not any(r.preemptions for r in records):
        assert (again, replica.abandoned) == (0, 0)
        assert run.decoded == sum(o - 1 for o in requests.output)
    else:
        # a preempted decode recomputes its prompt and what it had made
        assert again >= 0
        assert (again > 0) == (replica.joins > len(records))
    assert run.decoded + replica.joins == sum(requests.output)
    assert replica.joins - len(records) <= sum(r.preemptions for r in records)


@settings(max_examples=60, deadline=None)
@given(workload=workloads(), step=st.sampled_from(sorted(STEPS)))
def test_littles_law(workload: tuple[Requests, EngineLimits, dict[str, Any]], step: str) -> None:
    """Time integral of the number present is the sum of the times spent, exactly."""
    requests, limits, extra = workload
    records = run_replica(requests, STEPS[step], limits, **extra).records
    for entry in (lambda r: r.arrival_s, lambda r: r.first_token_s):
        held, number = in_system(records, entry)
        spent = math.fsum(r.completion_s - entry(r) for r in records)
        assert float(held @ number) == pytest.approx(spent, rel=1e-9, abs=1e-9)


def first_and_last(records: list[RequestRecord]) -> np.ndarray:
    return np.array([(r.first_token_s, r.completion_s) for r in records])


@settings(max_examples=60, deadline=None)
@given(workload=workloads(), step=st.sampled_from(sorted(STEPS)), power=st.sampled_from([-3, 1, 6]))
def test_the_unit_of_time_does_not_matter(
    workload: tuple[Requests, EngineLimits, dict[str, Any]], step: str, power: int
) -> None:
    """Arrivals and steps twice as long: everything twice as late. Powers of two, so to the last bit."""
    requests, limits, extra = workload
    factor = 2.0**power
    slower = Requests(
        [factor * a for a in requests.arrival], requests.input, requests.output, requests.cached,
        requests.prefix, requests.priority,
    )  # fmt: skip
    scaled = {**extra, "think_time_s": factor * extra["think_time_s"]}
    before = run_replica(requests, STEPS[step], limits, **extra)
    after = run_replica(slower, STEPS[step].scaled(factor), limits, **scaled)
    assert np.array_equal(factor * first_and_last(before.records), first_and_last(after.records))
    assert [r.preemptions for r in before.records] == [r.preemptions for r in after.records]


@settings(max_examples=60, deadline=None)
@given(workload=workloads(), step=st.sampled_from(sorted(STEPS)), shift=st.floats(1e-3, 1e4))
def test_the_start_of_time_does_not_matter(
    workload: tuple[Requests, EngineLimits, dict[str, Any]], step: str, shift: float
) -> None:
    requests, limits, extra = workload
    extra = {**extra, "concurrency": None}
    later = Requests(
        [a + shift for a in requests.arrival], requests.input, requests.output, requests.cached,
        requests.prefix, requests.priority,
    )  # fmt: skip
    before = run_replica(requests, STEPS[step], limits, **extra)
    after = run_replica(later, STEPS[step], limits, **extra)
    assert np.allclose(first_and_last(before.records) + shift, first_and_last(after.records), rtol=0, atol=1e-7)
    assert [r.preemptions for r in before.records] == [r.preemptions for r in after.records]


@settings(max_examples=60, deadline=None)
@given(workload=workloads(), step=st.sampled_from(sorted(STEPS)), seed=st.integers(0, 10**6))
def test_the_order_of_the_list_does_not_matter(
    workload: tuple[Requests, EngineLimits, dict[str, Any]], step: str, seed: int
) -> None:
    """Requests that arrive at different times are served alike in whatever order they are given."""
    requests, limits, extra = workload
    rng = np.random.default_rng(seed)
    n = len(requests)
    requests.arrival = np.cumsum(rng.exponential(0.05, n)).tolist()
    order = rng.permutation(n).tolist()
    shuffled = Requests(
        *(
            [column[k] for k in order]
            for column in (requests.arrival, requests.input, requests.output, requests.cached)
        ),
        prefix=[requests.prefix[k] for k in order] if requests.prefix else None,
        priority=[requests.priority[k] for k in order] if requests.priority else None,
    )
    plain = {"prefilled": extra["prefilled"]}  # steps are drawn, and closed loops sent, in the order of the list
    before = run_replica(requests, STEPS[step], limits, **plain).records
    after = run_replica(shuffled, STEPS[step], limits, **plain).records
    assert [before[k] for k in order] == after


@settings(max_examples=60, deadline=None)
@given(workload=workloads(plain=True), factor=st.floats(1.0, 4.0), seed=st.integers(0, 100))
def test_slower_steps_end_no_sooner(
    workload: tuple[Requests, EngineLimits, dict[str, Any]], factor: float, seed: int
) -> None:
    """One at a time, or all there from the start; otherwise steps that last longer also gather more requests."""
    requests, limits, _ = workload
    one = EngineLimits(limits.token_budget, 1, limits.kv_tokens, limits.block_tokens, limits.max_chunk_tokens)
    before = first_and_last(run_replica(requests, H100_8B, one).records)
    after = first_and_last(run_replica(requests, H100_8B.scaled(factor), one).records)
    assert np.all(after >= before - 1e-9)
    requests.arrival = [0.0] * len(requests)
    before = first_and_last(run_replica(requests, H100_8B, limits).records)
    after = first_and_last(run_replica(requests, H100_8B.scaled(factor), limits).records)
    assert np.allclose(after, factor * before, rtol=1e-9)


def test_slower_steps_can_gather_requests_and_end_sooner() -> None:
    """Why the makespan is not monotone in general: an arrival just misses the end of a faster step."""
    requests = read_requests([{"arrival_s": t, "input_tokens": 1, "output_tokens": 2} for t in (0.0, 1.02)])
    ends = [
        max(r.completion_s for r in run_replica(requests, LinearStepTime(c, 0, 0), EngineLimits(8, 8)).records)
        for c in (1.0, 1.05)
    ]
    assert ends == pytest.approx([4.0, 3.15])


@settings(max_examples=100, deadline=None)
@given(workload=workloads(plain=True), step=st.sampled_from([H100_8B, GROWING]), late=st.floats(0, 2),
       length=st.integers(1, 3000), output=st.integers(1, 400))  # fmt: skip
def test_a_last_request_makes_nobody_faster(
    workload: tuple[Requests, EngineLimits, dict[str, Any]], step: StepTime, late: float, length: int, output: int
) -> None:
    """First come, first served without preemption: whoever comes last only takes from those before."""
    requests, limits, _ = workload
    endless = EngineLimits(
        limits.token_budget, limits.max_sequences, None, limits.block_tokens, limits.max_chunk_tokens
    )
    before = first_and_last(run_replica(requests, step, endless).records)
    more = Requests(
        [*requests.arrival, max(requests.arrival) + late], [*requests.input, length], [*requests.output, output],
        [*requests.cached, 0],
    )  # fmt: skip
    after = first_and_last(run_replica(more, step, endless).records)
    assert np.all(after[:-1] >= before - 1e-9)


@settings(max_examples=60, deadline=None)
@given(workload=workloads(plain=True), slots=st.integers(1, 12), step=st.sampled_from(sorted(STEPS)))
def test_a_cache_that_holds_every_slot_never_preempts(
    workload: tuple[Requests, EngineLimits, dict[str, Any]], slots: int, step: str
) -> None:
    requests, limits, _ = workload
    block = limits.block_tokens
    each = max(-(-(i + o) // block) for i, o in zip(requests.input, requests.output, strict=True))
    roomy = EngineLimits(limits.token_budget, slots, slots * each * block, block, limits.max_chunk_tokens)
    run = run_replica(requests, STEPS[step], roomy)
    assert not any(r.preemptions for r in run.records)
    # and so it is as good as one without end, but for admissions that look at the room first
    assert [r.first_token_s for r in run.records] == pytest.approx(
        [r.first_token_s for r in run_replica(requests, STEPS[step], replace(roomy, kv_tokens=None)).records], abs=1e-6
    )


def test_more_cache_preempts_less() -> None:
    listed, step, _ = CASES["many preemptions"]
    requests = read_requests(listed)
    counts = [
        sum(r.preemptions for r in run_replica(requests, step, EngineLimits(2048, 256, kv)).records)
        for kv in (12_000, 24_000, 48_000, 96_000, 400_000)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 100 and counts[-1] == 0
