"""Why a plan is what it is: bytes and seconds by component, crossovers, what binds."""

from __future__ import annotations

import numpy as np

from planner.cost.layout import Layout
from planner.cost.machine import Machine
from planner.cost.memory import CacheLayout
from planner.cost.prefill import prefill_flops
from planner.cost.step import OperatorCost, StepCost, StepModel
from planner.serving.load import Load
from planner.sizing.result import (
    BytesPerStep,
    Crossovers,
    Operator,
    SecondsPerStep,
    Why,
)

CAUSES = ("compute", "memory", "network", "overhead")
SEARCH_TOKENS = np.array(sorted({round(2 ** (i / 8)) for i in range(129)}), dtype=float)
SEARCH_CONTEXTS = np.array(sorted({round(2 ** (i / 4)) for i in range(28, 89)}), dtype=float)


def step_bytes(cost: StepCost, pipeline: float = 1.0) -> BytesPerStep:
    """Bytes one accelerator moves in a step, by component, [B]. Source: the operators."""

    def of(category: str) -> float:
        return float(np.asarray(cost.bytes_by(category)).squeeze()) / pipeline

    return BytesPerStep(
        weights=of("weights"),
        kv=of("kv"),
        indexer=of("indexer"),
        state=of("state"),
        activations=of("activations"),
    )


def step_seconds(cost: StepCost) -> SecondsPerStep:
    """Seconds of a step by cause, [s]; they add up to its time. Source: the operators."""
    return SecondsPerStep(**{k: float(np.asarray(v).squeeze()) for k, v in cost.seconds_by_cause().items()})


def bound_by(seconds: SecondsPerStep) -> str:
    """The cause that takes most of the step. Source: definition."""
    return max(CAUSES, key=lambda cause: float(getattr(seconds, cause)))


def step_operators(cost: StepCost, pipeline: float = 1.0) -> tuple[Operator, ...]:
    """Operators of a step, equal names joined, most expensive first; [FLOP], [B], [s].

    Source: the operators.
    """
    joined: dict[str, list[OperatorCost]] = {}
    for operator in cost.operators:
        joined.setdefault(operator.name, []).append(operator)
    found = []
    for name, group in joined.items():
        parts = StepCost(tuple(group))
        seconds = float(np.asarray(parts.seconds).squeeze())
        if seconds <= 0:
            continue
        found.append(
            Operator(
                name=name,
                flops=float(np.asarray(parts.flops).squeeze()) / pipeline,
                bytes=sum(float(np.asarray(o.bytes).squeeze()) for o in group) / pipeline,
                seconds=seconds,
                bound_by=bound_by(step_seconds(parts)),
            )
        )
    return tuple(sorted(found, key=lambda o: (-o.seconds, o.name)))


def compute_bound_batch(step: StepModel, machine: Machine, layout: Layout) -> float | None:
    """Tokens per step from which the weight matmuls and experts are compute-bound, [tokens].

    None when they never are up to 65 536. Source: the operators at each token count.
    """
    tokens = SEARCH_TOKENS[None, :]
    compute = np.zeros_like(tokens)
    memory = np.zeros_like(tokens)
    spread = tokens * np.asarray(layout.data)
    for operator in step.matmul_operators(machine, layout, tokens, spread):
        if operator.ceiling is not None:
            c, m, _, _ = operator.split()
            compute, memory = compute + c, memory + m
    over = np.flatnonzero((compute > memory)[0])
    return float(SEARCH_TOKENS[over[0]] * float(np.asarray(layout.data))) if len(over) else None


def kv_exceeds_weights_context(step: StepModel, machine: Machine, layout: Layout, batch: float) -> float | None:
    """Context at which cache bytes of a step exceed its weight bytes at ``batch``, [tokens].

    None when they don't up to 4 Mi tokens (linear attention, tight windows). Source: the operators.
    """
    low, high = 0, len(SEARCH_CONTEXTS)
    while low < high:
        middle = (low + high) // 2
        cost = step.decode(machine, layout, batch, [float(SEARCH_CONTEXTS[middle])])
        cache = float(np.asarray(cost.bytes_by("kv")) + np.asarray(cost.bytes_by("indexer")))
        if cache > float(np.asarray(cost.bytes_by("weights"))):
            high = middle
        else:
            low = middle + 1
    return float(SEARCH_CONTEXTS[low]) if low < len(SEARCH_CONTEXTS) else None


def prefill_saved(step: StepModel, load: Load) -> float:
    """Share of prefill FLOPs the cached prefix removes, [1]; decode is untouched by it.

    Source: :func:`planner.cost.prefill.prefill_flops`.
    """
    share = load.weights / load.weights.sum()

    def work(new: np.ndarray, cached: np.ndarray) -> float:
        linear, attention, _ = prefill_flops(step.model, new, cached)
        return float(np.sum(share * (linear + attention)))

    total = work(load.new + load.cached, np.zeros_like(load.new))
    return max(0.0, 1.0 - work(load.new, load.cached) / total)


def kv_tokens_that_fit(room: float, cache: CacheLayout, layout: Layout, context: float) -> int:
    """KV capacity in tokens at a sequence's mean ``context`` [tokens], for ``room`` [B], [tokens].

    Source: :meth:`planner.cost.memory.CacheLayout.allocated`.
    """
    each = float(np.asarray(cache.allocated(context, layout))) / max(context, 1.0)
    return int(room / each) if each > 0 else 0


def explain_step(
    step: StepModel,
    machine: Machine,
    layout: Layout,
    batch: float,
    load: Load,
    queries: int,
    binding: str,
) -> Why:
    """The reasons behind a plan at its mean ``batch`` [sequences]. Units: :class:`Why`.

    Source: the operators of one step.
    """
    cost = step.decode(machine, layout, batch, load.contexts, queries, load.read_share)
    seconds = step_seconds(cost)
    stages = float(np.asarray(layout.pipeline))
    moved = step_bytes(cost, stages)
    cause = bound_by(seconds)
    total = sum(getattr(seconds, c) for c in CAUSES)
    cached = moved.kv + moved.indexer + moved.state
    leading = "weights" if moved.weights >= cached else "the KV cache"
    crossover = compute_bound_batch(step, machine, layout)
    context = kv_exceeds_weights_context(step, machine, layout, batch)
    saved = prefill_saved(step, load)
    statement = (
        f"At a mean batch of {batch:.3g} a step takes {total * 1e3:.3g} ms, "
        f"{getattr(seconds, cause) / total:.0%} of it {_cause_words(cause)}; {leading} "
        f"{'are' if leading == 'weights' else 'is'} most of the bytes read "
        f"({moved.weights / 1e9:.3g} GB weights, {cached / 1e9:.3g} GB cache and state per accelerator)."
    )
    return Why(
        binding_constraint=binding,
        bound_by=cause,
        bytes_per_step=moved,
        seconds_per_step=seconds,
        crossovers=Crossovers(compute_bound_batch=crossover, kv_exceeds_weights_context=context),
        operators=step_operators(cost, stages),
        statement=statement,
        prefill_saved_by_cache=saved,
        decode_saved_by_cache=0.0,
    )


def _cause_words(cause: str) -> str:
    return {
        "compute": "arithmetic",
        "memory": "memory traffic",
        "network": "communication between accelerators",
        "overhead": "launch and scheduling overhead",
    }[cause]
