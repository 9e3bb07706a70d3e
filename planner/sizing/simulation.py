"""The plan's replica, simulated: its step linearised at the operating point, traffic drawn or replayed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.cost.prefill import PrefillModel
from planner.cost.step import StepModel
from planner.errors import NoPlanError
from planner.hardware import Database
from planner.serving import LinearStepTime, RequestRecord, simulate
from planner.sizing.operating import BATCHES
from planner.sizing.plan import build_plan
from planner.sizing.result import Percentiles, Plan, Simulation
from planner.sizing.search import Search, Sized, search
from planner.workload import Workload
from planner.workload.traces import Trace

Vector = npt.NDArray[np.float64]
BATCH_MEANS = 20  # batches the confidence interval is taken over
WARM_UP = 0.1  # share of requests at the start left out of the figures


def linear_step(found: Search, sized: Sized) -> LinearStepTime:
    """The five constants of a plan's step around its operating point, [s] per unit.

    c2 from a tenth more context, c0 and c1 from batches below and above the mean, c3 the marginal
    token of a full chunk, c4 from the attention of an average prompt. With speculation a step makes
    several tokens: times are divided by the acceptance length.

    Source: tangents of :mod:`planner.cost`; exact for dense models below the compute bound.
    """
    seat, load, rows = sized.seat, found.load, sized.rows
    step = StepModel(found.model, seat.precision.formats, seat.precision.kv, found.constants.draft_independence)
    queries = rows.options[0].drafter.draft_tokens + 1
    accepted = float(rows.acceptance[0, 0])
    mean = max(1.0, float(sized.served.mean_batch[0, 0]))
    context = load.context_mean

    def seconds(stretch: float) -> float:
        cost = step.decode(seat.machine, seat.layout, mean, load.contexts * stretch, queries, load.read_share)
        return float(np.asarray(cost.seconds).squeeze())

    per_context = max(0.0, (seconds(1.1) - seconds(1.0)) / (0.1 * context * mean))
    low, high = max(1.0, 0.5 * mean), max(2.0, 1.5 * mean)
    at_low, at_high = (float(np.interp(b, BATCHES, rows.steps[0])) for b in (low, high))
    flat_low, flat_high = at_low - per_context * low * context, at_high - per_context * high * context
    per_sequence = max(0.0, (flat_high - flat_low) / (high - low))
    fixed = max(1e-6, flat_low - per_sequence * low)
    budget = _budget(found)
    prefill = PrefillModel(step, seat.machine, seat.layout, budget)
    ranks = float(np.asarray(seat.layout.data * seat.layout.pipeline))
    chunk = float(np.squeeze(prefill.chunk_seconds(np.array([budget]))))
    one = float(np.squeeze(prefill.chunk_seconds(np.array([1.0]))))
    new, cached = float(np.mean(load.new)), float(np.mean(load.cached))
    attention = float(np.squeeze(prefill.attention_seconds(np.array([new]), np.array([cached]))))
    return LinearStepTime(
        fixed / accepted,
        per_sequence / accepted,
        per_context / accepted,
        max(0.0, chunk - one) / budget / ranks,
        attention / (new * (cached + new / 2)) / ranks,
    )


def _budget(found: Search) -> float:
    return float(found.workload.engine.max_batched_tokens or found.engine.max_batched_tokens(80e9))


def draw_requests(workload: Workload, rate: float, count: int, seed: int) -> list[dict[str, Any]]:
    """``count`` tasks at ``rate`` [1/s] with gamma-distributed gaps and the workload's lengths.

    Each task is ``fan_out`` sequences that arrive together. Lengths [tokens], times [s].

    Source: inversion of the workload's distributions; arrival_cv from the workload.
    """
    rng = np.random.default_rng(seed)
    fan_out = workload.sequences_per_request
    tasks = max(1, count // fan_out)
    cv = max(workload.demand.arrival_cv, 1e-3)
    arrivals = np.cumsum(rng.gamma(1 / cv**2, cv**2 / rate, tasks))
    shares = np.array([c.share for c in workload.classes])
    kinds = rng.choice(len(shares), tasks, p=shares / shares.sum())
    requests = []
    for arrival, kind in zip(arrivals, kinds, strict=True):
        c = workload.classes[kind]
        context = np.ones(fan_out) * c.context.sample(rng, 1)
        output = sum((p.sample(rng, fan_out) for p in (c.reasoning, c.answer) if p), start=np.zeros(fan_out))
        for i, o in zip(context, output, strict=True):
            requests.append(_request(float(arrival), float(i), float(o), c.cached_fraction))
    return requests


def _request(arrival: float, tokens: float, output: float, cached: float) -> dict[str, Any]:
    whole = max(1, round(tokens))
    return {
        "arrival_s": arrival,
        "input_tokens": whole,
        "output_tokens": max(1, round(output)),
        "cached_tokens": int(cached * whole),
    }


def replay(trace: Trace, replicas: int, cached_fraction: float) -> list[dict[str, Any]]:
    """Every ``replicas``-th request of a trace, as one replica behind a round robin sees it, [s].

    Source: the trace; its own prefix hits where it has hashes, else the workload's fraction.
    """
    every = range(0, len(trace), replicas)
    return [
        {
            "arrival_s": float(trace.arrival[k]),
            "input_tokens": int(trace.input[k]),
            "output_tokens": int(trace.output[k]),
            "cached_tokens": int(trace.cached[k] if trace.cached is not None else cached_fraction * trace.input[k]),
        }
        for k in every
    ]


def simulate_plan(
    workload: Workload,
    database: Database,
    *,
    gpus: Sequence[str] | None = None,
    price_overrides: Mapping[str, float] | None = None,
    models: Sequence[object] = (),
    trace: Trace | None = None,
    requests: int = 5000,
    seed: int = 0,
) -> tuple[Simulation, list[RequestRecord]]:
    """The recommended plan's replica under drawn traffic or a trace, beside its closed forms.

    Raises NoPlanError when there is no plan. Units as in :class:`planner.sizing.result.Simulation`.

    Source: :func:`planner.serving.simulator.simulate`.
    """
    found = search(workload, database, gpus=gpus, price_overrides=price_overrides, models=models)
    if not found.found:
        raise NoPlanError("no feasible plan to simulate")
    sized = found.found[0]
    plan = build_plan(found, sized)
    serving = plan.replicas - plan.spare_replicas
    rate = float(sized.served.rate[0, 0]) / found.load.fan_out
    drawn = draw_requests(workload, rate, requests, seed) if trace is None else replay(
        trace, serving, workload.classes[0].cached_fraction
    )  # fmt: skip
    ranks = plan.data_parallel
    tokens = plan.memory.kv_capacity_tokens * ranks
    records = simulate(
        drawn,
        linear_step(found, sized),
        token_budget=max(int(_budget(found)) * ranks, plan.max_batch),
        max_sequences=plan.max_batch,
        kv_tokens=max(tokens, max(r["input_tokens"] + r["output_tokens"] for r in drawn) + 1024),
        block_tokens=found.engine.block_tokens,
    )
    return _summary(plan, records, seed, None if trace is None else trace.name), records


def _summary(plan: Plan, records: list[RequestRecord], seed: int, trace: str | None) -> Simulation:
    kept = records[int(WARM_UP * len(records)) :]
    span = max(r.completion_s for r in records) - records[0].arrival_s
    ttft = np.array([r.ttft_s for r in kept])
    tpot = np.array([r.time_per_output_token_s for r in kept if r.output_tokens > 1] or [0.0])
    e2e = np.array([r.completion_s - r.arrival_s for r in kept])
    return Simulation(
        plan=plan,
        requests=len(records),
        seed=seed,
        trace=trace,
        duration_s=span,
        requests_per_second=len(records) / span,
        output_tokens_per_second=sum(r.output_tokens for r in records) / span,
        mean_in_flight=float(sum(r.completion_s - r.arrival_s for r in records) / span),
        preemptions=sum(r.preemptions for r in records),
        ttft_s=_percentiles(ttft),
        time_per_output_token_s=_percentiles(tpot),
        e2e_s=_percentiles(e2e),
        ttft_mean_half_width_s=_half_width(ttft),
        verdict=_verdict(records),
    )


def _percentiles(sample: Vector) -> Percentiles:
    p50, p95, p99 = (float(x) for x in np.quantile(sample, (0.5, 0.95, 0.99)))
    return Percentiles(mean=float(sample.mean()), p50=p50, p95=p95, p99=p99)


def _half_width(sample: Vector) -> float:
    """Half width of the 95 % interval of the mean by batch means, [s]."""
    per = len(sample) // BATCH_MEANS
    if per < 5:
        return float("nan")
    means = sample[: per * BATCH_MEANS].reshape(BATCH_MEANS, per).mean(axis=1)
    return float(2.093 * means.std(ddof=1) / np.sqrt(BATCH_MEANS))


def _verdict(records: list[RequestRecord]) -> str:
    """stable, backlogged or overloaded, by how the time to first token grows over the run."""
    quarter = max(1, len(records) // 4)
    early = np.mean([r.ttft_s for r in records[:quarter]])
    late = np.mean([r.ttft_s for r in records[-quarter:]])
    last = max(r.arrival_s for r in records)
    drain = max(r.completion_s for r in records) - last
    if late > 4 * early and drain > 0.2 * max(last, 1e-9):
        return "overloaded"
    return "backlogged" if late > 3 * early else "stable"
