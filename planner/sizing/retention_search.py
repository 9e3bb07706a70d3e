"""A fleet sized by the contexts that are really still cached when their sessions return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from planner.hardware import Database
from planner.hardware.offload import load_offload
from planner.serving.cache_retention import resident_tokens
from planner.sizing.operating import join
from planner.sizing.replica import ReplicaModel
from planner.sizing.retention import (
    WARM,
    Contexts,
    Vector,
    contexts_of,
    hits_of,
    horizon_for,
    retention,
    room_of,
    with_retention,
)
from planner.sizing.retention_result import Retention
from planner.sizing.search import Search, Sized, actual_rate, objective_value, search
from planner.workload import Workload

#: how far a plan's hit ratio may stay below the one it was priced with
TOLERANCE = 0.01
#: searches with a hit ratio below the assumed one, at most
ROUNDS = 3
#: misses where more of them left no fleet within the limits, so many times fewer
FEWER = 5


def search_with_retention(workload: Workload, database: Database, **options: Any) -> tuple[Search, Retention | None]:
    """The search at a hit ratio its best candidate really has, and what that keeps; units as in both.

    First with every context cached, then with the share the best candidate keeps, until both agree.
    Each time candidates get the replicas that keep the share they are priced with; the cheapest round
    wins, so contexts are kept warm by more replicas where that is cheaper than computing them again.
    ``options`` as of :func:`planner.sizing.search.search`, whose answer it is without sessions.

    Source: fixed-point iteration; :func:`retention`.
    """
    first = search(workload, database, **options)
    session = workload.demand.session
    if session is None or not first.found:
        return first, None
    contexts = contexts_of(session)
    rounds: list[tuple[Search, float]] = []  # and how far the best one is from the share it is priced with
    tried: list[tuple[float, float]] = []  # share priced with, share the best candidate has
    hit, floor, found, searches = 1.0, 0.0, first, 0  # at the floor no fleet keeps every limit
    while True:
        enough = keeping(found, hit)
        if enough.found:
            rounds.append((enough, abs(_hit_of_best(enough, contexts) - hit)))
        # how far the first one is from what it assumes decides where to look; later ones are kept warm
        priced = enough if hit < 1 and enough.found else found
        if priced.found:
            tried.append((hit, _hit_of_best(priced, contexts)))
            if abs(tried[-1][1] - hit) <= TOLERANCE:
                break
        else:
            floor = hit
        searches += 1
        if searches > ROUNDS:
            break
        wanted = _next(tried)
        if wanted <= floor:  # few misses where many break a limit
            wanted = 1 - (1 - max(floor, *(h for h, _ in tried if h < 1), 0.0)) / FEWER
        hit = wanted
        found = search(with_retention(workload, hit), database, **options)
    if not rounds:  # contexts take more accelerators than allowed, and without them a limit breaks
        return keeping(first, 1.0), None
    chosen, _ = min(rounds, key=lambda r: (round(r[0].found[0].objective, 6), r[1]))
    return chosen, retention(chosen, chosen.found[0], load_offload(database.root))


def _next(tried: Sequence[tuple[float, float]]) -> float:
    """The share to price with next: where the share kept meets it, by the secant once it is between two."""
    above = [t for t in tried if t[1] < t[0]]
    below = [t for t in tried if t[1] >= t[0]]
    high, lacking = min(above)
    if not below:
        return lacking
    low, kept = max(below)
    return low + (high - low) * (kept - low) / (kept - low + high - lacking)


def _hit_of_best(found: Search, contexts: Contexts) -> float:
    return float(hits_of(room_of(found, found.found[:1], contexts), contexts)[1][0])


def keeping(found: Search, hit: float) -> Search:
    """The search with as many replicas of every candidate as keep a share ``hit`` [1] of idle contexts.

    Those that would need more accelerators than allowed are left out. Source: :func:`retention`.
    """
    session = found.workload.demand.session
    if session is None or not found.found or hit <= TOLERANCE:
        return found
    contexts = contexts_of(session)
    horizon = horizon_for(contexts, min(hit, WARM))
    candidates = list(found.found)
    for _ in range(3):
        room = room_of(found, candidates, contexts)
        needed = room.active + np.asarray(resident_tokens(contexts.idle(room.rate), horizon))
        short = np.flatnonzero(hits_of(room, contexts)[1] < hit - TOLERANCE)
        if not len(short):
            break
        # what is pinned is on every replica, the rest is shared out
        shared = room.serving * (needed - contexts.pinned) / np.maximum(room.cache - contexts.pinned, 1.0)
        enough = np.maximum(np.ceil(shared), room.serving + 1)
        for i, one in zip(short, _resized(found, [candidates[i] for i in short], enough[short]), strict=True):
            candidates[i] = one
    room = room_of(found, candidates, contexts)
    holds = hits_of(room, contexts)[1] >= hit - TOLERANCE
    most = found.workload.hardware.max_gpus or np.inf
    kept = [s for s, ok in zip(candidates, holds, strict=True) if ok and s.gpus <= most]
    left = {s.seat.accelerator.name for s in candidates} - {s.seat.accelerator.name for s in kept}
    reason = f"keeps less than {hit:.0%} of idle contexts within the accelerators allowed"
    rejected = {**found.rejected, **dict.fromkeys(left, reason)}
    kept.sort(key=lambda s: round(s.objective, 6))
    return replace(found, found=tuple(kept), rejected=rejected)


def _resized(found: Search, candidates: Sequence[Sized], serving: Vector) -> list[Sized]:
    """:func:`planner.sizing.confirm.resized` of many at once; their highest rates stay as they are."""
    rows = join([s.rows for s in candidates])
    model = ReplicaModel(rows, found.load, found.workload.slo, found.constants)
    rate = actual_rate(model, model.limit, serving[:, None], found.workload, found.load)
    served = model.serve(rate)
    sized = []
    for i, s in enumerate(candidates):
        total = int(serving[i]) + s.spares
        mine = served.row(i)
        value = objective_value(total * int(s.rows.devices[0, 0]), s.rows, mine, found.workload)
        sized.append(replace(s, served=mine, replicas=total, objective=value))
    return sized
