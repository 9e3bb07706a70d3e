"""A plan's step at any batch and context: bytes and seconds by component, curves, where they cross."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.cost.layout import Layout
from planner.cost.machine import Machine
from planner.cost.roofline import Array
from planner.cost.speculation import Drafter
from planner.cost.step import OperatorCost, StepCost, StepModel
from planner.decisions.explanation_result import Component, CurvePoint, Roofline
from planner.hardware import Accelerator
from planner.sizing.explain import bound_by, step_seconds

Vector = npt.NDArray[np.float64]

CACHES = ("kv", "indexer", "state")
#: batches looked at for a change of regime
GRID: Vector = np.unique(np.round(np.exp2(np.arange(0.0, 16.01, 0.25))))


@dataclass(frozen=True)
class ExplainedStep:
    """The step of one replica: a model on a machine in a layout, with drafts and a distribution of contexts.

    ``contexts`` (points,) [tokens] equally likely; ``acceptance`` [tokens] a step makes of a sequence.
    """

    model: StepModel
    machine: Machine
    layout: Layout
    drafter: Drafter
    acceptance: float
    contexts: Vector
    read_share: float
    chip: Accelerator

    def cost(self, batch: Array, contexts: Vector | None = None) -> StepCost:
        """The step without its drafts, batch [sequences] and contexts [tokens] as of StepModel.decode."""
        at = self.contexts if contexts is None else contexts
        return self.model.decode(self.machine, self.layout, batch, at, self.drafter.queries, self.read_share)

    def drafts(self, batch: Array, verify: Array, contexts: Vector | None = None) -> Array:
        """Seconds of drafting beside a verification of ``verify`` [s], [s]."""
        if not self.drafter.draft_tokens:
            return np.zeros_like(np.asarray(verify, dtype=float))
        at = self.contexts if contexts is None else contexts
        return self.drafter.seconds(self.machine, self.layout, batch, at, verify)

    def seconds(self, batch: Array, contexts: Vector | None = None) -> Vector:
        """The whole step, drafts included, [s], shape of batch and contexts."""
        verify = self.cost(batch, contexts).seconds
        return np.asarray(verify + self.drafts(batch, verify, contexts), dtype=float)

    @property
    def stages(self) -> float:
        """Pipeline stages, which an accelerator's share of bytes is divided by, [1]."""
        return float(np.asarray(self.layout.pipeline))


def components(step: ExplainedStep, batch: float) -> tuple[Component, ...]:
    """Bytes and seconds by component at one ``batch`` [sequences]; seconds add up to the step's.

    Memory time of an operator goes to what it moves in proportion to bytes, arithmetic to the cache in attention
    and to the weights elsewhere; communication and overhead are rows of their own. Source: the operators.
    """
    cost = step.cost(batch)
    names = ("weights", *CACHES, "activations")
    moved = {n: float(np.squeeze(cost.bytes_by(n))) / step.stages for n in names}
    took, arithmetic = (dict.fromkeys((*names, "network", "overhead", "drafts"), 0.0) for _ in range(2))
    for operator in cost.operators:
        compute, memory, network, overhead = (float(np.squeeze(x)) for x in operator.split())
        arithmetic[operator.category if np.any(operator.cache) else "weights"] += compute
        took["network"] += network
        took["overhead"] += overhead
        total = float(np.squeeze(operator.bytes))
        parts = {"weights": operator.weights, operator.category: operator.cache, "activations": operator.activations}
        for name, part in parts.items():
            took[name] += memory * float(np.squeeze(part)) / total if total else 0.0
    took["drafts"] = float(np.squeeze(step.drafts(batch, cost.seconds)))
    whole = sum(took.values()) + sum(arithmetic.values())
    return tuple(
        Component(name=n, bytes_per_step=moved.get(n), seconds=s, arithmetic_s=arithmetic[n], share=s / whole)
        for n in took
        if (s := took[n] + arithmetic[n]) > 0 or moved.get(n)
    )


