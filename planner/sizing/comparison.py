"""The accelerators beside each other: the best plan on each for one workload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from planner.hardware import Database
from planner.sizing.frozen_result import Result
from planner.sizing.nearest_miss import nearest_miss
from planner.sizing.recommend import alternatives, find
from planner.sizing.result import SCHEMA_VERSION, Alternative, NearestMiss
from planner.workload import Workload


class Comparison(Result):
    """What ``planner compare gpus`` prints for a workload: the best plan of every accelerator, or why there is none."""

    schema_version: str = SCHEMA_VERSION
    workload: dict[str, Any]
    accelerators: tuple[Alternative, ...]
    nearest_miss: NearestMiss | None = None  # where none has a plan


def compare_on_workload(
    workload: Workload,
    database: Database,
    *,
    gpus: Sequence[str] | None = None,
    price_overrides: Mapping[str, float] | None = None,
    models: Sequence[object] = (),
) -> Comparison:
    """The best plan on each accelerator, best first, then those without one and why.

    Arguments and units as in :func:`recommend`. Source: :func:`planner.sizing.search.search`.
    """
    found = find(workload, database, gpus=gpus, price_overrides=price_overrides, models=models)
    return Comparison(
        workload=workload.resolved,
        accelerators=alternatives(found, top=None, with_best=True),
        nearest_miss=None if found.found else nearest_miss(found),
    )
