"""Latencies of one replica under load: mean and percentiles of TTFT, TPOT and end to end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.cost.roofline import Array

Matrix = npt.NDArray[np.float64]
QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class LatencyCurve:
    """A latency over requests, (candidates, 1) each, [s]."""

    mean: Matrix
    p50: Matrix
    p95: Matrix
    p99: Matrix

    def statistic(self, name: str) -> Matrix:
        """``mean``, ``p50``, ``p95`` or ``p99``, (candidates, 1), [s]. Source: definition."""
        value: Matrix = getattr(self, name)
        return value


def mixed_step_latency(decode_seconds: Array, prefill_utilisation: Array) -> Array:
    """Mean gap between tokens when prefill chunks share the steps: ``T_dec/(1 - rho_p)``, [s].

    decode_seconds T_dec [s], prefill_utilisation rho_p [1]; broadcast. Exact when a chunk's extra
    time is linear in its tokens.

    Source: Agrawal et al., "Sarathi-Serve", arXiv 2403.02310 (chunked prefill); renewal argument.

    >>> round(float(mixed_step_latency(9.6498e-3, 8 * 1000 * 2.101e-5)) * 1e3, 2)
    11.6
    """
    return decode_seconds / (1 - prefill_utilisation)


def chunked_gap(
    decode_seconds: float, rate: float, new_tokens: float, budget: float, token_seconds: float, batch: float
) -> float:
    """The same mean gap from the share f of time in mixed steps: ``1/((1-f)/T_dec + f/T_mix)``, [s].

    ``T_mix = T_dec + (C - n)*c`` and ``f = rate*I*T_mix/(C - n)`` for rate [1/s], new_tokens I
    [tokens], budget C [tokens], token_seconds c [s], batch n; all scalars.

    Source: as :func:`mixed_step_latency`, which it equals.

    >>> round(chunked_gap(9.6498e-3, 8, 1000, 2048, 2.101e-5, 32) * 1e3, 2)
    11.6
    """
    mixed = decode_seconds + (budget - batch) * token_seconds
    share = rate * new_tokens * mixed / (budget - batch)
    return 1 / ((1 - share) / decode_seconds + share / mixed)


def prefill_wait(
    rate: Array,
    mean: Array,
    second_moment: Array,
    utilisation: Array,
    variability: float = 1.0,
    group: int = 1,
) -> Array:
    """Mean time a prompt waits for other prompts, [s].

    ``rate*(E[s^2] + (K-1)*E[s]^2)*c / (2(1-rho)) + (K-1)/2*E[s]``: rate of prompts [1/s], mean [s]
    and second_moment [s^2] of a prompt's prefill, utilisation rho [1], variability c of arrivals
    (half of one plus the squared coefficient of variation, 1 for Poisson), ``group`` K prompts that
    arrive together and serve one another last. Broadcasts.

    Source: Pollaczek-Khinchine for batch arrivals (M^X/G/1); Kingman's bound for other arrivals.

    >>> round(float(prefill_wait(8.0, 0.021, 2 * 0.021**2, 0.168)) * 1e3, 2)
    4.24
    """
    together = second_moment + (group - 1) * np.square(mean)
    queue = rate * together * variability / (2 * np.maximum(1e-9, 1 - utilisation))
    return queue + (group - 1) / 2 * mean


def percentiles(sample: Matrix, weights: Matrix) -> LatencyCurve:
    """Weighted mean and percentiles along the last axis, (candidates, 1) each, in the sample's unit.

    sample (candidates, samples) [s], weights (samples,) [1]. Source: inverse of the weighted
    empirical distribution.
    """
    share = weights / weights.sum()
    if np.all(share == share[0]):  # values need no weights beside them to be sorted
        ranked, cumulative = np.sort(sample, axis=1), np.cumsum(share)[None, :]
    else:
        order = np.argsort(sample, axis=1)
        ranked, cumulative = np.take_along_axis(sample, order, axis=1), np.cumsum(share[order], axis=1)
    found = []
    for q in QUANTILES.values():
        at = np.minimum((cumulative < q - 1e-12).sum(axis=1, keepdims=True), sample.shape[1] - 1)
        found.append(np.take_along_axis(ranked, np.broadcast_to(at, (len(ranked), 1)), axis=1))
    return LatencyCurve((sample * share).sum(axis=1, keepdims=True), *found)


def stalled_token_times(
    step: Matrix, gap: Matrix, rate: Matrix, second_moment: Matrix, utilisation: Matrix, tokens: Matrix, z: Matrix
) -> Matrix:
    """Time per output token of a sample of requests that others' prompts hold up, (rows, samples), [s].

    A request of O ``tokens`` [tokens] decodes for ``(O-1)*gap`` [s]; in that time prompts arrive at
    ``rate`` [1/s] and each adds its prefill, of ``second_moment`` [s^2]. Their sum is compound Poisson
    with mean ``rho/(1-rho)`` of the undisturbed time; its quantile at standard normal ``z`` is that of a
    gamma of equal mean and variance (Wilson-Hilferty). ``step`` [s] is the undisturbed time per token.

    Source: compound Poisson moments; Wilson & Hilferty, PNAS 17(12) 1931. Short answers spread most.
    """
    steps = np.maximum(tokens - 1, 1.0)
    stretch = utilisation / (1 - utilisation)
    mean = np.maximum(steps * step * stretch, 1e-12)
    spread = rate * steps * gap * second_moment / np.square(mean) / 9
    cube = np.maximum(0.0, 1 - spread + z * np.sqrt(spread))
    return step + mean * cube**3 / steps
