"""Attention kinds: each is one small class with the same few functions of context."""

from __future__ import annotations

from functools import lru_cache

from planner.cost.attention.base import AttentionCost, Part
from planner.cost.attention.block_sparse import BlockSparseAttentionCost
from planner.cost.attention.compressed import CompressedAttentionCost
from planner.cost.attention.full import FullAttentionCost, SlidingAttentionCost
from planner.cost.attention.latent import LatentAttentionCost, SparseLatentAttentionCost
from planner.cost.attention.recurrent import LinearAttentionCost
from planner.models.layers import (
    Attention,
    BlockSparseAttention,
    CompressedAttention,
    FullAttention,
    LatentAttention,
    LinearAttention,
    SlidingAttention,
    SparseLatentAttention,
)

__all__ = ["AttentionCost", "Part", "attention_cost"]

_COSTS: dict[type, type] = {
    FullAttention: FullAttentionCost,
    SlidingAttention: SlidingAttentionCost,
    LatentAttention: LatentAttentionCost,
    SparseLatentAttention: SparseLatentAttentionCost,
    BlockSparseAttention: BlockSparseAttentionCost,
    CompressedAttention: CompressedAttentionCost,
    LinearAttention: LinearAttentionCost,
}


@lru_cache(maxsize=256)
def attention_cost(spec: Attention) -> AttentionCost:
    """The cost class of a layer's attention, by its kind.

    Units are those of the class returned. Source: named in each class.
    """
    cost: AttentionCost = _COSTS[type(spec)](spec)
    return cost
