"""Whether the contexts of idle sessions are still cached, and a fleet sized by what really is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.cost.prefill import PrefillModel
from planner.cost.step import StepModel
from planner.hardware import Database
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
from planner.sizing.operating import join
from planner.sizing.replica import ReplicaModel
from planner.sizing.result import Retention, RetentionTier
from planner.sizing.search import Search, Sized, actual_rate, objective_value, search
from planner.workload import Workload
from planner.workload.joint import JointLengths
from planner.workload.sessions import SessionModel, turn_lengths

Vector = npt.NDArray[np.float64]

#: share of returning turns whose context a replica that keeps sessions warm still has
WARM = 0.99
#: how far a plan's hit ratio may stay below the one it was priced with
TOLERANCE = 0.01
#: searches with a hit ratio below the assumed one, at most
ROUNDS = 3
#: the shortest pause looked at [s]: no pause at all makes no division by zero
SHORTEST_PAUSE = 1e-6
HALVINGS = 60


@dataclass(frozen=True)
class _Contexts:
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
def _contexts(session: SessionModel) -> _Contexts:
    lengths = turn_lengths(session)
    pause = Pause(max(session.pause_mean, SHORTEST_PAUSE), session.pause_cv if session.pause_mean > 0 else 0.0)
    ttl = np.inf if session.ttl is None else session.ttl
    in_time = float(pause.cdf(ttl))
    pinned = np.minimum(session.pinned, lengths.cached)
    found = lengths.cached > pinned
    held = float((lengths.cached - pinned)[found].mean()) if found.any() else 0.0
    returning = min(1.0, float(found.mean()) / in_time) if in_time > 0 else 0.0
    return _Contexts(
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
    lengths = _contexts(session).lengths
    place = np.random.default_rng(len(lengths)).permutation(len(lengths))
    missed = (place + 0.5) / len(lengths) > hit
    cached = np.where(missed, np.minimum(session.pinned, lengths.cached), lengths.cached)
    joint = JointLengths(lengths.input, cached, lengths.output)
    classes = tuple(replace(c, cached_fraction=joint.cached_fraction, joint=joint) for c in workload.classes)
    return replace(workload, classes=classes)


def _assumed(workload: Workload, contexts: _Contexts, pinned: float) -> float:
    """Share of the contexts found in time that the workload takes as cached, [1]."""
    lengths, now = contexts.lengths, workload.classes[0].joint
    found = lengths.cached > np.minimum(pinned, lengths.cached)
    if now is None or not found.any():
        return 1.0
    return float((now.cached[found] >= lengths.cached[found]).mean())


@dataclass(frozen=True)
class _Room:
    """Of candidates, (m,) each: turns that end per second [1/s] on a replica, its cache and what is active [tokens]."""

    rate: Vector
    cache: Vector
    active: Vector
    serving: Vector

    @property
    def idle(self) -> Vector:
        return np.maximum(self.cache - self.active, 0.0)


def _room(found: Search, candidates: Sequence[Sized], contexts: _Contexts) -> _Room:
    """What the sequences of a replica need: those that decode, and those whose prompt waits or is prefilled."""
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
    return _Room(rate, cache, active, np.array([float(s.replicas - s.spares) for s in candidates]))


def _hits(room: _Room, contexts: _Contexts) -> tuple[Vector, Vector]:
    """Characteristic time [s], and share of the contexts that return in time and are still there, [1]."""
    kept = np.asarray(characteristic_time(contexts.idle(room.rate), room.idle), dtype=float)
    if contexts.in_time == 0 or contexts.returning == 0:
        return kept, np.ones_like(kept)
    return kept, np.asarray(contexts.pause.cdf(np.minimum(kept, contexts.ttl))) / contexts.in_time


def _horizon(contexts: _Contexts, hit: float) -> float:
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
    contexts = _contexts(session)
    room = _room(found, [sized], contexts)
    kept, hits = (float(v[0]) for v in _hits(room, contexts))
    idle = contexts.idle(float(room.rate[0]))
    seat, serving = sized.seat, float(room.serving[0])
    token = float(sized.rows.kv_mean[0, 0]) / found.load.context_mean  # bytes on one accelerator of its rank
    ranks, devices = float(np.asarray(seat.layout.data)), float(np.asarray(seat.layout.devices))
    warm = float(resident_tokens(idle, _horizon(contexts, WARM)))
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


def _recompute_seconds(found: Search, sized: Sized, contexts: _Contexts) -> float:
    """Prefill of a returning turn's context after what is pinned, on one rank, [s]."""
    seat = sized.seat
    step = StepModel(found.model, seat.precision.formats, seat.precision.kv, found.constants.draft_independence)
    model = PrefillModel(step, seat.machine, seat.layout, sized.rows.budget)
    new, cached = np.array([max(contexts.held, 1.0)]), np.array([contexts.pinned])
    return float(np.asarray(model.seconds(new, cached)).squeeze())


