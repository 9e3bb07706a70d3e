"""What a chip achieves under an engine, as the cost functions want it: ceilings and constants."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

import numpy as np

from planner.cost.roofline import Array, Ceiling

if TYPE_CHECKING:
    from planner.hardware import Accelerator, Engine

#: the form the matmul constants were fitted in rounds the knee off with a 4-norm
MATMUL_EXPONENT = 4.0
#: grouped matmuls of experts read weights and compute one after the other: both times add
EXPERT_EXPONENT = 1.0
OPERATORS = (
    "decode_attention", "latent_attention", "sparse_attention", "indexer", "block_sparse_attention", "block_indexer",
    "compressed_indexer", "prefill_attention",
)  # fmt: skip


#: whose keys are fp8 whatever the cache; those of blocks are bf16
FP8_KEYS = ("indexer", "compressed_indexer")


@dataclass(frozen=True)
class Machine:
    """One accelerator under one engine, in one layout; or N of them as (N, 1) arrays.

    ``ceilings``: achieved rates by operator, matmuls and experts as ``matmul/<format>``;
    ``expert_activations``: times experts in a format move their routed tokens in and out [1].
    All-reduce is ``latency + bytes/bandwidth`` [s], [B/s] over the tensor-parallel group,
    all-to-all the same over the stage. ``step_overhead`` [s] per step, ``sequence_overhead`` [s]
    per sequence in it, ``verify_overhead`` [s] per verified token, ``request_overhead`` [s] per
    request before its first token, ``stage_latency`` [s] per pipeline hop. ``layer_overhead`` [s] of
    the small kernels of a layer in every step, ``prefill_layer_overhead`` [s] more in one with prompts.
    """

    ceilings: Mapping[str, Ceiling]
    half_tokens: Array = 0.0
    all_reduce_latency: Array = 0.0
    all_reduce_bandwidth: Array = math.inf
    all_to_all_latency: Array = 0.0
    all_to_all_bandwidth: Array = math.inf
    step_overhead: Array = 0.0
    sequence_overhead: Array = 0.0
    verify_overhead: Array = 0.0
    request_overhead: Array = 0.0
    stage_latency: Array = 0.0
    layer_overhead: Array = 0.0
    prefill_layer_overhead: Array = 0.0
    expert_activations: Mapping[str, Array] = field(default_factory=dict)

    def ceiling(self, operator: str, weight_format: str | None = None) -> Ceiling:
        """The ceiling of an operator, [FLOP/s], [B/s] and [s]; KeyError when it has none.

        Source: the hardware database.
        """
        return self.ceilings[f"{operator}/{weight_format}" if weight_format else operator]


def machine(
    accelerator: Accelerator,
    engine: Engine,
    weight_formats: Sequence[str],
    kv_format: str,
    tensor_parallel: int = 1,
    stage_devices: int = 1,
    *,
    eager: bool = False,
) -> Machine:
    """The ceilings of one accelerator under one engine for the formats a model uses.

    Rates are efficiency times dense peak, [FLOP/s], and efficiency times datasheet bandwidth,
    [B/s]. Groups larger than the scale-up domain pay the network between nodes. ``eager``: the host launches
    every matmul, as in tables of kernels; engines replay CUDA graphs.

    Source: the hardware database's fitted efficiencies, each with its own source there.
    """
    name = engine.family
    ceilings: dict[str, Ceiling] = {}

    def add(key: str, operator: str, fmt: str, compute: str, exponent: float = math.inf) -> None:
        e = accelerator.efficiency(operator, fmt, name)
        peak = accelerator.peak(compute) or accelerator.peak("bf16") or 1.0
        graphed = operator == "matmul" and not eager
        latency = accelerator.graphed_latency(operator, fmt, name) if graphed else e.latency_s
        ceilings[key] = Ceiling(e.compute * peak, e.memory * accelerator.bandwidth, latency, exponent)

    for fmt in {*weight_formats, "bf16"}:
        compute = accelerator.compute_format(fmt)
        add(f"matmul/{fmt}", "matmul", fmt, compute, MATMUL_EXPONENT)
        add(f"experts/{fmt}", "experts", fmt, compute, EXPERT_EXPONENT)
    for operator in OPERATORS:
        compute = "fp8" if operator in FP8_KEYS else "bf16"
        add(operator, operator, kv_format, compute)
    elementwise = ceilings["matmul/bf16"]
    ceilings["recurrent"] = Ceiling(elementwise.peak, elementwise.bandwidth, ceilings["decode_attention"].latency)
    reduce_latency, reduce_bandwidth = _all_reduce(accelerator, name, tensor_parallel)
    exchange = accelerator.all_to_all(stage_devices, name)
    return Machine(
        ceilings,
        accelerator.efficiency("prefill_attention", kv_format, name).half_tokens,
        reduce_latency,
        reduce_bandwidth,
        exchange.latency_s,
        exchange.bandwidth,
        engine.step_overhead_s,
        engine.per_sequence_overhead_s,
        engine.speculation_token_overhead_s,
        engine.request_overhead_s,
        exchange.stage_latency_s,
        engine.layer_overhead_s,
        engine.prefill_layer_overhead_s,
        {fmt: accelerator.efficiency("experts", fmt, name).activation for fmt in {*weight_formats, "bf16"}},
    )


def _all_reduce(accelerator: Accelerator, engine: str, ranks: int) -> tuple[float, float]:
    """Latency [s] and bandwidth [B/s] of an all-reduce over ``ranks``, nodes included."""
    if ranks <= 1:
        return 0.0, math.inf
    inside = min(ranks, accelerator.scale_up_domain)
    local = accelerator.all_reduce(inside, engine) if inside > 1 else None
    latency = local.latency_s if local else 0.0
    per_byte = 1 / local.bandwidth if local else 0.0
    nodes = math.ceil(ranks / inside)
    if nodes > 1:
        hop = accelerator.all_to_all(ranks, engine).hop_latency_s
        nic = accelerator.scale_out_bandwidth or accelerator.scale_up_bandwidth
        latency += 2 * math.log2(nodes) * hop
        per_byte += 2 * (nodes - 1) / nodes / inside / nic
    return latency, 1 / per_byte if per_byte else math.inf


def stack_machines(machines: Sequence[Machine]) -> Machine:
    """One machine whose constants are (candidates, 1) arrays; all must have the same ceilings.

    Units as in :class:`Machine`. Source: none needed; a reshape.
    """

    def column(values: Sequence[Array]) -> Array:
        return np.array([[float(v)] for v in values])

    ceilings = {
        key: Ceiling(
            column([m.ceilings[key].peak for m in machines]),
            column([m.ceilings[key].bandwidth for m in machines]),
            column([m.ceilings[key].latency for m in machines]),
            ceiling.exponent,
        )
        for key, ceiling in machines[0].ceilings.items()
    }
    moved = {fmt: column([m.expert_activations[fmt] for m in machines]) for fmt in machines[0].expert_activations}
    scalars = [f.name for f in fields(Machine) if f.name not in ("ceilings", "expert_activations")]
    columns = {n: column([getattr(m, n) for m in machines]) for n in scalars}
    return Machine(ceilings, expert_activations=moved, **columns)
