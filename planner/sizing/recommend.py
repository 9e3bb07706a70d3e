"""The main job: one workload in, one recommendation out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from planner.hardware import Database
from planner.serving.validity import simulated_only
from planner.sizing.disaggregated_plan import consider_disaggregation
from planner.sizing.fleet_range import with_ranges
from planner.sizing.intervals import known_of, latency_with_intervals
from planner.sizing.nearest_miss import nearest_miss
from planner.sizing.plan import build_plan, build_why
from planner.sizing.quality import narrowed
from planner.sizing.result import (
    Alternative,
    Assumption,
    Plan,
    Recommendation,
    Speculation,
)
from planner.sizing.search import Search, Sized, search
from planner.workload import Workload

if TYPE_CHECKING:
    from planner.hardware.acceptance import AcceptanceData
    from planner.sizing.confirm import Confirmation


def recommend(
    workload: Workload,
    database: Database,
    *,
    gpus: Sequence[str] | None = None,
    top: int = 5,
    price_overrides: Mapping[str, float] | None = None,
    models: Sequence[object] = (),
    statistics: dict[str, float] | None = None,
    simulate: bool = True,
    acceptance: AcceptanceData | None = None,
) -> Recommendation:
    """The best plan for ``workload`` by its objective, with reasons, rivals and assumptions.

    ``gpus`` restricts the accelerators by name, ``top`` limits the alternatives, ``price_overrides``
    maps accelerator to $/h; ``statistics`` receives ``points`` priced; ``simulate`` puts the best plan to
    the simulator, which may enlarge it or prefer another; ``acceptance`` holds the user's own curves. No
    plan: ``plan`` is None and ``nearest_miss`` says what failed. Raises InputError for anything the user
    got wrong.

    Source: :func:`planner.sizing.search.search`. Units as in the result.
    """
    found = find(
        workload, database, gpus=gpus, price_overrides=price_overrides, models=models, acceptance=acceptance
    )  # fmt: skip
    if statistics is not None:
        statistics["points"] = float(found.points)
    confirmed: Confirmation | None = None
    if simulate and found.found and workload.serving.mode != "disaggregated":
        from planner.sizing.confirm import confirm_best

        found, confirmed = confirm_best(found)
    together = aggregated_plan(found, confirmed) if found.found else None
    choice = consider_disaggregation(found, together, simulate=simulate)
    found, plan = choice.found, choice.plan
    if plan is None:
        return Recommendation(
            workload=workload.resolved,
            plan=None,
            why=None,
            alternatives=_rejected(found),
            assumptions=_assumptions(found),
            warnings=_warnings(found, None) + choice.notes,
            nearest_miss=nearest_miss(found),
        )
    plan, rivals = _with_rivals(found, plan, top)
    why = choice.why or build_why(found, found.found[0])
    notes = choice.notes
    if choice.why is None and confirmed is not None:
        notes = (*confirmed.notes, *notes)
        if confirmed.binding is not None:
            why = why.model_copy(update={"binding_constraint": f"{confirmed.binding} (simulated)"})
    return Recommendation(
        workload=workload.resolved,
        plan=plan,
        why=why,
        alternatives=rivals,
        assumptions=_assumptions(found),
        warnings=_warnings(found, plan) + notes,
        what_would_change=_what_would_change(found, plan),
    )


def find(workload: Workload, database: Database, **options: Any) -> Search:
    """The search; of agent sessions, with contexts as they stay cached. Options as in :func:`search`."""
    if workload.demand.session is None:
        return search(workload, database, **options)
    from planner.sizing.retention_search import search_with_retention

    return search_with_retention(workload, database, **options)[0]


def aggregated_plan(found: Search, confirmed: Confirmation | None) -> Plan:
    """The plan of the first candidate, with what the simulation and the cache of sessions say of it."""
    best = found.found[0]
    plan = build_plan(found, best)
    update: dict[str, Any] = {}
    if confirmed is not None:
        band = confirmed.simulated.ttft_p95_band_s
        update |= {
            "latency": latency_with_intervals(confirmed.measured.latency(), known_of(found, best), band),
            "latency_source": "simulated",
            "verdict": confirmed.verdict,
            "mean_batch": confirmed.measured.mean_batch,
            "simulated": confirmed.simulated,
        }
    if found.workload.demand.session is not None:
        from planner.hardware.database import database_root
        from planner.hardware.offload import load_offload
        from planner.sizing.retention import retention

        update["retention"] = retention(found, best, load_offload(database_root()))
    return plan.model_copy(update=update) if update else plan


def alternatives(found: Search, *, top: int | None, with_best: bool = False) -> tuple[Alternative, ...]:
    """The best plan of every other accelerator, then the infeasible ones with their reason.

    ``top`` limits the feasible ones. Source: the search.
    """
    chosen = _best_of_each(found)[0 if with_best else 1 :][:top]
    return _listed(found, chosen, with_ranges(found, chosen, [build_plan(found, s) for s in chosen]))


def _with_rivals(found: Search, plan: Plan, top: int) -> tuple[Plan, tuple[Alternative, ...]]:
    """The plan of the first candidate and its rivals, their ranges found together."""
    chosen = _best_of_each(found)[1:][:top]
    plans = [build_plan(found, s) for s in chosen]
    if plan.serving == "disaggregated":  # has its own
        return plan, _listed(found, chosen, with_ranges(found, chosen, plans))
    plan, *plans = with_ranges(found, [found.found[0], *chosen], [plan, *plans])
    return plan, _listed(found, chosen, plans)


def _best_of_each(found: Search) -> list[Sized]:
    """The best candidate of every accelerator, best first."""
    first: dict[str, Sized] = {}
    for sized in found.found:
        first.setdefault(sized.seat.accelerator.name, sized)
    return list(first.values())


def _listed(found: Search, chosen: Sequence[Sized], plans: Sequence[Plan]) -> tuple[Alternative, ...]:
    best = found.found[0].objective if found.found else 0.0
    listed = tuple(
        Alternative(
            accelerator=s.seat.accelerator.name,
            feasible=True,
            reason=_against(s.objective, best, found),
            plan=plan,
        )
        for s, plan in zip(chosen, plans, strict=True)
    )
    return listed + _rejected(found)


def _against(objective: float, best: float, found: Search) -> str:
    kind = found.workload.objective.minimise
    if best <= 0 or objective == best:
        return "the same on the objective" if objective == best else ""
    unsure = " in closed form, which the simulator may not confirm" if objective < best else ""
    return f"{objective / best:.2f} times the best plan's {kind}{unsure}"


def _rejected(found: Search) -> tuple[Alternative, ...]:
    return tuple(
        Alternative(accelerator=name, feasible=False, reason=reason) for name, reason in sorted(found.rejected.items())
    )


def _assumptions(found: Search) -> tuple[Assumption, ...]:
    workload = tuple(
        Assumption(key=key, value=str(value), origin=origin) for key, value, origin in found.workload.assumptions
    )
    constants = found.constants
    return (
        *workload,
        Assumption(
            key="utilisation limit",
            value=f"{constants.utilisation_limit:.0%} of the stable rate",
            origin="database",
        ),
        Assumption(
            key="kv headroom",
            value=f"{constants.kv_tail:g} standard deviations",
            origin="database",
        ),
        Assumption(key="engine", value=found.engine.label, origin="database"),
        *_narrowed(found),
    )


def _narrowed(found: Search) -> tuple[Assumption, ...]:
    """What is taken for granted about quality where the best candidate is not as published."""
    if not found.found:
        return ()
    precision = found.found[0].seat.precision
    return narrowed(found.model, precision.weights, precision.kv)


def _warnings(found: Search, plan: Plan | None) -> tuple[str, ...]:
    said = list(found.notes)
    if plan is not None:
        sized = found.found[0]
        if any(k != "measured" for k in _efficiency_kinds(found, sized)):
            said.append(f"some kernel efficiencies of {plan.accelerator} are derived, not measured")
        rho = float(sized.served.rate[0, 0]) / max(sized.max_rate, 1e-30)
        if rho > 0.8:
            said.append(
                f"the fleet runs at {rho:.0%} of the highest rate that keeps the limits; "
                "tail latencies there are sensitive to small errors"
            )
        flagged = () if plan.simulated is not None else _only_simulated(found, sized)
        if flagged:
            said.append(f"simulated only at this load, see `planner simulate`: {', '.join(flagged)}")
        if plan.cost.price_source == "no price":
            said.append(f"no price known for {plan.accelerator}: name one with --price")
    longest, limit = float(found.load.contexts.max()), found.model.max_context
    if limit and longest > limit:
        said.append(f"contexts reach {longest:.0f} tokens, {found.model.name} is made for {limit}: set context.max")
    said.extend(found.model.notes)
    return tuple(said)


def _only_simulated(found: Search, sized: Sized) -> tuple[str, ...]:
    """The figures whose closed forms may be off at the plan's load."""
    rows, rate = sized.rows, float(sized.served.rate[0, 0])
    return simulated_only(
        float(sized.served.prefill_utilisation[0, 0]),
        int(rows.ranks[0, 0]),
        found.load.fan_out * float(found.load.arrival_cv2(rate)),
        rows.prompt_cv(found.load.weights),
        float(sized.served.mean_batch[0, 0]),
    )


