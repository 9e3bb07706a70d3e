"""Replicas that only prefill, replicas that only decode, and the way of a cache from one to the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from planner.cost.layout import stack_layouts
from planner.cost.machine import stack_machines
from planner.cost.memory import CacheLayout
from planner.cost.prefill import PrefillModel
from planner.cost.step import StepModel
from planner.hardware import Assumptions
from planner.hardware.transfer import KvTransfer
from planner.serving.interference import Boarding
from planner.serving.kv_capacity import kv_demand
from planner.serving.latency import LatencyCurve, percentiles
from planner.serving.load import Load
from planner.serving.prefill_queue import PromptTimes, first_token_times, gathered_rounds, shared_steps
from planner.sizing.bracketing import last_within
from planner.sizing.operating import Rows, Seat, between
from planner.sizing.replica import LEVELS, ReplicaModel, Served, _State
from planner.sizing.search import Search
from planner.workload import Slo
from planner.workload.lengths import shuffled

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
#: share of its prompts' work left in a replica that only decodes: none, but ratios stay defined
NONE = 1e-12
#: least share of its limit a prefill replica is worth running at, and how finely it is sought
LEAST_SHARE, SHARE_TOLERANCE = 0.01, 1e-3
#: standard deviations of a Poisson count that one in a thousand exceeds
ONE_IN_A_THOUSAND = 3.09


@dataclass(frozen=True)
class Transfer:
    """Caches on their way between two replicas: ``bytes`` of each sampled prompt [B], ``bandwidth`` [B/s].

    The bandwidth is of the accelerators that hold one sequence, the slower side's; ``link`` of one
    accelerator; ``latency_s`` [s] of each transfer besides.
    """

    bytes: Vector
    bandwidth: float
    link: float
    latency_s: float

    @property
    def seconds(self) -> Vector:
        """Time of each prompt's transfer, (samples,), [s]. Source: definition."""
        return self.latency_s + self.bytes / self.bandwidth


def transfer_between(
    layers: CacheLayout, prefill: Seat, decode: Seat, tokens: Vector, constants: KvTransfer, fleet: float = math.inf
) -> Transfer | None:
    """The transfer of prompts of ``tokens`` (samples,) [tokens], whole caches as the decode side stores them.

    ``fleet`` accelerators of both pools: a scale-up domain that holds them all is the way, else the network;
    None where no network's bandwidth is known. A sequence lies on the tensor and pipeline ranks of one
    attention-data rank, and only those send and receive.

    Source: each attention kind's stored bytes; links and efficiency of the hardware database.
    """
    chip = prefill.accelerator
    inside = fleet <= chip.scale_up_domain
    link = chip.scale_up_bandwidth if inside else chip.scale_out_bandwidth
    if not link:
        return None
    link *= constants.efficiency
    holders = [int(s.layout.tensor) * int(s.layout.pipeline) for s in (prefill, decode)]
    whole = np.asarray(layers.stored(tokens, decode.layout)) + np.asarray(layers.state(decode.layout))
    return Transfer(whole * holders[1], link * min(holders), link, constants.latency_s)


def transfers_of(
    found: Search, pairs: Sequence[tuple[Seat, Seat]], constants: KvTransfer, fleets: Sequence[float]
) -> list[Transfer | None]:
    """The transfers of the load's prompts between pairs of seats whose pools have ``fleets`` accelerators.

    Source: :func:`transfer_between`.
    """
    tokens = found.load.new + found.load.cached
    ways: list[Transfer | None] = []
    for (p, d), fleet in zip(pairs, fleets, strict=True):
        layers = CacheLayout(found.model.layers, d.precision.kv, found.engine.hybrid_kv_manager)
        ways.append(transfer_between(layers, p, d, tokens, constants, fleet))
    return ways


