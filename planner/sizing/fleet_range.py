"""How many accelerators a plan needs if its steps are faster or slower than predicted: a range, not one number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.hardware.intervals import Factors
from planner.serving.queueing import spare_replicas
from planner.sizing.disaggregated import Pair
from planner.sizing.interval_result import Interval
from planner.sizing.intervals import known_of
from planner.sizing.operating import Rows, join
from planner.sizing.pools import DecodePool, prefill_pool
from planner.sizing.replica import ReplicaModel
from planner.sizing.result import Plan
from planner.sizing.search import Search, Sized, replicas_at


@dataclass(frozen=True)
class FleetRange:
    """Fleets with steps at both ends of their interval: accelerators, None where no number keeps the limits.

    ``slowest`` and ``fastest``: a replica's highest rate over the predicted one, [1], 0 where none keeps the limits.
    """

    low: int
    high: int | None
    slowest: float
    fastest: float


def with_ranges(found: Search, sized: Sequence[Sized], plans: Sequence[Plan]) -> list[Plan]:
    """The plans of candidates with the range of accelerators and of the highest rate, [1] and [1/s].

    Source: :func:`fleet_ranges`.
    """
    factors = [known_of(found, s).tpot for s in sized]
    ranges = fleet_ranges(found, sized, factors)
    return [_with(plan, r, f) for plan, r, f in zip(plans, ranges, factors, strict=True)]


def with_range_of_pair(found: Search, pair: Pair, plan: Plan) -> Plan:
    """The same of a disaggregated plan, both pools together. Source: :func:`pair_range`."""
    factors = known_of(found, pair.decode).tpot
    return _with(plan, pair_range(found, pair, factors), factors)


def fleet_ranges(found: Search, sized: Sequence[Sized], factors: Sequence[Factors]) -> list[FleetRange]:
    """Every candidate sized again with its steps at both ends of their interval, nothing else changed.

    A fleet the simulator enlarged stays larger in proportion. Source: as :func:`planner.sizing.search.search`.
    """
    if not sized:
        return []
    rows = join([scaled(s.rows, f) for s, x in zip(sized, factors, strict=True) for f in (x.low, 1.0, x.high)])
    workload, load = found.workload, found.load
    replica = ReplicaModel(rows, load, workload.slo, found.constants)
    rate, possible = replica.highest_rate()
    needed = replicas_at(rate[:, 0], replica.response(rate)[:, 0], workload, load)
    needed = np.where(possible[:, 0], needed * (1 + workload.reliability.headroom), np.inf)
    top = np.where(possible, rate, 0.0)
    ranges = []
    for s, need, most in zip(sized, needed.reshape(-1, 3), top.reshape(-1, 3), strict=True):
        counts = [_serving(found, s, n, need[1]) for n in (need[0], need[2])]
        least, largest = (None if c is None else _gpus(found, s, c) for c in counts)
        low = s.gpus if least is None else min(least, s.gpus)
        high = None if largest is None else max(largest, s.gpus)
        ranges.append(FleetRange(low, high, *(float(m / most[1]) if most[1] else 0.0 for m in (most[2], most[0]))))
    return ranges


def pair_range(found: Search, pair: Pair, factors: Factors) -> FleetRange:
    """A disaggregated candidate's pools sized again likewise.

    Source: as :func:`planner.sizing.disaggregated.disaggregate`.
    """
    pool = prefill_pool(found, pair.prefill.rows, [pair.transfer])
    needs = []
    for f in (factors.low, 1.0, factors.high):
        t = pool.times
        times = replace(t, alone=t.alone * f, rank=t.rank * f, stage=t.stage * f)
        decode = DecodePool(scaled(pair.decode.rows, f), found.load, found.workload.slo, found.constants)
        needs.append([m.highest_rate() for m in (replace(pool, times=times), decode)])
    low = 0
    high: int | None = 0
    ratios = []
    for i, s in enumerate((pair.prefill, pair.decode)):
        rates = [float(n[i][0][0, 0]) if n[i][1][0, 0] else 0.0 for n in needs]
        relative = [r / rates[1] if rates[1] else 0.0 for r in rates]
        ratios.append(relative)
        need = pair.rate * (1 + found.workload.reliability.headroom) / s.max_rate
        counts = [_serving(found, s, need / r if r else np.inf, need) for r in (relative[0], relative[2])]
        least, largest = (None if c is None else _gpus(found, s, c) for c in counts)
        low += s.gpus if least is None else min(least, s.gpus)
        high = None if high is None or largest is None else high + max(largest, s.gpus)
    return FleetRange(low, high, min(r[2] for r in ratios), min(r[0] for r in ratios))


def scaled(rows: Rows, factor: float) -> Rows:
    """The rows with every step ``factor`` times as long [1]; the host's time per request stays. Source: definition."""
    if factor == 1.0:
        return rows
    times = {n: getattr(rows, n) * factor for n in ("steps", "work", "sharing", "stage", "stage_sharing", "own")}
    return replace(rows, work_second=rows.work_second * factor**2, **times)


def _serving(found: Search, sized: Sized, need: float, predicted: float) -> int | None:
    """Serving replicas where ``need`` are needed, in proportion to those planned for the ``predicted`` need."""
    if not math.isfinite(need):
        return None
    planned = sized.replicas - sized.spares
    base = max(1, math.ceil(predicted - 1e-9)) if math.isfinite(predicted) else planned
    return max(1, math.ceil(need * max(1.0, planned / base) - 1e-9))


def _gpus(found: Search, sized: Sized, serving: int) -> int:
    wanted = found.workload.reliability.spare_replicas
    spares = spare_replicas(serving) if wanted is None else wanted
    return (serving + spares) * int(sized.rows.devices[0, 0])


def _with(plan: Plan, found: FleetRange, factors: Factors) -> Plan:
    most = plan.throughput.max_requests_per_second
    source = f"steps {factors.low:.2f} to {factors.high:.2f} times as long: {factors.source}"
    rates = Interval(level=factors.level, low=most * found.slowest, high=most * found.fastest, source=source)
    return plan.model_copy(
        update={
            "gpus_interval": Interval(level=factors.level, low=found.low, high=found.high, source=source),
            "throughput": plan.throughput.model_copy(update={"max_requests_per_second_interval": rates}),
        }
    )
