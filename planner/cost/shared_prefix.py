"""A prefix shared by several sequences: stored once, and read once only with a cascade kernel."""

from __future__ import annotations

from dataclasses import dataclass

from planner.cost.roofline import Array

#: vLLM's thresholds below which it never uses cascade attention
MIN_PREFIX_TOKENS = 256
MIN_REQUESTS = 8


@dataclass(frozen=True)
class GroupTokens:
    """Tokens of one group, [tokens]: stored, and read per step without and with a cascade kernel."""

    stored: Array
    read_without_cascade: Array
    read_with_cascade: Array


def group_tokens(prefix: Array, unique: Array, sequences: Array) -> GroupTokens:
    """Tokens stored and read by K sequences with a common ``prefix`` and ``unique`` rest, [tokens].

    Stored ``P + K*U`` in any engine with a paged prefix cache; read ``K*(P + U)`` each step, or
    ``P + K*U`` with a cascade kernel. Broadcasts; one sequence has nothing to share.

    Source: Juravsky et al., "Hydragen", arXiv 2402.05099; Kwon et al., arXiv 2309.06180.

    >>> g = group_tokens(32768, 2048, 8)
    >>> round(g.read_without_cascade / g.read_with_cascade, 4), g.stored
    (5.6667, 49152)
    """
    once = prefix + sequences * unique
    return GroupTokens(once, sequences * (prefix + unique), once)


def vllm_uses_cascade(
    prefix_tokens: int,
    batch: int,
    query_heads: int,
    kv_heads: int,
    multiprocessors: int = 132,
    tile: int = 128,
) -> bool:
    """Whether vLLM's heuristic would pick cascade attention, were it switched on.

    ``prefix_tokens`` [tokens] common to all ``batch`` running requests, heads per rank,
    ``multiprocessors`` of the chip, ``tile`` [tokens]. Compares tiles processed per wave. Off by
    default since March 2026, and only in the FlashAttention backend without windows.

    Source: vLLM v1/attention/backends/flash_attn.py, use_cascade_attention.

    >>> [vllm_uses_cascade(32768, b, 32, 8) for b in (8, 16, 64)], vllm_uses_cascade(32768, 64, 8, 1)
    ([False, False, True], False)
    """
    if prefix_tokens < MIN_PREFIX_TOKENS or batch < MIN_REQUESTS:
        return False
    cascade, flash = cascade_waves(prefix_tokens, batch, query_heads, kv_heads, multiprocessors, tile)
    return cascade < flash


def cascade_waves(
    prefix_tokens: int,
    batch: int,
    query_heads: int,
    kv_heads: int,
    multiprocessors: int = 132,
    tile: int = 128,
) -> tuple[int, int]:
    """Work of the cascade and of the plain decode kernel on the prefix, in waves of tiles, [1].

    Arguments as :func:`vllm_uses_cascade`. Source: the same heuristic.

    >>> cascade_waves(32768, 64, 32, 8)
    (256, 993)
    """
    tiles = -(-prefix_tokens // tile)
    cascade = -(-query_heads * -(-batch // tile) // multiprocessors) * tiles
    groups = -(-(query_heads // kv_heads) // tile)
    flash = -(-batch * kv_heads * groups * tiles // multiprocessors)
    return cascade, flash


def prefill_tokens(prefix: Array, unique: Array, sequences: Array, shared: bool = True) -> Array:
    """Tokens a group prefills, [tokens]: the prefix once when sharing, else once per sequence.

    Broadcasts. Source: prefix caching; simultaneous arrivals may repeat it unless the engine waits.

    >>> prefill_tokens(9000, 1000, 4), prefill_tokens(9000, 1000, 4, shared=False)
    (13000, 40000)
    """
    once = prefix + sequences * unique
    return once if shared else sequences * (prefix + unique)
