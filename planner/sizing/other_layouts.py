"""Slower steps than predicted: the fewest of the same accelerator that keep the limits, in whatever layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from planner.sizing.operating import Rows, join
from planner.sizing.replica import ReplicaModel
from planner.sizing.screening import screen
from planner.sizing.search import Search, Sized, replicas_at

#: layouts looked at exactly, and ways to draft of each: those the first look needs fewest accelerators for
LAYOUTS, DRAFTINGS = 10, 2


def scaled(rows: Rows, factor: float) -> Rows:
    """The rows with every step ``factor`` times as long [1]; the host's time per request stays. Source: definition."""
    if factor == 1.0:
        return rows
    times = {n: getattr(rows, n) * factor for n in ("steps", "work", "sharing", "stage", "stage_sharing", "own")}
    return replace(rows, work_second=rows.work_second * factor**2, **times)


def needed(found: Search, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Serving replicas of each row that the peak needs, not rounded, inf where no number keeps the limits, (rows,).

    And the highest rate of one, 0 there, (rows,) [1/s]. Source: as :func:`planner.sizing.search.search`.
    """
    workload, load = found.workload, found.load
    replica = ReplicaModel(rows, load, workload.slo, found.constants)
    rate, possible = replica.highest_rate()
    fleet = replicas_at(rate[:, 0], replica.response(rate)[:, 0], workload, load) * (1 + workload.reliability.headroom)
    return np.where(possible[:, 0], fleet, np.inf), np.where(possible[:, 0], rate[:, 0], 0.0)


def fewest(found: Search, sized: Sequence[Sized], factors: Sequence[float]) -> list[tuple[float, int]]:
    """What each candidate's accelerator needs with steps ``factors`` [1] times as long, layout and drafting free.

    Serving replicas, not rounded, and accelerators in each; inf where no layout looked at keeps the limits.
    The formats of weights and cache stay. Source: the search's first look, the best of it by :func:`needed`.
    """
    parts = [_most_promising(found, s, f) for s, f in zip(sized, factors, strict=True)]
    rows = [p for p in parts if len(p)]
    fleets = needed(found, join(rows))[0] if rows else np.empty(0)
    least = []
    at = 0
    for part in parts:
        devices, need = part.devices[:, 0], fleets[at : at + len(part)]
        at += len(part)
        order = np.argsort(np.ceil(need) * devices, kind="stable")
        best = int(order[0]) if len(part) else -1
        least.append((float(need[best]), int(devices[best])) if len(part) else (math.inf, 1))
    return least


def _most_promising(found: Search, sized: Sized, factor: float) -> Rows:
    """Rows of the candidate's accelerator and formats, steps scaled, that the first look needs fewest devices for."""
    assert found.rows is not None
    seat, rows = sized.seat, found.rows
    formats = (seat.precision.weights, seat.precision.kv)
    mine = [
        i for i, s in enumerate(rows.seats)
        if s.accelerator.name == seat.accelerator.name and (s.precision.weights, s.precision.kv) == formats
    ]  # fmt: skip
    slower = scaled(rows.take(mine), factor)
    looked = screen(slower, found.load, found.workload.slo, found.constants)
    usable = np.flatnonzero(looked.rate > 0)
    fleet = replicas_at(looked.rate[usable], looked.e2e[usable], found.workload, found.load)
    order = usable[np.argsort(np.ceil(fleet) * slower.devices[usable, 0], kind="stable")]
    layouts: dict[int, list[int]] = {}
    for i in order:
        layouts.setdefault(id(slower.seats[i]), []).append(int(i))
    return slower.take([i for rows in list(layouts.values())[:LAYOUTS] for i in rows[:DRAFTINGS]])
