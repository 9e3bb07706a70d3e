"""How many subagents pay: a workload's fan-out from one branch up, on the plan that serves it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from planner.cost.layout import Layout
from planner.cost.machine import Machine
from planner.cost.memory import CacheLayout
from planner.cost.shared_prefix import group_tokens
from planner.cost.speculation import speculative_step_seconds
from planner.cost.step import StepModel
from planner.decisions.fanout_curve import Curve, Fork, Site, TurnsAhead, fan_out_curve, turns_ahead
from planner.decisions.fanout_result import Branches, FanOut, NextTurns, TurnAhead
from planner.decisions.planned import Planned, planned
from planner.hardware import Database
from planner.serving.load import load_from
from planner.sizing.operating import BATCHES, price_group
from planner.sizing.plan import step_model
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
    place = _Place(base, workload, agents, most)
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


class _Place:
    """One replica of the plan as tasks of any fan-out find it."""

    def __init__(self, base: Planned, workload: Workload, agents: Subagents, most: int) -> None:
        found, best = base.found, base.best
        self.base, self.agents, self.workload = base, agents, workload
        self.seat, self.option = best.seat, best.rows.options[0]
        self.others = base.plan.mean_batch
        self.model = step_model(found, self.seat.precision)
        self.load = found.load
        self.cache = CacheLayout(self.model.model.layers, self.seat.precision.kv, found.engine.hybrid_kv_manager)
        self.room, self.slots = float(best.rows.kv_room[0, 0]), self.seat.slots
        self.tokens = self.load.context_mean
        self.prefix = min(float(agents.shared_prefix), self.tokens)
        one, two = (self._prompts(k) for k in (1, 2))
        self.first_prompt, self.each_prompt = one, max(two - one, 0.0)
        self.devices = int(self.seat.layout.devices)

    def _prompts(self, branches: int) -> float:
        """Seconds all prompts of a task add to the steps of a replica, at its mean batch, [s]."""
        found, best = self.base.found, self.base.best
        agents = self.agents.model_copy(update={"fan_out": branches})
        load = load_from(replace(self.workload, subagents=agents))
        rows = price_group(
            self.model, [self.seat], [self.option], load, found.engine.hybrid_kv_manager, best.rows.budget
        )
        each = float(np.interp(max(self.others, 1.0), BATCHES, rows.work[0]))
        return branches * each / float(rows.ranks[0, 0])

    def prefill(self, branches: Vector) -> Vector:
        """The same of any number of branches, [s]: the shared prefix once, the rest for each."""
        return self.first_prompt + (branches - 1) * self.each_prompt

    def shares(self, branches: Vector) -> Vector:
        """Tokens stored over tokens of all contexts, [1]."""
        group = group_tokens(self.prefix, self.tokens - self.prefix, branches)
        return np.asarray(group.stored / group.read_without_cascade)

    def steps(self, most: int, cascade: bool) -> Matrix:
        """Step with j branches of K beside the others, (most, most + 1), [s]."""
        batch = np.maximum(self.others + np.arange(most + 1.0), 1.0)[None, :]
        share = self.shares(np.arange(1.0, most + 1))[:, None] if cascade else np.ones((most, 1))
        seconds = speculative_step_seconds(
            self.model, self.option.drafter, self.seat.machine, self.seat.layout, batch, self.load.contexts, share
        )
        return np.broadcast_to(np.asarray(seconds), (most, most + 1))

    def site(self, most: int, factor: float) -> Site:
        """The replica for the curve; ``factor`` accelerator-seconds are paid for one used."""
        plan = self.base.plan
        k = np.arange(1.0, most + 1)
        prefill = self.prefill(k)
        asked = float(self.prefill(np.array([float(self.agents.fan_out)]))[0])
        first = np.maximum(plan.latency.ttft_s.mean + prefill - asked, prefill)
        busy = min(float(self.base.best.served.prefill_utilisation[0, 0]), 0.95)
        return Site(
            self.others, self.steps(most, self.agents.cascade == "ideal"), prefill, first,
            plan.cost.price_per_gpu_hour / 3600 * self.devices * factor,
            self.devices, self.option.acceptance, 1 / (1 - busy),
        )  # fmt: skip

    def paid_over_used(self, curve: Curve, asked: int) -> float:
        """Accelerator-seconds the plan pays for each one its tasks use, [1]: spares, peaks and idle time."""
        plan = self.base.plan
        tasks = plan.throughput.requests_per_second / self.workload.demand.peak_to_mean
        known = min(asked, len(curve.gpu_seconds))
        beyond = (asked - known) * float(np.diff(curve.gpu_seconds, prepend=0.0)[-1])
        return plan.gpus / tasks / (float(curve.gpu_seconds[known - 1]) + beyond)

    def turn_usd(self, curve: Curve) -> float:
        """Cost of one turn of one sequence, [$]."""
        return float(curve.usd[0])

    def fits(self, most: int) -> npt.NDArray[np.bool_]:
        """Whether a task's branches have room beside the other sequences of a replica, (most,)."""
        k = np.arange(1.0, most + 1)
        each = float(np.asarray(self.cache.allocated(self.load.contexts, self.seat.layout)).mean())
        state = float(np.asarray(self.cache.state(self.seat.layout)))
        held = self.others * (each * self.load.stored_share + state) + k * (each * self.shares(k) + state)
        return (held <= self.room) & (self.others + k <= self.slots)


def group_bytes(
    step: StepModel,
    machine: Machine,
    layout: Layout,
    cache: CacheLayout,
    contexts: Vector,
    prefix: float,
    most: int,
) -> tuple[Vector, Vector, Vector, Vector]:
    """Cache of 1..``most`` branches that share ``prefix`` [tokens]: without sharing, stored, and what a step reads
    without and with a cascade kernel, (most,) each, [B] on all accelerators of a replica.

    ``contexts`` (points,) [tokens] of a branch. Source: :func:`planner.cost.shared_prefix.group_tokens`.
    """
    k = np.arange(1.0, most + 1)
    mean = float(contexts.mean())
    group = group_tokens(min(prefix, mean), mean - min(prefix, mean), k)
    share = np.asarray(group.stored / group.read_without_cascade)
    devices, data, stages = (float(x) for x in (layout.devices, layout.data, layout.pipeline))
    stored = float(np.asarray(cache.stored(contexts, layout)).mean()) * devices / data
    each_rank_one = step.decode(machine, layout, data * stages, contexts)
    moved = sum(float(np.asarray(each_rank_one.bytes_by(name)).squeeze()) for name in ("kv", "indexer"))
    read = moved * devices / (data * stages)  # a micro-batch of one sequence passes every stage
    return k * stored, k * stored * share, k * read, k * read * share


def _rows(
    curve: Curve,
    place: _Place,
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


def _assumptions(workload: Workload, agents: Subagents, place: _Place, factor: float) -> tuple[Assumption, ...]:
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
    said = []
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
