"""A first look at which accelerators and layouts deserve to be sized as pools of prefill and decode replicas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from planner.hardware.transfer import KvTransfer
from planner.serving.queueing import spare_replicas
from planner.sizing.operating import Rows
from planner.sizing.pool_bounds import Bounds, decode_bounds, prefill_bounds, with_network
from planner.sizing.search import Search

Vector = npt.NDArray[np.float64]
#: accelerators looked at exactly at a time: at most, and how far from the best of them
MOST, NEAR = 5, 1.3
#: seats on one to prefill and to decode
PREFILL_SEATS, DECODE_SEATS = 2, 2


@dataclass(frozen=True)
class Promising:
    """Rows of one accelerator and cache format, best first: those to prefill on and those to decode on.

    ``objective`` in the workload's unit: no pair of the rows does better.
    """

    accelerator: str
    objective: float
    prefill: tuple[int, ...]
    decode: tuple[int, ...]


@dataclass
class _Way:
    """Rows of one accelerator and cache format: ``decode`` all of them, ``prefill`` one of each seat."""

    decode: list[int] = field(default_factory=list)
    prefill: list[int] = field(default_factory=list)


def promising(
    found: Search, constants: KvTransfer, worth: float = np.inf
) -> tuple[list[Promising], dict[str, str]]:  # fmt: skip
    """The accelerators whose pools promise the lowest objective, best first, and why others have none.

    Optimistic: pools of the rows never come out better than they promise. Those whose decode pool with one
    prefill replica exceeds ``worth`` already, in the objective's unit, are left out.

    Source: :mod:`planner.sizing.pool_bounds`; only ranks and rules out, never reported.
    """
    rows, rejected = found.rows, dict(found.rejected)
    assert rows is not None
    slos = [s for s in found.workload.slo if s.metric in ("tpot", "itl")]
    decoding = decode_bounds(rows, found.load, slos, found.constants)
    wanted = _wanted(found, decoding.slowest, np.inf)
    decoding = with_network(found, rows, decoding, _fleets(found, rows, decoding, wanted) + 1, constants)
    each = _each(found, rows)
    least, fleets = _costs(found, rows, decoding, wanted), _fleets(found, rows, decoding, wanted)
    usable: dict[tuple[str, str], _Way] = {}
    whole: list[float] = []  # accelerators of both pools, of every row to prefill on
    for key, way in _ways(rows).items():
        if not np.isfinite(least[way.decode]).any():
            rejected[key[0]] = "no replica that only decodes keeps " + _miss(decoding, way.decode)
            continue
        rejected.pop(key[0], None)
        room = worth - float(least[way.decode].min())
        way.prefill = [i for i in way.prefill if _smallest(found, rows, each, i) <= room]
        if way.prefill:
            usable[key] = way
            whole += [float(fleets[way.decode].min() + rows.devices[i, 0]) for i in way.prefill]
    first = [i for way in usable.values() for i in way.prefill]
    if not first:
        return [], rejected
    bounds = prefill_bounds(found, rows.take(first), np.array(whole), constants)
    return _ranked(found, usable, first, decoding, bounds, rejected), rejected


def _ranked(
    found: Search, ways: dict[tuple[str, str], _Way], first: list[int], decoding: Bounds, prefilling: Bounds,
    rejected: dict[str, str],
) -> list[Promising]:  # fmt: skip
    """Every way with its best rows, by what they promise together; ``first`` the rows of ``prefilling``."""
    rows = found.rows
    assert rows is not None
    place = {i: at for at, i in enumerate(first)}
    ranked: list[Promising] = []
    for (name, _), way in ways.items():
        at = [place[i] for i in way.prefill]
        in_time = prefilling.rate[at] > 0
        if not in_time.any():
            rejected[name] = "no replica that only prefills answers in time"
            continue
        keeps = decoding.rate[way.decode] > 0
        # the slower the other pool, the fewer requests the same users send
        before, after = prefilling.take(at), decoding.take(way.decode)
        least_p, best_p = _best(found, way.prefill, before, float(after.slowest[keeps].max()), PREFILL_SEATS)
        least_d, best_d = _best(found, way.decode, after, float(before.slowest[in_time].max()), DECODE_SEATS)
        ranked.append(Promising(name, least_p + least_d, best_p, best_d))
    ranked.sort(key=lambda r: (r.objective, r.accelerator))
    return ranked


def _best(
    found: Search, some: list[int], bounds: Bounds, other: float, seats: int
) -> tuple[float, tuple[int, ...]]:  # fmt: skip
    """The least ``some`` rows add to the objective, and the rows of as many ``seats`` that promise it."""
    assert found.rows is not None
    wanted = _wanted(found, bounds.slowest, other)
    costs = _costs(found, found.rows.take(some), bounds, wanted)
    with np.errstate(divide="ignore"):
        order = np.lexsort((wanted / bounds.rate, costs))  # between equal fleets the one with more room
    kept: dict[int, int] = {}
    for k in order[np.isfinite(costs[order])]:
        kept.setdefault(id(found.rows.seats[some[k]]), some[k])
    return float(costs.min()), tuple(kept.values())[:seats]


def nearest(ranked: Sequence[Promising], worth: float) -> list[Promising]:
    """The first of a ranking that are worth an exact look together, none that promise more than ``worth``.

    Source: the limits above.
    """
    if not ranked:
        return []
    return [r for r in ranked[:MOST] if r.objective <= min(NEAR * ranked[0].objective, worth)]


def _ways(rows: Rows) -> dict[tuple[str, str], _Way]:
    """Rows by accelerator and cache format; to prefill, those that draft least: drafts take memory for nothing."""
    ways: dict[tuple[str, str], _Way] = {}
    fewest: dict[int, int] = {}
    for i, seat in enumerate(rows.seats):
        ways.setdefault((seat.accelerator.name, seat.precision.kv), _Way()).decode.append(i)
        before = fewest.setdefault(id(seat), i)
        if rows.options[i].drafter.draft_tokens < rows.options[before].drafter.draft_tokens:
            fewest[id(seat)] = i
    for i in fewest.values():
        seat = rows.seats[i]
        ways[seat.accelerator.name, seat.precision.kv].prefill.append(i)
    return ways


def _wanted(found: Search, seconds: Vector, other: float) -> Vector:
    """Sequences per second at peak, (rows,), [1/s]: of users as ``seconds`` here and ``other`` there allow."""
    peak, load = found.workload.peak_requests_per_second, found.load
    if peak is not None:
        return np.full(len(seconds), peak * load.fan_out)
    demand = found.workload.demand
    assert demand.concurrent_users is not None
    users = demand.concurrent_users * demand.peak_to_mean
    return load.fan_out * users / (seconds + other + demand.think_time)


def _costs(found: Search, rows: Rows, bounds: Bounds, wanted: Vector) -> Vector:
    """The least a pool of each row adds to the objective, infinite where it has no rate."""
    if found.workload.objective.minimise == "latency":
        return np.where(bounds.rate > 0, bounds.fastest, np.inf)
    return _fleets(found, rows, bounds, wanted) * _each(found, rows)


def _fleets(found: Search, rows: Rows, bounds: Bounds, wanted: Vector) -> Vector:
    """Accelerators of the smallest pool of each row, spares included, infinite where it has no rate, (rows,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        serving = np.ceil(wanted * (1 + found.workload.reliability.headroom) / bounds.rate - 1e-9)
    usable = np.isfinite(serving)
    serving = np.maximum(np.where(usable, serving, 1.0), 1.0)
    spares = np.array([_spares(found, int(s)) for s in serving])
    return np.where(usable, (serving + spares) * rows.devices[:, 0], np.inf)


def _each(found: Search, rows: Rows) -> Vector:
    """What an accelerator of every row adds to the objective, (rows,)."""
    kind = found.workload.objective.minimise
    if kind == "latency":
        return np.zeros(len(rows))
    each = {"cost": rows.price, "gpus": np.ones_like(rows.price), "energy": np.nan_to_num(rows.power, nan=1e9)}[kind]
    value: Vector = each[:, 0]
    return value


def _spares(found: Search, serving: int) -> int:
    wished = found.workload.reliability.spare_replicas
    return spare_replicas(serving) if wished is None else wished


def _smallest(found: Search, rows: Rows, each: Vector, i: int) -> float:
    """The objective's part of the smallest pool of row ``i``, nothing where it is no sum of replicas."""
    return (1 + _spares(found, 1)) * float(rows.devices[i, 0] * each[i])


def _miss(bounds: Bounds, some: list[int]) -> str:
    at = min(some, key=lambda i: float(bounds.violation[i]))
    return f"{bounds.constraint[at]}: {float(bounds.violation[at]):.3g} times its limit at best"