def _tiers(
    contexts: _Contexts,
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


def _in_time(contexts: _Contexts, shares: Vector, hits: float) -> Vector:
    """Shares of the turns that return before their ttl, the last one being nowhere, (tiers + 1,), [1]."""
    if contexts.in_time == 0 or contexts.returning == 0:
        return np.array([hits, *np.zeros(len(shares) - 1)])
    found = shares[:-1] / contexts.in_time
    return np.array([*found, max(0.0, 1 - found.sum())])


def _statement(found: Retention, warm_bytes_per_gpu: float) -> str:
    said = f"Of the turns that return {found.hit_ratio:.3g} find their context still cached"
    said = said.replace(f"{found.hit_ratio:.3g}", f"{found.hit_ratio:.0%}")
    if found.keep_warm_more_bytes <= 0:
        return f"{said}; {found.idle_kv_tokens:.3g} tokens are free for idle sessions on each replica."
    said += f"; keeping {WARM:.0%} would take {found.keep_warm_more_bytes / 1e9:.3g} GB more per replica"
    host = found.tiers[0] if found.tiers else None
    if host is None:
        return f"{said}."
    verb = "reloads" if host.wins == "reload" else "would reload"
    said += (
        f", or {warm_bytes_per_gpu / 1e9:.3g} GB of host memory per accelerator, which {verb} "
        f"{found.context_tokens:.3g} tokens in {host.reload_s:.2g} s at {host.bandwidth_bytes_per_s / 1e9:.3g} GB/s"
    )
    return f"{said}; computing them again takes {found.recompute_s:.2g} s."


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
    contexts = _contexts(session)
    rounds = [first]
    tried: list[tuple[float, float]] = []  # share priced with, share the best candidate has
    hit = 1.0
    while rounds[-1].found:
        tried.append((hit, _hit_of_best(rounds[-1], contexts)))
        rounds[-1] = keeping(rounds[-1], hit)
        if abs(tried[-1][1] - hit) <= TOLERANCE or len(tried) > ROUNDS:
            break
        hit = _next(tried)
        rounds.append(search(with_retention(workload, hit), database, **options))
    held = [r for r in rounds if r.found]
    if not held:  # contexts take more accelerators than allowed, and without them a limit breaks
        return rounds[-1], None
    chosen = min(held, key=lambda r: r.found[0].objective)
    return chosen, retention(chosen, chosen.found[0], load_offload(database.root))


def _next(tried: Sequence[tuple[float, float]]) -> float:
    """The share to price with next: where the share kept meets it, by the secant once it is between two."""
    high, above = min(t for t in tried if t[1] < t[0])
    below = [t for t in tried if t[1] >= t[0]]
    if not below:
        return above
    low, kept = max(below)
    return low + (high - low) * (kept - low) / (kept - low + high - above)


def _hit_of_best(found: Search, contexts: _Contexts) -> float:
    return float(_hits(_room(found, found.found[:1], contexts), contexts)[1][0])


def keeping(found: Search, hit: float) -> Search:
    """The search with as many replicas of every candidate as keep a share ``hit`` [1] of idle contexts.

    Those that would need more accelerators than allowed are left out. Source: :func:`retention`.
    """
    session = found.workload.demand.session
    if session is None or not found.found or hit <= TOLERANCE:
        return found
    contexts = _contexts(session)
    horizon = _horizon(contexts, hit)
    candidates = list(found.found)
    for _ in range(3):
        room = _room(found, candidates, contexts)
        needed = room.active + np.asarray(resident_tokens(contexts.idle(room.rate), horizon))
        short = np.flatnonzero(_hits(room, contexts)[1] < hit - TOLERANCE)
        if not len(short):
            break
        # what is pinned is on every replica, the rest is shared out
        shared = room.serving * (needed - contexts.pinned) / np.maximum(room.cache - contexts.pinned, 1.0)
        enough = np.maximum(np.ceil(shared), room.serving + 1)
        for i, one in zip(short, _resized(found, [candidates[i] for i in short], enough[short]), strict=True):
            candidates[i] = one
    room = _room(found, candidates, contexts)
    holds = _hits(room, contexts)[1] >= hit - TOLERANCE
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
