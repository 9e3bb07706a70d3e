"""DeepSeek V4's compressed attention: one cached entry per ``ratio`` tokens, and a short window."""

from __future__ import annotations

import numpy as np

from planner.cost.attention.base import AttentionCost, Part, causal_pairs, limited_pairs
from planner.cost.attention.latent import INDEX_SCALE_BYTES
from planner.cost.roofline import Array
from planner.models.layers import CompressedAttention

ROPE_DIM = 64  # the rotary part of an entry, kept in bf16 when the rest is fp8


class CompressedAttentionCost(AttentionCost):
    """Entries of ``head_dim`` that are key and value at once, one KV head, replicated on every rank.

    CSA (``top_k`` > 0) scores S/ratio index keys and reads ``min(top_k, S/ratio)`` entries plus the
    window; HCA reads all S/ratio entries plus the window; ratio 0 reads the window alone. Window
    entries are bounded by ``window``.

    Source: DeepSeek-V4 config.json (compress_ratios, index_topk, sliding_window); check: V4-Pro at
    1 Mi tokens stores 9.36 GB, the figure its makers give as 8.7 GiB.
    """

    def __init__(self, spec: CompressedAttention) -> None:
        self.spec = spec

    def entry_bytes(self, kv_format: str) -> float:
        """Bytes of one entry, [B]: 1024 in bf16 for head_dim 512. Source: see the class."""
        d = self.spec.head_dim
        if kv_format == "fp8":
            return (d - ROPE_DIM) + 4.0 * (d - ROPE_DIM) / 64 + 2.0 * ROPE_DIM
        return d * (4.0 if kv_format == "fp32" else 2.0)

    def _entries(self, context: Array) -> Array:
        return context / self.spec.ratio if self.spec.ratio else 0.0 * context

    def _index_bytes(self) -> float:
        return self.spec.index_dim + INDEX_SCALE_BYTES if self.spec.top_k else 0.0

    def _selected(self, context: Array) -> Array:
        entries = self._entries(context)
        return np.minimum(entries, float(self.spec.top_k)) if self.spec.top_k else entries

    def limits(self, queries: int) -> tuple[float, ...]:
        """The window, and the tokens behind a full selection, once and for every query, [tokens].

        Source: see the class.
        """
        selected = float(self.spec.top_k * self.spec.ratio)
        return (float(self.spec.window), *((selected, selected * queries) if selected else ()))

    def stored_bytes(self, context: Array, kv_format: str) -> Array:
        """Compressed entries, their index keys and the window, [B], shape of context.

        Source: see the class.

        >>> csa = CompressedAttention(128, 512, 1536, 4, 128, top_k=1024, index_heads=64, index_dim=128)
        >>> hca = CompressedAttention(128, 512, 1536, 128, 128)
        >>> one = [CompressedAttentionCost(s).stored_bytes(1048576.0, "bf16") for s in (csa, hca)]
        >>> float(round((30 * one[0] + 31 * one[1]) / 1e9, 2))
        9.36
        """
        window = np.minimum(context, float(self.spec.window))
        entries = self._entries(context)
        return entries * (self.entry_bytes(kv_format) + self._index_bytes()) + (window * self.entry_bytes(kv_format))

    def kv_bytes_per_token(self, kv_format: str) -> float:
        """Bytes a token adds once the window is full, [B/token]. Source: see the class."""
        if not self.spec.ratio:
            return 0.0
        return (self.entry_bytes(kv_format) + self._index_bytes()) / self.spec.ratio

    def decode(self, context: Array, queries: int, kv_format: str) -> tuple[Part, ...]:
        """Index keys, then the selection and the window, [FLOP] and [B]. Source: see the class."""
        s = self.spec
        window = np.minimum(context, float(s.window))
        read = self._selected(context) + window
        loaded = np.minimum(self._selected(context) * (queries if s.top_k else 1), self._entries(context))
        flops = 4.0 * s.heads * s.head_dim * queries * read
        moved = (loaded + window) * self.entry_bytes(kv_format)
        core = Part("sparse_attention" if s.top_k else "latent_attention", flops, moved, "kv")
        if not s.top_k:
            return (core,)
        entries = self._entries(context)
        index = 2.0 * s.index_heads * s.index_dim * queries * entries
        return (Part("compressed_indexer", index, entries * self._index_bytes(), "indexer", False), core)

    def prefill(self, new: Array, cached: Array, kv_format: str) -> tuple[Part, ...]:
        """Pairs against entries and window, [FLOP] and [B]. Source: see the class."""
        s = self.spec
        per_pair = 4.0 * s.heads * s.head_dim
        pairs = limited_pairs(new, cached, float(s.window))
        if s.ratio:
            limit = float(s.top_k * s.ratio) if s.top_k else np.inf
            coarse = limited_pairs(new, cached, limit) if s.top_k else causal_pairs(new, cached)
            pairs = pairs + coarse / s.ratio
        moved = (self._entries(new + cached) + new) * self.entry_bytes(kv_format)
        parts = [Part("prefill_attention", per_pair * pairs, moved, "kv")]
        if s.top_k:
            index = 2.0 * s.index_heads * s.index_dim * causal_pairs(new, cached) / s.ratio
            parts.append(Part("compressed_indexer", index, self._entries(new + cached) * self._index_bytes(),
                              "indexer", False))  # fmt: skip
        return tuple(parts)

    def kv_fraction(self, tensor_parallel: Array) -> Array:
        """1 on every rank (one KV head), [1], shape of tensor_parallel. Source: see the class."""
        return np.ones_like(np.asarray(tensor_parallel, dtype=float))[()]
