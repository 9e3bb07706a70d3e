"""Figures with their intervals, as short as can be: ``31 ms (26–38)``."""

from __future__ import annotations

from collections.abc import Callable

from planner.sizing.interval_result import Interval
from planner.sizing.result import Percentiles, Plan
from planner.units import format_duration

STATISTICS = ("mean", "p50", "p95", "p99")


def with_interval(value: float, interval: Interval | None, say: Callable[[float], str] = format_duration) -> str:
    """A figure and its bounds; a unit all three share is said once.

    >>> with_interval(0.031, Interval(level=0.8, low=0.026, high=0.038, source=""))
    '31 ms (26–38)'
    >>> with_interval(24, Interval(level=0.8, low=20, high=None, source=""), "{:.0f}".format)
    '24 (20 or more)'
    """
    text = say(value)
    if interval is None:
        return text
    _, space, unit = text.partition(" ")
    low, high = (None if x is None else say(x) for x in (interval.low, interval.high))
    assert low is not None
    if space and low.endswith(f" {unit}") and (high is None or high.endswith(f" {unit}")):
        low = low.partition(" ")[0]
        high = None if high is None else high.partition(" ")[0]
    return f"{text} ({low} or more)" if high is None else f"{text} ({low}–{high})"


def curve_texts(curve: Percentiles) -> list[str]:
    """Mean, p50, p95 and p99 of a latency, with intervals where there are."""
    return [with_interval(getattr(curve, s), getattr(curve, f"{s}_interval", None)) for s in STATISTICS]


def gpus_text(plan: Plan) -> str:
    """Accelerators of a plan and their range."""
    return with_interval(plan.gpus, plan.gpus_interval, "{:.0f}".format)


def range_text(plan: Plan) -> str:
    """What the range of accelerators stands for."""
    found = plan.gpus_interval
    assert found is not None
    return f"{gpus_text(plan)} in {found.level:.0%} of cases: {found.source}"
