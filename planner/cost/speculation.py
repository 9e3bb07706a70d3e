"""Speculative decoding: a verification step, and the drafter as the small model it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from planner.cost.layout import Layout
from planner.cost.machine import Machine
from planner.cost.memory import CacheLayout, weight_bytes_per_device
from planner.cost.roofline import Array
from planner.cost.step import StepModel
from planner.models.layers import DenseMlp, FullAttention, Layer, Projection
from planner.models.model import Model

HEAD_DIM = 128  # of the dense layer a public EAGLE-3 head is made of
#: of public DSpark drafters: dense layers, their width over the target's, target layers joined at the input;
#: LithosAI/Kimi-K3.1-Pro-DSpark and Inferact/Kimi-K3.1-Pro-DSpark-preview on Hugging Face
BLOCK_LAYERS, BLOCK_WIDTH, BLOCK_PARTS = 5, 2, 5
#: layers of the drafter DeepSeek-V4 ships, each like its MTP layer; bleysg/DeepSeek-V4-Flash-DSpark-drafter-GGUF
BLOCK_OWN_LAYERS, BLOCK_OWN_PARTS = 3, 3
#: inner width of the head that makes each token of a block depend on the one before; same model cards
MARKOV_RANK = 256


@dataclass(frozen=True)
class Combine(DenseMlp):
    """The matrix that joins ``parts`` hidden vectors into one at the drafter's input."""

    parts: int = 2

    def projections(self, hidden: int) -> Iterator[Projection]:
        """One matrix of ``parts * hidden`` inputs, [elements]. Source: EAGLE-3, arXiv 2503.01840."""
        yield Projection("combine", self.parts * hidden, hidden)


