"""A model as the planner knows it: layers, widths, number formats, and its parameter counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.models.formats import FORMATS
from planner.models.layers import FullAttention, LatentAttention, Layer, MoeMlp, SlidingAttention


@dataclass(frozen=True)
class Published:
    """What the maker says, to hold the computed figures against. Parameters, not billions."""

    total_parameters: float | None = None
    active_parameters: float | None = None
    source: str = ""
    note: str = ""  # why the computed figure differs, where it does


@dataclass(frozen=True)
class Model:
    """A decoder-only language model.

    ``layers``: distinct layers, each with its ``count``. ``formats``: weight format per group of
    :data:`planner.models.layers.GROUPS` as the checkpoint stores it. ``kv_format``: the checkpoint's
    declared KV format. ``draft_layers``: the layers of its own multi-token-prediction module (not in
    ``layers``). ``extra_parameters``: norms, biases, convolutions, per-layer embeddings: in the
    total, never a matmul.
    """

    name: str
    architecture: str
    hidden: int
    vocab: int
    layers: tuple[Layer, ...]
    tied_embeddings: bool = False
    max_context: int = 0
    formats: Mapping[str, str] = field(default_factory=dict)
    kv_format: str = "bf16"
    draft_layers: tuple[Layer, ...] = ()
    extra_parameters: int = 0
    published: Published = Published()
    source: str = ""
    hf_id: str = ""
    notes: tuple[str, ...] = ()

    def format_of(self, group: str) -> str:
        """The stored weight format of ``group``, bf16 when the checkpoint does not say."""
        return self.formats.get(group, "bf16")

    @property
    def num_layers(self) -> int:
        """Layers, the draft module left out, [1]. Source: the config."""
        return sum(layer.count for layer in self.layers)

    @property
    def is_moe(self) -> bool:
        """Whether any layer routes tokens to experts. Source: the config."""
        return any(isinstance(layer.mlp, MoeMlp) for layer in self.layers)

    @property
    def architecture_kind(self) -> str:
        """dense, experts or latent, as predictions are told apart by; other for any further kind of attention.

        Source: the config.
        """
        kinds = {type(layer.attention) for layer in self.layers if layer.attention is not None}
        if kinds == {LatentAttention}:
            return "latent"
        if not kinds or kinds - {FullAttention, SlidingAttention}:
            return "other"
        return "experts" if self.is_moe else "dense"

    @property
    def embedding_parameters(self) -> int:
        """Weights of one embedding table, [elements]. Source: the config."""
        return self.hidden * self.vocab

    def layer_parameters(self, layer: Layer, active: bool = False) -> int:
        """Matmul weights of one layer, [elements]; ``active``: only the experts a token takes."""
        fixed = sum(p.parameters for p in layer.projections(self.hidden))
        if isinstance(layer.mlp, MoeMlp):
            experts = layer.mlp.top_k if active else layer.mlp.experts
            fixed += experts * layer.mlp.expert_parameters(self.hidden)
        return fixed

    def _sum(self, active: bool) -> int:
        return sum(layer.count * self.layer_parameters(layer, active) for layer in self.layers)

    @property
    def total_parameters(self) -> int:
        """All weights, both embeddings counted once when tied, without the draft module."""
        embeddings = self.embedding_parameters * (1 if self.tied_embeddings else 2)
        return self._sum(False) + embeddings + self.extra_parameters

    @property
    def active_parameters(self) -> int:
        """Weights one decoded token uses: active experts and the LM head, not the input embedding."""
        return self._sum(True) + self.embedding_parameters

    def weight_bytes(self, formats: Mapping[str, str] | None = None) -> float:
        """Stored bytes of the checkpoint without its draft module, [B]."""
        chosen = {**self.formats, **(formats or {})}

        def size(group: str) -> float:
            return FORMATS[chosen.get(group, "bf16")].bytes_per_element

        total = self.embedding_parameters * size("embedding") + self.extra_parameters * 2
        if not self.tied_embeddings:
            total += self.embedding_parameters * size("head")
        for layer in self.layers:
            one = sum(p.parameters * size(p.group) for p in layer.projections(self.hidden))
            if isinstance(layer.mlp, MoeMlp):
                one += layer.mlp.experts * layer.mlp.expert_parameters(self.hidden) * size("experts")
            total += layer.count * one
        return total
