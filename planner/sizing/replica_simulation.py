"""A sized candidate's replica in the simulator: its step, its limits, its share of the traffic."""

from __future__ import annotations

import numpy as np

from planner.cost.acceptance import alpha_from_length
from planner.cost.step import StepModel
from planner.serving.engine_limits import EngineLimits
from planner.serving.model_step_time import model_step_time
from planner.serving.step_time import PiecewiseStepTime
from planner.sizing.search import Search, Sized

#: sequences a step's table reaches to at most
MOST_SEQUENCES = 4096


def replica_step_time(found: Search, sized: Sized, sequences: int) -> PiecewiseStepTime:
    """Step time of a candidate for up to ``sequences`` at once, [s].

    Source: :func:`planner.serving.model_step_time.model_step_time`.
    """
    seat, load = sized.seat, found.load
    step = StepModel(found.model, seat.precision.formats, seat.precision.kv, found.constants.draft_independence)
    return model_step_time(
        step, sized.rows.options[0].drafter, seat.machine, seat.layout,
        sequences=min(sequences, MOST_SEQUENCES), budget=rank_budget(found), longest=float(load.contexts.max()),
        shared_read=load.read_share,
    )  # fmt: skip


def rank_budget(found: Search) -> float:
    """Tokens one attention rank's step may hold, [tokens]. Source: the workload, else the engine."""
    return float(found.workload.engine.max_batched_tokens or found.engine.max_batched_tokens(80e9))


def replica_limits(found: Search, sized: Sized, sequences: int, longest: float = 0.0) -> EngineLimits:
    """What bounds a candidate's steps, all ranks together; units of EngineLimits.

    The cache in tokens is its bytes over those of a resident sequence of mean context, sharing
    included; at least one sequence of ``longest`` [tokens] fits. Source: the search's rows.
    """
    rows, load = sized.rows, found.load
    ranks = int(np.asarray(sized.seat.layout.data * sized.seat.layout.pipeline))
    tokens = float(rows.kv_room[0, 0]) / max(float(rows.kv_mean[0, 0]), 1.0) * load.context_mean
    block = found.engine.block_tokens
    queries = rows.options[0].drafter.draft_tokens + 1
    budget = int(rank_budget(found))
    return EngineLimits(
        token_budget=max(budget * ranks, sequences * queries),
        max_sequences=sequences,
        kv_tokens=max(int(tokens), int(longest) + 2 * block),
        block_tokens=block,
        max_chunk_tokens=budget,
        sequence_tokens=queries,
    )


def draft_acceptance(sized: Sized) -> tuple[float, ...]:
    """Acceptance of each draft position that gives the candidate's acceptance length, [1].

    Source: the geometric law of Leviathan et al., arXiv 2211.17192.
    """
    option = sized.rows.options[0]
    k = option.drafter.draft_tokens
    return (alpha_from_length(option.acceptance, k),) * k if k else ()