def draft_model(
    target: Model,
    method: str,
    draft_vocab: int = 0,
    formats: Mapping[str, str] | None = None,
) -> Model | None:
    """The drafter of ``method`` as a model of its own, or None when it has no weights.

    MTP is the target's own extra layer with a 2d-to-d projection and the shared head; EAGLE and
    EAGLE-2 one dense layer with a 2d-to-d projection and the target's head; EAGLE-3 one with a 3d-to-d
    projection and a head over ``draft_vocab`` [tokens]; DSpark a few dense layers (of a target with MTP
    three like it), a projection of several hidden vectors, the target's head and a low-rank one; of a
    sparse cache the target itself. n-gram, suffix and none have no weights. ``formats``: weight formats
    the target runs in, its own by default.

    Source: DeepSeek-V3, arXiv 2412.19437, section 2.2 (MTP); EAGLE, arXiv 2401.15077; EAGLE-3, arXiv
    2503.01840; DSpark, arXiv 2607.05147; MagicDec, arXiv 2408.11049.
    """
    if method == "sparse-kv":
        return target if formats is None else replace(target, formats=dict(formats))
    if method == "dspark":
        return _block_model(target, formats)
    if method == "mtp" and target.draft_layers:
        layers = (*target.draft_layers[:1], Layer(None, Combine(0, parts=2)))
        return Model(
            f"{target.name} MTP", "mtp", target.hidden, target.vocab, layers, True,
            formats=target.formats if formats is None else formats,
        )  # fmt: skip
    if method in ("eagle", "eagle3"):
        heads = max(1, target.hidden // HEAD_DIM)
        widths = [m.intermediate for m in (x.mlp for x in target.layers) if isinstance(m, DenseMlp)]
        layer = Layer(
            FullAttention(heads, max(1, heads // 4), HEAD_DIM),
            DenseMlp(max(widths, default=4 * target.hidden)),
        )
        layers = (layer, Layer(None, Combine(0, parts=3 if method == "eagle3" else 2)))
        own = draft_vocab if method == "eagle3" else 0
        name = f"{target.name} {'EAGLE-3' if method == 'eagle3' else 'EAGLE'}"
        return Model(name, method, target.hidden, min(own or target.vocab, target.vocab), layers, True)
    return None


@dataclass(frozen=True)
class MarkovHead(DenseMlp):
    """Two matrices of rank ``intermediate`` over the vocabulary ``entries``, once for each token of a block."""

    entries: int = 0

    def projections(self, hidden: int) -> Iterator[Projection]:
        """A row of one looked up, the other read whole, [elements]. Source: DSpark, arXiv 2607.05147."""
        yield Projection("markov head", self.intermediate, self.entries)


def _block_model(target: Model, formats: Mapping[str, str] | None) -> Model:
    """The drafter of a block: backbone, projection and Markov head; the target's head is shared."""
    if target.draft_layers:
        body, parts = replace(target.draft_layers[0], count=BLOCK_OWN_LAYERS), BLOCK_OWN_PARTS
        own = target.formats if formats is None else formats
    else:
        heads = max(1, target.hidden // HEAD_DIM)
        dense = DenseMlp(BLOCK_WIDTH * target.hidden)
        body, parts = Layer(FullAttention(heads, max(1, heads // 4), HEAD_DIM), dense, BLOCK_LAYERS), BLOCK_PARTS
        own = {}
    layers = (body, Layer(None, Combine(0, parts=parts)), Layer(None, MarkovHead(MARKOV_RANK, entries=target.vocab)))
    return Model(f"{target.name} DSpark", "dspark", target.hidden, target.vocab, layers, True, formats=own)


@dataclass(frozen=True)
class Drafter:
    """What drafting ``draft_tokens`` tokens per step costs beside the verification.

    ``model`` None: drafting costs ``verify_share`` of the verification (n-gram lookup).
    ``token_overhead`` [s] is the host's share per draft token; ``pass_floor`` [s] the least time of a
    pass, where its kernels are launched one by one. ``nodes`` [tokens] of a tree are verified instead of
    the drafts and the token before them. ``block``: one pass drafts all tokens. ``kv_budget`` [tokens]: most
    of the target's own cache a pass reads, where the target itself drafts; 0 reads the drafter's own.
    ``row_overhead`` [s] of each drafted token of a sequence: the host and the sampling of its row of logits.
    """

    method: str
    draft_tokens: int
    model: Model | None = None
    token_overhead: float = 0.0
    verify_share: float = 0.0
    kv_format: str = "bf16"
    pass_floor: float = 0.0
    nodes: int = 0
    block: bool = False
    kv_budget: float = 0.0
    row_overhead: float = 0.0

    @property
    def queries(self) -> int:
        """Tokens a verification checks per sequence, [tokens]. Source: definition.

        >>> Drafter("eagle3", 3).queries, Drafter("eagle3", 9, nodes=61).queries
        (4, 61)
        """
        return self.nodes or self.draft_tokens + 1

    @property
    def passes(self) -> tuple[int, int]:
        """Tokens a pass of the drafter takes, [tokens], and passes of a step, [1]. Source: definition.

        >>> Drafter("eagle3", 3).passes, Drafter("dspark", 7, block=True).passes
        ((1, 3), (7, 1))
        """
        return (self.draft_tokens, 1) if self.block else (1, self.draft_tokens)

    def seconds(
        self,
        machine: Machine,
        layout: Layout,
        batch: Array,
        contexts: npt.NDArray[np.float64],
        verify_seconds: Array,
    ) -> Array:
        """Time to draft for ``batch`` sequences, [s], (candidates, batches).

        ``k`` passes of the drafter over ``contexts`` [tokens], or one of ``k`` tokens for a block, each
        with a host overhead, or a share of ``verify_seconds`` [s]. Source: SpecDecode-Bench, arXiv
        2601.11580 (measured 0.71 ms per EAGLE-3 token of an 8B model on H100, 0.6 % of the verification for
        n-gram); DSpark, arXiv 2607.05147; MagicDec, arXiv 2408.11049.
        """
        if self.model is None:
            return self.verify_share * verify_seconds
        drafting = StepModel(self.model, self.model.formats, self.kv_format)
        seen = np.minimum(contexts, self.kv_budget) if self.kv_budget else contexts
        tokens, passes = self.passes
        one: Array = 0.0
        for operator in drafting.operators(machine, layout, batch, seen, tokens):
            if operator.name != "step overhead":
                one = one + operator.seconds
        rows = self.draft_tokens * self.row_overhead * batch / layout.data
        return passes * np.maximum(one + self.token_overhead, self.pass_floor) + rows

    def weight_bytes(self, layout: Layout) -> Array:
        """Weights of the drafter on one accelerator, [B], without embeddings it shares.

        Source: :func:`planner.cost.memory.weight_bytes_per_device`.
        """
        if self.model is None or self.kv_budget:
            return 0.0
        total = weight_bytes_per_device(self.model, self.model.formats, layout)
        shared = self.method in ("mtp", "dspark")  # they share the target's embedding and head
        return total - (2.0 * self.model.embedding_parameters / layout.tensor if shared else 0.0)

    def cache_bytes(self, context: Array, layout: Layout) -> Array:
        """KV of the drafter for one sequence of ``context`` [tokens], [B], broadcast.

        Source: :meth:`planner.cost.memory.CacheLayout.stored`.
        """
        if self.model is None or self.kv_budget:
            return 0.0 * context * layout.devices
        return CacheLayout(self.model.layers, self.kv_format).stored(context, layout)


def speculative_step_seconds(
    step: StepModel,
    drafter: Drafter,
    machine: Machine,
    layout: Layout,
    batch: Array,
    contexts: npt.NDArray[np.float64],
    shared_read: Array = 1.0,
) -> Array:
    """Time of one draft-and-verify step, [s], (candidates, batches).

    ``t_verify(q = k+1) + t_draft``; with no draft tokens the plain decode step. ``batch``
    [sequences], ``contexts`` [tokens]. Time per output token is this over the acceptance length.

    Source: Leviathan et al., arXiv 2211.17192; verification keeps KV bytes and multiplies FLOPs.
    """
    queries = drafter.queries
    verify: Array = 0.0
    for operator in step.operators(machine, layout, batch, contexts, queries, shared_read):
        verify = verify + operator.seconds
    if queries == 1:
        return verify
    return verify + drafter.seconds(machine, layout, batch, contexts, verify)


def eager_step_seconds(
    step: StepModel,
    machine: Machine,
    layout: Layout,
    batch: Array,
    contexts: npt.NDArray[np.float64],
    layer_seconds: float,
    queries: int = 1,
) -> Array:
    """Time of a step whose kernels are launched one by one, [s], (candidates, batches).

    The longer of the device's work and the host's ``layer_seconds`` [s] for each layer; ``batch``
    [sequences], ``contexts`` [tokens], ``queries`` [tokens] of each sequence. Launches run ahead of the
    device, so they don't add. Source: SpecDecode-Bench, arXiv 2601.11580, on launch-bound decoding.
    """
    device: Array = 0.0
    for operator in step.operators(machine, layout, batch, contexts, queries):
        if operator.name != "step overhead":
            device = device + operator.seconds
    return np.maximum(device, step.model.num_layers * layer_seconds)
