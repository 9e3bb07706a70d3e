"""Whether the contexts of idle sessions are still cached on a replica, and what keeping them would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.cost.prefill import PrefillModel
from planner.cost.step import StepModel
from planner.hardware.database import database_root
from planner.hardware.offload import OffloadTier, load_offload, tiers_behind
from planner.serving.cache_retention import (
    IdleContexts,
    characteristic_time,
    reload_seconds,
    resident_tokens,
    return_seconds,
    tier_shares,
)
from planner.serving.pauses import Pause
from planner.sizing.retention_result import Retention, RetentionTier
from planner.sizing.search import Search, Sized
from planner.workload import Workload
from planner.workload.joint import JointLengths
from planner.workload.sessions import SessionModel, turn_lengths

Vector = npt.NDArray[np.float64]

#: share of returning turns whose context a replica that keeps sessions warm still has
WARM = 0.99
#: the shortest pause looked at [s]: no pause at all makes no division by zero
SHORTEST_PAUSE = 1e-6
HALVINGS = 60


@dataclass(frozen=True)
class Contexts:
    """What turns leave behind and find again when nothing is evicted, [tokens]; ``returning`` share of turns [1]."""

    lengths: JointLengths
    after: float
    held: float
    returning: float
    pinned: float
    pause: Pause
    ttl: float
    in_time: float  # share of pauses shorter than the ttl

    def idle(self, rate: Any) -> list[IdleContexts]:
        """The contexts of turns that end at ``rate`` [1/s]; what all sessions share is stored once."""
        return [IdleContexts(rate, max(self.after - self.pinned, 1.0), self.pause, 1 - self.returning)]


@lru_cache(maxsize=8)
def contexts_of(session: SessionModel) -> Contexts:
    """Contexts of the sessions whose turns stand for all, [tokens]. Source: :func:`turn_lengths`."""
    lengths = turn_lengths(session)
    pause = Pause(max(session.pause_mean, SHORTEST_PAUSE), session.pause_cv if session.pause_mean > 0 else 0.0)
    ttl = np.inf if session.ttl is None else session.ttl
    in_time = float(pause.cdf(ttl))
    pinned = np.minimum(session.pinned, lengths.cached)
    found = lengths.cached > pinned
    held = float((lengths.cached - pinned)[found].mean()) if found.any() else 0.0
    returning = min(1.0, float(found.mean()) / in_time) if in_time > 0 else 0.0
    return Contexts(
        lengths, float((lengths.input + lengths.output).mean()), held, returning, session.pinned, pause, ttl, in_time
    )


def with_retention(workload: Workload, hit: float) -> Workload:
    """The workload when of the turns that find their context cached only a share ``hit`` [1] does.

    The others find only what is pinned. A pause has nothing to do with a context's length, so which
    turns miss is drawn, and the same ones for every lower ``hit``. Without sessions, the workload itself.
    """
    session = workload.demand.session
    if session is None or hit >= 1:
        return workload
    lengths = contexts_of(session).lengths
    place = np.random.default_rng(len(lengths)).permutation(len(lengths))
    missed = (place + 0.5) / len(lengths) > hit
    cached = np.where(missed, np.minimum(session.pinned, lengths.cached), lengths.cached)
    joint = JointLengths(lengths.input, cached, lengths.output)
    classes = tuple(replace(c, cached_fraction=joint.cached_fraction, joint=joint) for c in workload.classes)
    return replace(workload, classes=classes)


def _assumed(workload: Workload, contexts: Contexts, pinned: float) -> float:
    """Share of the contexts found in time that the workload takes as cached, [1]."""
    lengths, now = contexts.lengths, workload.classes[0].joint
    found = lengths.cached > np.minimum(pinned, lengths.cached)
    if now is None or not found.any():
        return 1.0
    return float((now.cached[found] >= lengths.cached[found]).mean())


@dataclass(frozen=True)
class Room:
    """Of candidates, (m,) each: turns that end per second [1/s] on a replica, its cache and what is active [tokens]."""

    rate: Vector
    cache: Vector
    active: Vector
    serving: Vector

    @property
    def idle(self) -> Vector:
        """What is left for idle contexts, (m,), [tokens]. Source: definition."""
        return np.maximum(self.cache - self.active, 0.0)


def room_of(found: Search, candidates: Sequence[Sized], contexts: Contexts) -> Room:
    """The sequences of a replica need: those that decode, and those whose prompt waits or is prefilled."""
    load = found.load

    def column(values: list[Any]) -> Vector:
        return np.array([float(np.asarray(v).squeeze()) for v in values])

    rate = column([s.served.rate for s in candidates])
    batch = column([s.served.mean_batch for s in candidates])
    waiting = rate * column([s.served.ttft.mean for s in candidates])
    each = load.context_mean - contexts.pinned
    prompt = float(np.average(load.new + load.cached, weights=load.weights)) - contexts.pinned
    cache = column([s.rows.kv_room / s.rows.kv_mean * load.context_mean for s in candidates])
    active = contexts.pinned + batch * max(each, 1.0) + waiting * max(prompt, 1.0)
    return Room(rate, cache, active, np.array([float(s.replicas - s.spares) for s in candidates]))


def hits_of(room: Room, contexts: Contexts) -> tuple[Vector, Vector]:
    """Characteristic time [s], and share of the contexts that return in time and are still there, [1]."""
    kept = np.asarray(characteristic_time(contexts.idle(room.rate), room.idle), dtype=float)
    if contexts.in_time == 0 or contexts.returning == 0:
        return kept, np.ones_like(kept)
    return kept, np.asarray(contexts.pause.cdf(np.minimum(kept, contexts.ttl))) / contexts.in_time


def horizon_for(contexts: Contexts, hit: float) -> float:
    """How long contexts must be kept for a hit ratio [1], [s]: the quantile of pauses that end in time."""
    wanted = hit * contexts.in_time
    low, high = np.log(SHORTEST_PAUSE / 2), np.log(min(contexts.ttl, contexts.pause.mean * 1e6))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if float(contexts.pause.cdf(np.exp(middle))) < wanted else (low, middle)
    return float(np.exp(high))


def retention(found: Search, sized: Sized, tiers: Mapping[str, OffloadTier] | None = None) -> Retention | None:
    """What a serving replica of ``sized`` keeps of idle contexts at peak; None without sessions.

    A session returns to the replica it was served by. What memory is left beside active sequences keeps
    the contexts used last. Tiers behind it hold a copy of every context that fits; those of the shipped
    database by default. Units as in the result.

    Source: :mod:`planner.serving.cache_retention`; memory and rates of the search.
    """
    workload = found.workload
    session, users = workload.demand.session, workload.demand.concurrent_users
    if session is None or users is None:
        return None
    contexts = contexts_of(session)
    room = room_of(found, [sized], contexts)
    kept, hits = (float(v[0]) for v in hits_of(room, contexts))
    idle = contexts.idle(float(room.rate[0]))
    seat, serving = sized.seat, float(room.serving[0])
    token = float(sized.rows.kv_mean[0, 0]) / found.load.context_mean  # bytes on one accelerator of its rank
    ranks, devices = float(np.asarray(seat.layout.data)), float(np.asarray(seat.layout.devices))
    warm = float(resident_tokens(idle, horizon_for(contexts, WARM)))
    recompute = _recompute_seconds(found, sized, contexts)
    behind = tiers_behind(seat.accelerator, load_offload(database_root()) if tiers is None else tiers)
    listed, extra = _tiers(contexts, idle, float(room.idle[0]), hits, behind, token, ranks, recompute)
    assumed = _assumed(workload, contexts, session.pinned)
    lengths = contexts.lengths
    pinned = np.minimum(session.pinned, lengths.cached)
    more = max(0.0, warm - float(room.idle[0])) * token / ranks
    result = Retention(
        sessions_per_replica=users * workload.demand.peak_to_mean / serving,
        turns_per_second_per_replica=float(room.rate[0]) / found.load.fan_out,
        context_tokens=contexts.held,
        kv_tokens=float(room.cache[0]),
        active_kv_tokens=float(room.active[0]),
        idle_kv_tokens=float(room.idle[0]),
        kept_s=None if np.isinf(kept) else kept,
        hit_ratio=hits,
        planned_hit_ratio=assumed,
        cached_fraction=float((pinned + hits * (lengths.cached - pinned)).sum() / lengths.input.sum()),
        cached_fraction_without_eviction=lengths.cached_fraction,
        keep_warm_tokens=warm,
        keep_warm_more_bytes=more * devices,
        recompute_s=recompute,
        extra_ttft_s=extra,
        tiers=listed,
    )
    return result.model_copy(update={"statement": _statement(result, warm * token / ranks)})


def _recompute_seconds(found: Search, sized: Sized, contexts: Contexts) -> float:
    """Prefill of a returning turn's context after what is pinned, on one rank, [s]."""
    seat = sized.seat
    step = StepModel(found.model, seat.precision.formats, seat.precision.kv, found.constants.draft_independence)
    model = PrefillModel(step, seat.machine, seat.layout, sized.rows.budget)
    new, cached = np.array([max(contexts.held, 1.0)]), np.array([contexts.pinned])
    return float(np.asarray(model.seconds(new, cached)).squeeze())


