"""What one replica does under load: occupancy, latencies, limits, and its simulation."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from planner.serving.requests import RequestRecord, Requests
from planner.serving.simulator import simulate
from planner.serving.step_time import LinearStepTime, StepTime

__all__ = [
    "LinearStepTime",
    "RequestRecord",
    "Requests",
    "StepTime",
    "simulate",
    "simulate_disaggregated",
    "simulate_fleet",
]
#: names that bring more code with them, found when they are asked for
_LATER = {"simulate_disaggregated": "fleet", "simulate_fleet": "fleet"}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f"planner.serving.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
