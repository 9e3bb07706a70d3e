"""What a layer of a transformer is made of: attention kinds, feed-forward kinds, weight matrices.

Facts only: dimensions and the matrices they imply. What a layer costs is computed in
:mod:`planner.cost`, which dispatches on these classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

#: how tensor parallelism of degree n splits a matrix: its outputs, its inputs, not at all,
#: or its outputs in units of KV heads (replicated once n exceeds their number)
Split = Literal["column", "row", "none", "kv"]

#: weight-format groups a checkpoint may store differently
GROUPS = (
    "attention", "indexer", "mlp", "shared_experts", "experts", "router", "head", "embedding",
)  # fmt: skip


@dataclass(frozen=True)
class Projection:
    """A weight matrix every token passes through: ``inputs x outputs`` elements."""

    name: str
    inputs: int
    outputs: int
    split: Split = "column"
    group: str = "attention"
    kv_heads: int = 0  # for split "kv": the number of KV heads the outputs hold

    @property
    def parameters(self) -> int:
        """Weights of the matrix, [elements]. Source: its shape."""
        return self.inputs * self.outputs


@dataclass(frozen=True)
class FullAttention:
    """Multi-head, grouped-query or multi-query attention over the whole context.

    ``value_dim`` differs from ``head_dim`` in a few models (MiMo). ``output_gate`` doubles the
    query projection (Qwen3-Next). ``k_is_v``: no value matrix, V is K (Gemma 4 global layers; both
    are still stored). ``shares_kv``: the layer reads an earlier layer's cache and stores none.
    ``norm_over_heads``: queries and keys are normalised over all heads at once (MiniMax-M2), which takes an
    all-reduce of its own where heads are split.
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int = 0
    output_gate: bool = False
    k_is_v: bool = False
    shares_kv: bool = False
    norm_over_heads: bool = False

    @property
    def v_dim(self) -> int:
        """Width of a value head, [elements]. Source: the config."""
        return self.value_dim or self.head_dim

    def projections(self, hidden: int) -> Iterator[Projection]:
        """Query, key, value and output matrices over ``hidden`` [elements]. Source: arXiv 2305.13245."""
        gate = 2 if self.output_gate else 1
        yield Projection("q", hidden, gate * self.heads * self.head_dim)
        if not self.shares_kv:
            yield Projection("k", hidden, self.kv_heads * self.head_dim, "kv", kv_heads=self.kv_heads)
            if not self.k_is_v:
                yield Projection("v", hidden, self.kv_heads * self.v_dim, "kv", kv_heads=self.kv_heads)
        yield Projection("o", self.heads * self.v_dim, hidden, "row")


@dataclass(frozen=True)
class SlidingAttention(FullAttention):
    """Attention over the last ``window`` tokens (or inside a chunk of that many: Llama 4)."""

    window: int = 0
    chunked: bool = False


@dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek V2/V3): one shared latent of ``kv_rank + rope_dim``.

    Decode runs absorbed (the up-projection folded into queries and outputs), prefill expanded.
    ``q_rank`` 0 means queries are not compressed.
    """

    heads: int
    q_rank: int
    kv_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int
    output_gate: bool = False

    def projections(self, hidden: int) -> Iterator[Projection]:
        """Down- and up-projections over ``hidden`` [elements]. Source: DeepSeek-V2, arXiv 2405.04434."""
        query = self.heads * (self.nope_dim + self.rope_dim)
        if self.q_rank:
            yield Projection("q_a", hidden, self.q_rank, "none")
            yield Projection("q_b", self.q_rank, query)
        else:
            yield Projection("q", hidden, query)
        yield Projection("kv_a", hidden, self.kv_rank + self.rope_dim, "none")
        yield Projection("kv_b", self.kv_rank, self.heads * (self.nope_dim + self.value_dim))
        if self.output_gate:
            yield Projection("gate", hidden, self.heads * self.value_dim)
        yield Projection("o", self.heads * self.value_dim, hidden, "row")


@dataclass(frozen=True)
class SparseLatentAttention(LatentAttention):
    """DeepSeek sparse attention: a light indexer scores every token, MLA reads the top ``top_k``.

    ``owns_indexer`` False: the layer reuses another layer's selection (GLM-5.2) and stores no index.
    """

    index_heads: int = 0
    index_dim: int = 0
    top_k: int = 0
    owns_indexer: bool = True

    def projections(self, hidden: int) -> Iterator[Projection]:
        """Those of MLA and the indexer, ``hidden`` [elements]. Source: DeepSeek-V3.2-Exp model.py."""
        yield from super().projections(hidden)
        if self.owns_indexer:
            source = self.q_rank or hidden
            width = self.index_heads * self.index_dim
            yield Projection("index_q", source, width, "none", "indexer")
            yield Projection("index_k", hidden, self.index_dim, "none", "indexer")
            yield Projection("index_weights", hidden, self.index_heads, "none", "indexer")


@dataclass(frozen=True)
class BlockSparseAttention(FullAttention):
    """Attention over selected blocks of the context (MiniMax M3, NSA).

    The top ``top_blocks`` blocks of ``block`` tokens and the last ``window`` tokens are read. They
    are chosen by scoring, for every ``stride`` tokens of context, one index key of ``index_dim``
    (``index_dim`` 0: NSA, where the compressed blocks of ``stride`` are keys and values of the
    layer's own KV width and are attended to as well).
    """

    block: int = 0
    top_blocks: int = 0
    window: int = 0
    stride: int = 1
    compress_block: int = 0
    index_heads: int = 0
    index_dim: int = 0

    def projections(self, hidden: int) -> Iterator[Projection]:
        """Those of full attention and the indexer, ``hidden`` [elements]. Source: MiniMax-M3 config."""
        yield from super().projections(hidden)
        if self.index_dim:
            width = self.index_heads * self.index_dim
            yield Projection("index_q", hidden, width, "none", "indexer")
            yield Projection("index_k", hidden, self.index_dim, "none", "indexer")


@dataclass(frozen=True)
class CompressedAttention:
    """DeepSeek V4: keys and values are one latent of ``head_dim``, one entry per ``ratio`` tokens.

    Every layer also reads the last ``window`` raw entries. ``top_k`` > 0 (CSA): an indexer scores
    the compressed entries and the best ``top_k`` are read; otherwise (HCA) all are. ``ratio`` 0:
    the window alone. Output goes through ``o_groups`` low-rank matrices of rank ``o_rank``.
    """

    heads: int
    head_dim: int
    q_rank: int
    ratio: int
    window: int
    o_rank: int = 0
    o_groups: int = 1
    top_k: int = 0
    index_heads: int = 0
    index_dim: int = 0

    def projections(self, hidden: int) -> Iterator[Projection]:
        """Query, latent, compressor, output and indexer, ``hidden`` [elements]. Source: DeepSeek-V4 config."""
        width = self.heads * self.head_dim
        yield Projection("q_a", hidden, self.q_rank, "none")
        yield Projection("q_b", self.q_rank, width)
        yield Projection("kv", hidden, self.head_dim, "none")
        if self.ratio:
            # the compressor: keys/values and their pooling gates (twice as wide when overlapping)
            overlap = 2 if self.top_k else 1
            yield Projection("compress", hidden, 2 * overlap * self.head_dim, "none")
        if self.o_rank:
            yield Projection("o_a", width // self.o_groups, self.o_groups * self.o_rank, "column")
            yield Projection("o_b", self.o_groups * self.o_rank, hidden, "row")
        else:
            yield Projection("o", width, hidden, "row")
        if self.top_k:
            yield Projection("index_q", self.q_rank, self.index_heads * self.index_dim, "none", "indexer")
            yield Projection("index_compress", hidden, 4 * self.index_dim, "none", "indexer")
            yield Projection("index_weights", hidden, self.index_heads, "none", "indexer")


@dataclass(frozen=True)
class LinearAttention:
    """A recurrent state instead of a cache: Gated DeltaNet, KDA, Mamba-2, lightning attention.

    State per sequence: ``heads x key_dim x value_dim`` elements of ``state_bytes`` each, plus the
    last ``conv - 1`` inputs of a short convolution over ``conv_channels``. ``matrices`` are its
    projections, which differ per kind and are spelled out by the loader.
    """

    kind: Literal["gated-deltanet", "kda", "mamba2", "lightning"]
    heads: int
    key_dim: int
    value_dim: int
    state_bytes: int = 4
    conv: int = 0
    conv_channels: int = 0
    matrices: tuple[Projection, ...] = ()

    def projections(self, hidden: int) -> Iterator[Projection]:
        """The matrices the loader spelled out, ``hidden`` [elements]. Source: the config."""
        yield from self.matrices


Attention = (
    FullAttention
    | SlidingAttention
    | LatentAttention
    | SparseLatentAttention
    | BlockSparseAttention
    | CompressedAttention
    | LinearAttention
)


@dataclass(frozen=True)
class DenseMlp:
    """A feed-forward block: gate, up and down matrices, or up and down when not ``gated``."""

    intermediate: int
    gated: bool = True
    group: str = "mlp"

    def projections(self, hidden: int) -> Iterator[Projection]:
        """Gate, up and down over ``hidden`` [elements]. Source: Shazeer, arXiv 2002.05202."""
        if self.gated:
            yield Projection("gate", hidden, self.intermediate, group=self.group)
        yield Projection("up", hidden, self.intermediate, group=self.group)
        yield Projection("down", self.intermediate, hidden, "row", self.group)


@dataclass(frozen=True)
class MoeMlp:
    """A mixture of experts: every token takes ``top_k`` of ``experts``, and the shared expert.

    ``shared_intermediate`` 0: no shared expert. ``latent`` > 0: routed experts work in that width,
    between a shared down- and up-projection (Nemotron 3, Kimi K3). ``dense``: a dense block runs
    beside the experts in the same layer (Gemma 4).
    """

    experts: int
    top_k: int
    intermediate: int
    shared_intermediate: int = 0
    gated: bool = True
    latent: int = 0
    shared_gated: bool | None = None
    dense: DenseMlp | None = None

    def expert_parameters(self, hidden: int) -> int:
        """Weights of one routed expert, [elements]."""
        return (3 if self.gated else 2) * (self.latent or hidden) * self.intermediate

    def projections(self, hidden: int) -> Iterator[Projection]:
        """The matrices every token passes through: all but the routed experts."""
        yield Projection("router", hidden, self.experts, "none", "router")
        if self.latent:
            yield Projection("latent_down", hidden, self.latent, "none", "shared_experts")
            yield Projection("latent_up", self.latent, hidden, "none", "shared_experts")
        if self.shared_intermediate:
            gated = self.gated if self.shared_gated is None else self.shared_gated
            shared = DenseMlp(self.shared_intermediate, gated, "shared_experts")
            yield from shared.projections(hidden)
        if self.dense:
            yield from self.dense.projections(hidden)


Mlp = DenseMlp | MoeMlp


@dataclass(frozen=True)
class Layer:
    """One layer: attention, feed-forward, or both; ``count`` identical ones in a row or not."""

    attention: Attention | None
    mlp: Mlp | None
    count: int = 1

    def projections(self, hidden: int) -> Iterator[Projection]:
        """Matrices of attention and feed-forward every token passes, ``hidden`` [elements]."""
        if self.attention is not None:
            yield from self.attention.projections(hidden)
        if self.mlp is not None:
            yield from self.mlp.projections(hidden)
