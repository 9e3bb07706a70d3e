"""From a sized candidate to the plan a person reads: every number of the result object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planner.cost.memory import CacheLayout, largest_context
from planner.cost.step import StepModel
from planner.serving.fanout import useful_work
from planner.serving.latency import LatencyCurve
from planner.sizing.break_even import Crossing, crossings
from planner.sizing.candidates import Precision
from planner.sizing.drafting import speedups
from planner.sizing.explain import explain_step, kv_tokens_that_fit
from planner.sizing.footprint import Footprint, footprint
from planner.sizing.intervals import known_of, latency_with_intervals
from planner.sizing.operating import BATCHES, Option, Rows, Seat, Vector
from planner.sizing.result import (
    Cost,
    Latency,
    Memory,
    Percentiles,
    Plan,
    Sharing,
    Speculation,
    SpeculationFlip,
    Throughput,
    Why,
)
from planner.sizing.search import Search, Sized

SLOT_MULTIPLE = 8
SLOT_HEADROOM = 1.5


def step_model(search: Search, precision: Precision) -> StepModel:
    """The search's model in one precision. Source: none needed."""
    return StepModel(search.model, precision.formats, precision.kv, search.constants.draft_independence)


def build_plan(search: Search, sized: Sized) -> Plan:
    """The plan of one sized candidate; units as in :class:`planner.sizing.result.Plan`.

    Source: the search's serving figures at the fleet's peak rate.
    """
    seat, served, load = sized.seat, sized.served, search.load
    layout = seat.layout
    devices = int(layout.devices)
    serving = sized.replicas - sized.spares
    rate = float(served.rate[0, 0])
    sequences = rate * serving
    tokens = sequences * load.mean_output
    gpus = sized.gpus
    hourly = float(sized.rows.price[0, 0]) * gpus if seat.price else 0.0
    mean_tokens = _mean_output_rate(search, tokens)
    price = seat.price
    return Plan(
        accelerator=seat.accelerator.name,
        gpus=gpus,
        replicas=sized.replicas,
        spare_replicas=sized.spares,
        gpus_per_replica=devices,
        tensor_parallel=int(layout.tensor),
        pipeline_parallel=int(layout.pipeline),
        expert_parallel=int(layout.expert),
        data_parallel=int(layout.data),
        engine=search.engine.name,
        weight_dtype=seat.precision.weights,
        kv_dtype=seat.precision.kv,
        max_batch=max_batch(sized),
        mean_batch=float(served.mean_batch[0, 0]),
        speculation=_speculation(search, sized),
        cost=Cost(
            usd_per_hour=hourly,
            usd_per_month=hourly * search.constants.hours_per_month,
            usd_per_million_output_tokens=hourly / 3600 / mean_tokens * 1e6 if mean_tokens else 0.0,
            price_per_gpu_hour=price.usd_per_gpu_hour if price else 0.0,
            price_source=price.label if price else "no price",
        ),
        latency=latency_with_intervals(
            Latency(
                ttft_s=_percentiles(served.ttft),
                time_per_output_token_s=_percentiles(served.tpot),
                e2e_s=_percentiles(served.e2e),
            ),
            known_of(search, sized),
        ),
        throughput=Throughput(
            requests_per_second=sequences / load.fan_out,
            output_tokens_per_second=tokens,
            output_tokens_per_second_per_gpu=tokens / gpus,
            max_requests_per_second=sized.max_rate * serving / load.fan_out,
        ),
        memory=_memory(search, sized),
        power_w=float(np.nan_to_num(sized.rows.power[0, 0])) * gpus,
        sharing=_sharing(search, sized),
    )


def _mean_output_rate(search: Search, peak_tokens: float) -> float:
    """Output tokens per second on average, not at peak: what an hour of money buys."""
    return peak_tokens / search.workload.demand.peak_to_mean


def _percentiles(curve: LatencyCurve) -> Percentiles:
    return Percentiles(**{name: float(curve.statistic(name)[0, 0]) for name in ("mean", "p50", "p95", "p99")})


