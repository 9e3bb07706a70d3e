"""One decode step of a model on a replica: every operator, its bytes, FLOPs and seconds.

Maximum inside an operator, sum across operators: attention is memory-bound while the MLP of the
same step may be compute-bound. Everything broadcasts over (candidates, batches).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.cost.attention import attention_cost
from planner.cost.collectives import all_to_all_bytes, measured_all_reduce
from planner.cost.experts import expert_work
from planner.cost.layout import Layout
from planner.cost.linear import ACTIVATION_BYTES, fused_matmuls, linear_work
from planner.cost.machine import Machine
from planner.cost.roofline import Array, Ceiling
from planner.models.formats import FORMATS
from planner.models.layers import Layer, MoeMlp, Projection
from planner.models.model import Model

LOGIT_BYTES = 4  # logits are written in fp32
NORM_BYTES = 8  # sums of squares of queries and of keys, fp32


@dataclass(frozen=True)
class OperatorCost:
    """One operator of a step, all its layers together, on one accelerator.

    ``flops`` [FLOP], ``weights``, ``cache`` and ``activations`` [B] are per accelerator and step;
    ``category`` says what the cache bytes are. ``ceiling`` None: a collective, whose time is
    ``network`` [s], or a fixed ``overhead`` [s]. ``factor`` stretches the time for the slowest rank.
    ``passes``: pipeline stages an accelerator is one of, which its own share is divided by.
    """

    name: str
    flops: Array = 0.0
    weights: Array = 0.0
    cache: Array = 0.0
    activations: Array = 0.0
    category: str = "kv"
    ceiling: Ceiling | None = None
    calls: float = 1.0
    network: Array = 0.0
    overhead: Array = 0.0
    factor: Array = 1.0

    @property
    def bytes(self) -> Array:
        """All bytes moved, [B]. Source: sum of its parts."""
        return self.weights + self.cache + self.activations

    @property
    def seconds(self) -> Array:
        """Time of the operator, [s]. Source: :func:`planner.cost.roofline.roofline`."""
        if self.ceiling is None:
            return self.network + self.overhead
        return self.factor * self.ceiling.seconds(self.flops, self.bytes, self.calls)

    def split(self) -> tuple[Array, Array, Array, Array]:
        """Seconds by cause: compute, memory, network, overhead, [s] each; they add up.

        The fixed latency of launches is overhead; the rest goes to the binding bound.
        Source: :func:`planner.cost.roofline.roofline`.
        """
        if self.ceiling is None:
            return 0.0, 0.0, self.network, self.overhead
        fixed = self.factor * self.calls * self.ceiling.latency
        moving = self.seconds - fixed
        compute = self.ceiling.compute_bound(self.flops, self.bytes)
        return np.where(compute, moving, 0.0), np.where(compute, 0.0, moving), 0.0, fixed


@dataclass(frozen=True)
class StepCost:
    """A step as the sum of its operators."""

    operators: tuple[OperatorCost, ...]

    @property
    def seconds(self) -> Array:
        """Time of the step, [s]. Source: sum over operators."""
        return sum((o.seconds for o in self.operators), start=0.0)

    @property
    def flops(self) -> Array:
        """FLOPs per accelerator, [FLOP]. Source: sum over operators."""
        return sum((o.flops for o in self.operators), start=0.0)

    def bytes_by(self, category: str) -> Array:
        """Bytes per accelerator of ``weights``, ``activations`` or a cache category, [B].

        Source: sum over operators.
        """
        if category in ("weights", "activations"):
            return sum((getattr(o, category) for o in self.operators), start=0.0)
        return sum((o.cache for o in self.operators if o.category == category), start=0.0)

    def seconds_by_cause(self) -> dict[str, Array]:
        """Seconds split into compute, memory, network and overhead, [s]. Source: operators."""
        total: dict[str, Array] = dict.fromkeys(("compute", "memory", "network", "overhead"), 0.0)
        for operator in self.operators:
            for cause, value in zip(total, operator.split(), strict=True):
                total[cause] = total[cause] + value
        return total


@dataclass(frozen=True)
class StepModel:
    """A model in given number formats, ready to be priced on any machine and layout.

    ``formats`` weight format per group; ``kv_format`` of the cache; ``independence`` of draft
    tokens' routing (see :func:`planner.cost.experts.distinct_experts`).
    """

    model: Model
    formats: Mapping[str, str]
    kv_format: str
    independence: float = 1.0

    def _bytes(self, group: str) -> float:
        return FORMATS[self.formats.get(group, "bf16")].bytes_per_element

    def decode(
        self,
        machine: Machine,
        layout: Layout,
        batch: Array,
        contexts: npt.NDArray[np.float64] | Sequence[float],
        queries: int = 1,
        shared_read: Array = 1.0,
    ) -> StepCost:
        """Cost of a step that advances ``batch`` sequences by ``queries`` tokens each.

        Args:
            machine: ceilings, scalars or (candidates, 1).
            layout: degrees, scalars or (candidates, 1).
            batch: sequences in the replica, [1], scalar or (batches,) or (candidates, batches).
            contexts: equally likely resident contexts of a sequence, (points,), or those of each
                candidate, (candidates, points), [tokens].
            queries: tokens per sequence and step, 1 + draft tokens.
            shared_read: share of cache bytes really read, below 1 with a cascade kernel, [1].

        Source: the operators' own; composition: jax-ml/scaling-book, inference chapter.
        """
        return StepCost(tuple(self.operators(machine, layout, batch, contexts, queries, shared_read)))

    def operators(
        self,
        machine: Machine,
        layout: Layout,
        batch: Array,
        contexts: npt.NDArray[np.float64] | Sequence[float],
        queries: int = 1,
        shared_read: Array = 1.0,
    ) -> Iterator[OperatorCost]:
        """The operators of :meth:`decode`, one at a time; same arguments and units. Source: as there."""
        local = np.maximum(batch / layout.pipeline / layout.data, 1.0)
        stage = np.maximum(batch / layout.pipeline, 1.0)
        for layer in self.model.layers:
            yield from self._attention(machine, layout, layer, local, contexts, queries, shared_read)
        tokens, all_tokens = local * queries, stage * queries
        distinct = stage * (1 + (queries - 1) * self.independence)
        yield from self.matmul_operators(machine, layout, tokens, all_tokens, distinct)
        yield self._head(machine, layout, tokens)
        yield OperatorCost("embedding", activations=2 * ACTIVATION_BYTES * tokens * self.model.hidden,
                           ceiling=machine.ceiling("matmul", "bf16"))  # fmt: skip
        yield OperatorCost("step overhead", overhead=self._overhead(machine, layout, batch, queries))

    def _overhead(self, machine: Machine, layout: Layout, batch: Array, queries: int) -> Array:
        # each rank of attention data parallelism has a host of its own to reject drafts
        verify = machine.verify_overhead * batch / layout.data * queries if queries > 1 else 0.0
        hops = (layout.pipeline - 1) * machine.stage_latency
        layers = machine.layer_overhead * self.model.num_layers
        return machine.step_overhead + layers + machine.sequence_overhead * batch + verify + hops

    def matmul_operators(
        self,
        machine: Machine,
        layout: Layout,
        tokens: Array,
        stage_tokens: Array,
        distinct_tokens: Array | None = None,
    ) -> Iterator[OperatorCost]:
        """Weight matmuls, experts and collectives of all layers for ``tokens`` rows per rank.

        tokens [tokens] of one attention rank, stage_tokens [tokens] of the whole stage (what the
        experts see), distinct_tokens [tokens] that route on their own; (candidates, batches).

        Source: the operators' own.
        """
        for layer in self.model.layers:
            yield from self._projections(machine, layout, layer, tokens)
            if isinstance(layer.mlp, MoeMlp):
                yield self._experts(machine, layout, layer, stage_tokens, distinct_tokens)
            yield from self._collectives(machine, layout, layer, tokens)

    def _projections(self, machine: Machine, layout: Layout, layer: Layer, tokens: Array) -> Iterator[OperatorCost]:
        for matmul in fused_matmuls(layer.projections(self.model.hidden), layout.tensor):
            fmt = self.formats.get(matmul.group, "bf16")
            flops, weights, activations = linear_work(tokens, matmul.inputs, matmul.outputs, self._bytes(matmul.group))
            n = layer.count
            yield OperatorCost(
                f"{matmul.group} {matmul.name}", n * flops, n * weights, 0.0, n * activations,
                ceiling=machine.ceiling("matmul", fmt), calls=n,
            )  # fmt: skip

    def _experts(
        self,
        machine: Machine,
        layout: Layout,
        layer: Layer,
        tokens: Array,
        distinct_tokens: Array | None,
    ) -> OperatorCost:
        mlp = layer.mlp
        assert isinstance(mlp, MoeMlp)
        flops, weights, activations = expert_work(
            tokens,
            mlp.experts,
            mlp.top_k,
            mlp.expert_parameters(self.model.hidden),
            mlp.latent or self.model.hidden,
            self._bytes("experts"),
            layout.stage_devices,
            distinct_tokens=distinct_tokens,
            ranks=layout.expert,
            activation=machine.expert_activations.get(self.formats.get("experts", "bf16"), 1.0),
        )
        n = layer.count
        return OperatorCost(
            "experts", n * flops, n * weights, 0.0, n * activations,
            ceiling=machine.ceiling("experts", self.formats.get("experts", "bf16")), calls=n,
            factor=layout.expert_imbalance,
        )  # fmt: skip

    def _attention(
        self,
        machine: Machine,
        layout: Layout,
        layer: Layer,
        batch: Array,
        contexts: npt.NDArray[np.float64] | Sequence[float],
        queries: int,
        shared_read: Array,
    ) -> Iterator[OperatorCost]:
        if layer.attention is None:
            return
        cost = attention_cost(layer.attention)
        rank = cost.kv_fraction(layout.tensor)
        points = np.asarray(contexts, dtype=float)
        for part in cost.decode(points, queries, self.kv_format):
            n = layer.count * batch
            heads = 1 / layout.tensor if part.split else 1.0
            share = rank if part.category != "indexer" or part.split else 1.0
            read = shared_read if part.category != "state" else 1.0
            yield OperatorCost(
                part.operator,
                n * heads * _mean(part.flops, points),
                cache=n * share * read * _mean(part.bytes, points),
                category=part.category,
                ceiling=machine.ceiling(part.operator),
                calls=layer.count,
                factor=layout.attention_skew,
            )

    def _collectives(self, machine: Machine, layout: Layout, layer: Layer, tokens: Array) -> Iterator[OperatorCost]:
        hidden = self.model.hidden
        routed = isinstance(layer.mlp, MoeMlp)
        message = ACTIVATION_BYTES * tokens * hidden
        one = measured_all_reduce(message, machine.all_reduce_latency, machine.all_reduce_bandwidth)
        spread = np.asarray(layout.data) > 1
        # with attention data parallelism the experts' sum travels by all-to-all instead
        reduces = (layer.attention is not None) + (layer.mlp is not None) * (
            np.where(spread, 0.0, 1.0) if routed else 1.0
        )
        sums: Array = 0.0
        if getattr(layer.attention, "norm_over_heads", False):
            sums = measured_all_reduce(NORM_BYTES * tokens, machine.all_reduce_latency, machine.all_reduce_bandwidth)
        yield OperatorCost(
            "all-reduce",
            network=layer.count * np.where(np.asarray(layout.tensor) > 1, reduces * one + sums, 0.0),
        )
        if routed and np.any(spread):
            assert isinstance(layer.mlp, MoeMlp)
            sent, received = all_to_all_bytes(tokens / layout.tensor, hidden, layer.mlp.top_k, layout.stage_devices)
            seconds = 2 * machine.all_to_all_latency + ((sent + received) / machine.all_to_all_bandwidth)
            yield OperatorCost("all-to-all", network=layer.count * np.where(spread, seconds, 0.0))

    def _head(self, machine: Machine, layout: Layout, tokens: Array) -> OperatorCost:
        head = fused_matmuls(
            [Projection("lm_head", self.model.hidden, self.model.vocab, "column", "head")],
            layout.tensor,
        )[0]
        flops, weights, activations = linear_work(tokens, head.inputs, head.outputs, self._bytes("head"))
        return OperatorCost(
            "lm head", flops, weights, 0.0, activations + LOGIT_BYTES * tokens * head.outputs,
            ceiling=machine.ceiling("matmul", self.formats.get("head", "bf16")),
        )  # fmt: skip


def _mean(values: Array, contexts: npt.NDArray[np.float64]) -> Array:
    """Over the contexts of a sequence, or over those of each candidate, (candidates, 1)."""
    if contexts.ndim < 2 or np.ndim(values) < 2:
        return float(np.mean(values))
    return np.mean(values, axis=-1, keepdims=True)
