"""``planner simulate``: the recommended plan's replicas under drawn traffic or a trace, in discrete events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from planner.errors import InputError
from planner.hardware import Database
from planner.hardware.intervals import Known
from planner.serving.fleet import Routing
from planner.serving.requests import RequestRecord
from planner.serving.statistics import Columns, columns, verdict
from planner.sizing.confirm import confirm_best, traffic_for
from planner.sizing.fleet_range import with_ranges
from planner.sizing.intervals import known_of, latency_with_intervals
from planner.sizing.nearest_miss import no_aggregated_plan
from planner.sizing.plan import build_plan, max_batch
from planner.sizing.recommend import find
from planner.sizing.replica_simulation import EDGE, Traffic, draw_traffic, latency_of, replay_traffic, run_traffic
from planner.sizing.result import ClassLatency, Pool, Simulation
from planner.sizing.search import Search, Sized
from planner.workload import Workload
from planner.workload.traces import Trace

#: a drawn run is not longer than this many sequences
MOST_SEQUENCES = 2_000_000


def simulate_plan(
    workload: Workload,
    database: Database,
    *,
    gpus: Sequence[str] | None = None,
    price_overrides: Mapping[str, float] | None = None,
    models: Sequence[object] = (),
    trace: Trace | None = None,
    requests: int = 5000,
    duration_s: float | None = None,
    replicas: int = 1,
    routing: Routing = "least-loaded",
    rate: float | None = None,
    seed: int = 0,
) -> tuple[Simulation, list[RequestRecord]]:
    """The recommended plan's replicas under drawn traffic or a trace; units as in the result.

    ``replicas`` of the plan are simulated (0: all that serve) with their share of the peak, or of the
    whole fleet's ``rate`` [1/s]; ``requests`` sequences are drawn, or those of ``duration_s`` [s]. A trace
    is split evenly over the serving replicas. Raises NoPlanError when there is no plan.

    Source: :func:`planner.serving.fleet.simulate_fleet`.
    """
    found = find(workload, database, gpus=gpus, price_overrides=price_overrides, models=models)
    if not found.found:
        raise no_aggregated_plan(found)
    found, _ = confirm_best(found)
    sized = found.found[0]
    plan = with_ranges(found, [sized], [build_plan(found, sized)])[0]
    known = known_of(found, sized)
    serving = plan.replicas - plan.spare_replicas
    several = serving if replicas == 0 else replicas
    if several > serving:
        raise InputError(f"--replicas {replicas}: the plan has {serving} serving replicas", expected=f"0 to {serving}")
    if trace is not None:
        traffic = replay_traffic(trace, serving, several, workload.classes[0].cached_fraction)
    else:
        traffic = _drawn(workload, found, sized, serving, several, requests, duration_s, rate, seed)
    measured = run_traffic(
        found, sized, traffic, sequences=max_batch(sized), replicas=several, routing=routing, seed=seed
    )
    records = measured.run.records[measured.resident :]
    tokens = sum(r.output_tokens for r in records)
    span = max(r.completion_s for r in records) - min(r.arrival_s for r in records)
    inputs = sum(r.input_tokens for r in records)
    result = Simulation(
        plan=plan,
        requests=len(records),
        seed=seed,
        trace=None if trace is None else trace.name,
        routing=routing,
        duration_s=span,
        requests_per_second=len(records) / span,
        output_tokens_per_second=tokens / span,
        pools=(Pool(replicas=several, utilisation=measured.run.utilisation, mean_batch=measured.mean_batch),),
        preemptions=sum(r.preemptions for r in records),
        cached_fraction=sum(r.cached_tokens for r in records) / inputs,
        latency=latency_with_intervals(measured.latency(), known),
        classes=_classes(records, workload, float(sized.rows.request_overhead[0, 0]), known),
        ttft_mean_half_width_s=measured.ttft().half_width,
        verdict=verdict(records),
        max_requests_per_second=plan.throughput.max_requests_per_second,
    )
    return result, records


def _drawn(
    workload: Workload,
    found: Search,
    sized: Sized,
    serving: int,
    several: int,
    requests: int,
    duration_s: float | None,
    rate: float | None,
    seed: int,
) -> Traffic:
    planned = float(sized.served.rate[0, 0]) * several  # sequences per second of the replicas simulated
    if rate is not None:
        planned = rate * found.load.fan_out * several / serving
    count = requests if duration_s is None else max(1, round(planned * duration_s))
    if count > MOST_SEQUENCES:
        raise InputError(f"{count} sequences would be drawn", expected=f"at most {MOST_SEQUENCES}")
    if rate is None or workload.demand.concurrent_users is not None:
        return traffic_for(found, sized, count, seed, several)
    return draw_traffic(found, planned, count, seed, 0.0)


def _classes(
    records: list[RequestRecord], workload: Workload, overhead: float, known: Known
) -> tuple[ClassLatency, ...]:
    if len(workload.classes) < 2:
        return ()
    rows = []
    for c in workload.classes:
        mine = columns(records, EDGE, EDGE, c.name)
        if len(mine.ttft):
            shown = Columns(mine.ttft + overhead, mine.tpot, mine.e2e + overhead)
            latency = latency_with_intervals(latency_of(shown), known)
            rows.append(ClassLatency(request_class=c.name, requests=len(mine.ttft), latency=latency))
    return tuple(rows)
