"""The plan a decision starts from: the recommended one, with the search it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.errors import InputError
from planner.hardware import Database
from planner.sizing.nearest_miss import no_aggregated_plan
from planner.sizing.recommend import aggregated_plan, find
from planner.sizing.result import Plan
from planner.sizing.search import Search, Sized
from planner.workload import Workload


@dataclass(frozen=True)
class Planned:
    """A search and its best candidate whose replicas both prefill and decode."""

    found: Search
    best: Sized
    plan: Plan

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user asked for that the plan here is not, in words."""
        if self.found.workload.serving.mode != "disaggregated":
            return ()
        return ("priced on replicas that both prefill and decode, though serving.mode asks for two pools",)


def planned(
    workload: Workload,
    database: Database,
    *,
    gpus: Sequence[str] | None = None,
    price_overrides: Mapping[str, float] | None = None,
    models: Sequence[object] = (),
    simulate: bool = True,
) -> Planned:
    """The best plan for ``workload``, units as in :class:`planner.sizing.result.Plan`.

    NoPlanError with the nearest miss when there is none, InputError when it has no price. Arguments as
    in :func:`planner.sizing.recommend`.
    """
    found = find(workload, database, gpus=gpus, price_overrides=price_overrides, models=models)
    if not found.found:
        raise no_aggregated_plan(found)
    if not simulate:
        return _priced(found, aggregated_plan(found, None))
    from planner.sizing.confirm import confirm_best

    found, confirmed = confirm_best(found)
    return _priced(found, aggregated_plan(found, confirmed))


def _priced(found: Search, plan: Plan) -> Planned:
    if plan.cost.price_per_gpu_hour <= 0:
        raise InputError(
            f"no price known for {plan.accelerator}", key="--price", expected=f"--price {plan.accelerator}=USD_PER_HOUR"
        )
    return Planned(found, found.found[0], plan)
