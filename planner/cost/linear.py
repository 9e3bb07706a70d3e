"""Weight matmuls: what one projection costs, how parallelism splits it, and what engines fuse."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from planner.cost.roofline import Array
from planner.models.layers import Projection

ACTIVATION_BYTES = 2  # bf16 activations between operators


@dataclass(frozen=True)
class Matmul:
    """One fused matmul as an engine launches it: ``inputs x outputs`` on one accelerator.

    ``inputs`` and ``outputs`` are floats or (candidates, 1) arrays, [elements].
    """

    name: str
    inputs: Array
    outputs: Array
    group: str

    @property
    def parameters(self) -> Array:
        """Weights on one accelerator, [elements]. Source: the matrix's shape."""
        return self.inputs * self.outputs


def kv_head_fraction(kv_heads: int, tensor_parallel: Array) -> Array:
    """Share of a layer's KV heads each rank holds, [1]: ``max(1, g/n) / g``.

    ``kv_heads`` g, ``tensor_parallel`` n (scalar or array). Once n exceeds g the heads are
    replicated, so the fraction stops falling.

    Source: the KV-head replication of vLLM's and TensorRT-LLM's QKV linear layers.

    >>> kv_head_fraction(8, 16), kv_head_fraction(4, 2)
    (0.125, 0.5)
    """
    fraction = np.maximum(1.0, kv_heads / np.asarray(tensor_parallel)) / kv_heads
    return fraction if isinstance(tensor_parallel, np.ndarray) else float(fraction)


def linear_work(tokens: Array, inputs: Array, outputs: Array, bytes_per_weight: float) -> tuple[Array, Array, Array]:
    """FLOPs, weight bytes and activation bytes of ``tokens`` rows through one matmul.

    ``2*T*n*k`` [FLOP]; ``b_w*n*k`` [B]; ``b_a*T*k + 2*T*n`` [B], for tokens T, inputs k,
    outputs n [elements], bytes_per_weight b_w [B] and activations of 2 B. Arguments broadcast.

    Source: jax-ml/scaling-book, "Transformers" (matmul accounting). Ignores norm, rope and
    activation functions, under 1 % of a decode step's bytes.

    >>> linear_work(1, 8192, 8192, 2.0)
    (134217728, 134217728.0, 32768)
    """
    return (
        2 * tokens * inputs * outputs,
        bytes_per_weight * inputs * outputs,
        ACTIVATION_BYTES * tokens * (inputs + outputs),
    )


def fused_matmuls(projections: Iterable[Projection], tensor_parallel: Array = 1) -> list[Matmul]:
    """The matmuls of one layer on one rank, siblings that read the same input fused into one.

    QKV, gate-up and MLA's down-projections are single launches in every engine. Splits follow
    Megatron: column shards outputs, row shards inputs, ``kv`` shards outputs by KV head with
    replication, ``none`` replicates. ``tensor_parallel`` is a scalar or a (candidates, 1) array;
    sizes are in [elements].

    Source: Shoeybi et al., "Megatron-LM", arXiv 1909.08053, section 3.
    """
    order: list[tuple[int, str, str]] = []
    inputs: dict[tuple[int, str, str], Array] = {}
    outputs: dict[tuple[int, str, str], Array] = {}
    names: dict[tuple[int, str, str], list[str]] = {}
    for p in projections:
        kind = {"row": "row", "none": "none"}.get(p.split, "sharded")
        key = (p.inputs, p.group, kind if kind != "row" else f"row-{p.name}")
        if key not in names:
            order.append(key)
            names[key] = []
            outputs[key] = 0.0
            inputs[key] = p.inputs / tensor_parallel if p.split == "row" else float(p.inputs)
        names[key].append(p.name)
        if p.split == "column":
            share: Array = 1 / tensor_parallel
        elif p.split == "kv":
            share = kv_head_fraction(p.kv_heads, tensor_parallel)
        else:
            share = 1.0
        outputs[key] = outputs[key] + p.outputs * share
    return [Matmul("+".join(names[k]), inputs[k], outputs[k], k[1]) for k in order]