def rooflines(step: ExplainedStep, batch: float) -> tuple[Roofline, ...]:
    """Every operator under its roof at one ``batch`` [sequences], most expensive first.

    Source: Williams, Waterman & Patterson, "Roofline", CACM 52(4) 2009.
    """
    at, along = _by_name(step.cost(batch)), _by_name(step.cost(GRID))
    whole = sum(float(np.squeeze(o.seconds)) for group in at.values() for o in group)
    found = []
    for name, group in at.items():
        seconds = sum(float(np.squeeze(o.seconds)) for o in group)
        if seconds <= 0:
            continue
        flops, moved = (sum(float(np.squeeze(getattr(o, what))) for o in group) for what in ("flops", "bytes"))
        roof = group[0].ceiling
        best = _roof_seconds(group)
        found.append(Roofline(
            name=name,
            flops_per_byte=flops / moved if moved else None,
            ridge_flops_per_byte=float(np.squeeze(roof.peak / roof.bandwidth)) if roof else None,
            bound_by=bound_by(step_seconds(StepCost(tuple(group)))),
            achieved_share=best / seconds if roof else None,
            bandwidth_share=moved / seconds / step.chip.bandwidth if roof else None,
            seconds=seconds,
            share=seconds / whole,
            compute_bound_batch=_compute_bound(along[name]) if roof else None,
        ))  # fmt: skip
    return tuple(sorted(found, key=lambda o: (-o.seconds, o.name)))


def _by_name(cost: StepCost) -> dict[str, list[OperatorCost]]:
    joined: dict[str, list[OperatorCost]] = {}
    for operator in cost.operators:
        joined.setdefault(operator.name, []).append(operator)
    return joined


def _roof_seconds(group: list[OperatorCost]) -> float:
    """Time of a group if each operator ran at its binding ceiling, [s]."""
    return sum(
        max(float(np.squeeze(o.flops / o.ceiling.peak)), float(np.squeeze(o.bytes / o.ceiling.bandwidth)))
        for o in group
        if o.ceiling is not None
    )


def _compute_bound(group: list[OperatorCost]) -> float | None:
    compute: Array = 0.0
    memory: Array = 0.0
    for o in group:
        assert o.ceiling is not None
        compute, memory = compute + o.flops / o.ceiling.peak, memory + o.bytes / o.ceiling.bandwidth
    return first_where(for_good(np.broadcast_to(np.asarray(compute > memory), GRID.shape)), GRID)


def first_where(reached: npt.NDArray[np.bool_], at: Vector) -> float | None:
    """The first of ``at`` where ``reached``, both (n,), in the unit of ``at``; None when nowhere."""
    found = np.flatnonzero(reached)
    return float(at[found[0]]) if len(found) else None


def for_good(reached: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Where a condition along an axis (n,) holds from there to its end, (n,). Source: definition.

    >>> for_good(np.array([True, False, True, True])).tolist()
    [False, False, True, True]
    """
    kept: npt.NDArray[np.bool_] = np.logical_and.accumulate(reached[::-1])[::-1]
    return kept


def first_batch(reached: Callable[[Vector], npt.NDArray[np.bool_]]) -> float | None:
    """The smallest batch [sequences] from which a condition holds up to 65536; None when it doesn't there.

    Two passes, a geometric grid and then up to 65 whole numbers in between. Source: definition.

    >>> first_batch(lambda b: b > 36.5)
    37.0
    """
    coarse = first_where(for_good(reached(GRID)), GRID)
    if coarse is None or coarse == GRID[0]:
        return coarse
    before = GRID[np.searchsorted(GRID, coarse) - 1]
    fine: Vector = np.unique(np.round(np.linspace(before, coarse, 65))).astype(float)
    return first_where(for_good(reached(fine)), fine)


def curve(step: ExplainedStep, batches: Vector, holds: float) -> tuple[CurvePoint, ...]:
    """Bytes, seconds and speed at every one of ``batches`` (n,) [sequences]; ``holds`` [sequences] fit."""
    cost = step.cost(batches)
    causes = cost.seconds_by_cause()
    verify = cost.seconds
    drafts = step.drafts(batches, verify)
    whole = verify + drafts
    columns = {
        "batch": batches,
        "weights_bytes": cost.bytes_by("weights") / step.stages,
        "cache_bytes": sum((cost.bytes_by(c) for c in CACHES), start=np.zeros(1)) / step.stages,
        "activations_bytes": cost.bytes_by("activations") / step.stages,
        "step_s": whole,
        **{f"{cause}_s": value for cause, value in causes.items()},
        "drafts_s": drafts,
        "time_per_output_token_s": whole / step.acceptance,
        "tokens_per_second_per_user": step.acceptance / whole,
        "tokens_per_second": step.acceptance * batches / whole,
    }
    table = {name: np.broadcast_to(np.asarray(c, dtype=float).ravel(), batches.shape) for name, c in columns.items()}
    return tuple(
        CurvePoint.model_validate({**{n: float(c[i]) for n, c in table.items()}, "fits": bool(batches[i] <= holds)})
        for i in range(len(batches))
    )
