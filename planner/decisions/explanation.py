"""Why a plan is what it is: its step by component, along the batch, under the roof, and what people say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from planner.decisions.attention_kinds import compare_attention
from planner.decisions.claims import Ground, claims
from planner.decisions.explained_step import CACHES, ExplainedStep, components, curve, first_batch, rooflines
from planner.decisions.explanation_result import Caching, Component, Explanation, Regimes
from planner.decisions.planned import Planned, planned
from planner.hardware import Database
from planner.sizing.plan import build_why, step_model
from planner.sizing.result import Assumption, Plan, SpeculationFlip, Why
from planner.units import format_duration, format_money
from planner.workload import Workload

Vector = npt.NDArray[np.float64]

#: points of the curve along the batch
POINTS = 25
#: a step this much longer than that of one sequence is no longer free
FREE = 1.25


def explain(
    workload: Workload,
    database: Database,
    *,
    gpus: Sequence[str] | None = None,
    price_overrides: Mapping[str, float] | None = None,
    models: Sequence[object] = (),
    simulate: bool = True,
) -> Explanation:
    """The story of the best plan of ``workload``; units as in the result.

    Errors as :func:`planner.decisions.planned.planned`. Source: the operators of one step at the plan's mean
    batch, along the batch and along the context.
    """
    base = planned(
        workload, database, gpus=gpus, price_overrides=price_overrides, models=models, simulate=simulate, pools=True
    )
    plan, best = base.plan, base.best
    why = base.why or build_why(base.found, best)
    step = _step(base)
    batch = max(1.0, plan.mean_batch)
    most = max(batch, float(min(plan.memory.max_batch_that_fits, int(best.seat.slots))))
    made = components(step, batch)
    line = curve(step, _batches(batch, most), most)
    speeds = tuple(p for p in line if p.batch in (1.0, batch, most))
    regimes = _regimes(step, why)
    caching = _caching(base, why)
    attention = compare_attention(step, batch)
    ground = Ground(workload, plan, step, batch, most, regimes, caching, attention, line)
    return Explanation(
        workload=workload.resolved,
        plan=plan,
        why=why,
        statement=_statement(plan, made, regimes, batch),
        components=made,
        operators=rooflines(step, batch),
        regimes=regimes,
        max_batch=most,
        speeds=speeds,
        curve=line,
        caching=caching,
        attention=attention,
        speculation=_speculation(plan),
        sharing=_sharing(plan),
        claims=claims(ground),
        assumptions=_assumptions(step, batch),
        warnings=base.notes,
    )


def _step(base: Planned) -> ExplainedStep:
    seat, load = base.best.seat, base.found.load
    option = base.best.rows.options[0]
    return ExplainedStep(
        step_model(base.found, seat.precision), seat.machine, seat.layout, option.drafter, option.acceptance,
        load.contexts, load.read_share, seat.accelerator,
    )  # fmt: skip


def _batches(batch: float, most: float) -> Vector:
    """One to the most that fit, the plan's own among them, (n,) [sequences]."""
    grid = np.round(np.geomspace(1.0, max(most, 1.0), POINTS))
    return np.unique(np.append(grid, [1.0, batch, most]))


def _regimes(step: ExplainedStep, why: Why) -> Regimes:
    def overtakes(batches: Vector) -> npt.NDArray[np.bool_]:
        cost = step.cost(batches)
        cache = sum((cost.bytes_by(c) for c in CACHES), start=np.zeros(1))
        return np.broadcast_to(np.asarray(cache > cost.bytes_by("weights")), batches.shape)

    def computes(batches: Vector) -> npt.NDArray[np.bool_]:
        causes = step.cost(batches).seconds_by_cause()
        return np.broadcast_to(np.asarray(causes["compute"] > causes["memory"]), batches.shape)

    alone = float(np.squeeze(step.seconds(1.0)))

    def grown(batches: Vector) -> npt.NDArray[np.bool_]:
        return np.broadcast_to(step.seconds(batches) > FREE * alone, batches.shape)

    causes = step.cost(1.0).seconds_by_cause()
    fixed = float(np.squeeze(causes["network"] + causes["overhead"]))
    queries = step.drafter.queries
    tokens = why.crossovers.compute_bound_batch
    return Regimes(
        kv_overtakes_weights_batch=first_batch(overtakes),
        kv_overtakes_weights_context=why.crossovers.kv_exceeds_weights_context,
        compute_bound_batch=None if tokens is None else tokens / queries,
        step_compute_bound_batch=first_batch(computes),
        step_grows_quarter_batch=first_batch(grown),
        floor_time_per_output_token_s=alone / step.acceptance,
        floor_without_bytes_s=fixed / step.acceptance,
    )


