"""What one replica does under load: occupancy, latencies, limits, and its simulation."""

from __future__ import annotations

from planner.serving.requests import RequestRecord
from planner.serving.simulator import simulate
from planner.serving.step_time import LinearStepTime

__all__ = ["LinearStepTime", "RequestRecord", "simulate"]
