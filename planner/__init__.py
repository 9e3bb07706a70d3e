"""Capacity planner for LLM inference: which accelerator, how many, split how, at what cost, and why."""

from __future__ import annotations

__version__ = "0.1.0"
