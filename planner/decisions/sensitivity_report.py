"""What a plan hangs on and how sure it is, together: the plan as recommended, its flips, its odds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from planner.decisions.monte_carlo import CONFIDENCES, Risk, risk
from planner.decisions.replanning import Question, decision
from planner.decisions.sensitivity import Sensitivities, sensitivities
from planner.sizing.disaggregated_plan import consider_disaggregation
from planner.sizing.frozen_result import Result
from planner.sizing.nearest_miss import no_aggregated_plan
from planner.sizing.recommend import aggregated_plan, find
from planner.sizing.result import SCHEMA_VERSION, Plan
from planner.sizing.search import Search, Sized


class SensitivityReport(Result):
    """What ``planner sensitivity`` prints."""

    schema_version: str = SCHEMA_VERSION
    workload: dict[str, Any]
    plan: Plan  # as recommended, but for pools of prefill and decode replicas
    risk: Risk
    sensitivity: Sensitivities | None
    notes: tuple[str, ...] = ()


def sensitivity_report(
    question: Question,
    *,
    draws: int = 1000,
    seed: int = 0,
    confidences: Sequence[float] = CONFIDENCES,
    forecast_cv: float | None = None,
    simulate: bool = True,
    flips: bool = True,
    jobs: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> SensitivityReport:
    """The recommended plan's odds of keeping its limits, and unless ``flips`` is off what would flip it.

    ``simulate``: the plan drawn for is the one the simulator confirmed; flips are the closed forms' in either
    case. Raises NoPlanError when nothing is feasible. Units as in the results.

    Source: :func:`planner.decisions.monte_carlo.risk`, :func:`planner.decisions.sensitivity.sensitivities`.
    """
    found, sized, plan = confirmed_plan(question, simulate)
    odds = risk(found, sized, plan, draws=draws, seed=seed, confidences=confidences, forecast_cv=forecast_cv)
    pools = consider_disaggregation(found, plan, simulate=simulate).plan
    hangs_on = sensitivities(question, jobs=jobs, progress=progress) if flips else None
    return SensitivityReport(
        workload=found.workload.resolved,
        plan=plan,
        risk=odds,
        sensitivity=hangs_on,
        notes=_notes(plan, hangs_on, pools),
    )


def confirmed_plan(question: Question, simulate: bool) -> tuple[Search, Sized, Plan]:
    """The best plan whose replicas do both prefill and decode, as simulated; NoPlanError when there is none."""
    workload = question.workload()
    found = find(
        workload, question.database, gpus=question.gpus, price_overrides=question.prices, models=question.models
    )
    if not found.found:
        raise no_aggregated_plan(found)
    confirmed = None
    if simulate:
        from planner.sizing.confirm import confirm_best

        found, confirmed = confirm_best(found)
    return found, found.found[0], aggregated_plan(found, confirmed)


def _notes(plan: Plan, hangs_on: Sensitivities | None, recommended: Plan | None) -> tuple[str, ...]:
    said = []
    now = decision(plan)
    assert now is not None
    if recommended is not None and recommended.serving == "disaggregated":
        said.append(
            f"recommended are pools of prefill and decode replicas, {recommended.gpus} x {recommended.accelerator}, "
            "whose odds are not drawn: these are of the best plan whose replicas do both"
        )
    if hangs_on is not None and (hangs_on.decision, hangs_on.gpus) != (now.words, plan.gpus):
        said.append(
            f"flips are those of the closed forms, whose plan is {hangs_on.gpus} accelerators, {hangs_on.decision}; "
            f"the simulation makes it {plan.gpus}, {now.words}"
        )
    if hangs_on is not None:
        said += [f"{name} is given as a distribution without a number to move: left out" for name in hangs_on.left_out]
    return tuple(said)
