"""What ``planner speed`` found: ways to a faster tier, their cost, and what physics allows one request."""

from __future__ import annotations

from typing import Any, Literal

from planner.sizing.frozen_result import Result
from planner.sizing.result import Assumption, Plan


class Tier(Result):
    """One configuration at one batch, against the base."""

    levers: tuple[str, ...]  # what differs from the base: speculation, precision, parallelism, batch, accelerator
    accelerator: str
    gpus_per_replica: int
    tensor_parallel: int
    pipeline_parallel: int
    expert_parallel: int
    data_parallel: int
    weight_dtype: str
    kv_dtype: str
    speculation: str  # method@draft tokens, or none
    acceptance_length: float
    batch: float  # sequences of a replica, mean at peak
    tokens_per_second_per_user: float
    tokens_per_second_at_low_acceptance: float  # the low end of what is likely
    speed_multiple: float
    cost_multiple: float  # of an output token, prompts included
    reaches_target: bool
    replicas: int  # for the workload's peak, spares included
    gpus: int
    usd_per_hour: float
    gives_up: tuple[str, ...]


class PhysicalLimit(Result):
    """One request alone on an accelerator: what memory allows, and what the planner expects."""

    accelerator: str
    gpus: int  # of the widest replica, or as many as hold the weights
    perfect_tokens_per_second: float | None  # bandwidth or arithmetic at 100 %, no latency
    bound_by: Literal["memory", "compute", "unknown"]
    achieved_tokens_per_second: float | None  # best layout, no drafts
    achieved_with_drafts_tokens_per_second: float | None
    reason: str = ""


class Speed(Result):
    """Ways to a faster tier, cheapest first."""

    schema_version: str = "1.0"
    workload: dict[str, Any]
    plan: Plan
    base: Tier
    target_multiple: float
    target_tokens_per_second: float
    price_multiple: float
    alone: tuple[Tier, ...]  # each lever alone: the cheapest that reaches the target, else its fastest
    tiers: tuple[Tier, ...]  # combinations that reach the target, cheapest first
    small_batch_only: Tier | None  # None where the base's batch is one
    limits: tuple[PhysicalLimit, ...]
    statement: str
    hypotheses: tuple[str, ...]
    assumptions: tuple[Assumption, ...] = ()
    warnings: tuple[str, ...] = ()
