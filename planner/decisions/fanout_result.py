"""What ``planner fanout`` found: the curve over the number of branches, turns ahead, and what pays."""

from __future__ import annotations

from typing import Any, Literal

from planner.sizing.frozen_result import Result
from planner.sizing.result import Assumption, Plan


class Branches(Result):
    """A task of ``fan_out`` branches on the plan's replica."""

    fan_out: int
    kv_bytes_without_sharing: float  # of the whole group, on all accelerators of a replica
    kv_bytes_stored: float
    read_bytes_per_step_without_cascade: float
    read_bytes_per_step_with_cascade: float
    batch: float  # sequences of the replica with all branches in it
    time_per_output_token_s: float  # at that batch, as the plan's engine reads the prefix
    time_per_output_token_with_cascade_s: float
    join_latency_mean_s: float  # until the slowest branch has ended
    join_latency_p95_s: float
    branches_at_work: float  # mean from fork to join
    speedup_over_sequential: float
    useful_work: float  # probability that at least one branch succeeds
    gpu_seconds_per_task: float
    usd_per_task: float
    usd_per_solved_task: float | None
    marginal_usd: float
    marginal_useful_work: float
    pays_from_value_usd: float | None  # value of a solved task from which this branch pays
    net_usd: float | None  # value times useful work minus cost
    fits: bool  # beside the other sequences of a replica
    within_limits: bool  # the workload's limits on end-to-end time, at the join


class TurnAhead(Result):
    """Speculating ``turns`` ahead."""

    turns: int
    useful: float
    turns_ready: float
    saved_s: float
    wasted_usd: float
    pays_from_usd_per_hour: float | None  # of an hour not waited


class NextTurns(Result):
    """Next-turn speculation: how many predicted turns ahead are worth preparing."""

    quality: float
    turn_s: float
    turn_usd: float
    waiting_hour_value_usd: float | None
    turns_that_pay: int
    rows: tuple[TurnAhead, ...]


class FanOut(Result):
    """The numbers of branches side by side, and the one that pays."""

    schema_version: str = "1.0"
    workload: dict[str, Any]
    plan: Plan
    rows: tuple[Branches, ...]
    value_usd: float | None
    fan_out_that_pays: int  # 0: not even one branch
    fan_out_cheapest_per_solved_task: int
    bound_by: Literal["marginal value", "independent avenues", "kv memory", "latency limit", "largest tried"]
    paid_over_used: float  # accelerator-seconds paid for each one used: spares, idle time
    statement: str
    next_turns: NextTurns
    assumptions: tuple[Assumption, ...] = ()
    warnings: tuple[str, ...] = ()
