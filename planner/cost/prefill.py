"""Prefill: what a prompt costs on a replica, chunked, causal, after a cached prefix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.cost.attention import attention_cost
from planner.cost.layout import Layout
from planner.cost.machine import Machine
from planner.cost.roofline import Array, Ceiling
from planner.cost.step import StepModel
from planner.models.model import Model

#: token counts at which a chunk's matmul time is evaluated, up to those of a stage with many attention ranks;
#: between them it is interpolated
CHUNK_GRID = np.array([1.0, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072])


def prefill_flops(model: Model, new: Array, cached: Array = 0.0) -> tuple[Array, Array, Array]:
    """FLOPs of a prompt: weight matmuls, attention, and the LM head's one row, ([FLOP],)*3.

    ``new`` [tokens] after ``cached`` [tokens], broadcast: ``2*P_active*I``, causal attention over
    ``I*P + I(I+1)/2`` pairs, ``2*d*V``. Source: Kaplan et al., arXiv 2001.08361, appendix B, with
    the causal half counted; each attention kind's class.
    """
    linear = 2.0 * (model.active_parameters - model.embedding_parameters) * new
    attention: Array = 0.0
    for layer in model.layers:
        if layer.attention is not None:
            for part in attention_cost(layer.attention).prefill(new, cached, "bf16"):
                attention = attention + layer.count * part.flops
    return linear, attention, 2.0 * model.embedding_parameters


@dataclass(frozen=True)
class PrefillModel:
    """Prefill of one model on machines and layouts (scalars or (candidates, 1) arrays).

    ``budget``: tokens a step may prefill on one attention rank, [tokens].
    """

    step: StepModel
    machine: Machine
    layout: Layout
    budget: float

    def tables(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Matmuls and collectives of a rank's tokens, and experts of a stage's, at :data:`CHUNK_GRID`, [s].

        (candidates, grid) each. Source: :meth:`planner.cost.step.StepModel.matmul_operators`.
        """
        tokens = CHUNK_GRID[None, :]
        matmul, experts = np.zeros_like(tokens), np.zeros_like(tokens)
        for o in self.step.matmul_operators(self.machine, self.layout, tokens, tokens):
            if o.name == "experts":
                experts = experts + o.seconds
            else:
                matmul = matmul + o.seconds
        shape = np.broadcast_shapes(matmul.shape, experts.shape)
        return np.broadcast_to(matmul, shape), np.broadcast_to(experts, shape)

    def _chunk_table(self) -> npt.NDArray[np.float64]:
        tokens = CHUNK_GRID[None, :]
        stage = tokens * np.asarray(self.layout.data)
        operators = self.step.matmul_operators(self.machine, self.layout, tokens, stage)
        return np.asarray(sum((o.seconds for o in operators), start=0.0)) + self.step_overhead() + np.zeros_like(tokens)

    def step_overhead(self) -> Array:
        """What a step with prompts costs beside its operators, [s]. Source: the engine's file."""
        return self.machine.prefill_layer_overhead * self.step.model.num_layers

    def chunk_seconds(self, tokens: Array) -> Array:
        """Weight matmuls, experts and collectives of a chunk of ``tokens`` [tokens] per rank, [s].

        (candidates, n) for tokens of shape (n,); linear between grid points. Source:
        :meth:`planner.cost.step.StepModel.matmul_operators`.
        """
        table = self._chunk_table()
        at = np.atleast_1d(np.asarray(tokens, dtype=float))
        index = np.clip(np.searchsorted(CHUNK_GRID, at) - 1, 0, len(CHUNK_GRID) - 2)
        left, right = CHUNK_GRID[index], CHUNK_GRID[index + 1]
        weight = (at - left) / (right - left)
        seconds: npt.NDArray[np.float64] = table[:, index] * (1 - weight) + table[:, index + 1] * weight
        return np.maximum(seconds, table[:, :1])

    def attention_seconds(self, new: Array, cached: Array) -> Array:
        """Attention of whole prompts, all layers, [s]: (candidates, n) for [tokens] of shape (n,).

        FLOPs over achieved rate, which rises with length as ``S/(S + half_tokens)``. Source: fits to
        ai-dynamo/aiconfigurator 0.12 context-attention tables.
        """
        new, cached = np.atleast_1d(new), np.atleast_1d(cached)
        length = new + cached
        rising = length / (length + self.machine.half_tokens)
        total: Array = 0.0
        for layer in self.step.model.layers:
            if layer.attention is None:
                continue
            for part in attention_cost(layer.attention).prefill(new, cached, self.step.kv_format):
                ceiling = self.machine.ceiling(part.operator)
                share = 1 / self.layout.tensor if part.split else 1.0
                if part.operator == "prefill_attention":
                    ceiling = Ceiling(ceiling.peak * rising, ceiling.bandwidth, ceiling.latency)
                total = total + layer.count * ceiling.seconds(share * part.flops, share * part.bytes)
        return total

    def seconds(self, new: Array, cached: Array) -> Array:
        """Time one prompt occupies its rank when alone, all chunks, [s]; shapes as above.

        Source: chunked prefill, Agrawal et al., "Sarathi-Serve", arXiv 2403.02310.
        """
        new = np.atleast_1d(np.asarray(new, dtype=float))
        whole = np.floor(new / self.budget)
        rest = new - whole * self.budget
        full = self.chunk_seconds(np.array([self.budget]))
        matmuls = whole * full + np.where(rest > 0, self.chunk_seconds(np.maximum(rest, 1.0)), 0.0)
        return matmuls + self.attention_seconds(new, cached)

    def seconds_per_token(self) -> Array:
        """Matmul seconds a prefilled token costs the whole replica in a full chunk, [s/token].

        (candidates, 1). All attention ranks prefill at once and pipeline stages overlap.
        Source: the compute-bound slope of a chunk, arXiv 2403.02310.
        """
        full = self.chunk_seconds(np.array([self.budget]))
        return full / (self.budget * self.layout.data * self.layout.pipeline)
