"""A first look at which accelerators and layouts deserve to be sized as pools of prefill and decode replicas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.cost.memory import CacheLayout
from planner.hardware.transfer import KvTransfer
from planner.serving.latency import percentiles
from planner.serving.queueing import spare_replicas
from planner.sizing.operating import Rows, Seat
from planner.sizing.pools import transfer_between, without_prompts
from planner.sizing.screening import TAIL, Screened, screen
from planner.sizing.search import Search

Vector = npt.NDArray[np.float64]
#: accelerators looked at exactly at a time: at least, at most, and how far from the best of them
FEWEST, MOST, NEAR = 2, 5, 1.3
#: seats on one to prefill and to decode
PREFILL_SEATS, DECODE_SEATS = 2, 2


@dataclass(frozen=True)
class Promising:
    """Rows of one accelerator and cache format, best first: those to prefill on and those to decode on.

    ``objective`` it promises, in the workload's unit.
    """

    accelerator: str
    objective: float
    prefill: tuple[int, ...]
    decode: tuple[int, ...]


def promising(found: Search, constants: KvTransfer) -> tuple[list[Promising], dict[str, str]]:
    """The accelerators whose pools promise the lowest objective, best first, and why others have none.

    Source: first-order forms of :mod:`planner.sizing.screening`; only ranks, never reported.
    """
    rows, workload, load = found.rows, found.workload, found.load
    assert rows is not None
    slos = [s for s in workload.slo if s.metric in ("tpot", "itl")]
    screened = screen(without_prompts(rows), load, slos, found.constants)
    first = _fewest_drafts(rows)
    prefill, own = _prefill_rates(found, rows.take(first), constants)
    peak = workload.peak_requests_per_second
    if peak is None:
        demand = workload.demand
        assert demand.concurrent_users is not None
        cycle = screened.e2e + float(np.median(own)) + demand.think_time
        wanted = demand.concurrent_users * demand.peak_to_mean / cycle * load.fan_out
        arriving = np.full(len(first), float(np.median(wanted)))
    else:
        wanted = np.full(len(rows), peak * load.fan_out)
        arriving = wanted[: len(first)]
    decode_cost = _costs(rows, screened.rate, wanted, screened.e2e, found)
    prefill_cost = _costs(rows.take(first), prefill, arriving, own, found)
    ways: dict[tuple[str, str], tuple[list[int], list[int]]] = {}
    for i, seat in enumerate(rows.seats):
        ways.setdefault((seat.accelerator.name, seat.precision.kv), ([], []))[1].append(i)
    for place, i in enumerate(first):
        seat = rows.seats[i]
        ways[seat.accelerator.name, seat.precision.kv][0].append(place)
    rejected = dict(found.rejected)
    ranked: list[Promising] = []
    for (name, _), (places, decoding) in ways.items():
        best_p = [p for p in sorted(places, key=lambda p: prefill_cost[p]) if np.isfinite(prefill_cost[p])][
            :PREFILL_SEATS
        ]
        best_d = _distinct_seats(rows, [d for d in decoding if np.isfinite(decode_cost[d])], decode_cost)
        if not best_d:
            rejected[name] = "no replica that only decodes keeps " + _miss(screened, decoding)
        elif not best_p:
            rejected[name] = "no replica that only prefills answers in time"
        else:
            rejected.pop(name, None)
            total = float(prefill_cost[best_p[0]] + decode_cost[best_d[0]])
            ranked.append(Promising(name, total, tuple(first[p] for p in best_p), tuple(best_d)))
    ranked.sort(key=lambda r: (r.objective, r.accelerator))
    return ranked, rejected


def nearest(ranked: list[Promising]) -> list[Promising]:
    """The first of a ranking that are worth an exact look together. Source: the limits above."""
    near = [r for r in ranked[:MOST] if r.objective <= NEAR * ranked[0].objective]
    return near if len(near) >= FEWEST else ranked[:FEWEST]


def _fewest_drafts(rows: Rows) -> list[int]:
    """A row of every seat, the one that drafts least: drafts take memory and nothing of prefill."""
    best: dict[int, int] = {}
    for i, seat in enumerate(rows.seats):
        before = best.setdefault(id(seat), i)
        if rows.options[i].drafter.draft_tokens < rows.options[before].drafter.draft_tokens:
            best[id(seat)] = i
    return list(best.values())


def _prefill_rates(found: Search, rows: Rows, constants: KvTransfer) -> tuple[Vector, Vector]:
    """Prompts per second of a replica that only prefills [1/s], 0 where none is in time, and a prompt's time [s].

    As if the decode side had the same layout.
    """
    load, share, group = found.load, found.load.weights / found.load.weights.sum(), float(found.load.fan_out)
    sent = np.array([_sent(found, seat, constants) for seat in rows.seats])
    alone = rows.own + rows.chunks * rows.steps[:, :1] + sent
    work, second = rows.work[:, -1], rows.work_second[:, -1]
    scatter = group * second / (2 * np.maximum(work, 1e-12)) / rows.ranks[:, 0]
    busy = np.full(len(rows), found.constants.utilisation_limit)
    for slo in found.workload.slo:
        if slo.metric == "ttft":
            q = TAIL[slo.statistic]
            weights = load.class_weights(slo.class_name)
            fastest = rows.request_overhead + percentiles(alone, weights).statistic(slo.statistic)
            slack = np.maximum(slo.limit_s - fastest[:, 0], 0.0)
            waits = scatter * (1.0 if q is None else -np.log(1 - q))
            busy = np.minimum(busy, slack / (slack + waits))
    rate: Vector = busy * rows.ranks[:, 0] / np.maximum(work, 1e-12)
    return rate, alone @ share


def _sent(found: Search, seat: Seat, constants: KvTransfer) -> Vector:
    """Transfers of the sampled prompts between two replicas like ``seat``, (samples,), [s]."""
    layers = CacheLayout(found.model.layers, seat.precision.kv, found.engine.hybrid_kv_manager)
    tokens = found.load.new + found.load.cached
    way = transfer_between(layers, seat, seat, tokens, constants) or transfer_between(
        layers, seat, seat, tokens, constants, 0.0
    )
    assert way is not None  # every chip has a scale-up link
    return way.seconds


def _costs(rows: Rows, rate: Vector, wanted: Vector, seconds: Vector, found: Search) -> Vector:
    """A pool's part of the objective, infinite where it has no rate."""
    kind, wished = found.workload.objective.minimise, found.workload.reliability.spare_replicas
    with np.errstate(divide="ignore"):
        serving = np.ceil(wanted / rate)
    usable = np.isfinite(serving)
    if kind == "latency":
        return np.where(usable, seconds, np.inf)
    spares = np.array([spare_replicas(int(s)) if wished is None else wished for s in np.where(usable, serving, 1)])
    each = {"cost": rows.price, "gpus": np.ones_like(rows.price), "energy": np.nan_to_num(rows.power, nan=1e9)}[kind]
    # between equal fleets the one with more room
    return (serving + spares) * rows.devices[:, 0] * each[:, 0] * (1 + 1e-6 * wanted / np.maximum(rate, 1e-30))


def _distinct_seats(rows: Rows, usable: list[int], cost: Vector) -> list[int]:
    kept: list[int] = []
    for i in sorted(usable, key=lambda i: cost[i]):
        if all(rows.seats[i] is not rows.seats[k] for k in kept):
            kept.append(i)
    return kept[:DECODE_SEATS]


def _miss(screened: Screened, some: list[int]) -> str:
    at = min(some, key=lambda i: float(screened.violation[i]))
    return f"{screened.constraint[at]}: {float(screened.violation[at]):.3g} times its limit at best"
