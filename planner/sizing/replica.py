"""One replica at a rate: occupancy, latencies, limits, and the highest rate that keeps them all."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from planner.hardware import Assumptions
from planner.serving.interference import (
    MixedSteps,
    boarding_wait,
    crowded_share,
    dispersion,
    mixed_steps,
    own_stall,
    shared_work,
)
from planner.serving.kv_capacity import kv_demand
from planner.serving.latency import LatencyCurve, percentiles, stalled_token_times
from planner.serving.load import Load
from planner.serving.occupancy import Occupancy, dense_steps, last_state, occupancy
from planner.sizing.bracketing import last_within
from planner.sizing.operating import BATCHES, Rows
from planner.workload import Slo
from planner.workload.lengths import shuffled

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
RATE_TOLERANCE = 1e-4  # relative, of the highest rate
LOWEST = 1e-4  # rate looked at, of the highest any row can have
HALFWAY = 1 - np.log(2) / -np.log(LOWEST)  # half of it: most rows reach a limit around there
LEAST_STABLE = 1e-3  # of the rate that prefill and decoding would reach side by side
STABLE_TOLERANCE = 1e-6
LEAST_OWN = 0.2  # of a prompt's work at batch one, however much a larger step hides
LEVELS = 12  # of occupancy a request may meet
PROMPTS = ("work", "work_second", "sharing", "stage", "stage_sharing")  # of rows, what steps with prompts depend on


@dataclass(frozen=True)
class Served:
    """Rows at given rates: everything (rows, 1), seconds, sequences and bytes.

    ``violation``: the worst ratio of a figure to its limit, above 1 when one is broken;
    ``violations`` each one's by name.
    """

    rate: Matrix
    mean_batch: Matrix
    batch_p999: Matrix
    ttft: LatencyCurve
    tpot: LatencyCurve
    e2e: LatencyCurve
    prefill_utilisation: Matrix
    kv_needed: Matrix
    stable: npt.NDArray[np.bool_]
    violations: dict[str, Matrix]

    @property
    def violation(self) -> Matrix:
        """Largest violation, (rows, 1), [1]. Source: definition."""
        worst: Matrix = np.max(np.stack(list(self.violations.values())), axis=0)
        return worst

    def row(self, i: int) -> Served:
        """Row ``i`` of every figure, units unchanged. Source: none needed; a selection."""

        def curve(c: LatencyCurve) -> LatencyCurve:
            return LatencyCurve(*(getattr(c, f.name)[i : i + 1] for f in fields(c)))

        shape = self.rate.shape
        return Served(
            self.rate[i : i + 1],
            self.mean_batch[i : i + 1],
            self.batch_p999[i : i + 1],
            curve(self.ttft),
            curve(self.tpot),
            curve(self.e2e),
            self.prefill_utilisation[i : i + 1],
            self.kv_needed[i : i + 1],
            self.stable[i : i + 1],
            {k: np.broadcast_to(v, shape)[i : i + 1] for k, v in self.violations.items()},
        )


@dataclass(frozen=True)
class _State:
    """What a rate leads to, before any statistic: (rows, 1) each, ``times`` (rows, samples) [s]."""

    rate: Matrix
    mixed: MixedSteps
    second: Matrix
    state: Occupancy
    gap: Matrix
    extra: Matrix
    levels: Matrix
    level_share: Matrix
    times: tuple[Matrix, Matrix]
    kv_needed: Matrix


class ReplicaModel:
    """Serving figures of many candidate replicas under one load.

    Source: :mod:`planner.serving`. Valid below saturation; above 80 % of the slots or with bursts
    (arrival coefficient of variation above 1.5) TTFT percentiles are indicative only.
    """

    def __init__(self, rows: Rows, load: Load, slos: Sequence[Slo], constants: Assumptions) -> None:
        self.rows = rows
        self.load = load
        self.slos = tuple(slos)
        self.constants = constants
        self.slots = np.maximum(rows.slots, 1.0)
        self.tokens = load.decode_steps / rows.acceptance
        self.chunk_count = load.chunks(rows.budget)
        self.largest = load.largest_aboard(rows.budget)
        chunk = np.minimum(load.new, rows.budget)
        mean = float(np.average(chunk, weights=load.weights))
        self.chunk_cv2 = max(float(np.average(chunk**2, weights=load.weights)) / mean**2 - 1, 1e-6)
        self.overlap = load.overlap
        self.company = load.overlap_of_requests - load.overlap
        # a short answer pays for what it meets at its start with fewer tokens
        inverse = float(np.average(1 / np.maximum(load.output - 1, 1.0), weights=load.weights))
        self.short_answers = max(0.0, inverse - 1 / load.decode_steps)

    def step_at(self, batch: Matrix) -> Matrix:
        """Decode step at fractional batches, (rows, n) for (rows, n), [s]. Source: interpolation."""
        return self._between(self.rows.steps, batch)

    def _between(self, table: Matrix, batch: Matrix) -> Matrix:
        """Columns of a table over BATCHES at fractional batches."""
        b = np.maximum(batch, 1.0)
        index = np.clip(np.searchsorted(BATCHES, b, side="right") - 1, 0, len(BATCHES) - 2)
        left = np.take_along_axis(table, index, axis=1)
        right = np.take_along_axis(table, index + 1, axis=1)
        found: Matrix = left + (right - left) * (b - BATCHES[index]) / (BATCHES[index + 1] - BATCHES[index])
        return found

    def at_batch(self, table: Matrix, batch: float) -> float:
        """The first row of a table over BATCHES at one batch, in its unit [s]. Source: interpolation."""
        return float(self._between(table, np.full((len(table), 1), batch))[0, 0])

    def _mixed(self, rate: Matrix, decode: Matrix, prompts: Sequence[Matrix], ranks: Matrix) -> MixedSteps:
        """Steps with prompts among them, ``prompts`` what :data:`PROMPTS` names of them."""
        load = self.load
        work, second, sharing, stage, stage_sharing = prompts
        return mixed_steps(
            decode, work, second, rate, ranks, self.chunk_count, float(load.fan_out), load.arrival_cv2(rate),
            self.largest, sharing, stage, stage_sharing, self.chunk_cv2,
        )  # fmt: skip

    def stable_rate(self) -> Matrix:
        """Rate of sequences at which slots or prefill saturate, (rows, 1), [1/s].

        ``rate*tokens*X(B) = B`` with the step X of full slots B, prompts among it; solved for the rate.
        Source: stability of the queue in :func:`planner.serving.occupancy.occupancy`.
        """
        rows = self.rows
        decode = self._between(rows.steps, self.slots)
        prompts = [self._between(getattr(rows, name), self.slots) for name in PROMPTS]
        work, second, sharing = prompts[:3]
        rate = 1.0 / (self.tokens * decode / self.slots + work / rows.ranks)
        several = np.flatnonzero(rows.ranks[:, 0] > 1)

        def excess(log_rate: Vector, index: npt.NDArray[np.int64]) -> Vector:
            at, tried = several[index], np.exp(log_rate)[:, None]
            step = self._mixed(tried, decode[at], [t[at] for t in prompts], rows.ranks[at]).seconds
            return np.log(tried * self.tokens[at] * step / self.slots[at])[:, 0]

        high = np.log(rate[several, 0])
        found, _ = last_within(excess, high + np.log(LEAST_STABLE), high, STABLE_TOLERANCE)
        group, cv2 = float(self.load.fan_out), self.load.arrival_cv2(rate)
        work, _ = shared_work(decode, work, second, sharing, rate, group, cv2)
        rate = 1.0 / (self.tokens * decode / self.slots + work)
        rate[several, 0] = np.exp(found)
        return rate

    def serve(self, rate: Matrix) -> Served:
        """All figures at ``rate`` sequences per second and replica, (rows, 1), [1/s].

        Source: steps with prompts among them, occupancy, stratified requests; see each function.
        """
        at = self._state(rate)
        violations = self._violations(at)
        ttft, e2e = (percentiles(sample, self.load.weights) for sample in at.times)
        return Served(
            rate,
            at.state.mean,
            at.state.quantile(0.999),
            ttft,
            self._token_times(at),
            e2e,
            at.mixed.share,
            at.kv_needed,
            at.state.stable,
            violations,
        )

    def worst(self, rate: Matrix) -> Matrix:
        """Largest violation at ``rate`` [1/s], (rows, 1), [1]: :meth:`serve` without the rest."""
        found: Matrix = np.max(np.stack(list(self._violations(self._state(rate)).values())), axis=0)
        return found

    def response(self, rate: Matrix) -> Matrix:
        """Mean end-to-end time at ``rate`` [1/s], (rows, 1), [s]: :meth:`serve` without the rest."""
        share = self.load.weights / self.load.weights.sum()
        return (self._state(rate).times[1] * share).sum(axis=1, keepdims=True)

    def take(self, index: npt.NDArray[np.int64]) -> ReplicaModel:
        """The model of the rows at ``index``. Source: none needed; a selection."""
        if len(index) == len(self.rows) and np.array_equal(index, np.arange(len(index))):
            return self
        part = copy(self)
        part.rows, part.slots, part.tokens = self.rows.take(index), self.slots[index], self.tokens[index]
        part.limit = self.limit[index]
        return part

    def _state(self, rate: Matrix) -> _State:
        rows, load = self.rows, self.load
        group = float(load.fan_out)
        mixed = self._mixed(rate, rows.steps, [getattr(rows, name) for name in PROMPTS], rows.ranks)
        spread = dispersion(
            rate, self.tokens, BATCHES, rows.steps, mixed, rows.work, rows.work_second, group, load.arrival_cv2(rate),
            self.overlap,
        )  # fmt: skip
        steps = max(1.0, group * float(np.average(load.new, weights=load.weights)) / rows.budget)
        stall = own_stall(rate, mixed, group, load.arrival_cv2(rate), steps)
        held = mixed.seconds + stall / self.tokens
        most = last_state(BATCHES, rate * self.tokens * held, spread, self.slots)
        state = occupancy(
            rate, self.tokens, dense_steps(BATCHES, held, most), self.slots,
            dispersion=dense_steps(BATCHES, spread, most), full_step=self._between(held, self.slots),
        )  # fmt: skip
        batch = np.maximum(state.mean, 1.0)
        there = MixedSteps(
            self._between(mixed.seconds, batch),
            # beyond the grid's last batch, shares go on no line
            self._between(mixed.share, np.minimum(batch, BATCHES[-1])),
            self._between(mixed.variation, np.minimum(batch, BATCHES[-1])),
        )
        work, second = self._between(rows.work, batch), self._between(rows.work_second, batch)
        floor = mixed.seconds[:, :1] / rows.acceptance
        gap = np.maximum(state.mean / (rate * load.decode_steps), floor)
        occupied = np.maximum(state.quantile((np.arange(LEVELS) + 0.5) / LEVELS), 1.0)
        levels = self.step_at(occupied)
        low, high = (self._between(mixed.seconds, batch * f) for f in (0.9, 1.1))
        elasticity = np.clip(np.log(high / low) / np.log(1.1 / 0.9), 0.0, 1.0)
        share = crowded_share(there.share, occupied / batch, self._between(spread, batch), elasticity)
        times = self._request_times(rate, there, state.waiting, levels, share, work - rows.work[:, :1], gap)
        needed = kv_demand(state.mean, state.variance, rows.kv_mean, rows.kv_second, self.constants.kv_tail, group)
        # those that came with a request crowd its first tokens: of a short answer all
        crowd = (group * load.arrival_cv2(rate) / (1 - there.share) ** 2 - 1) * self.company * elasticity / batch
        extra = self._between(stall, batch) * self.short_answers + crowd * gap
        return _State(rate, there, second, state, gap, extra, levels, share, times, np.asarray(needed))

    @cached_property
    def limit(self) -> Matrix:
        """Highest rate the utilisation limit allows, (rows, 1), [1/s]. Source: the planning constants."""
        return self.stable_rate() * self.constants.utilisation_limit

    def _violations(self, at: _State) -> dict[str, Matrix]:
        found = {
            "kv memory": at.kv_needed / np.maximum(self.rows.kv_room, 1.0),
            "utilisation": at.rate / self.limit,
        }
        tokens: LatencyCurve | None = None
        for slo in self.slos:
            if slo.metric in ("tpot", "itl"):
                if slo.statistic == "mean":
                    got = at.gap + (at.extra if slo.metric == "tpot" else 0.0)
                else:
                    tokens = tokens or self._token_times(at)
                    got = tokens.statistic(slo.statistic)
            else:
                sample = at.times[0 if slo.metric == "ttft" else 1]
                weights = self.load.class_weights(slo.class_name)
                got = percentiles(sample, weights).statistic(slo.statistic)
            found[slo.label] = got / slo.limit_s
        return found

    def _token_times(self, at: _State) -> LatencyCurve:
        """Time per output token: T at the occupancy met, stretched by the prompts met, (rows, 1), [s]."""
        rows, load = self.rows, self.load
        pick = shuffled(len(load.output), 2) % LEVELS
        met, share = (at.levels / rows.acceptance)[:, pick], at.level_share[:, pick]
        # prompts that ranks prefill side by side hold a sequence up once
        once = at.second * np.minimum(1.0, at.mixed.share / (at.rate * self._between(rows.work, at.state.mean)))
        sample = stalled_token_times(met, at.gap, at.rate, once, share, load.output[None, :], load.normal[None, :])
        curve = percentiles(sample, load.weights)
        return LatencyCurve(at.gap + at.extra, curve.p50, curve.p95, curve.p99)

    def _request_times(
        self,
        rate: Matrix,
        mixed: MixedSteps,
        waiting: Matrix,
        levels: Matrix,
        share: Matrix,
        added: Matrix,
        gap: Matrix,
    ) -> tuple[Matrix, Matrix]:
        """Samples of TTFT and of end-to-end time, (rows, samples) each, [s]."""
        rows, load = self.rows, self.load
        group = float(load.fan_out)
        pick = shuffled(len(load.output), 2) % LEVELS
        decode, crowded = levels[:, pick], share[:, pick]
        own = np.maximum(rows.own + added, LEAST_OWN * rows.own)
        then = rate * crowded / np.maximum(mixed.share, 1e-12)
        wait = boarding_wait(load.boarding, decode, then, replace(mixed, share=crowded), own, rows.ranks, group)
        # siblings arrive together with prompts alike: all in one step, or half of them ahead where they don't fit
        together = np.clip(rows.budget / (group * float(np.average(load.new, weights=load.weights))), 0.5, 1.0)
        siblings = np.where(rows.ranks >= group, 0.0, (group - 1) * own * together / rows.ranks)
        ttft = rows.request_overhead + waiting / rate + wait + own + rows.chunks * decode + siblings
        return ttft, ttft + np.maximum(load.joined - 1, 0.0) * gap

    def highest_rate(self) -> tuple[Matrix, npt.NDArray[np.bool_]]:
        """Highest rate that breaks no limit, [1/s], and whether any rate does, (rows, 1) each.

        Sought in the logarithm of the rate: every figure grows with it. Source: definition.
        """

        def excess(log_rate: Vector, index: npt.NDArray[np.int64]) -> Vector:
            return np.log(self.take(index).worst(np.exp(log_rate)[:, None]))[:, 0]

        # rounding must not put the limit of utilisation itself above the limit
        high = np.log(self.limit[:, 0]) - 1e-12
        found, possible = last_within(excess, high + np.log(LOWEST), high, RATE_TOLERANCE, HALFWAY)
        return np.exp(found)[:, None], possible[:, None] & (self.rows.slots >= 1)
