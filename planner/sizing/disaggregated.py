"""Prompts and answers in pools of their own: candidates of the search beside replicas that do both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from planner.hardware.database import database_root
from planner.hardware.transfer import KvTransfer, load_transfer
from planner.serving.latency import LatencyCurve, percentiles
from planner.serving.queueing import spare_replicas
from planner.sizing.drafting import NONE
from planner.sizing.operating import Rows
from planner.sizing.pools import LEAST_SHARE, DecodePool, PrefillPool, Transfer, prefill_pool, transfers_of
from planner.sizing.promising import Promising, nearest, promising
from planner.sizing.search import Search, Sized, objective_value

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
#: shares of their highest rates pools are tried at until a limit on the whole time holds
SHARES = (1.0, 0.85, 0.7, 0.5, 0.35)
ROUNDS = 4  # of users' rate against the latencies that slow them down


@dataclass(frozen=True)
class Pair:
    """A disaggregated candidate: a pool of each kind with its replicas, and what they serve together.

    ``rate`` [1/s] of sequences at peak; ``e2e`` [s] over both pools; ``objective`` in the workload's unit.
    """

    prefill: Sized
    decode: Sized
    transfer: Transfer
    rate: float
    e2e: LatencyCurve
    objective: float

    @property
    def gpus(self) -> int:
        """Accelerators of both pools, spares included. Source: definition."""
        return self.prefill.gpus + self.decode.gpus

    @property
    def usd_per_hour(self) -> float:
        """Price of both pools, 0 where none is known, [$/h]. Source: the rows' prices."""
        return float(np.nan_to_num(self.decode.rows.price[0, 0])) * self.gpus


@dataclass(frozen=True)
class Pairs:
    """Disaggregated candidates, best first, and by accelerator why there is none."""

    found: tuple[Pair, ...] = ()
    rejected: Mapping[str, str] = field(default_factory=dict)


def disaggregate(found: Search, constants: KvTransfer | None = None, worth: float = np.inf) -> Pairs:
    """Size pools of prefill and decode replicas on the accelerators that promise most for them.

    Both pools of a candidate are of one accelerator and cache format, layouts are each pool's own. Decode
    replicas keep the limits on memory and token times, prefill replicas those on the first token with the
    transfer in it, and limits end to end hold for the sum. ``constants`` of the transfer, the database's by
    default. Nothing is sized of which the first look, which is optimistic, promises an objective above ``worth``
    or that of a pair found.
    Figures in [1/s], [s] and the objective's unit.

    Source: Zhong et al., "DistServe", arXiv 2401.09670; Patel et al., "Splitwise", arXiv 2311.18677.
    """
    if found.rows is None:
        return Pairs((), found.rejected)
    constants = constants or load_transfer(database_root())
    ranked, rejected = promising(found, constants, worth)
    pairs: list[Pair] = []
    while chosen := nearest(ranked, worth):
        ranked = ranked[len(chosen) :]
        pairs += _sized(found, constants, chosen, rejected)
        worth = min([worth, *(p.objective for p in pairs)])
    pairs.sort(key=lambda p: (round(p.objective, 6), float(p.e2e.mean[0, 0]), _chip(p.decode.rows, 0)))
    kept = {_chip(p.decode.rows, 0) for p in pairs}
    return Pairs(tuple(pairs), {name: reason for name, reason in rejected.items() if name not in kept})


def _sized(found: Search, constants: KvTransfer, chosen: Sequence[Promising], rejected: dict[str, str]) -> list[Pair]:
    """Every pair of the chosen rows that keeps all limits; ``rejected`` gets the reasons of accelerators."""
    assert found.rows is not None
    order = sorted({i for c in chosen for i in c.decode})
    decode = DecodePool(found.rows.take(order), found.load, found.workload.slo, found.constants)
    highest, possible = decode.highest_rate()
    pairs: list[Pair] = []
    for group in _by_precision(found.rows, chosen):
        places = [order.index(d) for _, d in group]
        usable = [i for i, at in enumerate(places) if possible[at, 0]]
        for i, (_, d) in enumerate(group):
            if i not in usable:
                rejected.setdefault(_chip(found.rows, d), "no rate of a replica that only decodes keeps every limit")
        sizing = _Sizing(found, constants, [group[i] for i in usable], rejected)
        pairs += sizing.pairs(decode, highest, [places[i] for i in usable])
    return pairs


