"""The closed forms' answer put to the simulator: what it corrects, and a bigger fleet where a limit breaks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from planner.serving.statistics import Verdict, verdict
from planner.sizing.intervals import known_of, latency_with_intervals
from planner.sizing.plan import max_batch
from planner.sizing.replica import ReplicaModel
from planner.sizing.replica_simulation import Measured, Traffic, draw_traffic, run_traffic
from planner.sizing.result import Latency, Percentiles, Simulated
from planner.sizing.search import Search, Sized, actual_rate, objective_value
from planner.workload import Slo

#: sequences simulated: at least, at most, and per one in service
FEWEST, MOST, PER_RESIDENT = 1500, 3000, 8
#: candidates simulated at most
CONFIRMED = 4
#: share of them in runs with other step times, which only bound a figure
SCALED = 0.6
#: larger fleets tried beyond the first
ATTEMPTS = 4
#: relative difference from which a closed form's figure is called wrong
DIFFERENT = 0.2


@dataclass(frozen=True)
class Confirmation:
    """A candidate as simulated: perhaps with more replicas, its figures, and what to tell the user."""

    sized: Sized
    measured: Measured
    simulated: Simulated
    verdict: Verdict
    holds: bool
    notes: tuple[str, ...]
    binding: str | None = None  # the limit that enlarged the fleet


def confirm(found: Search, sized: Sized, *, seed: int = 0) -> Confirmation:
    """Simulate one replica of ``sized`` at its share of the peak, and add replicas until every limit holds.

    Figures in [s]. Source: :mod:`planner.serving.replica`; one replica behind a router that splits the
    traffic at random.
    """
    notes: list[str] = []
    first = serving = sized.replicas - sized.spares
    current, measured = sized, _measure(found, sized, seed)
    broken = _broken(found, measured)
    binding = broken[0][0] if broken else None
    for _ in range(ATTEMPTS):
        if not broken or not _may_grow(found, current):
            break
        serving = max(serving + 1, _enough(found, current, measured))
        current = resized(found, sized, serving)
        measured = _measure(found, current, seed)
        broken = _broken(found, measured)
    if serving != first and not broken:
        notes.append(
            f"simulation broke a limit with {first} serving replicas, which the closed forms had found enough: "
            f"{serving} hold it"
        )
    notes += [f"simulated {name} is {ratio:.2f} times its limit" for name, ratio in broken]
    known = known_of(found, current)
    closed = latency_with_intervals(_latency_of(current), known)
    notes += _differences(closed, measured.latency())
    records = measured.run.records
    simulated = Simulated(
        sequences=len(records) - measured.resident,
        seed=seed,
        utilisation=measured.run.utilisation,
        preemptions_per_sequence=sum(r.preemptions for r in records) / len(records),
        ttft_mean_half_width_s=measured.ttft().half_width,
        ttft_p95_band_s=None,
        step_time_error=max(1 - known.tpot.low, known.tpot.high - 1),
        step_time_factors=(known.tpot.low, known.tpot.high),
        closed_form=closed,
    )
    return Confirmation(
        current, measured, simulated, verdict(records[measured.resident :]), not broken, tuple(notes), binding
    )


def with_band(found: Search, confirmed: Confirmation) -> Confirmation:
    """The confirmation with p95 TTFT at steps as short and long as their interval says, [s].

    Where longer steps break a limit, a note says so; :mod:`planner.sizing.fleet_range` says what would hold it.
    Source: the same simulation with scaled step times.
    """
    sized, simulated = confirmed.sized, confirmed.simulated
    seed, longest = simulated.seed, simulated.step_time_factors[1]
    low, high = (_measure(found, sized, seed, factor) for factor in simulated.step_time_factors)
    notes = confirmed.notes
    broken = _broken(found, high)
    if confirmed.holds and broken:
        name, ratio = broken[0]
        notes = (*notes, f"with steps {longest - 1:.0%} longer than predicted {name} is {ratio:.2f} times its limit")
    band = (low.ttft().p95, high.ttft().p95)
    return replace(confirmed, simulated=simulated.model_copy(update={"ttft_p95_band_s": band}), notes=notes)


def confirm_best(found: Search) -> tuple[Search, Confirmation]:
    """The search with its best candidate as the simulator has it: another where that one got worse.

    A candidate the simulator enlarges is compared with the next; one that keeps no limit at any size
    gives way. At most :data:`CONFIRMED` are simulated. Source: :func:`confirm`.
    """
    tried: list[Confirmation] = []
    seats: dict[int, Sized] = {}
    for sized in found.found:
        seats.setdefault(id(sized.seat), sized)
    rest = list(seats.values())
    while rest and len(tried) < CONFIRMED:
        held = [c.sized.objective for c in tried if c.holds]
        if held and min(held) <= rest[0].objective:
            break
        tried.append(confirm(found, rest.pop(0)))
    best = with_band(found, min(tried, key=lambda c: (not c.holds, c.sized.objective)))
    notes = best.notes
    if best.sized.rows is not tried[0].sized.rows:
        notes = (f"{len(tried)} candidates were simulated; the closed forms' first choice came out dearer", *notes)
    simulated = {id(c.sized.seat) for c in tried}
    rivals = [c.sized for c in tried if c.sized is not best.sized and c.holds]
    rivals += [s for s in found.found if id(s.seat) not in simulated]
    rivals.sort(key=lambda s: s.objective)
    return replace(found, found=(best.sized, *rivals)), replace(best, notes=notes)


def resized(found: Search, sized: Sized, serving: int) -> Sized:
    """The same candidate with another number of serving replicas, its closed forms evaluated anew.

    Source: :class:`planner.sizing.replica.ReplicaModel`.
    """
    model = ReplicaModel(sized.rows, found.load, found.workload.slo, found.constants)
    rate = actual_rate(model, model.limit, np.array([[float(serving)]]), found.workload, found.load)
    served = model.serve(rate)
    total = serving + sized.spares
    value = objective_value(total * int(sized.rows.devices[0, 0]), sized.rows, served, found.workload)
    return replace(sized, served=served, replicas=total, max_rate=float(rate[0, 0]), objective=value)


def _enough(found: Search, sized: Sized, measured: Measured) -> int:
    """Serving replicas by closed forms whose limits are tightened by what the simulation added to them."""
    serving = sized.replicas - sized.spares
    limits = [
        replace(s, limit_s=s.limit_s * min(1.0, _closed(sized, s) / measured.statistic(s)))
        for s in found.workload.slo
    ]  # fmt: skip
    rate, possible = ReplicaModel(sized.rows, found.load, limits, found.constants).highest_rate()
    if not possible[0, 0]:
        return math.ceil(1.3 * serving)
    return math.ceil(float(sized.served.rate[0, 0]) * serving / float(rate[0, 0]) - 1e-9)


def _closed(sized: Sized, slo: Slo) -> float:
    """The closed form's figure a limit is about, [s]."""
    return float(np.asarray(sized.served.violations[slo.label]).squeeze()) * slo.limit_s


