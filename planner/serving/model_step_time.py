"""The cost layer's step in the form the simulator sums: a table over batch, and linear forms in contexts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from planner.cost.attention import attention_cost
from planner.cost.layout import Layout
from planner.cost.machine import Machine
from planner.cost.prefill import CHUNK_GRID, PrefillModel
from planner.cost.speculation import Drafter
from planner.cost.step import OperatorCost, StepModel
from planner.serving.step_time import Branch, PiecewiseStepTime, PromptAttention, Table

Vector = npt.NDArray[np.float64]
#: how far past its last limit an operator's slope is taken, tokens
FAR = 131_072.0
#: chunk lengths prompt attention is tabulated at, tokens
CHUNKS = (0.0, 16.0, 128.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0)


def model_step_time(
    step: StepModel,
    drafter: Drafter,
    machine: Machine,
    layout: Layout,
    *,
    sequences: int,
    budget: float,
    longest: float,
    shared_read: float = 1.0,
) -> PiecewiseStepTime:
    """Step time of one replica for up to ``sequences`` at once, contexts up to ``longest`` [tokens].

    ``budget`` [tokens] of a rank's step; ``shared_read`` share of cache bytes really read [1]. Verification
    and drafting are in it when ``drafter`` drafts. Equals :func:`planner.cost.speculation.speculative_step_seconds`
    at equal contexts; compressed entries count by the token instead of by whole blocks.

    Source: :mod:`planner.cost`.
    """
    queries = drafter.draft_tokens + 1
    batches = np.arange(1.0, sequences + 1.0)
    limits = _limits(step, queries)
    base, forms = _probe(step, machine, layout, batches, limits, queries, shared_read)
    if drafter.draft_tokens and drafter.model is None:
        base, forms = base * (1 + drafter.verify_share), _scaled(forms, 1 + drafter.verify_share)
    elif drafter.draft_tokens and drafter.model is not None:
        small = StepModel(drafter.model, drafter.model.formats, drafter.kv_format)
        tokens, passes = drafter.passes
        own = {*_limits(small, tokens), *([drafter.kv_budget] if drafter.kv_budget else [])}
        if own - set(limits):
            merged = tuple(sorted({*limits, *own}))
            base, forms = _probe(step, machine, layout, batches, merged, queries, shared_read)
            limits = merged
        most = drafter.kv_budget or float("inf")
        drafting, more = _probe(small, machine, layout, batches, limits, tokens, 1.0, overhead=False, most=most)
        rows = drafter.draft_tokens * drafter.row_overhead * batches / layout.data
        base = base + passes * (drafting + drafter.token_overhead) + rows
        forms = forms + _scaled(more, passes)
    prefill = PrefillModel(step, machine, layout, budget)
    matmul, experts = (Table((0.0, *CHUNK_GRID.tolist()), (0.0, *t.ravel().tolist())) for t in prefill.tables())
    ranks, data = int(np.asarray(layout.data * layout.pipeline)), int(np.asarray(layout.data))
    layers = float(np.asarray(machine.layer_overhead)) * step.model.num_layers
    idle = float(np.asarray(machine.step_overhead)) + layers
    return PiecewiseStepTime(
        (idle, *base.tolist()), _merged(forms), limits, ranks, data, queries, matmul, experts,
        _prompt(prefill, longest), float(np.asarray(prefill.step_overhead())),
    )  # fmt: skip


def _limits(step: StepModel, queries: int) -> tuple[float, ...]:
    found: set[float] = set()
    for layer in step.model.layers:
        if layer.attention is not None:
            found.update(x for x in attention_cost(layer.attention).limits(queries) if 0 < x < FAR)
    return tuple(sorted(found))


def _probe(
    step: StepModel,
    machine: Machine,
    layout: Layout,
    batches: Vector,
    limits: Sequence[float],
    queries: int,
    shared_read: float,
    overhead: bool = True,
    most: float = float("inf"),
) -> tuple[Vector, list[tuple[Branch, ...]]]:
    """Seconds at contexts of no length by batch, and the branches of operators that depend on context.

    Contexts are read up to ``most`` [tokens].
    """

    def operators(batch: Vector | float, context: float) -> Iterable[OperatorCost]:
        for o in step.operators(machine, layout, batch, [min(context, most)], queries, shared_read):
            if overhead or o.name != "step overhead":
                yield o

    base = np.zeros(len(batches)) + sum(np.asarray(o.seconds).reshape(-1) for o in operators(batches, 0.0))
    one = float(np.asarray(layout.data * layout.pipeline))
    points = [0.0, *limits, (limits[-1] if limits else 0.0) + FAR]
    forms = []
    for same in zip(*(operators(one, p) for p in points), strict=True):
        ceiling = same[0].ceiling
        if ceiling is None:
            continue
        factor = float(np.asarray(same[0].factor))
        compute = [float(np.asarray(o.flops)) * factor / float(np.asarray(ceiling.peak)) for o in same]
        memory = [float(np.asarray(o.bytes)) * factor / float(np.asarray(ceiling.bandwidth)) for o in same]
        branches = {_linear_form(points, compute), _linear_form(points, memory)}
        if any(any(b[1:]) for b in branches):
            forms.append(tuple(sorted(b for b in branches if not any(_beats(o, b) for o in branches if o != b))))
    return base, forms


def _linear_form(points: Sequence[float], values: Sequence[float]) -> Branch:
    """Constant, coefficient of the context, and of each ``min(context, limit)``, through the values."""
    slopes = [(b - a) / (q - p) for (p, q), (a, b) in zip(pairwise(points), pairwise(values), strict=True)]
    steps = [a - b for a, b in pairwise(slopes)]
    size = max(abs(s) for s in slopes)
    return (values[0], slopes[-1], *(0.0 if abs(s) < 1e-12 * size else s for s in steps))


def _beats(one: Branch, other: Branch) -> bool:
    """Whether a form is never below another: its value and every slope are at least as large."""

    def rises(branch: Branch) -> list[float]:
        slopes = [branch[1]]
        for step in reversed(branch[2:]):
            slopes.append(slopes[-1] + step)
        return [branch[0], *slopes]

    return all(a >= b for a, b in zip(rises(one), rises(other), strict=True))


def _scaled(forms: list[tuple[Branch, ...]], factor: float) -> list[tuple[Branch, ...]]:
    return [tuple(tuple(factor * x for x in branch) for branch in form) for form in forms]


def _merged(forms: list[tuple[Branch, ...]]) -> tuple[tuple[Branch, ...], ...]:
    """Operators of a single branch add into one."""
    plain = [form[0] for form in forms if len(form) == 1]
    rest = [form for form in forms if len(form) > 1]
    if not plain:
        return tuple(rest)
    return ((tuple(sum(column) for column in zip(*plain, strict=True)),), *rest)


def _prompt(model: PrefillModel, longest: float) -> PromptAttention:
    behind = np.concatenate([[0.0], np.geomspace(512.0, max(longest, 4096.0), 18)])
    chunk = np.array(CHUNKS)
    latency = float(np.squeeze(model.attention_seconds(np.array([1e-6]), np.array([0.0]))))
    new, cached = np.meshgrid(np.maximum(chunk, 1.0), behind)
    seconds = np.asarray(model.attention_seconds(new.ravel(), cached.ravel())).reshape(new.shape)
    table = (seconds - latency) / new
    return PromptAttention(
        tuple(behind.tolist()), tuple(chunk.tolist()), tuple(tuple(row) for row in table.tolist()), latency
    )
