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
from planner.sizing.operating import join
from planner.sizing.other_layouts import fewest, needed, scaled
from planner.sizing.pools import DecodePool, prefill_pool
from planner.sizing.result import Plan
from planner.sizing.search import Search, Sized

#: what steps may at most be times as long is looked for among so many factors
STEPS_LOOKED_AT = 7


@dataclass(frozen=True)
class FleetRange:
    """Fleets with steps at both ends of their interval: accelerators, None where no number keeps the limits.

    ``slowest`` and ``fastest``: a replica's highest rate over the predicted one, [1], 0 where none keeps the limits;
    ``held``: how many times as long steps may be for some number to keep them, [1], where not to the end; ``anew``:
    the upper end is in another layout or way to draft, as these replicas need more.
    """

    low: int
    high: int | None
    slowest: float
    fastest: float
    held: float | None = None
    anew: bool = False


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

    But where longer steps ask for more than so many times the accelerators, limits on latency take their part of the
    batch: the same accelerator may then be laid out anew, and the upper end is the fewest. A fleet the simulator
    enlarged stays larger in proportion. Source: as :func:`planner.sizing.search.search`.
    """
    if not sized:
        return []
    rows = join([scaled(s.rows, f) for s, x in zip(sized, factors, strict=True) for f in (x.low, 1.0, x.high)])
    needs, rates = (x.reshape(-1, 3) for x in needed(found, rows))
    ranges = []
    for s, need, most in zip(sized, needs, rates, strict=True):
        counts = [_serving(s, n, need[1]) for n in (need[0], need[2])]
        least, largest = (None if c is None else _gpus(found, s, c) for c in counts)
        low = s.gpus if least is None else min(least, s.gpus)
        high = None if largest is None else max(largest, s.gpus)
        slowest, fastest = (float(m / most[1]) if most[1] else 0.0 for m in (most[2], most[0]))
        ranges.append(FleetRange(low, high, slowest, fastest))
    grown = [i for i, r in enumerate(ranges) if r.high is None or r.high > math.ceil(factors[i].high * sized[i].gpus)]
    if grown:
        again = fewest(found, [sized[i] for i in grown], [factors[i].high for i in grown])
        for i, (fleet, devices) in zip(grown, again, strict=True):
            ranges[i] = _laid_out_anew(found, sized[i], ranges[i], _serving(sized[i], fleet, needs[i, 1]), devices)
    lost = [i for i in grown if ranges[i].high is None]
    return [replace(r, held=_held(found, sized[i], factors[i])) if i in lost else r for i, r in enumerate(ranges)]


def _laid_out_anew(found: Search, sized: Sized, now: FleetRange, serving: int | None, devices: int) -> FleetRange:
    """The range with its upper end in another layout, where that takes fewer accelerators."""
    if serving is None:
        return now
    gpus = max(sized.gpus, _fleet(found, serving) * devices)
    return now if now.high is not None and now.high <= gpus else replace(now, high=gpus, anew=True)


def _held(found: Search, sized: Sized, factors: Factors) -> float:
    """How many times as long steps may be for some number of the accelerator to keep every limit, [1]."""
    tried = [float(f) for f in np.linspace(1.0, factors.high, STEPS_LOOKED_AT)[1:-1]]
    fleets = fewest(found, [sized] * len(tried), tried)
    return max([1.0, *(f for f, (fleet, _) in zip(tried, fleets, strict=True) if math.isfinite(fleet))])


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
        counts = [_serving(s, need / r if r else np.inf, need) for r in (relative[0], relative[2])]
        least, largest = (None if c is None else _gpus(found, s, c) for c in counts)
        low += s.gpus if least is None else min(least, s.gpus)
        high = None if high is None or largest is None else high + max(largest, s.gpus)
    return FleetRange(low, high, min(r[2] for r in ratios), min(r[0] for r in ratios))


def _serving(sized: Sized, need: float, predicted: float) -> int | None:
    """Serving replicas where ``need`` are needed, in proportion to those planned for the ``predicted`` need."""
    if not math.isfinite(need):
        return None
    planned = sized.replicas - sized.spares
    base = max(1, math.ceil(predicted - 1e-9)) if math.isfinite(predicted) else planned
    return max(1, math.ceil(need * max(1.0, planned / base) - 1e-9))


def _gpus(found: Search, sized: Sized, serving: int) -> int:
    return _fleet(found, serving) * int(sized.rows.devices[0, 0])


def _fleet(found: Search, serving: int) -> int:
    """Serving replicas with their spares."""
    wanted = found.workload.reliability.spare_replicas
    return serving + (spare_replicas(serving) if wanted is None else wanted)


def _with(plan: Plan, found: FleetRange, factors: Factors) -> Plan:
    most = plan.throughput.max_requests_per_second
    source = f"steps {factors.low:.2f} to {factors.high:.2f} times as long: {factors.source}"
    rates = Interval(level=factors.level, low=most * found.slowest, high=most * found.fastest, source=source)
    counted = source
    if found.anew:
        counted = f"the most in another layout or way to draft; {source}"
    elif found.held is not None:
        counted = f"limits kept by steps up to {found.held:.2f} times as long, then by no number; {source}"
    return plan.model_copy(
        update={
            "gpus_interval": Interval(level=factors.level, low=found.low, high=found.high, source=counted),
            "throughput": plan.throughput.model_copy(update={"max_requests_per_second_interval": rates}),
        }
    )
