"""Routed experts: how many distinct ones a step touches, and what reading and running them costs."""

from __future__ import annotations

import numpy as np

from planner.cost.roofline import Array


def distinct_experts(experts: int, top_k: int, tokens: Array, independence: float = 1.0) -> Array:
    """Expected number of distinct experts ``tokens`` tokens touch, [experts].

    ``E * (1 - (1 - k/E)^T)`` with T replaced by ``1 + (T-1)*s``: ``independence`` s = 1 means every
    token routes on its own, below 1 that tokens resemble each other (drafts of one sequence).
    ``tokens`` is a scalar or an array, [tokens].

    Source: balls into bins; DeepSeek-V3 (256 experts, top-8) covers 95 % at 94 tokens. Valid for
    balanced routing; skewed routing touches fewer.

    >>> round(distinct_experts(256, 8, 8), 3)
    57.421
    """
    effective = 1 + (np.asarray(tokens, dtype=float) - 1) * independence
    found = (
        experts * -np.expm1(effective * np.log1p(-top_k / experts))
        if top_k < experts
        else (experts * np.minimum(1.0, effective))
    )
    return found if isinstance(tokens, np.ndarray) else float(found)


def expert_work(
    tokens: Array,
    experts: int,
    top_k: int,
    expert_parameters: int,
    width: int,
    bytes_per_weight: float,
    devices: Array = 1.0,
    independence: float = 1.0,
    distinct_tokens: Array | None = None,
    ranks: Array = 1.0,
    activation: Array = 1.0,
) -> tuple[Array, Array, Array]:
    """FLOPs, weight bytes and activation bytes of the routed experts on one accelerator.

    Args:
        tokens: tokens entering the layer over all ``devices`` that share the experts, [tokens].
        experts: routed experts of the layer.
        top_k: experts per token.
        expert_parameters: weights of one expert, [elements].
        width: width of the tokens the experts see, [elements].
        bytes_per_weight: of the expert format, scales included, [B].
        devices: accelerators the experts are spread over (whole or sliced), [1].
        independence: see :func:`distinct_experts`.
        distinct_tokens: tokens to count distinct experts for, when drafts make it fewer, [tokens].
        ranks: expert-parallel ranks that hold whole experts; those that share slices of one see all its tokens.
        activation: times the kernel moves its routed tokens in and out, [1].

    ``2*T*k*P`` [FLOP] and ``N(T)*P*b`` [B] over ``devices``, ``a*2*T*k*2*width`` [B] over ``ranks``; shapes
    broadcast.

    Source: DeepSeek-AI, "DeepSeek-V3", arXiv 2412.19437 (layer shapes); balls into bins for N(T).
    Valid for balanced routing; a hot rank multiplies the time, see the layout's imbalance.

    >>> [round(float(x)) for x in expert_work(8.0, 256, 8, 44040192, 7168, 1.0)]
    [5637144576, 2528824413, 1835008]
    """
    seen = tokens if distinct_tokens is None else distinct_tokens
    touched = distinct_experts(experts, top_k, seen, independence)
    routed = tokens * top_k
    return (
        2 * routed * expert_parameters / devices,
        touched * expert_parameters * bytes_per_weight / devices,
        activation * 2 * 2 * routed * width / ranks,
    )