def _may_grow(found: Search, sized: Sized) -> bool:
    most = found.workload.hardware.max_gpus
    return most is None or sized.gpus + int(sized.rows.devices[0, 0]) <= most


def traffic_for(found: Search, sized: Sized, count: int, seed: int, several: int = 1) -> Traffic:
    """Traffic of ``several`` serving replicas at peak: their share of the rate, or of the users in a closed loop.

    Source: the workload's demand.
    """
    demand = found.workload.demand
    rate, in_service = several * float(sized.served.rate[0, 0]), several * float(sized.served.mean_batch[0, 0])
    if demand.concurrent_users is None:
        return draw_traffic(found, rate, count, seed, in_service)
    serving = sized.replicas - sized.spares
    streams = demand.concurrent_users * demand.peak_to_mean * found.load.fan_out
    concurrency = max(1, math.ceil(streams * several / serving))
    # who is not in service thinks, and returns at the same rate
    drawn = draw_traffic(found, rate, max(count, 4 * concurrency), seed, min(concurrency, in_service))
    return replace(drawn, concurrency=concurrency, think_time_s=demand.think_time)


def _measure(found: Search, sized: Sized, seed: int, scale: float = 1.0) -> Measured:
    count = int(min(MOST, max(FEWEST, PER_RESIDENT * float(sized.served.mean_batch[0, 0]))))
    count = count if scale == 1.0 else int(SCALED * count)
    traffic = traffic_for(found, sized, count, seed)
    return run_traffic(found, sized, traffic, sequences=max_batch(sized), scale=scale, seed=seed)


def _broken(found: Search, measured: Measured) -> list[tuple[str, float]]:
    """Limits the simulation breaks, the worst first, with how far."""
    ratios = [(s.label, measured.statistic(s) / s.limit_s) for s in found.workload.slo]
    return sorted((r for r in ratios if r[1] > 1), key=lambda r: -r[1])


def _differences(closed: Latency, simulated: Latency) -> list[str]:
    said = []
    for title, ours, theirs in (
        ("time to first token", closed.ttft_s.p95, simulated.ttft_s.p95),
        ("time per output token", closed.time_per_output_token_s.p95, simulated.time_per_output_token_s.p95),
    ):
        if theirs > 0 and abs(ours / theirs - 1) > DIFFERENT:
            said.append(f"p95 {title} in closed form is {ours / theirs:.2f} times the simulated one, which is shown")
    return said


def _latency_of(sized: Sized) -> Latency:
    served = sized.served

    def of(curve: object) -> Percentiles:
        return Percentiles(**{n: float(np.asarray(getattr(curve, n))[0, 0]) for n in ("mean", "p50", "p95", "p99")})

    return Latency(ttft_s=of(served.ttft), time_per_output_token_s=of(served.tpot), e2e_s=of(served.e2e))
