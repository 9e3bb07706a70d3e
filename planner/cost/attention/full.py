"""Full attention (MHA, GQA, MQA) and its windowed form."""

from __future__ import annotations

import numpy as np

from planner.cost.attention.base import (
    AttentionCost,
    Part,
    causal_pairs,
    element_bytes,
    limited_pairs,
)
from planner.cost.linear import kv_head_fraction
from planner.cost.roofline import Array
from planner.models.layers import FullAttention, SlidingAttention


class FullAttentionCost(AttentionCost):
    """Every query reads every cached token.

    Decode: ``2*q*S*h*(d_k + d_v)`` FLOP over ``g*(d_k + d_v)*b`` bytes per cached token: arithmetic
    intensity ``q*h/g`` FLOP/B in bf16, so memory-bound on every chip for grouped queries.

    Source: Ainslie et al., "GQA", arXiv 2305.13245; jax-ml/scaling-book, inference chapter.
    """

    def __init__(self, spec: FullAttention) -> None:
        self.spec = spec

    def _width(self) -> int:
        return self.spec.head_dim + self.spec.v_dim

    def _read_per_token(self, kv_format: str) -> float:
        return self.spec.kv_heads * self._width() * element_bytes(kv_format)

    def stored_bytes(self, context: Array, kv_format: str) -> Array:
        """``g*(d_k+d_v)*b`` per token, [B], shape of context; nothing when the layer shares a cache.

        Source: GQA, arXiv 2305.13245.

        >>> FullAttentionCost(FullAttention(32, 8, 128)).stored_bytes(1.0, "bf16") * 32
        131072.0
        """
        return context * (0.0 if self.spec.shares_kv else self._read_per_token(kv_format))

    def decode(self, context: Array, queries: int, kv_format: str) -> tuple[Part, ...]:
        """One kernel; FLOPs scale with ``queries``, bytes don't. Units and source: see the class."""
        flops = 2.0 * queries * context * self.spec.heads * self._width()
        return (Part("decode_attention", flops, context * self._read_per_token(kv_format), "kv"),)

    def prefill(self, new: Array, cached: Array, kv_format: str) -> tuple[Part, ...]:
        """``2*h*(d_k+d_v)`` FLOP per causal pair; keys and values read once a chunk, [B]. Source: the class."""
        flops = 2.0 * self.spec.heads * self._width() * causal_pairs(new, cached)
        moved = (new + cached) * self._read_per_token(kv_format)
        return (Part("prefill_attention", flops, moved, "kv"),)

    def kv_fraction(self, tensor_parallel: Array) -> Array:
        """``max(1, g/n)/g``, [1]; see :func:`planner.cost.linear.kv_head_fraction` (source there)."""
        return kv_head_fraction(self.spec.kv_heads, tensor_parallel)


class SlidingAttentionCost(FullAttentionCost):
    """Every query reads the last ``window`` tokens; older ones may be dropped.

    As full attention with ``min(S, w)`` for S. Chunked attention (Llama 4) reads at most its chunk,
    so the same bound holds; on average it reads about half of that, which is ignored (an upper bound).

    Source: Beltagy et al., "Longformer", arXiv 2004.05150; Gemma 3 report, arXiv 2503.19786.
    """

    bounded = True

    def __init__(self, spec: SlidingAttention) -> None:
        super().__init__(spec)
        self.window = float(spec.window)

    def limits(self, queries: int) -> tuple[float, ...]:
        """The window, [tokens]. Source: see the class."""
        return (self.window,)

    def stored_bytes(self, context: Array, kv_format: str) -> Array:
        """Bytes of ``min(context, window)`` tokens, [B], shape of context. Source: see the class.

        >>> cost = SlidingAttentionCost(SlidingAttention(64, 8, 64, window=128))
        >>> float(cost.stored_bytes(131072.0, "bf16"))
        262144.0
        """
        return super().stored_bytes(np.minimum(context, self.window), kv_format)

    def decode(self, context: Array, queries: int, kv_format: str) -> tuple[Part, ...]:
        """As full attention over ``min(context, window)`` [tokens]; units and source: the class."""
        return super().decode(np.minimum(context, self.window), queries, kv_format)

    def prefill(self, new: Array, cached: Array, kv_format: str) -> tuple[Part, ...]:
        """Pairs limited to the window, [FLOP] and [B]; source: see the class."""
        flops = 2.0 * self.spec.heads * self._width() * limited_pairs(new, cached, self.window)
        read = (new + np.minimum(cached, self.window)) * self._read_per_token(kv_format)
        return (Part("prefill_attention", flops, read, "kv"),)
