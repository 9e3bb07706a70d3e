"""How much KV a replica's resident sequences need, with a bound on the tail."""

from __future__ import annotations

import numpy as np

from planner.cost.roofline import Array


def kv_demand(
    sequences: Array,
    variance: Array,
    mean_bytes: Array,
    second_bytes: Array,
    tail: float,
    group: float = 1.0,
) -> Array:
    """KV bytes that are enough but with small probability, [B].

    ``E[n]*b + z * sqrt(group*E[n]*(m2 - b^2) + Var(n)*b^2)`` for E[n] ``sequences`` and their
    ``variance`` [1], per-sequence bytes b ``mean_bytes`` [B] with second moment ``second_bytes``
    [B^2], z ``tail``; ``group`` sequences of one size arrive together. Broadcasts.

    Source: variance of a random sum. A Gaussian z of 2.3 undershoots under chunked prefill; z = 4
    held 1 % in token-level simulation.

    >>> round(float(kv_demand(20.501, 24.511, 1205.0, 2.502e6, 2.326)))
    42282
    """
    scatter = group * sequences * np.maximum(0.0, second_bytes - mean_bytes**2) + variance * mean_bytes**2
    return sequences * mean_bytes + tail * np.sqrt(scatter)


def max_stable_rate(capacity: Array, mean_token_seconds: Array, step_seconds: Array) -> Array:
    """Highest request rate KV of ``capacity`` tokens sustains, [1/s].

    ``M / (T * E[I*O + O^2/2])`` for capacity M [tokens], step_seconds T [s] and
    mean_token_seconds the KV token-steps of a request [tokens*steps]. Broadcasts.

    Source: the stability condition of arXiv 2605.04595 (within 10 % on vLLM/A100).

    >>> round(float(max_stable_rate(1e5, 301250.0, 13e-3)), 1)
    25.5
    """
    return capacity / (step_seconds * mean_token_seconds)
