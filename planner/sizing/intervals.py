"""Intervals of results: what validation says of predictions of this kind, put on latencies and rates."""

from __future__ import annotations

from planner.hardware.intervals import Factors, Known
from planner.sizing.interval_result import Interval
from planner.sizing.result import Latency, Percentiles
from planner.sizing.search import Search, Sized


def known_of(found: Search, sized: Sized) -> Known:
    """What is known of predictions of a candidate, [1]. Source: :class:`planner.hardware.intervals.Intervals`."""
    return found.intervals.of(sized.seat.accelerator, found.model.architecture_kind, found.engine)


def interval(value: float, factors: Factors) -> Interval:
    """The interval around a predicted ``value``, in its unit. Source: definition.

    >>> interval(0.03, Factors(0.9, 1.5, 0.8, "rows")).high
    0.045
    """
    return Interval(
        level=factors.level, low=value * factors.low, high=value * factors.high, source=factors.source
    )  # fmt: skip


def latency_with_intervals(latency: Latency, known: Known, band: tuple[float, float] | None = None) -> Latency:
    """The latencies with intervals of their means and 95th percentiles, [s].

    ``band`` [s] of the 95th percentile of time to first token with steps at both ends of theirs: tails near
    saturation move further than steps do, and its interval holds that too. End to end is the first token's with the
    rest as the tokens'. Source: definition.
    """
    first, tokens = latency.ttft_s, _with(latency.time_per_output_token_s, known.tpot)
    ttft = _with(first, known.ttft)
    if band is not None and ttft.p95_interval is not None and ttft.p95_interval.high is not None:
        wide = {"low": min(band[0], ttft.p95_interval.low), "high": max(band[1], ttft.p95_interval.high)}
        ttft = ttft.model_copy(update={"p95_interval": ttft.p95_interval.model_copy(update=wide)})
    both = {
        f"{name}_interval": _sum(getattr(ttft, f"{name}_interval"), getattr(latency.e2e_s, name), first, name, known)
        for name in ("mean", "p95")
    }
    return Latency(ttft_s=ttft, time_per_output_token_s=tokens, e2e_s=latency.e2e_s.model_copy(update=both))


def _with(curve: Percentiles, factors: Factors) -> Percentiles:
    return curve.model_copy(
        update={"mean_interval": interval(curve.mean, factors), "p95_interval": interval(curve.p95, factors)}
    )


def _sum(first: Interval, whole: float, ttft: Percentiles, name: str, known: Known) -> Interval:
    """The interval of the first token and that of the rest, end to end."""
    rest = interval(max(0.0, whole - getattr(ttft, name)), known.tpot)
    assert first.high is not None
    assert rest.high is not None
    return rest.model_copy(update={"low": first.low + rest.low, "high": first.high + rest.high})
