"""What is asked of the fleet: traffic, lengths, limits, and what may be used."""

from __future__ import annotations

from planner.workload.building import build_workload, load_workload
from planner.workload.schema import Speculation, Subagents
from planner.workload.workload import Slo, Workload

__all__ = ["Slo", "Speculation", "Subagents", "Workload", "build_workload", "load_workload"]
