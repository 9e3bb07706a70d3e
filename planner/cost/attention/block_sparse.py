"""Block-sparse attention: native sparse attention (NSA) and MiniMax's selected blocks."""

from __future__ import annotations

import numpy as np

from planner.cost.attention.base import Part, causal_pairs, limited_pairs
from planner.cost.attention.full import FullAttentionCost
from planner.cost.roofline import Array
from planner.models.layers import BlockSparseAttention


class BlockSparseAttentionCost(FullAttentionCost):
    """A coarse pass scores the context, a fine pass reads the best blocks and the last window.

    NSA (``index_dim`` 0): the coarse pass attends to ``(S - l)/d + 1`` compressed entries of the
    layer's own KV width, each stored; then ``n`` blocks of ``l'`` tokens and a window ``w``. With an
    indexer, it scores one index key per token (bf16, ``index_dim`` wide) and no window entries of
    its own are stored beside the full cache.

    Source: Yuan et al., "Native Sparse Attention", arXiv 2502.11089; MiniMax-M3 config.json.
    """

    def __init__(self, spec: BlockSparseAttention) -> None:
        super().__init__(spec)
        self.sparse = spec

    def compressed_entries(self, context: Array) -> Array:
        """Compressed blocks in ``context`` [tokens]: ``(S - l)/d + 1``, [entries], same shape.

        Source: NSA, arXiv 2502.11089, section 3.3.
        """
        s = self.sparse
        if s.index_dim:
            return np.zeros_like(np.asarray(context, dtype=float))[()]
        return np.maximum(0.0, np.floor((context - s.compress_block) / s.stride) + 1)

    def selected_tokens(self, context: Array) -> Array:
        """Raw tokens the fine pass reads, [tokens]: ``min(S, n*l') + min(S, w)``, same shape.

        Source: NSA, arXiv 2502.11089.
        """
        s = self.sparse
        blocks = np.minimum(context, float(s.top_blocks * s.block))
        return blocks + np.minimum(context, float(s.window))

    def tokens_read(self, context: Array) -> Array:
        """Tokens and entries one decode step reads, [tokens], same shape as context.

        Source: NSA, arXiv 2502.11089; the paper's 11.6x at 64k is 65536 over this.

        >>> spec = BlockSparseAttention(64, 4, 192, 128, block=64, top_blocks=16, window=512,
        ...                             stride=16, compress_block=32)
        >>> float(BlockSparseAttentionCost(spec).tokens_read(65536.0))
        5631.0
        """
        return self.compressed_entries(context) + self.selected_tokens(context)

    def limits(self, queries: int) -> tuple[float, ...]:
        """Selected blocks and window, once and for every query of a step, [tokens]. Source: the class."""
        most = float(self.sparse.top_blocks * self.sparse.block + self.sparse.window)
        return (most, most * queries)

    def _index_bytes(self) -> float:
        return 2.0 * self.sparse.index_dim

    def stored_bytes(self, context: Array, kv_format: str) -> Array:
        """The full cache, plus compressed entries or index keys, [B]. Source: see the class."""
        per_token = self._read_per_token(kv_format)
        return context * (per_token + self._index_bytes()) + self.compressed_entries(context) * per_token

    def kv_bytes_per_token(self, kv_format: str) -> float:
        """Bytes a token adds, compressed entries spread over their stride, [B]. Source: the class."""
        compressed = 0.0 if self.sparse.index_dim else 1.0 / self.sparse.stride
        return self._read_per_token(kv_format) * (1 + compressed) + self._index_bytes()

    def decode(self, context: Array, queries: int, kv_format: str) -> tuple[Part, ...]:
        """Coarse and fine pass, [FLOP] and [B] in the shape of context. Source: see the class."""
        s = self.sparse
        per_pair = 2.0 * s.heads * self._width()
        per_token = self._read_per_token(kv_format)
        fine = np.minimum(self.selected_tokens(context), context)
        read = np.minimum(fine * queries, context) * per_token
        core = Part("block_sparse_attention", queries * fine * per_pair, read, "kv")
        if s.index_dim:
            flops = 2.0 * s.index_heads * s.index_dim * queries * context
            return (Part("block_indexer", flops, context * self._index_bytes(), "indexer", False), core)
        entries = self.compressed_entries(context)
        coarse = Part("decode_attention", queries * entries * per_pair, entries * per_token, "indexer")
        return (coarse, core)

    def prefill(self, new: Array, cached: Array, kv_format: str) -> tuple[Part, ...]:
        """Pairs limited to the selection, plus the coarse pass over all, [FLOP], [B]. Source: the class."""
        s = self.sparse
        per_pair = 2.0 * s.heads * self._width()
        limit = float(s.top_blocks * s.block + s.window)
        fine = per_pair * limited_pairs(new, cached, limit)
        moved = (new + cached) * self._read_per_token(kv_format)
        pairs = causal_pairs(new, cached)
        if s.index_dim:
            coarse = 2.0 * s.index_heads * s.index_dim * pairs
            index = Part("block_indexer", coarse, (new + cached) * self._index_bytes(), "indexer", False)
        else:
            index = Part("prefill_attention", per_pair * pairs / s.stride, 0.0 * moved, "indexer")
        return (index, Part("prefill_attention", fine, moved, "kv"))
