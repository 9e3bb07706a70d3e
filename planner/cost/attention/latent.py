"""Multi-head latent attention, dense and with DeepSeek's sparse indexer."""

from __future__ import annotations

import numpy as np

from planner.cost.attention.base import (
    AttentionCost,
    Part,
    causal_pairs,
    element_bytes,
    limited_pairs,
)
from planner.cost.roofline import Array
from planner.models.layers import LatentAttention, SparseLatentAttention

#: an index key is stored in fp8 with one fp32 scale (DeepSeek-V3.2-Exp, inference/model.py)
INDEX_SCALE_BYTES = 4
#: FlashMLA's fp8 cache keeps one fp32 scale per 128 latent elements and the rope part in bf16
LATENT_SCALE_GROUP = 128


class LatentAttentionCost(AttentionCost):
    """One latent of ``c + r`` elements per token, shared by all heads.

    Decode runs absorbed: ``2*h*q*S*((c+r) + c)`` FLOP over ``S*(c+r)*b`` bytes, so with 128 heads
    it sits at 242 FLOP/B, near the ridge of a Hopper chip. (The absorbed up-projections are the
    ``kv_b`` matmul: the same weights and FLOPs per token.) Prefill runs expanded, as multi-head
    attention with ``d_nope + d_rope`` keys and ``d_v`` values per head. Every tensor-parallel rank
    holds the whole latent.

    Source: DeepSeek-V2, arXiv 2405.04434; deepseek-ai/FlashMLA (fp8 cache layout).
    """

    operator = "latent_attention"

    def __init__(self, spec: LatentAttention) -> None:
        self.spec = spec

    def latent_bytes(self, kv_format: str) -> float:
        """Bytes of one token's latent, [B]: 1152 in bf16 and 656 in FlashMLA's fp8 for DeepSeek.

        Source: deepseek-ai/FlashMLA README.

        >>> cost = LatentAttentionCost(LatentAttention(128, 1536, 512, 64, 128, 128))
        >>> cost.latent_bytes("bf16"), cost.latent_bytes("fp8")
        (1152.0, 656.0)
        """
        c, r = self.spec.kv_rank, self.spec.rope_dim
        if kv_format == "fp8":
            return c + 4.0 * c / LATENT_SCALE_GROUP + 2.0 * r
        return (c + r) * element_bytes(kv_format)

    def flops_per_pair(self) -> float:
        """Absorbed FLOPs of one query token against one cached token, all heads, [FLOP].

        Source: DeepSeek-V2, arXiv 2405.04434, absorbed form.

        >>> LatentAttentionCost(LatentAttention(128, 1536, 512, 64, 128, 128)).flops_per_pair()
        278528.0
        """
        return 2.0 * self.spec.heads * (2 * self.spec.kv_rank + self.spec.rope_dim)

    def stored_bytes(self, context: Array, kv_format: str) -> Array:
        """Latent bytes of ``context`` [tokens], [B], same shape. Source: see the class."""
        return context * self.latent_bytes(kv_format)

    def decode(self, context: Array, queries: int, kv_format: str) -> tuple[Part, ...]:
        """The absorbed kernel, [FLOP] and [B] in the shape of context. Source: see the class."""
        flops = queries * context * self.flops_per_pair()
        return (Part(self.operator, flops, context * self.latent_bytes(kv_format), "kv"),)

    def _expanded_flops_per_pair(self) -> float:
        s = self.spec
        return 2.0 * s.heads * (s.nope_dim + s.rope_dim + s.value_dim)

    def prefill(self, new: Array, cached: Array, kv_format: str) -> tuple[Part, ...]:
        """The expanded kernel over causal pairs, [FLOP] and [B]. Source: see the class."""
        s = self.spec
        flops = self._expanded_flops_per_pair() * causal_pairs(new, cached)
        # cached latents are expanded again for the keys and values of this chunk
        flops = flops + 2.0 * cached * s.kv_rank * s.heads * (s.nope_dim + s.value_dim)
        moved = (new + cached) * self.latent_bytes(kv_format)
        return (Part("prefill_attention", flops, moved, "kv"),)

    def kv_fraction(self, tensor_parallel: Array) -> Array:
        """1 on every rank, [1], shape of tensor_parallel. Source: latent replication, vLLM/SGLang."""
        return np.ones_like(np.asarray(tensor_parallel, dtype=float))[()]


class SparseLatentAttentionCost(LatentAttentionCost):
    """An indexer scores every cached token, MLA then reads the best ``top_k``.

    Decode: indexer ``2*h_I*d_I*S`` FLOP per query over ``S*(d_I + 4)`` bytes (fp8 keys and a
    scale), still linear in context; then MLA over ``min(top_k, S)`` tokens, picked per query, so
    drafts read more. The index is extra cache. A layer that shares another's selection has neither.

    Source: DeepSeek-V3.2-Exp report and inference/model.py; GLM-5.2 config (indexer_types).
    """

    operator = "sparse_attention"

    def __init__(self, spec: SparseLatentAttention) -> None:
        super().__init__(spec)
        self.sparse = spec

    def index_bytes(self) -> float:
        """Bytes of one token's index key, [B]; 132 for DeepSeek-V3.2. Source: see the class."""
        return self.sparse.index_dim + INDEX_SCALE_BYTES if self.sparse.owns_indexer else 0.0

    def limits(self, queries: int) -> tuple[float, ...]:
        """The selection's size, and all the selections of a step together, [tokens]. Source: the class."""
        return (float(self.sparse.top_k), float(self.sparse.top_k * queries))

    def stored_bytes(self, context: Array, kv_format: str) -> Array:
        """Latent and index bytes, [B], shape of context. Source: see the class.

        >>> spec = SparseLatentAttention(128, 1536, 512, 64, 128, 128, False, 64, 128, 2048)
        >>> SparseLatentAttentionCost(spec).stored_bytes(61.0, "fp8")
        48068.0
        """
        return context * (self.latent_bytes(kv_format) + self.index_bytes())

    def decode(self, context: Array, queries: int, kv_format: str) -> tuple[Part, ...]:
        """Indexer over everything, MLA over the selection, [FLOP] and [B]. Source: see the class."""
        s = self.sparse
        selected = np.minimum(context, float(s.top_k))
        read = np.minimum(selected * queries, context) * self.latent_bytes(kv_format)
        core = Part(self.operator, queries * selected * self.flops_per_pair(), read, "kv")
        if not s.owns_indexer:
            return (core,)
        flops = 2.0 * s.index_heads * s.index_dim * queries * context
        return (Part("indexer", flops, context * self.index_bytes(), "indexer", False), core)

    def prefill(self, new: Array, cached: Array, kv_format: str) -> tuple[Part, ...]:
        """Indexer over all pairs, then absorbed MLA over at most ``top_k`` keys per query.

        Prompts up to ``top_k`` tokens run dense and expanded, as every engine does. [FLOP], [B].
        Source: DeepSeek-V3.2-Exp report.
        """
        s = self.sparse
        dense = super().prefill(new, cached, kv_format)[0]
        pairs = limited_pairs(new, cached, float(s.top_k))
        short = np.asarray(new + cached) <= s.top_k
        flops = np.where(short, dense.flops, pairs * self.flops_per_pair())[()]
        parts = [Part("prefill_attention", flops, dense.bytes, "kv")]
        if s.owns_indexer:
            index = 2.0 * s.index_heads * s.index_dim * causal_pairs(new, cached)
            moved = (new + cached) * self.index_bytes()
            parts.append(Part("indexer", index, moved, "indexer", False))
        return tuple(parts)