def max_batch(sized: Sized) -> int:
    """Slots the engine should be given: half more than one in a thousand needs, what fits at most, [sequences].

    Steps longer than predicted fill more slots than they are longer. Source: the occupancy's quantile.
    """
    slots = int(sized.rows.slots[0, 0])
    wanted = int(SLOT_HEADROOM * float(sized.served.batch_p999[0, 0])) + 1
    return max(1, min(slots, -(-wanted // SLOT_MULTIPLE) * SLOT_MULTIPLE))


def _hold(search: Search, seat: Seat) -> Footprint:
    step = step_model(search, seat.precision)
    return footprint(step, seat.accelerator, search.engine, seat.layout, search.workload.engine.memory_fraction)


def _memory(search: Search, sized: Sized) -> Memory:
    seat, load = sized.seat, search.load
    step = step_model(search, seat.precision)
    hold = _hold(search, seat)
    cache = CacheLayout(step.model.layers, seat.precision.kv, search.engine.hybrid_kv_manager)
    drafter = sized.rows.options[0].drafter
    draft = float(np.asarray(drafter.weight_bytes(seat.layout)))
    room = hold.kv_room - draft
    ranks = float(np.asarray(seat.layout.data))
    each = float(sized.rows.kv_mean[0, 0])
    batch = float(sized.served.mean_batch[0, 0]) / ranks
    limit = step.model.max_context or 1 << 20
    return Memory(
        capacity=hold.capacity,
        usable=hold.usable,
        weights=hold.weights,
        kv=batch * each,
        kv_capacity=room,
        kv_capacity_tokens=kv_tokens_that_fit(room, cache, seat.layout, load.context_mean),
        kv_bytes_per_token_formula=cache.bytes_per_token(seat.layout),
        kv_bytes_per_token_allocated=cache.allocated_bytes_per_token(seat.layout),
        state=float(np.asarray(cache.state(seat.layout))) * batch,
        activations=hold.activations,
        graphs=hold.graphs,
        collectives=hold.collectives,
        draft=draft,
        max_context_tokens=largest_context(cache, seat.layout, room, limit),
        max_batch_that_fits=int(room * ranks / each) if each > 0 else 0,
    )


def _siblings(search: Search, sized: Sized) -> list[tuple[int, str]]:
    """Rows of the same seat under every drafting option: (index, label)."""
    rows = search.rows
    if rows is None:
        return []
    seat = sized.seat
    return [(i, rows.options[i].label) for i, other in enumerate(rows.seats) if other is seat]


def _at_batch(rows: Rows, index: int, batch: float) -> float:
    return float(np.interp(batch, BATCHES, rows.steps[index]))


def _speculation(search: Search, sized: Sized) -> Speculation:
    option = sized.rows.options[0]
    drafts = option.drafter.draft_tokens
    batch = max(1.0, float(sized.served.mean_batch[0, 0]))
    margin = search.workload.speculation.margin
    rows = search.rows
    siblings = _siblings(search, sized)
    gains: dict[str, float] = {}
    plain = [i for i, label in siblings if label == "none"]
    if rows is not None and plain:
        gains = speedups(
            [rows.options[i] for i, _ in siblings],
            [_at_batch(rows, i, batch) for i, _ in siblings],
            _at_batch(rows, plain[0], batch),
        )
    best = max(gains.values(), default=1.0)
    flips = (
        _flips([(rows.options[i], rows.steps[i]) for i, _ in siblings], rows.steps[plain[0]]) if rows and plain else ()
    )
    return Speculation(
        enabled=drafts > 0,
        method=option.drafter.method,
        draft_tokens=drafts,
        acceptance_length=option.acceptance,
        speedup=gains.get(option.label, 1.0),
        margin=best - 1.0 - margin,
        considered=dict(sorted(gains.items(), key=lambda item: (-item[1], item[0]))),
        flip_batches=tuple(SpeculationFlip(at=c.at, pays_beyond=c.pays_beyond) for c in flips),
    )


def _flips(drafting: Sequence[tuple[Option, Vector]], plain: Vector) -> tuple[Crossing, ...]:
    """Batches at which the best way to draft starts or stops to pay, at the workload's contexts."""
    gains = [o.acceptance * plain / steps for o, steps in drafting if o.drafter.draft_tokens]
    return crossings(BATCHES, np.max(gains, axis=0)) if gains else ()


def _sharing(search: Search, sized: Sized) -> Sharing | None:
    agents, load = search.workload.subagents, search.load
    if agents is None or agents.fan_out <= 1:
        return None
    context, k = load.context_mean, load.fan_out
    shared = min(load.shared_prefix, context)
    unique = context - shared
    gap = float(sized.served.tpot.mean[0, 0])
    join = search.join_tokens
    return Sharing(
        fan_out=k,
        shared_prefix_tokens=shared,
        kv_tokens_without_sharing=k * context,
        kv_tokens_stored=shared + k * unique,
        tokens_read_per_step=k * context * load.read_share,
        tokens_read_with_cascade=shared + k * unique,
        join_tokens_mean=float(join),
        join_latency_s=float(sized.served.ttft.mean[0, 0]) + float(join) * gap,
        useful_work=float(
            useful_work(k, agents.success, correlation=agents.correlation, avenues=agents.independent_avenues)
        ),
    )


def build_why(search: Search, sized: Sized) -> Why:
    """The reasons of one sized candidate. Source: :func:`planner.sizing.explain.explain_step`."""
    seat = sized.seat
    return explain_step(
        step_model(search, seat.precision),
        seat.machine,
        seat.layout,
        max(1.0, float(sized.served.mean_batch[0, 0])),
        search.load,
        sized.rows.options[0].drafter.draft_tokens + 1,
        binding_constraint(search, sized),
    )


def binding_constraint(search: Search, sized: Sized) -> str:
    """What sets the rate of a replica: the limit closest to breaking at its highest rate.

    ``one replica is enough`` when the smallest fleet has room to spare. Source: definition.
    """
    from planner.sizing.replica import ReplicaModel

    replica = ReplicaModel(sized.rows, search.load, search.workload.slo, search.constants)
    at = replica.serve(np.array([[sized.max_rate]]))
    name = max(at.violations, key=lambda n: float(np.asarray(at.violations[n]).squeeze()))
    if sized.replicas - sized.spares == 1 and sized.max_rate > 1.25 * float(sized.served.rate[0, 0]):
        return f"one replica is enough (then {name})"
    return name