def prompt_times(step: StepModel, seats: Sequence[Seat], load: Load, budget: float) -> PromptTimes:
    """What the load's prompts cost on seats of one precision that only prefill, [s].

    ``budget`` tokens of a rank's step. Source: :class:`planner.cost.prefill.PrefillModel`.
    """
    layout, machine = stack_layouts([s.layout for s in seats]), stack_machines([s.machine for s in seats])
    model = PrefillModel(step, machine, layout, budget)
    matmul, experts = model.tables()
    idle, data = np.asarray(machine.step_overhead), np.asarray(layout.data)
    attention = np.asarray(model.attention_seconds(load.new, load.cached)) + np.zeros((len(seats), len(load.new)))
    full, rest = np.divmod(load.new, budget)
    whole = np.full((1, 1), budget)
    chunk = idle + between(matmul, whole)
    last = np.where(rest > 0, idle + between(matmul, rest[None, :]) + between(experts, rest[None, :]), 0.0)
    shared = between(experts, whole * data) / (budget * data)
    return PromptTimes(
        alone=full * (chunk + between(experts, whole)) + last + attention,
        rank=load.new * chunk / budget + attention,
        stage=load.new * shared,
        chunks=np.ceil(load.new / budget)[None, :] + np.zeros_like(attention),
        ranks=data * np.asarray(layout.pipeline),
        data=data + np.zeros_like(idle),
        tokens=load.new,
        weights=load.weights,
        budget=budget,
    )


@dataclass(frozen=True)
class PrefillPool:
    """Prefill replicas of candidate pairs under one load: one row a pair.

    ``held`` (pairs, samples) [B] of each prompt's cache on one accelerator, ``sent`` (pairs, samples) [s] of
    its transfer and ``egress`` (pairs, 1) [s] it occupies the links of a whole replica.
    """

    rows: Rows
    times: PromptTimes
    held: Matrix
    sent: Matrix
    egress: Matrix
    load: Load
    slos: tuple[Slo, ...]
    constants: Assumptions

    @cached_property
    def limit(self) -> Matrix:
        """Highest rate the utilisation limit allows, (pairs, 1), [1/s]. Source: the planning constants."""
        return self.times.stable_rate() * self.constants.utilisation_limit

    def first_tokens(self, rate: Matrix) -> tuple[Matrix, Matrix]:
        """Sampled times to first token, transfer included, (pairs, samples) [s], and share of time busy [1].

        Source: :mod:`planner.serving.prefill_queue`.
        """
        load, group = self.load, float(self.load.fan_out)
        rounds = gathered_rounds(self.times, rate, group, load.arrival_cv2(rate))
        largest = load.largest(self.times.budget)
        steps = shared_steps(self.times, rate, group, largest)
        meet: Boarding = load.boarding
        found = first_token_times(meet, self.times, rounds, steps, rate, group, largest)
        busy = np.where(self.times.ranks > 1, steps.busy, rounds.busy)
        return self.rows.request_overhead + found + self.sent, busy

    def _violations(self, rate: Matrix, sample: Matrix) -> tuple[dict[str, Matrix], Matrix, Matrix]:
        load, mean = self.load, self.times.mean
        inside = rate * mean(sample)
        needed = np.asarray(
            kv_demand(inside, inside, mean(self.held), mean(self.held**2), self.constants.kv_tail, float(load.fan_out))
        )
        found: dict[str, Matrix] = {
            "kv memory": needed / np.maximum(self.rows.kv_room, 1.0),
            "utilisation": rate / self.limit,
            "kv transfer": rate * self.egress / self.constants.utilisation_limit,
        }
        for slo in self.slos:
            curve = percentiles(sample, load.class_weights(slo.class_name))
            found[slo.label] = curve.statistic(slo.statistic) / slo.limit_s
        return found, inside, needed

    def serve(self, rate: Matrix) -> Served:
        """Figures at ``rate`` prompts per second and replica, (pairs, 1), [1/s]; no tokens after the first.

        Source: :meth:`first_tokens`; Little's law for the prompts inside.
        """
        sample, busy = self.first_tokens(rate)
        violations, inside, needed = self._violations(rate, sample)
        curve = percentiles(sample, self.load.weights)
        zero = np.zeros_like(rate)
        most = np.ceil(inside + ONE_IN_A_THOUSAND * np.sqrt(self.load.fan_out * inside)) + 1
        return Served(
            rate, inside, most, curve, LatencyCurve(zero, zero, zero, zero), curve, busy, needed,
            rate <= self.times.stable_rate(), violations,
        )  # fmt: skip

    def take(self, index: npt.NDArray[np.int64]) -> PrefillPool:
        """The pool of the pairs at ``index``. Source: none needed; a selection."""
        t = self.times
        times = replace(
            t, alone=t.alone[index], rank=t.rank[index], stage=t.stage[index], chunks=t.chunks[index],
            ranks=t.ranks[index], data=t.data[index],
        )  # fmt: skip
        return replace(
            self, rows=self.rows.take(index), times=times, held=self.held[index], sent=self.sent[index],
            egress=self.egress[index],
        )  # fmt: skip

    def highest_rate(self, tolerance: float = SHARE_TOLERANCE) -> tuple[Matrix, npt.NDArray[np.bool_]]:
        """Highest rate that breaks no limit, [1/s], and whether any worth having does, (pairs, 1) each.

        ``tolerance`` of its share of :attr:`limit`, [1]. Source: definition.
        """

        def excess(share: Vector, index: npt.NDArray[np.int64]) -> Vector:
            part = self.take(index)
            rate = share[:, None] * part.limit
            found = part._violations(rate, part.first_tokens(rate)[0])[0]
            return np.max(np.stack(list(found.values())), axis=0)[:, 0] - 1

        high = np.full(len(self.rows), 1 - 1e-12)  # rounding must not put the utilisation limit above itself
        found, possible = last_within(excess, np.full(len(self.rows), LEAST_SHARE), high, tolerance)
        return found[:, None] * self.limit, possible[:, None]


