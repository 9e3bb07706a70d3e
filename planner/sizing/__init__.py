"""From a workload and the database to a plan, with its reasons."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from planner.sizing.result import SCHEMA_VERSION, Estimate, Plan, Recommendation

if TYPE_CHECKING:
    from planner.sizing.comparison import compare_on_workload
    from planner.sizing.configuration import EstimateRequest
    from planner.sizing.datasheets import datasheet
    from planner.sizing.estimating import estimate

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
#: what only one command needs is found when it is asked for: start-up time
_LATER = {
    "EstimateRequest": "configuration",
    "compare_on_workload": "comparison",
    "datasheet": "datasheets",
    "estimate": "estimating",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f"planner.sizing.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


from planner.sizing.recommend import recommend  # noqa: E402
