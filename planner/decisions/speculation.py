"""Whether to speculate: every method and draft length at an operating point, and where the answer turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.cost.experts import distinct_experts
from planner.decisions.speculation_map import (
    BATCHES,
    CONTEXTS,
    Matrix,
    Place,
    Priced,
    Vector,
    largest_batch,
    price_map,
)
from planner.decisions.speculation_result import MethodAt, SpeculationDecision, SpeculationMap, SpeculationReason
from planner.hardware.acceptance import AcceptanceData
from planner.models.layers import MoeMlp
from planner.sizing.break_even import crossings
from planner.sizing.operating import Option
from planner.sizing.result import Assumption, SpeculationFlip
from planner.workload import Speculation

#: batches the flip is looked for at, finer than the map's and beyond it
FINE_BATCHES: Vector = np.exp2(np.arange(0.0, 11.01, 0.25))
FINE_CONTEXTS: Vector = np.exp2(np.arange(8.0, 20.01, 0.5))


@dataclass(frozen=True)
class Asked:
    """The operating point and what is asked of speculation there.

    ``contexts`` (points,) [tokens]: equally likely ones of a sequence; ``batch`` [sequences].
    """

    configuration: dict[str, Any]
    speculation: Speculation
    batch: float
    contexts: Vector
    assumptions: tuple[Assumption, ...] = ()


def decide(place: Place, options: Sequence[Option], data: AcceptanceData, asked: Asked) -> SpeculationDecision:
    """The decision at the operating point, with its reasons and the map around it.

    ``options`` hold acceptance as at no context; units as in :class:`SpeculationDecision`. Source: planner.cost
    for the steps, ``hardware_db/acceptance`` for what is accepted, published speed-ups for the interval.
    """
    drafting = [o for o in options if o.drafter.draft_tokens]
    speculation = asked.speculation
    common: dict[str, Any] = {
        "configuration": asked.configuration, "task": speculation.task, "temperature": speculation.temperature,
        "margin": speculation.margin, "batch": asked.batch, "context": float(asked.contexts.mean()),
        "batch_that_fits": float(largest_batch(place, None, asked.contexts[None, :])[0, 0]),
        "assumptions": (*asked.assumptions, *_assumptions(speculation, data)),
    }  # fmt: skip
    if not drafting:
        return SpeculationDecision(
            **common, speculate=False, method="none", draft_tokens=0, acceptance_length=1.0, speedup=1.0,
            speedup_low=1.0, speedup_high=1.0, flip_batches=(), flip_contexts=(), methods=(), reason=None, map=None,
            warnings=(
                "speculation is forbidden by the workload, or nothing can draft for this model",
                *_curves_of_others(data, asked),
            ),
        )  # fmt: skip
    domain = speculation.draft_domain
    here = price_map(place, drafting, data, domain, np.array([asked.batch]), asked.contexts[None, :])
    along = price_map(place, drafting, data, domain, FINE_BATCHES, asked.contexts[None, :])
    across = price_map(place, drafting, data, domain, np.array([asked.batch]), FINE_CONTEXTS[:, None])
    whole = price_map(place, drafting, data, domain, BATCHES, CONTEXTS[:, None])
    methods = _methods(place, here, along, data)
    first = methods[0]
    chosen = next(
        o for o in drafting if (o.drafter.method, o.drafter.draft_tokens) == (first.method, first.draft_tokens)
    )
    return SpeculationDecision(
        **common,
        speculate=first.fits and first.speedup > 1 + speculation.margin,
        method=first.method,
        draft_tokens=first.draft_tokens,
        acceptance_length=first.acceptance_length,
        speedup=first.speedup,
        speedup_low=first.speedup_low,
        speedup_high=first.speedup_high,
        flip_batches=_flips(FINE_BATCHES, along.best()[1][0]),
        flip_contexts=_flips(FINE_CONTEXTS, across.best()[1][:, 0]),
        methods=methods,
        reason=_reason(place, chosen, first, float(here.plain[0, 0]), asked),
        map=speculation_map(whole, data.speedup_error),
        warnings=_warnings(here, asked) + _curves_of_others(data, asked),
    )


def speculation_map(priced: Priced, error: float) -> SpeculationMap:
    """The best of every cell as a result; ``error`` [1] of a predicted speed-up widens the interval.

    Units as in :class:`SpeculationMap`. Source: :func:`planner.decisions.speculation_map.price_map`.
    """
    at, best = priced.best()
    low, high = (np.take_along_axis(priced.speedup(i), at[None], axis=0)[0] for i in (0, 2))
    drafters = [o.drafter for o in priced.options]
    return SpeculationMap(
        batches=tuple(float(b) for b in priced.batches),
        contexts=tuple(float(c) for c in priced.contexts.mean(axis=1)),
        speedup=_rows(best),
        speedup_low=_rows(low / (1 + error)),
        speedup_high=_rows(high * (1 + error)),
        method=tuple(tuple(drafters[i].method for i in row) for row in at),
        draft_tokens=tuple(tuple(drafters[i].draft_tokens for i in row) for row in at),
        fits=tuple(tuple(bool(x) for x in row) for row in priced.plain_fits),
        flip_batches=tuple(_flips(priced.batches, row) for row in best),
        flip_contexts=tuple(_flips(priced.contexts.mean(axis=1), column) for column in best.T),
    )


def _rows(values: Matrix) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(x) for x in row) for row in values)


def _flips(at: Vector, speedup: npt.NDArray[np.float64]) -> tuple[SpeculationFlip, ...]:
    return tuple(SpeculationFlip(at=c.at, pays_beyond=c.pays_beyond) for c in crossings(at, speedup))


def _methods(place: Place, here: Priced, along: Priced, data: AcceptanceData) -> tuple[MethodAt, ...]:
    """Every method at its best draft length that fits, best first."""
    gain = here.speedup()[:, 0, 0]
    low, high = here.speedup(0)[:, 0, 0], here.speedup(2)[:, 0, 0]
    fits = here.fits[:, 0, 0]
    curves = along.speedup()[:, 0, :]
    context = float(here.contexts.mean())
    found = []
    for method in dict.fromkeys(o.drafter.method for o in here.options):
        mine = [i for i, o in enumerate(here.options) if o.drafter.method == method]
        best = max(mine, key=lambda i: (fits[i], gain[i]))
        drafter = here.options[best].drafter
        lengths = [float(here.lengths[w, best, 0, 0]) for w in range(3)]
        error = data.speedup_error
        found.append(
            MethodAt(
                method=method, draft_tokens=drafter.draft_tokens, acceptance_length=lengths[1],
                acceptance_low=lengths[0], acceptance_high=lengths[2], speedup=float(gain[best]),
                speedup_low=float(low[best]) / (1 + error), speedup_high=float(high[best]) * (1 + error),
                verify_s=float(here.verify[best, 0, 0]), draft_s=float(here.draft[best, 0, 0]),
                draft_weight_bytes=float(np.asarray(drafter.weight_bytes(place.layout))),
                draft_cache_bytes=float(np.asarray(drafter.cache_bytes(context, place.layout))),
                fits=bool(fits[best]), flip_batches=_flips(along.batches, curves[mine].max(axis=0)),
                by_draft_tokens={str(here.options[i].drafter.draft_tokens): float(gain[i]) for i in mine},
                source=here.options[best].source,
            )
        )  # fmt: skip
    return tuple(sorted(found, key=lambda m: (not m.fits, -m.speedup, m.method)))


def _reason(place: Place, option: Option, best: MethodAt, plain: float, asked: Asked) -> SpeculationReason:
    queries = option.drafter.queries

    def step(tokens: int) -> Any:
        return place.step.decode(place.machine, place.layout, asked.batch, asked.contexts, tokens, place.shared_read)

    one, many = step(1), step(queries)
    weights, more = (float(np.asarray(c.bytes_by("weights")).squeeze()) for c in (one, many))
    cache = sum(float(np.asarray(one.bytes_by(c)).squeeze()) for c in ("kv", "indexer", "state"))
    experts = next((x.mlp for x in place.step.model.layers if isinstance(x.mlp, MoeMlp)), None)
    touched: tuple[float, ...] | None = None
    if experts is not None:
        tokens = max(1.0, asked.batch / float(np.asarray(place.layout.pipeline)))
        spread = (tokens, tokens * (1 + (queries - 1) * place.step.independence))
        touched = tuple(float(distinct_experts(experts.experts, experts.top_k, t)) / experts.experts for t in spread)
    growth, drafting = best.verify_s / plain, best.draft_s / plain
    share = cache / max(cache + weights, 1.0)
    host = sum(float(np.asarray(o.seconds).squeeze()) for o in many.operators if o.name == "step overhead")
    parts = [f"Verifying {queries} tokens a sequence takes {growth:.2f} times a plain step"]
    if touched is not None and touched[1] > touched[0] * 1.02:
        parts.append(f"experts touched grow from {touched[0]:.0%} to {touched[1]:.0%} of a layer's")
    parts.append(f"cache, {share:.0%} of the bytes a plain step reads, is read once all the same")
    statement = (
        "; ".join(parts) + f". Drafting adds {drafting:.2f} of a step; {best.acceptance_length:.2f} tokens a step "
        f"for {growth + drafting:.2f} times the time make {best.speedup:.2f}x."
    )
    return SpeculationReason(
        plain_step_s=plain, verify_s=best.verify_s, draft_s=best.draft_s, verify_growth=growth,
        draft_share=drafting, kv_share=share, weight_growth=more / weights if weights else 1.0,
        experts_touched=touched[0] if touched else None, experts_touched_verifying=touched[1] if touched else None,
        host_s=host, statement=statement,
    )  # fmt: skip


def _assumptions(speculation: Speculation, data: AcceptanceData) -> tuple[Assumption, ...]:
    return (
        Assumption(key="speculation.task", value=speculation.task, origin="workload or default"),
        Assumption(key="speculation.temperature", value=f"{speculation.temperature:g}", origin="workload or default"),
        Assumption(key="speculation.draft_domain", value=speculation.draft_domain, origin="workload or default"),
        Assumption(key="speculation.margin", value=f"{speculation.margin:g}", origin="workload or default"),
        Assumption(
            key="interval",
            value=f"spread of acceptance, and {data.speedup_error:.1%} either way: 80 % of published speed-ups",
            origin="database",
        ),
    )


def _warnings(here: Priced, asked: Asked) -> tuple[str, ...]:
    said = []
    if not here.plain_fits[0, 0]:
        said.append(f"memory doesn't hold {asked.batch:.3g} sequences of {asked.contexts.mean():.3g} tokens here")
    if asked.speculation.acceptance or asked.speculation.acceptance_length or asked.speculation.acceptance_per_position:
        methods = {o.drafter.method for o in here.options}
        if len(methods) > 1:
            said.append(
                "the workload's acceptance was taken for every method; say which drafter it was measured with in "
                "speculation.methods"
            )
    return tuple(said)


def _curves_of_others(data: AcceptanceData, asked: Asked) -> tuple[str, ...]:
    """That the user's own curves are all of other models or tasks, which may be a slip in a name."""
    model, task = str(asked.configuration.get("model", "")), asked.speculation.task
    if not data.own or any(data.users(model, o.method, task) for o in data.own):
        return ()
    known = dict.fromkeys(f"{o.method} for {o.model or 'any model'}, {o.task or 'any task'}" for o in data.own)
    return (f"no own curve of acceptance is of {model} and {task}; given: {', '.join(known)}",)