def resized_pair(found: Search, pair: Pair, prefill: int, decode: int) -> Pair:
    """The pair with other numbers of serving replicas, its closed forms evaluated anew.

    Source: as :func:`disaggregate`.
    """
    workload = found.workload
    before = prefill_pool(found, pair.prefill.rows, [pair.transfer])
    after = DecodePool(pair.decode.rows, found.load, workload.slo, found.constants)
    rates = [np.array([[pair.rate / n]]) for n in (prefill, decode)]
    ends = before.first_tokens(rates[0])[0] + after.arrival_to_end(rates[1])
    e2e = percentiles(ends, found.load.weights)
    pools = []
    for old, served, serving in (
        (pair.prefill, before.serve(rates[0]), prefill),
        (pair.decode, after.serve(rates[1]), decode),
    ):
        total = serving + old.spares
        value = objective_value(total * int(old.rows.devices[0, 0]), old.rows, served, workload)
        pools.append(replace(old, served=served, replicas=total, objective=value))
    value = objective_value(sum(p.gpus for p in pools), pools[1].rows, replace(pools[1].served, e2e=e2e), workload)
    return replace(pair, prefill=pools[0], decode=pools[1], e2e=e2e, objective=value)


def _chip(rows: Rows, at: int) -> str:
    return rows.seats[at].accelerator.name


def _by_precision(rows: Rows, chosen: Sequence[Promising]) -> list[list[tuple[int, int]]]:
    """Pairs of prefill and decode rows, those of equal prefill precision together."""
    groups: dict[int, list[tuple[int, int]]] = {}
    for c in chosen:
        for p in c.prefill:
            groups.setdefault(id(rows.seats[p].precision), []).extend((p, d) for d in c.decode)
    return list(groups.values())


