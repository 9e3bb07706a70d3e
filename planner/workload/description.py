"""What a trace is like: lengths, fits, burstiness, peaks, prefix reuse; and a workload file from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.workload.lengths import Gamma, Lengths, Lognormal
from planner.workload.traces import Trace

Vector = npt.NDArray[np.float64]
QUANTILES = (0.5, 0.9, 0.95, 0.99)
PEAK_WINDOW_S = 60.0
BINS = 48


@dataclass(frozen=True)
class Fit:
    """A fitted distribution and how far it is from the data: Kolmogorov-Smirnov distance, [1]."""

    name: str
    distribution: Lengths
    distance: float


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
class TraceDescription:
    """A trace in figures; ``None`` where the trace has no arrivals or no hashes.

    ``arrival_cv`` of the times between arrivals [1]; ``peak_to_mean`` of requests per minute [1];
    ``prefix_reuse`` share of input tokens an endless cache would hold [1]; ``correlation`` of input
    and output lengths [1].
    """

    name: str
    format: str
    requests: int
    dropped: int
    duration_s: float | None
    requests_per_second: float | None
    arrival_cv: float | None
    peak_to_mean: float | None
    prefix_reuse: float | None
    correlation: float
    input: LengthSummary
    output: LengthSummary


def describe_trace(trace: Trace) -> TraceDescription:
    """All figures of a trace, units as in :class:`TraceDescription`. Source: definitions."""
    duration = float(trace.arrival[-1]) if trace.timed else 0.0
    gaps = np.diff(trace.arrival)
    spread = len(trace) > 2 and trace.input.std() > 0 and trace.output.std() > 0
    return TraceDescription(
        trace.name,
        trace.format,
        len(trace),
        trace.dropped,
        duration if trace.timed else None,
        (len(trace) - 1) / duration if duration > 0 else None,
        float(gaps.std() / gaps.mean()) if duration > 0 else None,
        peak_to_mean(trace.arrival) if duration >= 2 * PEAK_WINDOW_S else None,
        None if trace.cached is None else float(trace.cached.sum() / trace.input.sum()),
        float(np.corrcoef(trace.input, trace.output)[0, 1]) if spread else 0.0,
        summarise(trace.input),
        summarise(trace.output),
    )


def peak_to_mean(arrival: Vector, window: float = PEAK_WINDOW_S) -> float:
    """Busiest window over the mean of full windows, [1]; arrival [s] from 0, window [s].

    Source: definition; the last, partial window is left out.

    >>> import numpy as np
    >>> peak_to_mean(np.array([0.0, 1, 2, 61, 121, 180]))
    1.8
    """
    full = max(1, int(arrival[-1] // window))
    counts = np.bincount((arrival[arrival < full * window] // window).astype(int), minlength=full)
    return float(round(counts.max() / counts.mean(), 12))


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
    q = (np.arange(512) + 0.5) / 512
    ordered = np.sort(lengths)
    found = []
    for name, distribution in candidates:
        at = np.searchsorted(ordered, distribution.quantile(q), side="right") / len(ordered)
        found.append(Fit(name, distribution, float(np.max(np.abs(at - q)))))
    return tuple(sorted(found, key=lambda f: f.distance))


def histogram(lengths: Vector, bins: int = BINS) -> tuple[list[float], list[int]]:
    """Edges [tokens] and counts of log-spaced bins that hold all lengths (n,). Source: definition."""
    low, high = max(1.0, float(np.floor(lengths.min()))), float(np.ceil(lengths.max())) + 1
    edges = np.unique(np.round(np.geomspace(low, max(high, low + 1), bins + 1)))
    counts, _ = np.histogram(lengths, edges)
    return [float(e) for e in edges], [int(c) for c in counts]


def workload_text(trace: Trace, described: TraceDescription, model: str) -> str:
    """A workload file with the trace's rate, peaks, burstiness and lengths as histograms.

    Input and output are taken as independent, which the file says. Source: the trace.
    """
    rate = described.requests_per_second
    lines = [
        f"# From {trace.name.rsplit('/', 1)[-1]}: {len(trace)} requests ({described.format}).",
        "# Input and output lengths are taken as independent; "
        f"in the trace they correlate {described.correlation:+.2f}.",
        f'model = "{model}"',
        "",
        "[demand]",
        f"requests_per_second = {rate:.6g}" if rate else "requests_per_second = 1.0   # the trace has no arrival times",
    ]
    if described.peak_to_mean is not None:
        lines.append(f"peak_to_mean = {described.peak_to_mean:.4g}          # busiest minute over the mean")
    if described.arrival_cv is not None:
        lines.append(f"arrival_cv = {described.arrival_cv:.4g}")
    lines += ["", "[context]"]
    if described.prefix_reuse is not None:
        lines.append(
            f"cached_fraction = {described.prefix_reuse:.4f}      # of an endless prefix cache: an upper bound"
        )
    lines += _histogram_lines("context", trace.input)
    lines += ["", "[answer]", *_histogram_lines("answer", trace.output)]
    lines += ["", "[slo]", 'ttft_p95 = "2s"             # yours to set', 'tpot_p95 = "50ms"', ""]
    return "\n".join(lines)


def _histogram_lines(name: str, lengths: Vector) -> list[str]:
    edges, counts = histogram(lengths)
    if len(counts) == 0 or edges[0] == edges[-1]:
        return [f"mean = {lengths.mean():.6g}", 'distribution = "constant"']
    return [
        "",
        f"[{name}.histogram]",
        "edges = [" + ", ".join(f"{e:g}" for e in edges) + "]",
        "weights = [" + ", ".join(str(c) for c in counts) + "]",
    ]
