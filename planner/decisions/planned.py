"""The plan a decision starts from: the recommended one, with the search it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.errors import InputError
from planner.hardware import Database
from planner.sizing.disaggregated import Pair
from planner.sizing.disaggregated_plan import Choice, consider_disaggregation
from planner.sizing.nearest_miss import DO_BOTH, nearest_miss, no_plan
from planner.sizing.recommend import aggregated_plan, find
from planner.sizing.result import Plan, Why
from planner.sizing.search import Search, Sized
from planner.workload import Workload


@dataclass(frozen=True)
class Planned:
    """A search and its best candidate: replicas that both prefill and decode, or a ``pair`` of pools.

    Of a pair ``best`` is its decode pool, and ``why`` the reasons of both.
    """

    found: Search
    best: Sized
    plan: Plan
    notes: tuple[str, ...] = ()
    pair: Pair | None = None
    why: Why | None = None


def planned(
    workload: Workload,
    database: Database,
    *,
    gpus: Sequence[str] | None = None,
    price_overrides: Mapping[str, float] | None = None,
    models: Sequence[object] = (),
    simulate: bool = True,
    pools: bool = False,
) -> Planned:
    """The best plan for ``workload``, units as in :class:`planner.sizing.result.Plan`.

    With ``pools`` it is the recommended one, whatever its replicas do; without them it is that of replicas which
    do both, and the notes say where that isn't what is recommended. NoPlanError with the nearest miss when there
    is none, InputError when it has no price. Arguments as in :func:`planner.sizing.recommend`.
    """
    found = find(workload, database, gpus=gpus, price_overrides=price_overrides, models=models)
    together = None
    if found.found and (workload.serving.mode != "disaggregated" or not pools):
        confirmed = None
        if simulate:
            from planner.sizing.confirm import confirm_best

            found, confirmed = confirm_best(found)
        together = aggregated_plan(found, confirmed)
    choice = consider_disaggregation(found, together, simulate=simulate)
    if pools and choice.pair is not None and choice.plan is not None:
        return _priced(choice.found, choice.plan, choice.notes, choice)
    if together is None:
        raise no_plan(nearest_miss(found), DO_BOTH if choice.plan is not None else "")
    return _priced(found, together, _not_pools(workload, choice) if not pools else ())


def _not_pools(workload: Workload, choice: Choice) -> tuple[str, ...]:
    """That the plan is of replicas that do both, where pools are asked for or better."""
    plan = choice.plan
    asked = "though serving.mode asks for two pools" if workload.serving.mode == "disaggregated" else ""
    if choice.pair is None or plan is None or plan.disaggregation is None:
        return (f"priced on replicas that both prefill and decode, {asked}",) if asked else ()
    what = asked or "though `planner recommend` prefers two pools"
    ratio = plan.disaggregation.against_aggregated
    beside = "" if ratio is None else f", at {ratio:.2f} times the cost"
    return (f"priced on replicas that both prefill and decode, {what} of {plan.gpus} x {plan.accelerator}{beside}",)


def _priced(found: Search, plan: Plan, notes: tuple[str, ...], choice: Choice | None = None) -> Planned:
    if plan.cost.price_per_gpu_hour <= 0:
        raise InputError(
            f"no price known for {plan.accelerator}", key="--price", expected=f"--price {plan.accelerator}=USD_PER_HOUR"
        )
    pair, why = (choice.pair, choice.why) if choice else (None, None)
    return Planned(found, found.found[0], plan, notes, pair, why)