class _Sizing:
    """Pairs whose prefill seats have one precision, on their way to fleets."""

    def __init__(
        self, found: Search, constants: KvTransfer, pairs: list[tuple[int, int]], rejected: dict[str, str]
    ) -> None:
        self.found, self.constants, self.rejected = found, constants, rejected
        assert found.rows is not None
        rows = found.rows
        self.seats = [(rows.seats[p], rows.seats[d]) for p, d in pairs]
        self.rows = rows.take([p for p, _ in pairs])
        self.rows = replace(self.rows, options=(NONE,) * len(pairs))

    def pairs(self, decoding: DecodePool, highest: Matrix, places: list[int]) -> list[Pair]:
        """The pairs as fleets that keep every limit; ``places`` of their decode rows in ``decoding``."""
        if not places:
            return []
        found = self.found
        known, inside = (
            transfers_of(found, self.seats, self.constants, [fleet] * len(places)) for fleet in (np.inf, 0.0)
        )  # fmt: skip
        transfers = [a or b for a, b in zip(known, inside, strict=True)]
        ways = [t for t in transfers if t is not None]  # every chip has a scale-up link
        pool = prefill_pool(found, self.rows, ways)
        at = np.array(places)
        most_p, possible = pool.highest_rate()
        ingress = np.array([[float(d.layout.devices)] for _, d in self.seats])
        ingress = found.constants.utilisation_limit / (pool.egress * np.asarray(pool.rows.devices) / ingress)
        most_d = np.minimum(highest[at], ingress)
        self.decoding = decoding.take(at)
        fleet = self._fleet(pool, most_p, most_d)
        nearer = [
            i for i, (p, _) in enumerate(self.seats)
            if fleet.gpus[i] <= p.accelerator.scale_up_domain and possible[i, 0] and inside[i] is not None
        ]  # fmt: skip
        if nearer:
            for i in nearer:
                ways[i] = inside[i] or ways[i]
            pool = replace(pool, sent=np.stack([t.seconds for t in ways]))
            fleet = self._fleet(pool, most_p, most_d)
        return self._kept(pool, fleet, possible, known, nearer, ways, most_p, most_d)

    def _fleet(self, pool: PrefillPool, most_p: Matrix, most_d: Matrix) -> _Fleet:
        """Replicas of both pools, and the rates they see."""
        found, load = self.found, self.found.load
        demand, workload = found.workload.demand, found.workload
        room = 1 + workload.reliability.headroom
        limits = [s for s in workload.slo if s.metric == "e2e"]
        peak = workload.peak_requests_per_second
        rate = np.full_like(most_p, (peak or 0.0) * load.fan_out)
        best: _Fleet | None = None
        for share in SHARES:
            serving = [np.ones_like(most_p), np.ones_like(most_d)]
            ends = np.empty((0, 0))
            for turn in range(ROUNDS):
                if peak is None:  # users: the sooner they are answered, the sooner they ask again
                    assert demand.concurrent_users is not None
                    users = demand.concurrent_users * demand.peak_to_mean
                    sample = self._ends(pool, share * most_p, share * most_d) if not turn else ends
                    mean = percentiles(sample, load.weights).mean
                    rate = load.fan_out * users / (mean + demand.think_time)
                serving = [
                    np.maximum(s, np.ceil(rate * room / (share * most) - 1e-9))
                    for s, most in zip(serving, (most_p, most_d), strict=True)
                ]  # fmt: skip
                if turn and peak is not None:
                    break
                ends = self._ends(pool, rate / serving[0], rate / serving[1])
            broken = np.zeros_like(rate)
            for slo in limits:
                got = percentiles(ends, load.class_weights(slo.class_name)).statistic(slo.statistic)
                broken = np.maximum(broken, got / slo.limit_s)
            now = _Fleet(rate, serving[0], serving[1], broken, np.full_like(rate, share), ends, self._gpus(serving))
            best = now if best is None else best.where(best.broken <= 1, now)
            if np.all(best.broken <= 1):
                break
        assert best is not None
        return best

    def _ends(self, pool: PrefillPool, rate_p: Matrix, rate_d: Matrix) -> Matrix:
        """Sampled end-to-end times of the pairs, (pairs, samples), [s]."""
        return pool.first_tokens(rate_p)[0] + self.decoding.arrival_to_end(rate_d)

    def _spares(self, serving: int) -> int:
        wanted = self.found.workload.reliability.spare_replicas
        return spare_replicas(serving) if wanted is None else wanted

    def _gpus(self, serving: Sequence[Matrix]) -> Vector:
        return np.array([
            sum((int(n[i, 0]) + self._spares(int(n[i, 0]))) * int(seat.layout.devices)
                for n, seat in zip(serving, seats, strict=True))
            for i, seats in enumerate(self.seats)
        ])  # fmt: skip

    def _kept(
        self, pool: PrefillPool, fleet: _Fleet, possible: npt.NDArray[np.bool_], known: Sequence[Transfer | None],
        nearer: Sequence[int], ways: Sequence[Transfer], most_p: Matrix, most_d: Matrix,
    ) -> list[Pair]:  # fmt: skip
        """The pairs that break nothing, as results; the reasons of the others."""
        found, workload = self.found, self.found.workload
        least = {} if np.all(possible) else pool.serve(LEAST_SHARE * pool.limit).violations
        served = pool.serve(fleet.rate / fleet.prefill), self.decoding.serve(fleet.rate / fleet.decode)
        curve = percentiles(fleet.ends, found.load.weights)
        pairs = []
        for i, (p, _) in enumerate(self.seats):
            name, domain = p.accelerator.name, p.accelerator.scale_up_domain
            gpus = int(fleet.gpus[i])
            reason = ""
            if not possible[i, 0]:
                limit = max(least, key=lambda n: float(np.broadcast_to(least[n], most_p.shape)[i, 0]))
                reason = f"no rate of a replica that only prefills keeps {limit}"
            elif known[i] is None and i not in nearer:
                reason = f"no network bandwidth known, and {gpus} accelerators exceed a domain of {domain}"
            elif fleet.broken[i, 0] > 1:
                reason = f"e2e misses its limit {fleet.broken[i, 0]:.3g}-fold over both pools"
            elif workload.hardware.max_gpus and gpus > workload.hardware.max_gpus:
                reason = f"{gpus} accelerators, {workload.hardware.max_gpus} allowed"
            if reason:
                self.rejected.setdefault(name, reason)
                continue
            pools = []
            for rows, at, serving, most in (
                (self.rows, served[0], fleet.prefill, most_p),
                (self.decoding.rows, served[1], fleet.decode, most_d),
            ):
                base = int(serving[i, 0])
                spares, one, mine = self._spares(base), rows.take([i]), at.row(i)
                value = objective_value((base + spares) * int(rows.devices[i, 0]), one, mine, workload)
                most_here = float(most[i, 0] * fleet.share[i, 0])
                pools.append(Sized(one, mine, base + spares, spares, most_here, value))
            whole = LatencyCurve(*(getattr(curve, n)[i : i + 1] for n in ("mean", "p50", "p95", "p99")))
            value = objective_value(gpus, pools[1].rows, replace(pools[1].served, e2e=whole), workload)
            pairs.append(Pair(pools[0], pools[1], ways[i], float(fleet.rate[i, 0]), whole, value))
        return pairs


@dataclass(frozen=True)
class _Fleet:
    """Pairs with serving replicas, all (pairs, 1): ``rate`` of sequences [1/s], ``broken`` limits end to end [1].

    ``share`` [1] of their highest rates the pools may run at for those.
    """

    rate: Matrix
    prefill: Matrix
    decode: Matrix
    broken: Matrix
    share: Matrix
    ends: Matrix
    gpus: Vector

    def where(self, mine: npt.NDArray[np.bool_], other: _Fleet) -> _Fleet:
        """This fleet for the pairs in ``mine``, the other one elsewhere. Source: none needed; a choice."""
        return _Fleet(
            np.where(mine, self.rate, other.rate),
            np.where(mine, self.prefill, other.prefill),
            np.where(mine, self.decode, other.decode),
            np.where(mine, self.broken, other.broken),
            np.where(mine, self.share, other.share),
            np.where(mine, self.ends, other.ends),
            np.where(mine[:, 0], self.gpus, other.gpus),
        )