def _efficiency_kinds(found: Search, sized: Sized) -> set[str]:
    chip, engine = sized.seat.accelerator, found.engine.family
    kinds = {chip.efficiency("decode_attention", sized.seat.precision.kv, engine).kind}
    for fmt in set(sized.seat.precision.formats.values()):
        kinds.add(chip.efficiency("matmul", fmt, engine).kind)
    return kinds


def _what_would_change(found: Search, plan: Plan) -> tuple[str, ...]:
    """Statements about the decision's margin that follow from the search alone."""
    said: list[str] = []
    rivals = [s for s in found.found[1:] if s.seat.accelerator.name != plan.accelerator]
    if rivals and found.workload.objective.minimise == "cost" and plan.cost.usd_per_hour > 0:
        rival = rivals[0]
        price = plan.cost.usd_per_hour / rival.gpus
        name = rival.seat.accelerator.name
        said.append(f"{name} wins below ${price:.2f} per accelerator-hour (now ${float(rival.rows.price[0, 0]):.2f})")
    serving = plan.replicas - plan.spare_replicas
    slack = plan.throughput.max_requests_per_second / max(plan.throughput.requests_per_second, 1e-30)
    said.append(
        f"the fleet serves up to {plan.throughput.max_requests_per_second:.3g} requests/s inside the "
        f"limits, {slack:.2f} times the peak asked for; beyond that it needs replica {serving + 1}"
    )
    speculation = plan.speculation
    if speculation.considered:
        best = next(iter(speculation.considered))
        gain = speculation.considered[best]
        said.append(
            f"speculation: best at this batch is {best} at {gain:.2f}x, "
            f"{'above' if speculation.margin > 0 else 'below'} the required margin" + _turning(speculation, gain)
        )
    return tuple(said)


def _turning(speculation: Speculation, gain: float) -> str:
    """The batches at which speculation starts or stops to pay, as the end of a sentence."""
    if not speculation.flip_batches:
        return f"; it pays at {'any' if gain > 1 else 'no'} batch"
    parts = [f"{'from' if flip.pays_beyond else 'up to'} batch {flip.at:.0f}" for flip in speculation.flip_batches]
    return "; it pays " + " and ".join(parts)
