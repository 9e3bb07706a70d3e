"""How many subagents pay: a workload's fan-out from one branch up, on the plan that serves it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from planner.decisions.fanout_curve import Curve, Fork, TurnsAhead, fan_out_curve, turns_ahead
from planner.decisions.fanout_place import Place, group_bytes
from planner.decisions.fanout_result import Branches, FanOut, NextTurns, TurnAhead
from planner.decisions.planned import Planned, planned
from planner.hardware import Database
from planner.sizing.result import Assumption
from planner.units import format_duration, format_money
from planner.workload import Workload
from planner.workload.schema import Subagents

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

MOST = 16  # branches tried unless asked otherwise
LARGEST = 64  # of a workload's own fan-out that is summed exactly; linear beyond
TURNS = 4  # turns ahead shown


def fan_out(
    workload: Workload,
    database: Database,
    *,
    most: int = MOST,
    value: float | None = None,
    gpus: Sequence[str] | None = None,
    price_overrides: Mapping[str, float] | None = None,
    models: Sequence[object] = (),
    simulate: bool = True,
) -> FanOut:
    """Every fan-out from 1 to ``most`` on the recommended plan, and the one that pays.

    ``value`` [$] of a solved task replaces the workload's. Replicas stay as busy as the plan has them (the
    fleet grows with the work): a task meets their mean batch and adds its branches to it. Errors as
    :func:`planner.decisions.planned.planned`; units as in the result.

    Source: :mod:`planner.decisions.fanout_curve` on the plan's own step times.
    """
    agents = workload.subagents or Subagents(shared_prefix=workload.moments.mean_input)
    base = planned(
        workload, database, gpus=gpus, price_overrides=price_overrides, models=models, simulate=simulate
    )  # fmt: skip
    value = agents.value if value is None else value
    place = Place(base, workload, agents, most)
    fork = Fork(workload.output_quantile, agents.success, agents.correlation, agents.independent_avenues)
    asked = agents.fan_out
    factor = place.paid_over_used(fan_out_curve(fork, place.site(max(most, min(asked, LARGEST)), 1.0)), asked)
    curve = fan_out_curve(fork, place.site(most, factor))
    fits = place.fits(most)
    within = _within_limits(workload, curve)
    allowed = fits & within
    cheapest = curve.cheapest(allowed)
    pays = cheapest if value is None else curve.paying(value, allowed)
    free = curve.cheapest() if value is None else curve.paying(value)
    bound = _bound(pays, free, fits, within, most, agents)
    turn_usd = place.turn_usd(curve)
    turn_seconds = base.plan.latency.e2e_s.mean if asked == 1 else float(curve.join_mean[0])
    ahead = turns_ahead(agents.next_turn_quality, TURNS, turn_seconds, turn_usd)
    return FanOut(
        workload=workload.resolved,
        plan=base.plan,
        rows=_rows(curve, place, value, fits, within, most),
        value_usd=value,
        fan_out_that_pays=pays,
        fan_out_cheapest_per_solved_task=cheapest,
        bound_by=bound,
        paid_over_used=factor,
        statement=_statement(curve, value, pays, bound),
        next_turns=_next_turns(agents, ahead, turn_seconds, turn_usd),
        assumptions=_assumptions(workload, agents, place, factor),
        warnings=_warnings(base, agents),
    )


def _rows(
    curve: Curve,
    place: Place,
    value: float | None,
    fits: npt.NDArray[np.bool_],
    within: npt.NDArray[np.bool_],
    most: int,
) -> tuple[Branches, ...]:
    seat = place.seat
    unshared, stored, plain, cascade = group_bytes(
        place.model, seat.machine, seat.layout, place.cache, place.load.contexts, place.prefix, most
    )
    with_cascade = np.diagonal(place.steps(most, True), 1) / place.option.acceptance
    stretch = curve.token_seconds[0] / (place.steps(1, place.agents.cascade == "ideal")[0, 1] / place.option.acceptance)
    columns = {
        "kv_bytes_without_sharing": unshared,
        "kv_bytes_stored": stored,
        "read_bytes_per_step_without_cascade": plain,
        "read_bytes_per_step_with_cascade": cascade,
        "batch": place.others + np.arange(1.0, most + 1),
        "time_per_output_token_s": curve.token_seconds,
        "time_per_output_token_with_cascade_s": with_cascade * stretch,
        "join_latency_mean_s": curve.join_mean,
        "join_latency_p95_s": curve.join_p95,
        "branches_at_work": curve.at_work,
        "speedup_over_sequential": curve.against_sequential,
        "useful_work": curve.useful,
        "gpu_seconds_per_task": curve.gpu_seconds,
        "usd_per_task": curve.usd,
        "usd_per_solved_task": curve.usd_per_solved,
        "marginal_usd": curve.marginal_usd,
        "marginal_useful_work": curve.marginal_useful,
        "pays_from_value_usd": curve.pays_from,
    }
    rows = []
    for i in range(most):
        figures = {name: _finite(column[i]) for name, column in columns.items()}
        net = None if value is None else value * float(curve.useful[i]) - float(curve.usd[i])
        rows.append(Branches.model_validate(
            {"fan_out": i + 1, **figures, "net_usd": net, "fits": bool(fits[i]), "within_limits": bool(within[i])}
        ))  # fmt: skip
    return tuple(rows)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _within_limits(workload: Workload, curve: Curve) -> npt.NDArray[np.bool_]:
    """Whether the join keeps the workload's mean and p95 end-to-end limits, (most,)."""
    kept = np.ones(len(curve.useful), dtype=bool)
    for slo in workload.slo:
        if slo.metric == "e2e" and slo.statistic in ("mean", "p95"):
            kept &= (curve.join_mean if slo.statistic == "mean" else curve.join_p95) <= slo.limit_s
    return kept


