"""What one replica does under load: occupancy, latencies, limits, and its simulation."""

from __future__ import annotations

from planner.serving.simulator import LinearStepTime, RequestRecord, simulate

__all__ = ["LinearStepTime", "RequestRecord", "simulate"]
