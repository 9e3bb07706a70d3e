"""One replica at a rate: occupancy, latencies, limits, and the highest rate that keeps them all."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from planner.hardware import Assumptions
from planner.serving.kv_capacity import kv_demand
from planner.serving.latency import (
    LatencyCurve,
    first_token_sample,
    percentiles,
    prefill_wait,
    stalled_token_times,
)
from planner.serving.load import Load
from planner.serving.occupancy import Occupancy, dense_steps, log_service_weights, occupancy
from planner.sizing.bracketing import last_within
from planner.sizing.operating import BATCHES, Rows
from planner.workload import Slo
from planner.workload.lengths import shuffled

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]
RATE_TOLERANCE = 1e-5  # relative, of the highest rate
LEVELS = 12  # of occupancy a request may meet


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
    rho: Matrix
    state: Occupancy
    gap: Matrix
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
        most = int(max(1.0, float(rows.slots.max(initial=1.0))))
        self.steps = dense_steps(BATCHES, rows.steps, most)
        self.slots = np.maximum(rows.slots, 1.0)
        self.log_weights = log_service_weights(self.steps, self.slots)
        self.tokens = load.decode_steps / rows.acceptance

    def step_at(self, batch: Matrix) -> Matrix:
        """Step time at fractional batches, (rows, n) for (rows, n), [s]. Source: interpolation."""
        b = np.clip(batch, 1.0, self.steps.shape[1])
        low = np.floor(b).astype(int)
        high = np.minimum(low + 1, self.steps.shape[1])
        left = np.take_along_axis(self.steps, low - 1, axis=1)
        right = np.take_along_axis(self.steps, high - 1, axis=1)
        step: Matrix = left + (b - low) * (right - left)
        return step

    def stable_rate(self) -> Matrix:
        """Rate of sequences at which slots or prefill saturate, (rows, 1), [1/s].

        ``1/rate = tokens*T(B)/B + busy``: slots and prefill share the accelerator's time.
        Source: stability of the queue in :func:`planner.serving.occupancy.occupancy`.
        """
        last = np.take_along_axis(self.steps, self.slots.astype(int) - 1, axis=1)
        return 1.0 / (self.tokens * last / self.slots + self.rows.busy)

    def serve(self, rate: Matrix) -> Served:
        """All figures at ``rate`` sequences per second and replica, (rows, 1), [1/s].

        Source: occupancy, Pollaczek-Khinchine wait and stratified requests; see each function.
        """
        at = self._state(rate)
        violations = self._violations(at)
        ttft, e2e = (percentiles(sample, self.load.weights) for sample in at.times)
        return Served(
            rate,
            at.state.mean,
            at.state.quantile(0.999, self.load.fan_out),
            ttft,
            self._token_times(at),
            e2e,
            at.rho,
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
        if len(index) == len(self.rows):
            return self
        part = copy(self)
        part.rows, part.slots, part.tokens = self.rows.take(index), self.slots[index], self.tokens[index]
        most = int(part.slots.max(initial=1.0))
        part.steps, part.log_weights = self.steps[index, :most], self.log_weights[index, : most + 1]
        return part

    def _state(self, rate: Matrix) -> _State:
        rows, load = self.rows, self.load
        rho = np.minimum(rate * rows.busy, 1 - 1e-6)
        state = occupancy(rate, self.tokens, self.steps, self.slots, rho, self.log_weights)
        stretch = rows.acceptance * (1 - rho)
        step = self.step_at(np.maximum(state.mean, 1.0))
        gap = np.maximum(state.mean / (rate * load.decode_steps), self.steps[:, :1] / stretch)
        times = self._request_times(rate, rho, state.waiting, step, gap)
        tail = self.constants.kv_tail
        needed = kv_demand(
            state.mean, state.variance, rows.kv_mean, rows.kv_second, tail, float(load.fan_out)
        )  # fmt: skip
        return _State(rate, rho, state, gap, times, np.asarray(needed))

    def _violations(self, at: _State) -> dict[str, Matrix]:
        found = {
            "kv memory": at.kv_needed / np.maximum(self.rows.kv_room, 1.0),
            "utilisation": at.rate / self.stable_rate() / self.constants.utilisation_limit,
        }
        tokens: LatencyCurve | None = None
        for slo in self.slos:
            name = f"{slo.metric}_{slo.statistic}" + (f" of {slo.class_name}" if slo.class_name else "")
            if slo.metric in ("tpot", "itl"):
                if slo.statistic == "mean":
                    got = at.gap
                else:
                    tokens = tokens or self._token_times(at)
                    got = tokens.statistic(slo.statistic)
            else:
                sample = at.times[0 if slo.metric == "ttft" else 1]
                weights = self.load.class_weights(slo.class_name)
                got = percentiles(sample, weights).statistic(slo.statistic)
            found[name] = got / slo.limit_s
        return found

    def _token_times(self, at: _State) -> LatencyCurve:
        """Time per output token: T at the occupancy met, stretched by the prompts met, (rows, 1), [s]."""
        rows, load = self.rows, self.load
        levels = at.state.quantile((np.arange(LEVELS) + 0.5) / LEVELS, load.fan_out)
        steps = self.step_at(np.maximum(levels, 1.0)) / rows.acceptance
        met = steps[:, shuffled(len(load.output), 2) % LEVELS]
        sample = stalled_token_times(
            met, at.gap, at.rate, rows.busy_second, at.rho, load.output[None, :], load.normal[None, :]
        )
        curve = percentiles(sample, load.weights)
        return LatencyCurve(at.gap, curve.p50, curve.p95, curve.p99)

    def _request_times(
        self, rate: Matrix, rho: Matrix, waiting: Matrix, step: Matrix, gap: Matrix
    ) -> tuple[Matrix, Matrix]:
        """Samples of TTFT and of end-to-end time, (rows, samples) each, [s]."""
        rows, load = self.rows, self.load
        wait = prefill_wait(rate, rows.busy, rows.busy_second, rho, load.arrival_variability, load.fan_out)
        wait = wait + waiting / rate
        own = rows.own + (0.5 + rows.chunks) * step
        correction = (1 - rho) ** -self.constants.ttft_utilisation_exponent
        ttft = rows.request_overhead + correction * first_token_sample(
            wait, np.maximum(rho, 1e-6), np.zeros_like(wait), own, load.exponential
        )
        return ttft, ttft + np.maximum(load.joined - 1, 0.0) * gap

    def highest_rate(self) -> tuple[Matrix, npt.NDArray[np.bool_]]:
        """Highest rate that breaks no limit, [1/s], and whether any rate does, (rows, 1) each.

        Sought in the logarithm of the rate: every figure grows with it. Source: definition.
        """

        def excess(log_rate: Vector, index: npt.NDArray[np.int64]) -> Vector:
            return np.log(self.take(index).worst(np.exp(log_rate)[:, None]))[:, 0]

        # rounding must not put the limit of utilisation itself above the limit
        high = np.log(self.stable_rate()[:, 0] * self.constants.utilisation_limit) - 1e-12
        found, possible = last_within(excess, high - np.log(1e4), high, RATE_TOLERANCE)
        return np.exp(found)[:, None], possible[:, None] & (self.rows.slots >= 1)
