"""What ``planner speculate`` found: yes or no, with which method, why, and where the answer turns."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from planner.sizing.frozen_result import Result
from planner.sizing.result import Assumption, SpeculationFlip

SCHEMA_VERSION = "1.0"


class MethodAt(Result):
    """One method at the operating point, at its best number of draft tokens."""

    method: str
    draft_tokens: int
    acceptance_length: float  # tokens per step, the bonus token included
    acceptance_low: float
    acceptance_high: float
    speedup: float
    speedup_low: float
    speedup_high: float
    verify_s: float
    draft_s: float
    draft_weight_bytes: float  # of one accelerator
    draft_cache_bytes: float  # of one sequence at the context, on one accelerator
    fits: bool
    flip_batches: tuple[SpeculationFlip, ...]  # at the operating point's context
    by_draft_tokens: dict[str, float]  # draft tokens -> speed-up
    source: str


class SpeculationReason(Result):
    """What the best method costs at the operating point."""

    plain_step_s: float
    verify_s: float
    draft_s: float
    verify_growth: float  # verification over a plain step
    draft_share: float  # drafting over a plain step
    kv_share: float  # of the bytes a plain step reads: drafts don't multiply it
    weight_growth: float  # weight bytes of a verification over those of a plain step
    experts_touched: float | None  # share of a layer's routed experts, plain step
    experts_touched_verifying: float | None
    host_s: float  # of the verification: sampling and rejecting, scheduling
    statement: str


class SpeculationMap(Result):
    """The best way to draft at every context (rows) and batch (columns)."""

    batches: tuple[float, ...]  # sequences in a replica
    contexts: tuple[float, ...]  # tokens of each
    speedup: tuple[tuple[float, ...], ...]
    speedup_low: tuple[tuple[float, ...], ...]
    speedup_high: tuple[tuple[float, ...], ...]
    method: tuple[tuple[str, ...], ...]
    draft_tokens: tuple[tuple[int, ...], ...]
    fits: tuple[tuple[bool, ...], ...]  # whether memory holds so many sequences
    flip_batches: tuple[tuple[SpeculationFlip, ...], ...]  # for every context
    flip_contexts: tuple[tuple[SpeculationFlip, ...], ...]  # for every batch


class SpeculationDecision(Result):
    """What ``planner speculate`` prints."""

    schema_version: str = SCHEMA_VERSION
    configuration: dict[str, Any]
    task: str
    temperature: float
    margin: float  # speed-up required beyond one
    batch: float  # sequences in a replica at the operating point
    context: float  # mean tokens of each
    batch_that_fits: float  # sequences of that context memory holds without a drafter
    speculate: bool
    method: str  # the best, recommended or not; none where nothing can draft
    draft_tokens: int
    acceptance_length: float
    speedup: float
    speedup_low: float
    speedup_high: float
    flip_batches: tuple[SpeculationFlip, ...]  # at the operating point's context
    flip_contexts: tuple[SpeculationFlip, ...]  # at its batch
    methods: tuple[MethodAt, ...]
    reason: SpeculationReason | None
    map: SpeculationMap | None
    assumptions: tuple[Assumption, ...] = ()
    warnings: tuple[str, ...] = Field(default=())
