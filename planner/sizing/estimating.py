"""One fixed configuration: a bare decode step, or what it does under a load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from planner.cost.memory import CacheLayout, largest_context
from planner.documents import Document
from planner.hardware import Database
from planner.hardware.intervals import Factors, Known
from planner.serving.latency import LatencyCurve, percentiles, prefill_wait
from planner.serving.load import Load, load_from
from planner.sizing.configuration import (
    EstimateRequest,
    Setup,
    check_question,
    describe_configuration,
    machine_of,
    set_up,
)
from planner.sizing.drafting import NONE
from planner.sizing.explain import bound_by, kv_tokens_that_fit, step_bytes, step_operators, step_seconds
from planner.sizing.footprint import footprint
from planner.sizing.intervals import interval, latency_with_intervals
from planner.sizing.operating import Seat, price_group
from planner.sizing.replica import ReplicaModel
from planner.sizing.result import (
    Assumption,
    Estimate,
    Latency,
    Memory,
    Percentiles,
    Step,
    Throughput,
)
from planner.workload import build_workload

ITERATIONS = 60


def estimate(request: EstimateRequest, database: Database, models: Sequence[object] = ()) -> Estimate:
    """The bare step (``batch`` and ``context``) or the served load of one configuration.

    Raises InputError for an unknown name, impossible parallelism, or an unclear question. Units are
    those of :class:`planner.sizing.result.Estimate`.

    Source: planner.cost for the step, planner.serving for the load.
    """
    bare, served = check_question(request)
    setup = set_up(request, database, models)
    hold = footprint(setup.step, setup.chip, setup.engine, setup.layout)
    context = request.context or (request.input_tokens or 0.0) + (request.output_tokens or 0.0) / 2
    memory = _memory(setup, hold, max(context, 1.0), request)
    warnings = []
    fits = hold.kv_room > 0 and memory.kv <= memory.kv_capacity
    if not fits:
        warnings.append(
            f"does not fit: {(memory.weights + memory.kv + memory.activations) / 1e9:.1f} GB wanted, "
            f"{memory.usable / 1e9:.1f} GB usable on each {setup.chip.name}"
        )
    assumptions = _assumptions(setup)
    if bare:
        return Estimate(
            configuration=describe_configuration(request, setup), step=_bare(request, setup), memory=memory,
            fits=fits, assumptions=assumptions, warnings=tuple(warnings),
        )  # fmt: skip
    latency, throughput, batch, said = _serve(request, setup, hold.kv_room, served)
    known = _known(setup)
    if latency is not None:
        latency = latency_with_intervals(latency, known)
    if throughput is not None:
        throughput = _with_intervals(throughput, known.tpot.inverse, given=request.rate is not None)
    return Estimate(
        verdict=_verdict(request, throughput, bool(said), setup),
        configuration=describe_configuration(request, setup), latency=latency, throughput=throughput,
        memory=memory, mean_batch=batch, fits=fits, assumptions=assumptions,
        warnings=(*warnings, *said),
    )  # fmt: skip


def _verdict(
    request: EstimateRequest, throughput: Throughput | None, waiting: bool, setup: Setup
) -> Literal["stable", "backlogged", "overloaded"] | None:
    """Whether a queue builds up: at a rate by its share of the stable one, in a closed loop never without end."""
    if throughput is None:
        return None
    if request.rate is not None:
        share = request.rate / throughput.max_requests_per_second
        if share >= 1:
            return "overloaded"
        return "stable" if share <= setup.constants.utilisation_limit else "backlogged"
    return "backlogged" if waiting else "stable"


def _bare(request: EstimateRequest, setup: Setup) -> Step:
    assert request.batch is not None and request.context is not None
    stages = float(setup.layout.pipeline)
    cost = setup.step.decode(machine_of(setup), setup.layout, request.batch, [request.context])
    seconds = step_seconds(cost)
    total = float(np.asarray(cost.seconds).squeeze())
    moved = step_bytes(cost, stages)
    rate = request.batch / total
    factors = _known(setup).tpot
    return Step(
        seconds=total,
        bytes=moved.weights + moved.kv + moved.indexer + moved.state + moved.activations,
        flops=float(np.asarray(cost.flops).squeeze()) / stages,
        bound_by=bound_by(seconds),
        bytes_per_step=moved,
        seconds_per_step=seconds,
        operators=step_operators(cost, stages),
        time_per_output_token_s=total,
        output_tokens_per_second=rate,
        output_tokens_per_second_per_gpu=rate / float(setup.layout.devices),
        time_per_output_token_s_interval=interval(total, factors),
        output_tokens_per_second_interval=interval(rate, factors.inverse),
    )


def _known(setup: Setup) -> Known:
    return setup.intervals.of(setup.chip, setup.model.architecture_kind, setup.engine)


def _memory(setup: Setup, hold: Any, context: float, request: EstimateRequest) -> Memory:
    cache = CacheLayout(setup.model.layers, setup.precision.kv, setup.engine.hybrid_kv_manager)
    layout = setup.layout
    each = float(np.asarray(cache.allocated(context, layout)))
    state = float(np.asarray(cache.state(layout)))
    ranks = float(layout.data)
    room = max(0.0, hold.kv_room)
    fit = int(room * ranks / (each + state)) if each + state > 0 else 0
    batch = request.batch or request.concurrency or 1.0
    batch = min(batch, max(fit, 1)) if request.batch is None else batch
    return Memory(
        capacity=hold.capacity,
        usable=hold.usable,
        weights=hold.weights,
        kv=each * batch / ranks,
        kv_capacity=room,
        kv_capacity_tokens=kv_tokens_that_fit(room, cache, layout, context),
        kv_bytes_per_token_formula=cache.bytes_per_token(layout),
        kv_bytes_per_token_allocated=cache.allocated_bytes_per_token(layout),
        state=state * batch / ranks,
        activations=hold.activations,
        graphs=hold.graphs,
        collectives=hold.collectives,
        draft=0.0,
        max_context_tokens=largest_context(cache, layout, room, setup.model.max_context or 1 << 20),
        max_batch_that_fits=fit,
    )


def _load(request: EstimateRequest) -> Load:
    assert request.input_tokens is not None and request.output_tokens is not None
    data = {
        "model": request.model,
        "demand": {"requests_per_second": float(request.rate or 1.0)},
        "context": {
            "mean": float(request.input_tokens),
            "distribution": "constant",
            "cached_fraction": request.cached_tokens / request.input_tokens,
        },
        "answer": {"mean": float(request.output_tokens), "distribution": "constant"},
    }
    return load_from(build_workload(Document("estimate", data)))


def _serve(
    request: EstimateRequest, setup: Setup, room: float, kind: str
) -> tuple[Latency | None, Throughput | None, float | None, list[str]]:
    load = _load(request)
    slots = setup.engine.max_num_seqs(setup.chip.memory_bytes) * int(setup.layout.data)
    seat = Seat(setup.chip, setup.layout, setup.precision, machine_of(setup), None, room, slots)
    budget = float(setup.engine.max_batched_tokens(setup.chip.memory_bytes))
    rows = price_group(setup.step, [seat], [NONE], load, setup.engine.hybrid_kv_manager, budget)
    if float(rows.slots[0, 0]) < 1:
        return None, None, None, ["not one request of this length fits"]
    replica = ReplicaModel(rows, load, (), setup.constants)
    stable = float(replica.stable_rate()[0, 0])
    if kind == "rate":
        assert request.rate is not None
        if request.rate >= stable:
            overload = f"overloaded: {request.rate:g} requests/s asked, at most {stable:.3g} can be served"
            return None, _throughput(setup, load, stable, stable), None, [overload]
        served = replica.serve(np.array([[request.rate]]))
        latency = _latency(served.ttft, served.tpot, served.e2e)
        said = ["close to saturation: tails are indicative only"] if request.rate > 0.8 * stable else []
        return (
            latency, _throughput(setup, load, request.rate, stable), float(served.mean_batch[0, 0]), said,
        )  # fmt: skip
    concurrency = float(request.concurrency or rows.slots[0, 0])
    return _closed(replica, setup, load, concurrency, stable)


def _closed(
    replica: ReplicaModel, setup: Setup, load: Load, concurrency: float, stable: float
) -> tuple[Latency, Throughput, float, list[str]]:
    """A fixed number of requests in flight: response times by mean-value iteration."""
    rows = replica.rows
    inside = min(concurrency, float(rows.slots[0, 0]))
    batch, rate = inside, 0.0
    ttft = gap = np.zeros((1, 1))
    for _ in range(ITERATIONS):
        step = replica.step_at(np.array([[max(1.0, batch)]]))
        work, second = (float(replica.at_batch(t, batch)) for t in (rows.work, rows.work_second))
        rho = min(rate * work / float(rows.ranks[0, 0]), 0.98)
        gap = step / (1 - rho) / rows.acceptance
        # an arriving request sees the system without itself
        seen = rate * max(0.0, 1 - 1 / inside)
        wait = np.asarray(prefill_wait(seen, work, second, rho)) / rows.ranks
        ttft = rows.request_overhead + rows.own + (0.5 + rows.chunks) * step + wait
        cycle = float(percentiles(ttft, load.weights).mean[0, 0]) + load.decode_steps * float(gap[0, 0])
        rate = 0.5 * rate + 0.5 * inside / cycle if rate else inside / cycle
        batch = 0.5 * batch + 0.5 * rate * load.decode_steps * float(gap[0, 0])
    queued = (concurrency - inside) / rate if concurrency > inside else 0.0
    ttft = ttft + queued
    sample = ttft + np.maximum(load.output - 1, 0.0) * gap
    flat = LatencyCurve(gap, gap, gap, gap)
    said = []
    if concurrency > inside:
        said.append(f"only {inside:.0f} of {concurrency:.0f} requests fit at once; the rest wait")
    latency = _latency(percentiles(ttft, load.weights), flat, percentiles(sample, load.weights))
    return latency, _throughput(setup, load, rate, max(rate, stable)), batch, said


def _latency(ttft: LatencyCurve, tpot: LatencyCurve, e2e: LatencyCurve) -> Latency:
    def of(curve: LatencyCurve) -> Percentiles:
        return Percentiles(**{n: float(curve.statistic(n)[0, 0]) for n in ("mean", "p50", "p95", "p99")})

    return Latency(ttft_s=of(ttft), time_per_output_token_s=of(tpot), e2e_s=of(e2e))


def _throughput(setup: Setup, load: Load, rate: float, most: float) -> Throughput:
    tokens = rate * load.mean_output
    return Throughput(
        requests_per_second=rate,
        output_tokens_per_second=tokens,
        output_tokens_per_second_per_gpu=tokens / float(setup.layout.devices),
        max_requests_per_second=most,
    )


def _with_intervals(throughput: Throughput, factors: Factors, given: bool) -> Throughput:
    """Rates are as uncertain as steps are; one that was ``given`` is not."""
    update = {"max_requests_per_second_interval": interval(throughput.max_requests_per_second, factors)}
    if not given:
        update["output_tokens_per_second_interval"] = interval(throughput.output_tokens_per_second, factors)
    return throughput.model_copy(update=update)


def _assumptions(setup: Setup) -> tuple[Assumption, ...]:
    e = setup.chip.efficiency("matmul", setup.precision.weights, setup.engine.family)
    residual = f", residual {e.residual:.0%}" if e.residual is not None else ""
    return (
        Assumption(key="engine", value=setup.engine.label, origin="database"),
        Assumption(
            key="matmul efficiency",
            value=f"{e.compute:.0%} of compute, {e.memory:.0%} of bandwidth ({e.kind}{residual})",
            origin="database",
        ),
    )


__all__ = ["EstimateRequest", "estimate"]
