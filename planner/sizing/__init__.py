"""From a workload and the database to a plan, with its reasons."""

from __future__ import annotations

from planner.sizing.datasheet import datasheet
from planner.sizing.estimate import EstimateRequest, estimate
from planner.sizing.recommend import compare_on_workload, recommend
from planner.sizing.result import SCHEMA_VERSION, Estimate, Plan, Recommendation

__all__ = [
    "SCHEMA_VERSION",
    "Estimate",
    "EstimateRequest",
    "Plan",
    "Recommendation",
    "compare_on_workload",
    "datasheet",
    "estimate",
    "recommend",
]
