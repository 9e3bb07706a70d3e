"""What one accelerator must hold: weights, KV cache as stored and as engines allocate it, the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from planner.cost.attention import attention_cost
from planner.cost.layout import Layout
from planner.cost.linear import kv_head_fraction
from planner.cost.roofline import Array
from planner.models.formats import FORMATS
from planner.models.layers import Layer, LinearAttention, MoeMlp, Projection
from planner.models.model import Model


def _share(projection: Projection, tensor_parallel: Array) -> Array:
    if projection.split == "none":
        return 1.0
    if projection.split == "kv":
        return kv_head_fraction(projection.kv_heads, tensor_parallel)
    return 1 / tensor_parallel


def _element_bytes(formats: Mapping[str, str], group: str) -> float:
    return FORMATS[formats.get(group, "bf16")].bytes_per_element


def layer_weight_bytes(layers: tuple[Layer, ...], hidden: int, formats: Mapping[str, str], layout: Layout) -> Array:
    """Weight bytes of ``layers`` on one accelerator, all pipeline stages together, [B].

    hidden [elements]; shape of the layout's degrees. Matrices split as in
    :func:`planner.cost.linear.fused_matmuls`; experts over the stage. Source: Megatron-LM,
    arXiv 1909.08053.
    """
    total: Array = 0.0
    for layer in layers:
        for p in layer.projections(hidden):
            size = p.parameters * _element_bytes(formats, p.group)
            total = total + layer.count * size * _share(p, layout.tensor)
        if isinstance(layer.mlp, MoeMlp):
            experts = layer.mlp.experts * layer.mlp.expert_parameters(hidden)
            size = layer.count * experts * _element_bytes(formats, "experts")
            total = total + size / layout.stage_devices
    return total


def weight_bytes_per_device(model: Model, formats: Mapping[str, str], layout: Layout) -> Array:
    """Weights of the model on one accelerator, [B], in the shape of the layout's degrees.

    Layers divide over pipeline stages, embeddings over tensor-parallel ranks (the first and last
    stage hold them). Source: :func:`layer_weight_bytes`.
    """
    layers = layer_weight_bytes(model.layers, model.hidden, formats, layout) / layout.pipeline
    tables = _element_bytes(formats, "embedding") + (0.0 if model.tied_embeddings else _element_bytes(formats, "head"))
    embeddings = model.embedding_parameters * tables / layout.tensor
    return layers + embeddings + 2.0 * model.extra_parameters / layout.devices


@dataclass(frozen=True)
class CacheLayout:
    """KV bytes of a model's layers for one sequence on one accelerator.

    ``hybrid_manager`` False: an engine that gives every layer with a cache pages of the largest
    layer's size, and windowed layers full-length ones.
    """

    layers: tuple[Layer, ...]
    kv_format: str
    hybrid_manager: bool = True

    def _holding(self) -> list[Layer]:
        return [
            layer
            for layer in self.layers
            if layer.attention is not None and not isinstance(layer.attention, LinearAttention)
        ]

    def stored(self, context: Array, layout: Layout) -> Array:
        """Bytes the formula says one sequence of ``context`` [tokens] needs, [B].

        Broadcast shape of context and the layout's degrees. Source: each attention kind's class.
        """
        total: Array = 0.0
        for layer in self._holding():
            assert layer.attention is not None
            cost = attention_cost(layer.attention)
            stored = cost.stored_bytes(context, self.kv_format)
            total = total + layer.count * stored * cost.kv_fraction(layout.tensor)
        return total / layout.pipeline

    def allocated(self, context: Array, layout: Layout) -> Array:
        """Bytes the engine really allocates, [B], same shape: the stored ones with a hybrid manager.

        Without it every layer takes full-length pages of the widest layer. Source: vLLM 0.32 (an
        unwindowed page per layer); it reports 73 728 B/token for gpt-oss-120b and 983 040 for
        gemma-4-31B.
        """
        holding = self._holding()
        bounded = [layer for layer in holding if layer.attention and attention_cost(layer.attention).bounded]
        if self.hybrid_manager or not bounded:
            return self.stored(context, layout)
        widest: Array = 0.0
        count = 0
        for layer in holding:
            assert layer.attention is not None
            cost = attention_cost(layer.attention)
            page = cost.kv_bytes_per_token(self.kv_format) * cost.kv_fraction(layout.tensor)
            widest = np.maximum(widest, page)
            count += layer.count if page is not None and np.any(np.asarray(page) > 0) else 0
        return context * widest * count / layout.pipeline

    def state(self, layout: Layout) -> Array:
        """Recurrent state of one sequence, [B], shape of the layout. Source: the attention class."""
        total: Array = 0.0
        for layer in self.layers:
            if layer.attention is not None:
                cost = attention_cost(layer.attention)
                total = total + layer.count * cost.state_bytes / layout.tensor
        return total / layout.pipeline

    def bytes_per_token(self, layout: Layout, long_context: bool = False) -> float:
        """Stored bytes a token adds: at the start, or once windows are full, [B/token].

        Source: each attention kind's class.
        """
        total = 0.0
        for layer in self._holding():
            assert layer.attention is not None
            cost = attention_cost(layer.attention)
            if not (long_context and cost.bounded):
                share = float(np.asarray(cost.kv_fraction(layout.tensor)))
                total += layer.count * cost.kv_bytes_per_token(self.kv_format) * share
        return total / float(np.asarray(layout.pipeline))

    def allocated_bytes_per_token(self, layout: Layout) -> float:
        """Bytes the engine allocates per token of context, [B/token]. Source: :meth:`allocated`."""
        if self.hybrid_manager:
            return self.bytes_per_token(layout)
        bounded = any(layer.attention and attention_cost(layer.attention).bounded for layer in self._holding())
        if not bounded:
            return self.bytes_per_token(layout)
        return float(np.asarray(self.allocated(1.0, layout)))


def largest_context(cache: CacheLayout, layout: Layout, budget: float, limit: int) -> int:
    """Longest single sequence whose cache fits ``budget`` [B], [tokens], at most ``limit`` [tokens].

    Bisection on the allocated bytes, monotone in context. Source: :meth:`CacheLayout.allocated`.
    """
    low, high = 0, int(limit)
    room = budget - float(np.asarray(cache.state(layout)))
    while low < high:
        middle = (low + high + 1) // 2
        if float(np.asarray(cache.allocated(float(middle), layout))) <= room:
            low = middle
        else:
            high = middle - 1
    return low if room > 0 else 0
