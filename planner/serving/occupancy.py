"""How many sequences a replica holds: a state-dependent processor-sharing queue in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.cost.roofline import Array

Matrix = npt.NDArray[np.float64]
#: log of the share of the likeliest state below which one adds nothing: 2^-64
NEGLIGIBLE = -64 * np.log(2)


@dataclass(frozen=True)
class Occupancy:
    """Stationary number of sequences in the system, per candidate.

    ``cumulative`` (candidates, states): P(N <= n) for n = 0.. up to the last state that has any
    weight in float64; all other fields (candidates, 1): ``mean`` and ``variance`` of the sequences in
    service [1], ``wait_probability`` [1] that an arrival finds every slot taken, ``waiting`` [1] mean
    sequences queued for a slot, ``slots`` [sequences], ``stable``.
    """

    cumulative: Matrix
    mean: Matrix
    variance: Matrix
    wait_probability: Matrix
    waiting: Matrix
    slots: Matrix
    stable: npt.NDArray[np.bool_]

    def quantile(self, q: npt.ArrayLike) -> Matrix:
        """Smallest n with P(N <= n) >= q, capped at the slots, (candidates, levels of q), [sequences].

        Source: definition of a quantile.
        """
        below: Matrix = np.stack([np.searchsorted(row, np.atleast_1d(q)) for row in self.cumulative]).astype(float)
        return np.clip(below, 0.0, self.slots)


def log_service_weights(step_seconds: Matrix, slots: Matrix) -> Matrix:
    """``sum of log(T(i)/i)`` over i <= n for n = 0..M, (candidates, M + 1): the rate-free part.

    step_seconds (candidates, M) [s] at n = 1..M; minus infinity beyond the slots (candidates, 1).
    Source: see :func:`occupancy`.
    """
    n = np.arange(1, step_seconds.shape[1] + 1)
    weights = np.zeros((len(step_seconds), len(n) + 1))
    np.cumsum(np.log(step_seconds / n), axis=1, out=weights[:, 1:])
    weights[:, 1:][n > slots] = -np.inf
    return weights


def occupancy(
    rate: Array,
    tokens: Array,
    step_seconds: Matrix,
    slots: Matrix,
    prefill_utilisation: Array = 0.0,
    log_weights: Matrix | None = None,
    dispersion: Matrix | None = None,
    full_step: Matrix | None = None,
) -> Occupancy:
    """Occupancy of a replica whose n resident sequences each progress at ``1/T(n)`` tokens/s.

    ``pi(n) ~ product over i <= n of rate*tokens*T(min(i, slots)) / min(i, slots)`` with T
    stretched by ``1/(1 - prefill_utilisation)``; beyond the slots the tail is geometric. The queue
    is symmetric, so only the mean of the length distribution matters.

    Args:
        rate: sequences per second, (candidates, 1), [1/s].
        tokens: decode steps a sequence needs, E[O-1] over the acceptance length, [1].
        step_seconds: T(n) at n = 1..M, (candidates, M), [s].
        slots: most sequences in service, (candidates, 1), at most M unless ``full_step`` is given.
        prefill_utilisation: share of time spent on prefill, below 1, [1].
        log_weights: :func:`log_service_weights` of ``step_seconds`` if already known.
        dispersion: variance phi of the flows over Poisson ones at n = 1..M, (candidates, M), [1]; see
            :func:`planner.serving.interference.dispersion`. With ``u(n) = n/a(n)`` of the load a at n, the
            ratio of neighbouring states becomes ``(1 + (phi(n-1) - 1)*u(n-1))/(phi(n)*u(n))``: the negative
            binomial of equal mean and phi-fold variance when a is constant, and ``E[u] = 1`` always, as
            many tokens made as asked for.
        full_step: T at the slots, (candidates, 1), [s], when M is where :func:`last_state` says states
            stop to count, short of the slots.

    Source: Kelly, "Reversibility and Stochastic Networks", 1979 (symmetric queues); Cohen, "The
    multiple phase service network with generalized processor sharing", Acta Informatica 12, 1979.
    Valid for Poisson arrivals; against a token-level simulation the mean is within 2 % and p99 13 to
    17 % low under chunked prefill.
    """
    load = np.asarray(rate * tokens / np.maximum(1e-9, 1 - np.asarray(prefill_utilisation)))
    if dispersion is None:
        base = log_service_weights(step_seconds, slots) if log_weights is None else log_weights
        logs = np.arange(base.shape[1]) * np.log(np.maximum(load, 1e-300)) + base
    else:
        logs = _dispersed_weights(load * step_seconds, dispersion, slots)
    states = np.arange(logs.shape[1], dtype=float)
    peak = logs.max(axis=1, keepdims=True)
    kept = 1 + int(np.flatnonzero((logs > peak + NEGLIGIBLE).any(axis=0))[-1])
    states = states[:kept]
    weights = np.exp(logs[:, :kept] - peak)
    at_slots = np.minimum(slots.astype(int), logs.shape[1] - 1)
    if full_step is None:
        full_step = np.take_along_axis(step_seconds, at_slots - 1, axis=1)
    ratio = load * full_step / slots
    stable = (ratio < 1) & (np.asarray(prefill_utilisation) < 1)
    r = np.minimum(ratio, 1 - 1e-9)
    full = np.where(at_slots < slots, 0.0, np.exp(np.take_along_axis(logs, at_slots, axis=1) - peak))
    queued = full * r / (1 - r)
    total = weights.sum(axis=1, keepdims=True) + queued
    mean = ((weights @ states)[:, None] + queued * slots) / total
    second = ((weights @ states**2)[:, None] + queued * slots**2) / total
    return Occupancy(
        np.cumsum(weights, axis=1) / total,
        mean,
        np.maximum(0.0, second - mean**2),
        (full + queued) / total,
        full * r / (1 - r) ** 2 / total,
        slots,
        stable,
    )


def _dispersed_weights(load: Matrix, dispersion: Matrix, slots: Matrix) -> Matrix:
    """Logarithms of the weights of states 0..M, (candidates, M + 1)."""
    n = np.arange(1, load.shape[1] + 1)
    logs = np.zeros((len(load), len(n) + 1))
    each = np.maximum(load, 1e-300) / n
    more = np.ones_like(each)
    more[:, 1:] += (dispersion[:, :-1] - 1) / each[:, :-1]
    np.cumsum(np.log(np.maximum(more * each / dispersion, 1e-300)), axis=1, out=logs[:, 1:])
    logs[:, 1:][n > slots] = -np.inf
    return logs


def _ratio(n: Matrix, load: Matrix, dispersion: Matrix) -> Matrix:
    """Weight of state n over that of state n - 1 at most, (candidates, n): ``load/n`` falls with n."""
    found: Matrix = ((dispersion - 1) * n + load) / (dispersion * n)
    return found


def last_state(batches: Matrix, load: Matrix, dispersion: Matrix, slots: Matrix) -> int:
    """A state that no candidate has any weight beyond, in float64, at most the slots, [sequences].

    From ``batches`` (grid,) and ``load`` rate*tokens*T and ``dispersion`` there, (candidates, grid), [1]:
    between grid points weights grow by no more than the larger of the ratios at their ends allows.

    Source: see :func:`occupancy`.
    """
    most = int(slots.max())
    growth = np.log(np.maximum(_ratio(batches, load, dispersion), 1e-300))
    bound = np.cumsum(np.diff(batches) * np.maximum(growth[:, 1:], growth[:, :-1]), axis=1)
    counts = (bound > np.maximum.accumulate(bound, axis=1) + NEGLIGIBLE) & (batches[1:] <= slots)
    last = int(np.flatnonzero(counts.any(axis=0)).max(initial=-1)) + 2
    return most if last >= len(batches) else min(most, int(batches[last]))


def dense_steps(batches: Matrix, step_seconds: Matrix, slots: int) -> Matrix:
    """Step times at every batch 1..slots from those on a coarse grid, (candidates, slots), [s].

    batches (grid,), step_seconds (candidates, grid) [s]. Linear between grid points: a step is
    piecewise nearly linear in batch. Source: none needed; interpolation.
    """
    n = np.arange(1, slots + 1, dtype=float)
    index = np.clip(np.searchsorted(batches, n) - 1, 0, len(batches) - 2)
    left, right = batches[index], batches[index + 1]
    weight = (n - left) / (right - left)
    # the grid is coarse: whole runs of states lie between the same two points
    slope = np.diff(step_seconds, axis=1)
    dense: Matrix = np.take(step_seconds, index, axis=1)
    dense += np.take(slope, index, axis=1) * weight
    return dense