def prefill_pool(found: Search, rows: Rows, transfers: Sequence[Transfer]) -> PrefillPool:
    """The prefill side of candidate pairs, a row and a transfer each; seats of one precision, [s] and [B].

    Source: :func:`prompt_times`, and the cache as the engine allocates it.
    """
    load, seats = found.load, rows.seats
    precision, tokens = seats[0].precision, load.new + load.cached
    step = StepModel(found.model, precision.formats, precision.kv, found.constants.draft_independence)
    cache = CacheLayout(found.model.layers, precision.kv, found.engine.hybrid_kv_manager)
    held = [np.asarray(cache.allocated(tokens, s.layout)) + np.asarray(cache.state(s.layout)) for s in seats]
    share = load.weights / load.weights.sum()
    egress = [
        float(t.bytes @ share) / (t.link * float(s.layout.devices)) for t, s in zip(transfers, seats, strict=True)
    ]
    return PrefillPool(
        rows, prompt_times(step, seats, load, rows.budget), np.stack(held), np.stack([t.seconds for t in transfers]),
        np.array(egress)[:, None], load, tuple(s for s in found.workload.slo if s.metric == "ttft"), found.constants,
    )  # fmt: skip


def without_prompts(rows: Rows) -> Rows:
    """The rows as replicas that get every prompt's cache from elsewhere. Source: definition."""
    return replace(
        rows,
        work=rows.work * NONE,
        work_second=rows.work_second * NONE**2,
        sharing=np.zeros_like(rows.sharing),
        stage=np.zeros_like(rows.stage),
        stage_sharing=np.zeros_like(rows.stage_sharing),
        own=np.zeros_like(rows.own),
        chunks=np.zeros_like(rows.chunks),
        request_overhead=np.zeros_like(rows.request_overhead),
    )


class DecodePool(ReplicaModel):
    """Decode replicas of candidate rows: prompts arrive with their cache and wait for a slot and a step.

    That wait is after the first token, so it counts into the time per output token. ``ttft`` of what
    it serves is the wait alone, ``e2e`` from a cache's arrival to the last token, [s].

    Source: :class:`planner.sizing.replica.ReplicaModel` without prompts in its steps.
    """

    def __init__(self, rows: Rows, load: Load, slos: Sequence[Slo], constants: Assumptions) -> None:
        super().__init__(without_prompts(rows), load, [s for s in slos if s.metric in ("tpot", "itl")], constants)

    def take(self, index: npt.NDArray[np.int64]) -> DecodePool:
        """The pool of the rows at ``index``. Source: none needed; a selection."""
        part = super().take(index)
        assert isinstance(part, DecodePool)
        return part

    def arrival_to_end(self, rate: Matrix) -> Matrix:
        """Sampled times from a cache's arrival to the last token, (rows, samples), [s]."""
        return self._state(rate).times[1]

    def _token_times(self, at: _State) -> LatencyCurve:
        load = self.load
        pick = shuffled(len(load.output), 2) % LEVELS
        steps = np.maximum(load.output - 1, 1.0)
        several = np.where(load.output > 1, load.weights, 0.0)
        waited = at.times[0] / steps
        curve = percentiles((at.levels / self.rows.acceptance)[:, pick] + waited, several)
        mean = at.gap + (waited @ (several / several.sum()))[:, None]
        return LatencyCurve(mean, curve.p50, curve.p95, curve.p99)

    def _violations(self, at: _State) -> dict[str, Matrix]:
        found = super()._violations(at)
        for slo in self.slos:
            if slo.statistic == "mean":
                found[slo.label] = self._token_times(at).mean / slo.limit_s
        return found
