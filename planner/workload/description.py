"""What a trace is like: lengths, fits, burstiness, peaks, prefix reuse, correlation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.workload.lengths import Gamma, Lengths, Lognormal
from planner.workload.traces import Trace
from planner.workload.traffic import clock_tick, dispersion, gap_cv, local_cv, mean_rate, peak_to_mean

Vector = npt.NDArray[np.float64]
QUANTILES = (0.5, 0.9, 0.95, 0.99)
BINS = 48
#: points a fit is compared at
POINTS = 512


@dataclass(frozen=True)
class Fit:
    """A fitted distribution and how far it is from the data: ``distance`` of Kolmogorov and Smirnov, and
    ``p99_error`` its 99th percentile against the data's, relative, [1].
    """

    name: str
    distribution: Lengths
    distance: float
    p99_error: float


@dataclass(frozen=True)
class LengthSummary:
    """Lengths of one kind, [tokens]: mean, cv [1], percentiles, and fits, best first."""

    mean: float
    cv: float
    p50: float
    p90: float
    p95: float
    p99: float
    longest: float
    fits: tuple[Fit, ...]


@dataclass(frozen=True)
class KindSummary:
    """One kind of request in a trace, such as a log type: share [1], median lengths [tokens]."""

    name: str
    share: float
    input_p50: float
    output_p50: float


@dataclass(frozen=True)
class TraceDescription:
    """A trace in figures; ``None`` where the trace does not tell.

    ``arrival_cv`` of all times between arrivals and ``local_cv`` of those within a minute [1];
    ``dispersion`` variance over mean of requests per minute [1]; ``peak_to_mean`` of requests per
    minute [1]; ``concurrency`` of a closed loop [1]; ``prefix_reuse`` share of input tokens, and
    ``block_reuse`` share of prompt blocks, an endless cache would hold [1]; ``correlation`` of input and
    output lengths, and ``rank_correlation`` of their ranks [1].
    """

    name: str
    format: str
    requests: int
    dropped: int
    duration_s: float | None
    requests_per_second: float | None
    concurrency: float | None
    arrival_cv: float | None
    local_cv: float | None
    dispersion: float | None
    peak_to_mean: float | None
    prefix_reuse: float | None
    block_reuse: float | None
    correlation: float
    rank_correlation: float
    input: LengthSummary
    output: LengthSummary
    kinds: tuple[KindSummary, ...]
    notes: tuple[str, ...]


def describe_trace(trace: Trace) -> TraceDescription:
    """All figures of a trace, units as in :class:`TraceDescription`. Source: definitions."""
    duration = float(trace.arrival[-1]) if trace.timed else 0.0
    timed = duration > 0
    spread = trace.paired and len(trace) > 2 and trace.input.std() > 0 and trace.output.std() > 0
    return TraceDescription(
        trace.name,
        trace.format,
        trace.requests or len(trace),
        trace.dropped,
        duration if trace.timed else None,
        mean_rate(trace),
        trace.concurrency,
        gap_cv(trace.arrival) if timed else None,
        local_cv(trace.arrival) if timed else None,
        dispersion(trace.arrival) if timed else None,
        trace.peak or (peak_to_mean(trace.arrival) if timed else None),
        None if trace.cached is None else float(trace.cached.sum() / trace.input.sum()),
        None if trace.hashes is None else float(trace.hashes.leading_hits().sum() / len(trace.hashes.ids)),
        _correlation(trace.input, trace.output) if spread else 0.0,
        _correlation(_ranks(trace.input), _ranks(trace.output)) if spread else 0.0,
        summarise(trace.input),
        summarise(trace.output),
        _kinds(trace),
        (*trace.notes, *_clock(trace)),
    )


def _clock(trace: Trace) -> tuple[str, ...]:
    tick = clock_tick(trace.arrival) if trace.timed else None
    if tick is None:
        return ()
    return (f"arrivals are stamped every {tick:.3g} s: within a minute they are taken as spread over that step",)


def _correlation(x: Vector, y: Vector) -> float:
    return float(np.corrcoef(x, y)[0, 1])


def _ranks(x: Vector) -> Vector:
    """Ranks, equal values sharing the middle one, (n,), [1]."""
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place], dtype=float)


def _kinds(trace: Trace) -> tuple[KindSummary, ...]:
    if trace.kinds is None:
        return ()
    found = []
    for index, name in enumerate(trace.kind_names):
        of = trace.kinds == index
        if of.any():
            i, o = float(np.median(trace.input[of])), float(np.median(trace.output[of]))
            found.append(KindSummary(name, float(of.mean()), i, o))
    return tuple(found)


def summarise(lengths: Vector) -> LengthSummary:
    """Mean, spread, percentiles and fits of lengths (n,), [tokens]. Source: definitions."""
    p50, p90, p95, p99 = (float(x) for x in np.quantile(lengths, QUANTILES))
    mean = float(lengths.mean())
    cv = float(lengths.std() / mean)
    return LengthSummary(mean, cv, p50, p90, p95, p99, float(lengths.max()), fit(lengths))


def fit(lengths: Vector) -> tuple[Fit, ...]:
    """Lognormal by log moments and gamma by moments, best first; lengths (n,) [tokens].

    Source: moment estimators; distance of Kolmogorov and Smirnov.
    """
    logs = np.log(lengths)
    if logs.std() < 1e-9:
        return ()
    candidates: list[tuple[str, Lengths]] = [
        ("lognormal", Lognormal(float(logs.mean()), float(logs.std()))),
        ("gamma", Gamma.from_mean(float(lengths.mean()), float(lengths.std() / lengths.mean()))),
    ]
    q = (np.arange(POINTS) + 0.5) / POINTS
    ordered = np.sort(lengths)
    p99 = float(np.quantile(ordered, 0.99))
    found = []
    for name, distribution in candidates:
        at = np.searchsorted(ordered, distribution.quantile(q), side="right") / len(ordered)
        tail = float(distribution.quantile(0.99)) / p99 - 1
        found.append(Fit(name, distribution, float(np.max(np.abs(at - q))), tail))
    return tuple(sorted(found, key=lambda f: f.distance))


def histogram(lengths: Vector, bins: int = BINS) -> tuple[list[float], list[int]]:
    """Edges [tokens] and counts of log-spaced bins that hold all lengths (n,).

    Edges lie halfway between whole numbers, so that a bin's middle is the mean of what it can hold.

    >>> histogram(np.array([1.0, 1, 2, 3]), 3)
    ([0.5, 1.5, 2.5, 3.5], [2, 1, 1])
    """
    low, high = float(np.floor(lengths.min() + 0.5)), float(np.floor(lengths.max() + 0.5)) + 1
    edges = np.unique(np.round(np.geomspace(max(low, 1.0), max(high, low + 1), bins + 1))) - 0.5
    counts, _ = np.histogram(lengths, edges)
    return [float(e) for e in edges], [int(c) for c in counts]