def _caching(base: Planned, why: Why) -> Caching:
    load = base.found.load
    share = load.weights / load.weights.sum()
    cached = float((share * load.cached).sum() / (share * (load.new + load.cached)).sum())
    saved = why.prefill_saved_by_cache
    left = min(float(base.best.served.prefill_utilisation[0, 0]), 1.0)
    if base.pair is not None:
        left = base.pair.prefill.gpus / base.pair.gpus
    # without the cache the prompts would take this much of what is one replica's (or two pools') time now
    more = left * saved / (1 - saved) if saved < 1 else 0.0
    return Caching(
        cached_fraction=cached,
        prefill_saved=saved,
        decode_saved=why.decode_saved_by_cache,
        prefill_share=left,
        replica_time_saved=more / (1 + more),
    )


def _statement(plan: Plan, made: Sequence[Component], regimes: Regimes, batch: float) -> str:
    first, second = sorted(made, key=lambda c: -c.seconds)[:2]
    whole = sum(c.seconds for c in made)
    words = {
        "weights": "on weights", "kv": "on the KV cache", "indexer": "scoring the context",
        "state": "on recurrent state", "activations": "moving activations",
        "network": "communication between accelerators", "overhead": "launches and scheduling", "drafts": "drafting",
    }  # fmt: skip
    step = "a step takes"
    fleet = _replicas(plan.replicas, plan.spare_replicas, "replica", plan.gpus_per_replica)
    pools = plan.disaggregation if plan.serving == "disaggregated" else None
    if pools is not None:
        step = "a decode step takes"
        fleet = " and ".join(
            _replicas(p.replicas, p.spare_replicas, f"{name} replica", p.gpus_per_replica)
            for name, p in (("prefill", pools.prefill), ("decode", pools.decode))
        )
    return (
        f"{fleet} x {plan.accelerator} for "
        f"{format_money(plan.cost.usd_per_hour)}/h: at a mean batch of {batch:.3g} {step} "
        f"{format_duration(whole)}, {first.share:.0%} of it {words[first.name]} and {second.share:.0%} "
        f"{words[second.name]}."
    )


def _replicas(number: int, spares: int, name: str, each: int) -> str:
    spare = f" ({spares} spare)" if spares else ""
    return f"{number} {name}{'' if number == 1 else 's'}{spare} of {each}"


def _speculation(plan: Plan) -> str:
    s = plan.speculation
    if s.enabled:
        said = f"yes: {s.method}, {s.draft_tokens} draft tokens, {s.acceptance_length:.2f} a step, {s.speedup:.2f}x"
    elif s.considered:
        method, gain = max(s.considered.items(), key=lambda item: item[1])
        said = f"no: the best, {method}, would make {gain:.2f}x of a step"
    else:
        return "no: nothing can draft here, or the workload forbids it"
    return said + "".join(f"; {_flip(f)}" for f in s.flip_batches)


def _flip(flip: SpeculationFlip) -> str:
    return f"pays {'from' if flip.pays_beyond else 'up to'} batch {flip.at:.0f}"


def _sharing(plan: Plan) -> str:
    s = plan.sharing
    if s is None:
        return "none: one sequence a request, nothing shared beyond a cached prefix"
    stored = 1 - s.kv_tokens_stored / s.kv_tokens_without_sharing
    read = 1 - s.tokens_read_per_step / s.kv_tokens_without_sharing
    could = 1 - s.tokens_read_with_cascade / s.kv_tokens_without_sharing
    return (
        f"{s.fan_out} subagents share {s.shared_prefix_tokens:.0f} tokens: {stored:.0%} of the cache not stored, "
        f"{read:.0%} not read ({could:.0%} with a cascade kernel); they join after {format_duration(s.join_latency_s)}"
    )


def _assumptions(step: ExplainedStep, batch: float) -> tuple[Assumption, ...]:
    return (
        Assumption(key="operating point", value=f"mean batch {batch:.3g} at the peak", origin="plan"),
        Assumption(
            key="contexts", value=f"mean {step.contexts.mean():.0f} tokens resident",
            origin="workload",
        ),
        Assumption(key="tokens a step", value=f"{step.acceptance:.2f} of a sequence", origin="plan"),
        Assumption(key="free", value=f"a step up to {FREE:.2f} times that of one sequence", origin="default"),
    )  # fmt: skip
