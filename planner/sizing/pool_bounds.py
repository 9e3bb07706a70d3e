"""Rates no pool of prefill or decode replicas can exceed: cheap, and never below what the exact forms find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from planner.hardware import Assumptions
from planner.hardware.transfer import KvTransfer
from planner.serving.load import Load
from planner.sizing.drafting import NONE
from planner.sizing.operating import BATCHES, Rows
from planner.sizing.pools import PrefillPool, prefill_pool, transfers_of
from planner.sizing.search import Search
from planner.workload import Slo

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
#: how finely the share of its limit a prefill replica reaches is sought
SHARE_TOLERANCE = 0.1


@dataclass(frozen=True)
class Bounds:
    """What replicas of rows reach at best, all (rows,): sequences per second [1/s], 0 where none are in time.

    ``fastest`` mean time of a sequence at next to no load, ``slowest`` at the rate, [s]; ``violation`` [1] of the
    limit named in ``constraint`` at next to no load, above 1 where the rate is 0.
    """

    rate: Vector
    fastest: Vector
    slowest: Vector
    violation: Vector
    constraint: tuple[str, ...]

    def take(self, index: Sequence[int]) -> Bounds:
        """The bounds of the rows at ``index``. Source: none needed; a selection."""
        at = np.asarray(index, dtype=int)
        return Bounds(
            self.rate[at], self.fastest[at], self.slowest[at], self.violation[at],
            tuple(self.constraint[i] for i in at),
        )  # fmt: skip


def decode_bounds(rows: Rows, load: Load, slos: Sequence[Slo], constants: Assumptions) -> Bounds:
    """Bounds of replicas that only decode, ``slos`` the limits on token times; units as in the result.

    The exact form keeps three limits of which each bounds the mean batch n alone: its caches fit, with the
    tail of their sizes but not of their number; a step at n keeps the token time, however uneven n is, as tokens
    per second grow ever slower with it; and the rate is a share of that of full slots.

    Source: necessary conditions of :class:`planner.sizing.pools.DecodePool`.
    """
    tokens = load.decode_steps / rows.acceptance[:, 0]
    slots = np.maximum(rows.slots[:, 0], 1.0)
    scatter = constants.kv_tail * np.sqrt(
        load.fan_out * np.maximum(rows.kv_second[:, 0] - rows.kv_mean[:, 0] ** 2, 0.0)
    )
    room, mean = np.maximum(rows.kv_room[:, 0], 0.0), np.maximum(rows.kv_mean[:, 0], 1.0)
    root = (np.sqrt(scatter**2 + 4 * mean * room) - scatter) / (2 * mean)
    batch = np.minimum(root**2, slots)
    at_one = {"kv memory": 1 / np.maximum(rows.slots[:, 0], 1e-9)}
    for slo in slos:
        allowed = slo.limit_s * rows.acceptance[:, 0]
        batch = np.minimum(batch, _last_batch(rows.steps, allowed))
        at_one[slo.label] = rows.steps[:, 0] / allowed
    stacked = np.stack(list(at_one.values()))
    worst, names = stacked.max(axis=0), tuple(at_one)
    full = slots / (tokens * _step(rows.steps, slots)) * constants.utilisation_limit
    rate = np.minimum(batch / (tokens * _step(rows.steps, np.maximum(batch, 1.0))), full)
    rate = np.where((worst <= 1) & (rows.slots[:, 0] >= 1), rate, 0.0)
    joined = float(np.average(np.maximum(load.joined - 1, 0.0), weights=load.weights))
    each = joined / rows.acceptance[:, 0]
    # a full replica's queue: as long as at its utilisation limit, groups arriving together
    queue = load.fan_out * constants.utilisation_limit / (1 - constants.utilisation_limit) / slots
    return Bounds(
        rate, each * rows.steps[:, 0], each * _step(rows.steps, slots) * (1 + queue), worst,
        tuple(names[i] for i in stacked.argmax(axis=0)),
    )  # fmt: skip


def _step(steps: Matrix, batch: Vector) -> Vector:
    """Steps at a batch a row, (rows,), [s]: on the line of the last two beyond them, as the exact form."""
    index = np.clip(np.searchsorted(BATCHES, batch, side="right") - 1, 0, len(BATCHES) - 2)
    at = np.arange(len(steps))
    part = (batch - BATCHES[index]) / (BATCHES[index + 1] - BATCHES[index])
    found: Vector = steps[at, index] * (1 - part) + steps[at, index + 1] * part
    return found


def _last_batch(steps: Matrix, allowed: Vector) -> Vector:
    """Largest batch of every row whose step takes at most ``allowed`` [s], (rows,): 0 where none does.

    Without end where all priced do.
    """
    within = steps <= allowed[:, None]
    last = np.where(within.any(axis=1), steps.shape[1] - 1 - within[:, ::-1].argmax(axis=1), -1)
    index = np.clip(last, 0, len(BATCHES) - 2)
    at = np.arange(len(steps))
    low, high = steps[at, index], steps[at, index + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.clip(np.nan_to_num((allowed - low) / (high - low), nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
    batch = BATCHES[index] + part * (BATCHES[index + 1] - BATCHES[index])
    return np.where(last < 0, 0.0, np.where(last == len(BATCHES) - 1, np.inf, batch))


def with_network(found: Search, rows: Rows, bounds: Bounds, fleets: Vector, constants: KvTransfer) -> Bounds:
    """Bounds of decode replicas that also receive their caches, (rows,) ``fleets`` accelerators at least.

    Only where those exceed a scale-up domain, and a network is known. Source: as :attr:`PrefillPool.egress`.
    """
    far = np.flatnonzero([f > s.accelerator.scale_up_domain for f, s in zip(fleets, rows.seats, strict=True)])
    seats = {id(rows.seats[i]): rows.seats[i] for i in far}
    ways = transfers_of(found, [(s, s) for s in seats.values()], constants, [np.inf] * len(seats))
    share = found.load.weights / found.load.weights.sum()
    most = {
        at: found.constants.utilisation_limit * w.link * float(s.layout.devices) / float(w.bytes @ share)
        for (at, s), w in zip(seats.items(), ways, strict=True)
        if w is not None
    }
    rate = bounds.rate.copy()
    rate[far] = np.minimum(rate[far], [most.get(id(rows.seats[i]), np.inf) for i in far])
    return replace(bounds, rate=rate)


def prefill_bounds(found: Search, rows: Rows, fleets: Vector, constants: KvTransfer) -> Bounds:
    """Bounds of replicas that only prefill, with a transfer as if the decode side were alike.

    Each is the highest rate of the exact form, sought coarsely and taken at the far end of what is left
    to seek. ``fleets`` (rows,) accelerators of both pools at least. Units as in the result.

    Source: :class:`planner.sizing.pools.PrefillPool`.
    """
    groups: dict[int, list[int]] = {}
    for i, seat in enumerate(rows.seats):
        groups.setdefault(id(seat.precision), []).append(i)
    rate, fastest, slowest = np.zeros((3, len(rows)))
    for places in groups.values():
        pool = _alike(found, rows.take(places), fleets[places], constants)
        most, possible = pool.highest_rate(SHARE_TOLERANCE)
        most = np.minimum(most + SHARE_TOLERANCE * pool.limit, pool.limit)
        rate[places] = np.where(possible, most, 0.0)[:, 0]
        mean = pool.times.mean
        fastest[places] = mean(pool.rows.request_overhead + pool.times.alone + pool.sent)[:, 0]
        slowest[places] = mean(pool.first_tokens(most)[0])[:, 0]
    violation = np.where(rate > 0, 0.0, np.inf)
    return Bounds(rate, fastest, slowest, violation, ("time to first token",) * len(rows))


def _alike(found: Search, rows: Rows, fleets: Vector, constants: KvTransfer) -> PrefillPool:
    """Prefill replicas of one precision that send to replicas of their own layout."""
    pairs = [(s, s) for s in rows.seats]
    near = transfers_of(found, pairs, constants, [0.0] * len(pairs))
    ways = [w or n for w, n in zip(transfers_of(found, pairs, constants, list(fleets)), near, strict=True)]
    known = [w for w in ways if w is not None]  # every chip has a scale-up link
    return prefill_pool(found, replace(rows, options=(NONE,) * len(rows)), known)