def _tiers(
    contexts: Contexts,
    idle: list[IdleContexts],
    room: float,
    hits: float,
    behind: Sequence[OffloadTier],
    token: float,
    ranks: float,
    recompute: float,
) -> tuple[tuple[RetentionTier, ...], float]:
    """Every tier with the ones before it, and the time a turn waits for its context without any, [s]."""
    per_token = recompute / max(contexts.held, 1.0)
    listed: list[RetentionTier] = []
    sizes, speeds = [room], list[float]()

    def waits(shares: Vector) -> float:
        waited = return_seconds(shares, contexts.held, token, speeds, per_token)
        return contexts.returning * contexts.in_time * float(waited)

    for tier in behind:
        if tier.capacity <= 0:
            continue
        sizes.append(tier.capacity * ranks / token)
        speeds.append(tier.bandwidth)
        shares = _in_time(contexts, np.asarray(tier_shares(idle, sizes, contexts.ttl)), hits)
        reload = float(reload_seconds(contexts.held, token, tier.bandwidth))
        listed.append(
            RetentionTier(
                name=tier.name,
                capacity_bytes_per_gpu=tier.capacity,
                bandwidth_bytes_per_s=tier.bandwidth,
                hit_ratio=float(shares[-2]),
                reload_s=reload,
                wins="reload" if reload < recompute else "recompute",
                extra_ttft_s=waits(shares),
                source=tier.source,
            )
        )
    speeds.clear()
    return tuple(listed), waits(np.array([hits, 1 - hits]))


