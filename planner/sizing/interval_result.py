"""The interval of a figure, as every result has it."""

from __future__ import annotations

from planner.sizing.frozen_result import Result


class Interval(Result):
    """Where the measured figure is expected, in the unit of the key it is named after; from validation's residuals."""

    level: float  # share of cases
    low: float
    high: float | None  # null: no figure keeps the limits
    source: str  # which residuals, and why it is wide
