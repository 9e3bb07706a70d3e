"""Speculative decoding: a verification step, and the drafter as the small model it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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
    projection and a head over ``draft_vocab`` [tokens]. n-gram and none have no weights. ``formats``:
    weight formats the target runs in, its own by default.

    Source: DeepSeek-V3, arXiv 2412.19437, section 2.2 (MTP); EAGLE, arXiv 2401.15077; EAGLE-3, arXiv
    2503.01840.
    """
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
class Drafter:
    """What drafting ``draft_tokens`` tokens per step costs beside the verification.

    ``model`` None: drafting costs ``verify_share`` of the verification (n-gram lookup).
    ``token_overhead`` [s] is the host's share per draft token; ``pass_floor`` [s] the least time of a
    pass, where its kernels are launched one by one. ``nodes`` [tokens] of a tree are verified instead of
    the drafts and the token before them.
    """

    method: str
    draft_tokens: int
    model: Model | None = None
    token_overhead: float = 0.0
    verify_share: float = 0.0
    kv_format: str = "bf16"
    pass_floor: float = 0.0
    nodes: int = 0

    @property
    def queries(self) -> int:
        """Tokens a verification checks per sequence, [tokens]. Source: definition.

        >>> Drafter("eagle3", 3).queries, Drafter("eagle3", 9, nodes=61).queries
        (4, 61)
        """
        return self.nodes or self.draft_tokens + 1

    def seconds(
        self,
        machine: Machine,
        layout: Layout,
        batch: Array,
        contexts: npt.NDArray[np.float64],
        verify_seconds: Array,
    ) -> Array:
        """Time to draft for ``batch`` sequences, [s], (candidates, batches).

        ``k`` passes of the drafter over ``contexts`` [tokens], each with a host overhead, or a share
        of ``verify_seconds`` [s]. Source: SpecDecode-Bench, arXiv 2601.11580 (measured 0.71 ms per
        EAGLE-3 token of an 8B model on H100, 0.6 % of the verification for n-gram).
        """
        if self.model is None:
            return self.verify_share * verify_seconds
        drafting = StepModel(self.model, self.model.formats, self.kv_format)
        one: Array = 0.0
        for operator in drafting.operators(machine, layout, batch, contexts):
            if operator.name != "step overhead":
                one = one + operator.seconds
        return self.draft_tokens * np.maximum(one + self.token_overhead, self.pass_floor)

    def weight_bytes(self, layout: Layout) -> Array:
        """Weights of the drafter on one accelerator, [B], without embeddings it shares.

        Source: :func:`planner.cost.memory.weight_bytes_per_device`.
        """
        if self.model is None:
            return 0.0
        total = weight_bytes_per_device(self.model, self.model.formats, layout)
        shared = self.method == "mtp"  # MTP shares the target's embedding and head
        return total - (2.0 * self.model.embedding_parameters / layout.tensor if shared else 0.0)

    def cache_bytes(self, context: Array, layout: Layout) -> Array:
        """KV of the drafter for one sequence of ``context`` [tokens], [B], broadcast.

        Source: :meth:`planner.cost.memory.CacheLayout.stored`.
        """
        if self.model is None:
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
