"""What one accelerator of a replica holds under an engine's rules, and what is left for KV."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.cost.layout import Layout
from planner.cost.memory import weight_bytes_per_device
from planner.cost.step import StepModel
from planner.hardware import Accelerator, Engine
from planner.sizing.candidates import attention_heads


@dataclass(frozen=True)
class Footprint:
    """Bytes on one accelerator, [B] each; ``kv_room`` may be negative: the weights don't fit."""

    capacity: float
    usable: float
    weights: float
    activations: float
    graphs: float
    collectives: float

    @property
    def kv_room(self) -> float:
        """Bytes left for the cache, [B]. Source: the engine's memory rule."""
        return self.usable - self.weights - self.activations - self.graphs - self.collectives

    def needed(self, kv: float) -> float:
        """Memory an accelerator would need for ``kv`` bytes of cache, [B]. Source: proportion."""
        return self.capacity + (kv - self.kv_room) * self.capacity / self.usable


def footprint(
    step: StepModel,
    chip: Accelerator,
    engine: Engine,
    layout: Layout,
    memory_fraction: float | None = None,
    weights: float | None = None,
) -> Footprint:
    """The memory of one accelerator of a replica, [B]; ``weights`` [B] if already known.

    The engine's fraction is of total memory, or of what is free after the weights. Activations,
    graphs and communication buffers are the engine's figures in the hardware database.

    Source: vLLM gpu_memory_utilization, TensorRT-LLM free_gpu_memory_fraction; the reserve model of
    ai-dynamo/aiconfigurator (base_backend.py).
    """
    fraction = memory_fraction or engine.memory_fraction
    if weights is None:
        weights = float(np.asarray(weight_bytes_per_device(step.model, step.formats, layout)))
    tensor = int(layout.tensor)
    budget = engine.max_batched_tokens(chip.memory_bytes)
    width = attention_heads(step.model) * 128
    activations = engine.activation_bytes(budget, width, tensor)
    graphs = engine.graph_bytes
    collectives = engine.collective_bytes(int(layout.stage_devices))
    if engine.memory_semantics == "free":
        other = activations + graphs + collectives
        usable = weights + other + fraction * max(0.0, chip.memory_bytes - weights - other)
    else:
        usable = fraction * chip.memory_bytes
    return Footprint(chip.memory_bytes, usable, weights, activations, graphs, collectives)
