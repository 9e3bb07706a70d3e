"""What came closest where nothing fits, and the one error every command ends in then."""

from __future__ import annotations

from typing import Any

import numpy as np

from planner.errors import NoPlanError
from planner.sizing.result import NearestMiss
from planner.sizing.search import Search

#: of a plan, where pools of prefill and decode replicas would keep the limits
DO_BOTH = "whose replicas both prefill and decode"


def no_plan(miss: NearestMiss | str | None, of: str = "") -> NoPlanError:
    """The error where there is no plan, or none ``of`` a kind, with what came closest or its words.

    Source: none needed.

    >>> str(no_plan(None, "at any of 2 points"))
    'no feasible plan at any of 2 points: nothing was left to try'
    """
    return NoPlanError(f"no feasible plan{f' {of}' if of else ''}: {miss if isinstance(miss, str) else missed(miss)}")


def missed(miss: NearestMiss | None) -> str:
    """What came closest, in words. Source: none needed.

    >>> missed(None)
    'nothing was left to try'
    """
    return miss.statement if miss is not None else "nothing was left to try"


def no_aggregated_plan(found: Search) -> NoPlanError:
    """The error where no replicas that both prefill and decode were found; it says so if pools would do.

    Source: :func:`planner.sizing.disaggregated_plan.consider_disaggregation`.
    """
    from planner.sizing.disaggregated_plan import consider_disaggregation

    pools = consider_disaggregation(found, None, simulate=False).plan
    return no_plan(nearest_miss(found), DO_BOTH if pools is not None else "")


def nearest_miss(found: Search) -> NearestMiss | None:
    """The candidate closest to every limit; None where nothing could be tried. Units as in the result.

    Source: :func:`planner.sizing.screening.screen`.
    """
    if found.found:
        return _pools_missed(found)
    rows, screened = found.rows, found.screened
    if rows is None or screened is None or not len(rows):
        if not found.rejected:
            return None
        name, reason = sorted(found.rejected.items(), key=lambda item: _memory_first(item[1]))[0]
        return NearestMiss(accelerator=name, constraint="memory", wanted=0.0, got=0.0, statement=f"{name}: {reason}")
    at = int(np.argmin(screened.violation))
    seat, ratio = rows.seats[at], float(screened.violation[at])
    constraint = screened.constraint[at]
    wanted, got = 1.0, ratio
    for slo in found.workload.slo:
        if constraint == f"{slo.metric}_{slo.statistic}":
            wanted, got = slo.limit_s, slo.limit_s * ratio
    layout = seat.layout
    place = f"closest is {seat.accelerator.name} with tensor parallel {int(layout.tensor)}"
    statement = f"{place} at batch {screened.batch[at]:.0f}: {constraint} is {ratio:.2f} times its limit"
    if ratio <= 1.0 and found.workload.hardware.max_gpus:
        constraint = "hardware.max_gpus"
        statement = f"{place}: it keeps every limit with more than the {found.workload.hardware.max_gpus} allowed"
    elif ratio <= 1.0:
        constraint = "all limits together"
        statement = f"{place}: it comes close to every limit, and no rate keeps them all"
    shape: dict[str, Any] = {
        "accelerator": seat.accelerator.name,
        "tensor_parallel": int(layout.tensor),
        "pipeline_parallel": int(layout.pipeline),
        "data_parallel": int(layout.data),
        "expert_parallel": int(layout.expert),
        "weight_dtype": seat.precision.weights,
        "kv_dtype": seat.precision.kv,
        "batch": float(screened.batch[at]),
        "speculation": rows.options[at].label,
    }
    return NearestMiss(
        accelerator=seat.accelerator.name,
        constraint=constraint,
        wanted=wanted,
        got=got,
        statement=statement,
        configuration=shape,
    )


def _pools_missed(found: Search) -> NearestMiss:
    """Where pools were asked for, none keep the limits, and replicas that do both would."""
    best = found.found[0].seat
    return NearestMiss(
        accelerator=best.accelerator.name, constraint="serving.mode", wanted=0.0, got=0.0,
        statement=f"no pools of prefill and decode replicas keep every limit; replicas of {best.accelerator.name} "
        "that do both would",
    )  # fmt: skip


def _memory_first(reason: str) -> tuple[int, str]:
    return (0 if reason.startswith("does not fit") else 1, reason)
