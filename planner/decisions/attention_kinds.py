"""The same model with the other kind of attention: dense for sparse, top-k for dense."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.decisions.explained_step import ExplainedStep, first_batch, first_where, for_good
from planner.decisions.explanation_result import AttentionAt, AttentionComparison
from planner.models import Model, load_model
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

Vector = npt.NDArray[np.float64]

QUANTILES = (0.1, 0.5, 0.9, 0.99)
CONTEXTS: Vector = np.exp2(np.arange(0.0, 20.01, 0.125))
#: whose indexer a dense model is given
INDEXER_OF = "deepseek-v3.2"


def dense(attention: Attention) -> Attention:
    """An attention kind reading its whole context; recurrent ones have no such form and stay. Units: none."""
    if isinstance(attention, SparseLatentAttention):
        return LatentAttention(**_common(attention, LatentAttention))
    if isinstance(attention, BlockSparseAttention | SlidingAttention):
        return FullAttention(**_common(attention, FullAttention))
    if isinstance(attention, CompressedAttention):
        return replace(attention, ratio=1, window=0, top_k=0, index_heads=0, index_dim=0)
    return attention


def sparse(attention: Attention) -> Attention:
    """A full kind with DeepSeek-V3.2's indexer and selection; others stay. Units: none."""
    index = _indexer()
    if type(attention) is LatentAttention:
        return SparseLatentAttention(
            **_common(attention, LatentAttention),
            index_heads=index.index_heads, index_dim=index.index_dim, top_k=index.top_k,
        )  # fmt: skip
    if type(attention) is FullAttention:
        return BlockSparseAttention(
            **_common(attention, FullAttention), block=1, top_blocks=index.top_k,
            index_heads=index.index_heads, index_dim=index.index_dim,
        )  # fmt: skip
    return attention


def _common(attention: Attention, kind: type) -> dict[str, Any]:
    return {f.name: getattr(attention, f.name) for f in fields(kind)}


@cache
def _indexer() -> SparseLatentAttention:
    layers = load_model(INDEXER_OF).layers
    return next(x.attention for x in layers if isinstance(x.attention, SparseLatentAttention))


def counterpart(model: Model) -> tuple[Model, str]:
    """The model with the other kind of attention, and its own kind: sparse, dense or recurrent."""
    kinds = [x.attention for x in model.layers if x.attention is not None]
    denser = [dense(a) for a in kinds]
    own = "sparse" if denser != kinds else "dense"
    change = dense if own == "sparse" else sparse
    layers = tuple(x if x.attention is None else replace(x, attention=change(x.attention)) for x in model.layers)
    if layers == model.layers:
        own = "recurrent"
    return replace(model, layers=layers), own


def compare_attention(step: ExplainedStep, batch: float) -> AttentionComparison | None:
    """The step with the model's attention and with the other kind, at ``batch`` [sequences] along contexts.

    None for a model all of whose attention is recurrent. Drafting is left out of both, verification is not: every
    token verified selects its own. Source: the operators.
    """
    model = step.model.model
    other_model, own = counterpart(model)
    if own == "recurrent":
        return None
    other = replace(step, model=replace(step.model, model=other_model))
    a, b = (other, step) if own == "sparse" else (step, other)

    def pair(at: float | Vector, contexts: Vector) -> tuple[Vector, Vector]:
        first, second = (np.asarray(x.cost(at, contexts).seconds, dtype=float).ravel() for x in (a, b))
        return first, second

    points = np.quantile(step.contexts, QUANTILES)
    whole = pair(batch, step.contexts)
    each = pair(batch, points[:, None])
    along = pair(batch, CONTEXTS[:, None])
    rows = [
        AttentionAt(context=float(step.contexts.mean()), quantile=None, dense_s=float(whole[0][0]),
                    sparse_s=float(whole[1][0])),
        *(AttentionAt(context=float(points[i]), quantile=q, dense_s=float(each[0][i]), sparse_s=float(each[1][i]))
          for i, q in enumerate(QUANTILES)),
    ]  # fmt: skip

    def sparse_wins(batches: Vector) -> npt.NDArray[np.bool_]:
        d, s = pair(batches, step.contexts)
        return s < d

    cost = b.cost(batch)
    index = sum(float(np.squeeze(o.seconds)) for o in cost.operators if o.name.startswith("index"))
    return AttentionComparison(
        kind="sparse" if own == "sparse" else "dense",
        layers=_layers(model),
        counterpart="the same model reading its whole context" if own == "sparse" else
        f"the same model with the indexer and top {_indexer().top_k} tokens of {INDEXER_OF}",
        at=tuple(rows),
        sparse_wins_context=first_where(for_good(along[1] < along[0]), CONTEXTS),
        sparse_wins_batch=first_batch(sparse_wins),
        sparse_speedup=float(whole[0][0] / whole[1][0]),
        indexer_share=index / float(np.squeeze(cost.seconds)),
    )  # fmt: skip


def _layers(model: Model) -> dict[str, int]:
    names = {
        FullAttention: "full", SlidingAttention: "sliding window", LatentAttention: "latent",
        SparseLatentAttention: "sparse latent", BlockSparseAttention: "block sparse",
        CompressedAttention: "compressed", LinearAttention: "recurrent",
    }  # fmt: skip
    found: dict[str, int] = {}
    for layer in model.layers:
        if layer.attention is not None:
            name = names[type(layer.attention)]
            found[name] = found.get(name, 0) + layer.count
    return found
