"""What ``planner explain`` found: a plan's step by component, its regimes, and the claims it settles."""

from __future__ import annotations

from typing import Any, Literal

from planner.sizing.frozen_result import Result
from planner.sizing.result import Assumption, Plan, Why

Bound = Literal["compute", "memory", "network", "overhead"]
Verdict = Literal["true", "partly", "false"]


class Component(Result):
    """What one thing a step reads or waits for takes of it; seconds of all add up to the step."""

    name: str  # weights, kv, indexer, state, activations; network, overhead, drafts
    bytes_per_step: float | None  # of one accelerator; None for what moves no bytes
    seconds: float
    arithmetic_s: float  # of those, in operators that arithmetic binds; the rest waits for memory
    share: float  # of the step's seconds


class Roofline(Result):
    """Where an operator of the step stands under the roof of one accelerator."""

    name: str
    flops_per_byte: float | None
    ridge_flops_per_byte: float | None  # of the rates reached, not of the datasheet
    bound_by: Bound
    achieved_share: float | None  # time at the binding roof over time taken: the rest is latency, knee, skew
    bandwidth_share: float | None  # bytes per second over the datasheet's bandwidth
    seconds: float
    share: float  # of the step's seconds
    compute_bound_batch: float | None  # sequences from which it is compute-bound; None: never up to 65536


class Regimes(Result):
    """Where the regime changes; batches are sequences of a replica, beyond what memory holds too."""

    kv_overtakes_weights_batch: float | None  # at the workload's contexts
    kv_overtakes_weights_context: float | None  # at the plan's batch, tokens
    compute_bound_batch: float | None  # from which weight matmuls take more arithmetic than memory time
    step_compute_bound_batch: float | None  # from which the whole step does
    step_grows_quarter_batch: float | None  # from which a step takes 1.25 times that of one sequence
    floor_time_per_output_token_s: float  # one sequence
    floor_without_bytes_s: float  # of those, launches, host and communication: no bytes, no arithmetic


class CurvePoint(Result):
    """A batch along the curve: bytes of one accelerator, seconds of one step."""

    batch: float
    fits: bool
    weights_bytes: float
    cache_bytes: float  # keys and values, indexer, state
    activations_bytes: float
    step_s: float
    memory_s: float
    compute_s: float
    network_s: float
    overhead_s: float
    drafts_s: float
    time_per_output_token_s: float
    tokens_per_second_per_user: float
    tokens_per_second: float  # of the replica


class Caching(Result):
    """What a prefix cache saves."""

    cached_fraction: float  # of input tokens
    prefill_saved: float  # share of prefill work
    decode_saved: float  # always 0
    prefill_share: float  # of a replica's time, what is left of it; of two pools the prefill pool's accelerators
    replica_time_saved: float  # share of all time of a replica, or of both pools, the cached prefill added back


class AttentionAt(Result):
    """A step at one context of every sequence: this model's attention against its counterpart."""

    context: float
    quantile: float | None  # of resident contexts; None: all of them, as they come
    dense_s: float
    sparse_s: float


class AttentionComparison(Result):
    """The model as it is against the same model with the other kind of attention, at the plan's batch."""

    kind: Literal["sparse", "dense", "recurrent"]  # the model's own
    layers: dict[str, int]  # of each kind of attention
    counterpart: str
    at: tuple[AttentionAt, ...]
    sparse_wins_context: float | None  # from which the sparse step is shorter at the plan's batch; None: nowhere
    sparse_wins_batch: float | None  # at the workload's contexts
    sparse_speedup: float  # of the step, over the contexts as they come
    indexer_share: float  # of the sparse step's seconds


class Claim(Result):
    """One thing people say about serving, judged at this plan."""

    number: int
    claim: str
    verdict: Verdict
    here: str  # in a few words
    statement: str
    numbers: dict[str, float | None]
    command: str  # that goes deeper


class Explanation(Result):
    """The story of a plan."""

    schema_version: str = "1.0"
    workload: dict[str, Any]
    plan: Plan
    why: Why
    statement: str
    components: tuple[Component, ...]
    operators: tuple[Roofline, ...]  # most expensive first
    regimes: Regimes
    max_batch: float  # that memory and the engine's slots hold
    speeds: tuple[CurvePoint, ...]  # one sequence, the plan's batch, the largest
    curve: tuple[CurvePoint, ...]
    caching: Caching
    attention: AttentionComparison | None  # None where there is no attention to compare
    speculation: str
    sharing: str
    claims: tuple[Claim, ...]
    assumptions: tuple[Assumption, ...] = ()
    warnings: tuple[str, ...] = ()


def whose(plan: Plan) -> str:
    """Whose time prompts and answers share: a replica's, or both pools'. Source: the plan."""
    return "both pools'" if plan.serving == "disaggregated" else "a replica's"