def _bound(
    pays: int,
    free: int,
    fits: npt.NDArray[np.bool_],
    within: npt.NDArray[np.bool_],
    most: int,
    agents: Subagents,
) -> str:
    """What keeps the fan-out from being larger."""
    if free > pays:
        return "kv memory" if not fits[pays:free].all() else "latency limit"
    if pays == most:
        return "largest tried"
    return "independent avenues" if pays == agents.independent_avenues else "marginal value"


def _statement(curve: Curve, value: float | None, pays: int, bound: str) -> str:
    if pays == 0:
        least = format_money(float(curve.pays_from[0]))
        return f"No fan-out pays: one branch needs a solved task to be worth more than {least}, or does not fit."
    at = pays - 1
    cost = (
        f"{format_money(float(curve.usd[at]))} per task, {format_money(float(curve.usd_per_solved[at]))} per solved one"
    )
    took = f"{curve.useful[at]:.0%} solved, joined in {format_duration(float(curve.join_mean[at]))} on average"
    many = "1 branch" if pays == 1 else f"{pays} branches"
    if value is not None:
        verb = "pays" if pays == 1 else "pay"
        return f"At {format_money(value)} per solved task {many} {verb}: {cost}, {took}. What binds: {bound}."
    tail = curve.pays_from[pays] if pays < len(curve.useful) else np.inf
    more = (
        f"; branch {pays + 1} pays from a value of {format_money(float(tail))} per solved task"
        if np.isfinite(tail) else ""
    )  # fmt: skip
    return f"A solved task is cheapest with {many}: {cost}, {took}{more}."


def _next_turns(agents: Subagents, ahead: TurnsAhead, turn_seconds: float, turn_usd: float) -> NextTurns:
    rows = tuple(
        TurnAhead(
            turns=t + 1,
            useful=float(ahead.useful[t]),
            turns_ready=float(ahead.ready[t]),
            saved_s=float(ahead.saved_seconds[t]),
            wasted_usd=float(ahead.wasted_usd[t]),
            pays_from_usd_per_hour=_finite(ahead.pays_from[t]),
        )
        for t in range(len(ahead.useful))
    )
    return NextTurns(
        quality=agents.next_turn_quality,
        turn_s=turn_seconds,
        turn_usd=turn_usd,
        waiting_hour_value_usd=agents.waiting_hour_value,
        turns_that_pay=ahead.paying(agents.waiting_hour_value),
        rows=rows,
    )


def _assumptions(workload: Workload, agents: Subagents, place: Place, factor: float) -> tuple[Assumption, ...]:
    fields_set = workload.subagents.model_fields_set if workload.subagents else set()
    said = [
        Assumption(key=f"subagents.{key}", value=str(getattr(agents, key)), origin="default")
        for key in ("shared_prefix", "success", "correlation", "independent_avenues", "cascade", "next_turn_quality")
        if key not in fields_set
    ]
    waiting = (
        "not given: a turn ahead is prepared while it is more often useful than wasted"
        if agents.waiting_hour_value is None else f"{agents.waiting_hour_value:g}"
    )  # fmt: skip
    origin = "default" if agents.waiting_hour_value is None else "workload"
    said += [
        Assumption(key="subagents.waiting_hour_value", value=waiting, origin=origin),
        Assumption(
            key="other sequences on a replica", value=f"{place.others:.1f} at every fan-out: the fleet grows",
            origin="plan",
        ),
        Assumption(key="paid over used", value=f"{factor:.2f} (spares, idle time), at every fan-out", origin="plan"),
    ]  # fmt: skip
    return tuple(said)


def _warnings(base: Planned, agents: Subagents) -> tuple[str, ...]:
    said = list(base.notes)
    plan = base.plan
    if plan.replicas - plan.spare_replicas == 1:
        said.append(
            "one replica serves all: its idle time is charged to the tasks, though more branches cost nothing until "
            "it is full"
        )
    kinds = {type(layer.attention) for layer in base.found.model.layers if layer.attention is not None}
    if any(hasattr(kind, "top_k") or hasattr(kind, "top_blocks") for kind in kinds):
        said.append("sparse attention: branches select entries of their own, so a cascade kernel saves less than shown")
    if agents.correlation == 0:
        said.append("success of branches is taken as independent; attempts at one task rarely are")
    return tuple(said)
