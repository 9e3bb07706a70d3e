"""How arrivals spread over time: rate, peaks, and burstiness within and beyond a minute."""

from __future__ import annotations

import numpy as np

from planner.workload.traces import Trace, Vector

WINDOW_S = 60.0
#: arrivals a stretch holds on average for its gaps to say something
PER_STRETCH = 30
#: share of requests with the same stamp as the one before from which a clock may be coarse
SHARED = 0.3


def mean_rate(trace: Trace) -> float | None:
    """Requests per second [1/s]: the file's own, else gaps over their sum; None without times."""
    if trace.rate is not None:
        return trace.rate
    duration = float(trace.arrival[-1])
    return (len(trace) - 1) / duration if trace.timed and duration > 0 else None


def window_counts(arrival: Vector, window: float = WINDOW_S) -> Vector:
    """Arrivals in each full window, (windows,), [1]; arrival [s] from 0, window [s].

    The last, partial window is left out. Source: definition.

    >>> window_counts(np.array([0.0, 1, 2, 61, 121, 180])).tolist()
    [3.0, 1.0, 1.0]
    """
    full = max(1, int(arrival[-1] // window))
    inside = arrival[arrival < full * window]
    return np.bincount((inside // window).astype(np.int64), minlength=full).astype(float)


def peak_to_mean(arrival: Vector, window: float = WINDOW_S) -> float | None:
    """Busiest window over the mean of full windows, [1]; None with fewer than two windows.

    Source: definition.

    >>> peak_to_mean(np.array([0.0, 1, 2, 61, 121, 180]))
    1.8
    """
    if arrival[-1] < 2 * window:
        return None
    counts = window_counts(arrival, window)
    return float(round(counts.max() / counts.mean(), 12))


def dispersion(arrival: Vector, window: float = WINDOW_S) -> float | None:
    """Index of dispersion: variance over mean of the counts per window, [1]; 1 for Poisson.

    None with fewer than two windows. Source: Cox and Lewis, The Statistical Analysis of Series of Events.

    >>> dispersion(np.array([0.0, 1, 2, 61, 121, 180]))
    0.8
    """
    if arrival[-1] < 2 * window:
        return None
    counts = window_counts(arrival, window)
    return float(round(counts.var(ddof=1) / counts.mean(), 12))


def clock_tick(arrival: Vector) -> float | None:
    """Step of a coarse clock that arrivals were stamped with, [s]; None when they were not.

    Many requests share a stamp, and stamps lie whole steps apart. Source: Mooncake's traces, stamped
    every three seconds.

    >>> clock_tick(np.repeat(np.arange(0.0, 30.0, 3.0), 4)), clock_tick(np.array([0.0, 0, 1.3, 1.3, 2.1]))
    (3.0, None)
    """
    gaps = np.diff(arrival)
    apart = gaps[gaps > 0]
    if len(apart) < 3 or np.mean(gaps == 0) < SHARED:
        return None
    tick = float(np.median(apart))
    off = np.abs(apart / tick - np.maximum(1, np.round(apart / tick)))
    return tick if np.mean(off < 0.01) > 0.9 else None


def spread_over_ticks(arrival: Vector) -> Vector:
    """Arrivals of a coarse clock spread at random over each step, the same every time, (n,), [s].

    Left as they are when the clock is not coarse. Source: given their number, Poisson arrivals in an
    interval are uniform in it.
    """
    tick = clock_tick(arrival)
    if tick is None:
        return arrival
    spread = np.sort(arrival + tick * np.random.default_rng(0).random(len(arrival)))
    return np.asarray(spread - spread[0], dtype=float)


def gap_cv(arrival: Vector) -> float | None:
    """Coefficient of variation of all times between arrivals, [1]; None when they are all at once.

    It holds the slow rise and fall of the rate as well. Source: definition.
    """
    gaps = np.diff(arrival)
    return float(gaps.std() / gaps.mean()) if len(gaps) > 1 and gaps.sum() > 0 else None


def local_cv(arrival: Vector) -> float | None:
    """Coefficient of variation of the gaps within a minute, [1], against that minute's own mean gap.

    What a queue sees at a given rate: the rise and fall of the rate from minute to minute is in
    :func:`peak_to_mean` and would be counted twice. A stretch is a minute, or as long as holds thirty
    arrivals. Stamps of a coarse clock are spread first: they are no bursts. None with too few arrivals.

    Source: pooled variance of normalised gaps.

    >>> arrival = np.cumsum(np.random.default_rng(3).exponential(np.repeat([0.1, 2.0], 20_000)))
    >>> round(local_cv(arrival - arrival[0]), 2), round(gap_cv(arrival), 2)
    (1.0, 1.62)
    """
    if len(arrival) < PER_STRETCH or arrival[-1] <= 0:
        return gap_cv(arrival)
    arrival = spread_over_ticks(arrival)
    stretch = max(WINDOW_S, PER_STRETCH * float(arrival[-1]) / len(arrival))
    place = (arrival // stretch).astype(np.int64)
    gaps = np.diff(arrival)
    within = place[1:] == place[:-1]
    place, gaps = place[1:][within], gaps[within]
    counts = np.bincount(place)
    total = np.bincount(place, gaps)
    squares = np.bincount(place, gaps * gaps)
    use = (counts >= 3) & (total > 0)
    if not use.any():
        return gap_cv(arrival)
    n, mean = counts[use], total[use] / counts[use]
    spread = squares[use] / mean**2 - n  # sum of squared normalised deviations
    return float(np.sqrt(max(0.0, spread.sum()) / (n - 1).sum()))