def _in_time(contexts: Contexts, shares: Vector, hits: float) -> Vector:
    """Shares of the turns that return before their ttl, the last one being nowhere, (tiers + 1,), [1]."""
    if contexts.in_time == 0 or contexts.returning == 0:
        return np.array([hits, *np.zeros(len(shares) - 1)])
    found = shares[:-1] / contexts.in_time
    return np.array([*found, max(0.0, 1 - found.sum())])


def _statement(found: Retention, warm_bytes_per_gpu: float) -> str:
    said = f"Of the turns that return, {found.hit_ratio:.0%} find their context still cached"
    if found.keep_warm_more_bytes <= 0:
        return f"{said}: {found.idle_kv_tokens:,.0f} tokens of each replica's memory are left for idle sessions."
    said += f"; keeping {WARM:.0%} would take {_gigabytes(found.keep_warm_more_bytes)} more per replica"
    again = f"computing them again takes {found.recompute_s:.2g} s"
    if not found.tiers:
        return f"{said}; {again}."
    host = found.tiers[0]
    there = host.capacity_bytes_per_gpu
    limit = f" (a usual server has {_gigabytes(there)})" if there < warm_bytes_per_gpu else ""
    return (
        f"{said}, or {_gigabytes(warm_bytes_per_gpu)} of host memory per accelerator{limit}, which gives "
        f"{round(found.context_tokens, -2):,.0f} tokens back in {host.reload_s:.2g} s at "
        f"{host.bandwidth_bytes_per_s / 1e9:.3g} GB/s; {again}, so {host.wins} wins."
    )


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.0f} GB" if size >= 10e9 else f"{size / 1e9:.2g} GB"
