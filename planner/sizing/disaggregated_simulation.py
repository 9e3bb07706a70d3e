"""A disaggregated candidate put to the simulator: both pools in proportion, the transfer between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.serving.fleet import Pool, simulate_disaggregated
from planner.serving.requests import RequestRecord
from planner.serving.simulator import Run
from planner.serving.statistics import Columns, Verdict, columns, distribution, verdict
from planner.sizing.disaggregated import Pair, resized_pair
from planner.sizing.plan import max_batch
from planner.sizing.pools import DecodePool, PrefillPool, prefill_pool
from planner.sizing.replica_simulation import (
    EDGE,
    draft_acceptance,
    draw_traffic,
    latency_of,
    replica_limits,
    replica_step_time,
)
from planner.sizing.result import Latency
from planner.sizing.search import Search, Sized
from planner.workload import Slo

#: replicas of a pool simulated at most, and how far off their proportion may be
LARGEST, PROPORTION = 8, 0.06
#: sequences simulated: at least, at most, and per one in service
FEWEST, MOST, PER_RESIDENT = 1500, 4000, 8
#: larger fleets tried beyond the first
ATTEMPTS = 4


@dataclass(frozen=True)
class ConfirmedPair:
    """A pair as simulated, perhaps enlarged: latencies [s], shares of time in steps [1], limits broken.

    ``simulated`` replicas of the prefill and the decode pool; ``broken`` limits with how far off they are [1];
    ``mean_batch`` sequences decoding on a replica [1].
    """

    pair: Pair
    latency: Latency
    utilisation: tuple[float, float]
    mean_batch: float
    simulated: tuple[int, int]
    sequences: int
    verdict: Verdict
    broken: tuple[tuple[str, float], ...]
    notes: tuple[str, ...] = ()


def confirm_disaggregated(found: Search, pair: Pair, *, seed: int = 0) -> ConfirmedPair:
    """Simulate ``pair`` at its share of the peak, and add replicas to the pool at fault until every limit holds.

    A limit on the first token is the prefill pool's fault, one on token times the decode pool's, one end to
    end that of the pool in which more of the time is spent. Figures in [s].

    Source: :func:`planner.serving.fleet.simulate_disaggregated`, both pools behind random routers.
    """
    current, first = pair, _serving(pair)
    measured = _measure(found, pair, seed)
    for _ in range(ATTEMPTS):
        wanted = _enough(found, measured)
        if wanted == _serving(current):
            break
        larger = resized_pair(found, current, *wanted)
        most = found.workload.hardware.max_gpus
        if most is not None and larger.gpus > most:
            break
        current, measured = larger, _measure(found, larger, seed)
    notes = [f"simulated {name} is {ratio:.2f} times its limit" for name, ratio in measured.broken]
    if _serving(current) != first:
        held = "still break one" if measured.broken else "hold it"
        before, after = ("{} prefill and {} decode replicas".format(*n) for n in (first, _serving(current)))
        notes.insert(0, f"simulation broke a limit with {before}: {after} {held}")
    return replace(measured, notes=tuple(notes))


def _serving(pair: Pair) -> tuple[int, int]:
    return pair.prefill.replicas - pair.prefill.spares, pair.decode.replicas - pair.decode.spares


def _enough(found: Search, measured: ConfirmedPair) -> tuple[int, int]:
    """Serving replicas that hold what the simulation broke, by closed forms tightened by what it added to them.

    As they are where more replicas don't help, or nothing is broken.
    """
    pair = measured.pair
    wanted = list(_serving(pair))
    whole = measured.latency
    for name, ratio in measured.broken:
        slo = next(s for s in found.workload.slo if s.label == name)
        at = {"ttft": 0, "e2e": int(whole.e2e_s.mean > 2 * whole.ttft_s.mean)}.get(slo.metric, 1)
        pool: PrefillPool | DecodePool
        if slo.metric == "e2e":
            wanted[at] = max(wanted[at], math.ceil(_serving(pair)[at] * min(ratio, 1.3)), _serving(pair)[at] + 1)
            continue
        sized = (pair.prefill, pair.decode)[at]
        closed = float(np.asarray(sized.served.violations[name]).squeeze())
        tighter = replace(slo, limit_s=slo.limit_s * min(1.0, closed / ratio))
        if at == 0:
            pool = replace(prefill_pool(found, sized.rows, [pair.transfer]), slos=(tighter,))
        else:
            pool = DecodePool(sized.rows, found.load, [tighter], found.constants)
        rate, possible = pool.highest_rate()
        if possible[0, 0]:
            enough = math.ceil(pair.rate / float(rate[0, 0]) - 1e-9)
            wanted[at] = max(wanted[at], min(max(enough, _serving(pair)[at] + 1), 2 * _serving(pair)[at]))
    return wanted[0], wanted[1]


def representative(prefill: int, decode: int) -> tuple[int, int]:
    """Small numbers of replicas in nearly the proportion of ``prefill`` to ``decode``, at least one each.

    Both as they are where no small ones come close. Source: search of all pairs up to :data:`LARGEST`.

    >>> representative(12, 20), representative(2, 3), representative(1, 40)
    ((3, 5), (2, 3), (1, 40))
    """
    wanted = math.log(prefill / decode)
    some = [(p, d) for p in range(1, LARGEST + 1) for d in range(1, LARGEST + 1)]
    close = [pd for pd in some if abs(math.log(pd[0] / pd[1]) - wanted) < PROPORTION]
    return min(close, key=sum, default=(prefill, decode))


def _measure(found: Search, pair: Pair, seed: int) -> ConfirmedPair:
    several = representative(*_serving(pair))
    # each replica sees its own share: the pool that got relatively more of them is thinned to the other's
    each = [float(s.served.rate[0, 0]) for s in (pair.prefill, pair.decode)]
    rate = max(n * r for n, r in zip(several, each, strict=True))
    resident = float(pair.decode.served.mean_batch[0, 0]) * several[1]
    count = int(min(MOST, max(FEWEST, PER_RESIDENT * resident)))
    traffic = draw_traffic(found, rate, count, seed, resident)
    longest = max(i + o for i, o in zip(traffic.requests.input, traffic.requests.output, strict=True))
    transfer, tokens, weights = pair.transfer, found.load.new + found.load.cached, found.load.weights
    run, first, second = simulate_disaggregated(
        traffic.requests,
        _pool(found, pair.prefill, several[0], longest),
        _pool(found, pair.decode, several[1], longest),
        transfer_latency_s=transfer.latency_s,
        transfer_s_per_token=float(transfer.bytes @ weights) / float(tokens @ weights) / transfer.bandwidth,
        routing="random",
        acceptance=draft_acceptance(pair.decode),
        seed=seed,
    )
    records = run.records[traffic.resident :]
    overhead = float(pair.prefill.rows.request_overhead[0, 0])
    broken = []
    for slo in found.workload.slo:
        ratio = _statistic(_columns(records, overhead, slo.class_name), slo) / slo.limit_s
        if ratio > 1:
            broken.append((slo.label, ratio))
    last = max(r.arrival_s for r in records)
    inside = sum(min(r.completion_s, last) - min(r.first_token_s, last) for r in run.records)
    return ConfirmedPair(
        pair,
        latency_of(_columns(records, overhead)),
        (_busy(first), _busy(second)),
        inside / max(last, 1e-9) / several[1],
        several,
        len(records),
        verdict(run.records),
        tuple(sorted(broken, key=lambda b: -b[1])),
    )


def _columns(records: Sequence[RequestRecord], overhead: float, kind: str | None = None) -> Columns:
    found = columns(records, EDGE, EDGE, kind)
    return Columns(found.ttft + overhead, found.tpot, found.e2e + overhead)


def _statistic(found: Columns, slo: Slo) -> float:
    sample = {"ttft": found.ttft, "tpot": found.tpot, "itl": found.tpot, "e2e": found.e2e}[slo.metric]
    value: float = getattr(distribution(sample), slo.statistic)
    return value


def _pool(found: Search, sized: Sized, replicas: int, longest: int) -> Pool:
    slots = max_batch(sized)
    return Pool(replica_step_time(found, sized, slots), replica_limits(found, sized, slots, longest), replicas)


def _busy(run: Run) -> float:
    """Share of time in steps while requests arrive, [1]."""
    last = max(r.arrival_s for r in run.records)
    return min(1.0, float(np.mean(run.busy_s)) / last) if last > 0 else 0.0
