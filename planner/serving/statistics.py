"""What a finished simulation says: percentiles with their uncertainty, Little's law, a verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from planner.serving.requests import RequestRecord

Vector = npt.NDArray[np.float64]
Verdict = Literal["stable", "backlogged", "overloaded"]
BATCHES = 20  # the sample is cut into, for the interval of its mean
STUDENT_T = 2.093  # 97.5 % point at BATCHES - 1 degrees of freedom
WARM_UP = 0.1  # share of requests at the start left out of statistics


@dataclass(frozen=True)
class Distribution:
    """Mean and percentiles of a latency, [s]; ``half_width`` of the mean's 95 % interval [s], or None."""

    mean: float
    p50: float
    p95: float
    p99: float
    half_width: float | None = None


def distribution(sample: Vector) -> Distribution:
    """Percentiles of a sample in order of time, (n,), [s], and the interval of its mean by batch means.

    Source: Law & Kelton, "Simulation Modeling and Analysis" (batch means); twenty batches, at least
    five points each, else no interval.

    >>> import numpy as np
    >>> distribution(np.arange(1.0, 101.0)).p95
    95.0
    """
    if not len(sample):
        return Distribution(0.0, 0.0, 0.0, 0.0)
    p50, p95, p99 = (float(x) for x in np.quantile(sample, (0.5, 0.95, 0.99), method="inverted_cdf"))
    each = len(sample) // BATCHES
    half = None
    if each >= 5:
        means = sample[-each * BATCHES :].reshape(BATCHES, each).mean(axis=1)
        half = float(STUDENT_T * means.std(ddof=1) / np.sqrt(BATCHES))
    return Distribution(float(sample.mean()), p50, p95, p99, half)


@dataclass(frozen=True)
class Columns:
    """Records as arrays after a warm-up, in order of arrival: latencies (n,), [s].

    ``tpot`` leaves out requests of a single token.
    """

    ttft: Vector
    tpot: Vector
    e2e: Vector


def columns(
    records: Sequence[RequestRecord], warm_up: float = WARM_UP, cool_down: float = 0.0, kind: str | None = None
) -> Columns:
    """Latencies without the first ``warm_up`` and last ``cool_down`` share [1] of arrivals, [s].

    Of one class if named.

    Source: definitions of TTFT, time per output token and end-to-end time.
    """
    kept = slice(int(warm_up * len(records)), len(records) - int(cool_down * len(records)))
    ordered = sorted(records, key=lambda r: r.arrival_s)[kept]
    if kind is not None:
        ordered = [r for r in ordered if r.request_class == kind]
    arrival = np.array([r.arrival_s for r in ordered])
    first = np.array([r.first_token_s for r in ordered])
    end = np.array([r.completion_s for r in ordered])
    tokens = np.array([r.output_tokens for r in ordered])
    several = tokens > 1
    return Columns(first - arrival, (end - first)[several] / (tokens[several] - 1), end - arrival)


def in_system(records: Sequence[RequestRecord], entry: Callable[[RequestRecord], float]) -> tuple[Vector, Vector]:
    """How long [s] each number of requests was between ``entry`` and completion: (n,) times by number from 0.

    Also the numbers, (n,), [1]. Source: definition; its mean obeys Little's law exactly.
    """
    starts = np.array([entry(r) for r in records])
    ends = np.array([r.completion_s for r in records])
    times = np.concatenate([starts, ends])
    change = np.concatenate([np.ones(len(starts)), -np.ones(len(ends))])
    order = np.lexsort((change, times))
    level = np.cumsum(change[order])
    span = np.diff(times[order], append=times[order][-1:])
    held: Vector = np.bincount(np.maximum(level, 0).astype(int), weights=span).astype(float)
    return held, np.arange(len(held), dtype=float)


def occupancy_quantile(held: Vector, q: float) -> float:
    """Smallest number in the system not exceeded for a share ``q`` [1] of the time, [requests].

    ``held`` [s] by number, as :func:`in_system` gives it. Source: definition.

    >>> import numpy as np
    >>> occupancy_quantile(np.array([5.0, 4.0, 1.0]), 0.95)
    2.0
    """
    share = np.cumsum(held) / held.sum()
    return float(np.searchsorted(share, q - 1e-12))


def verdict(records: Sequence[RequestRecord]) -> Verdict:
    """``stable``; ``backlogged``: a queue that had not drained; ``overloaded``: one that kept growing.

    Requests in the system over four quarters of the arrivals, once the first have left again: an overload
    grows from each to the next, a good part of it before the last, by more than twice what chance makes
    of a queue at its very limit, a random walk of ``ca^2 + cs^2`` [1] per arrival. By more than once is
    a backlog, as is a last quarter twice as full as the median of the others. Units: none.

    Source: the heavy-traffic limit of a queue, Kingman 1962, as a test of trend; a rule of thumb.
    """
    ordered = sorted(records, key=lambda r: r.arrival_s)
    early = ordered[: 1 + len(ordered) // 10]
    filled = sum(r.completion_s for r in early) / max(1, len(early))
    arrivals = np.array([r.arrival_s for r in ordered])
    ends = np.sort([r.completion_s for r in ordered])
    count = np.arange(1, len(arrivals) + 1) - np.searchsorted(ends, arrivals, side="right")
    arrivals, count = arrivals[arrivals > filled], count[arrivals > filled]
    if len(arrivals) < 40:
        return "stable"
    quarters = [float(part.mean()) for part in np.array_split(count, 4)]
    growing = all(b > a for a, b in pairwise(quarters))
    grown = quarters[3] - quarters[0]
    gaps, lengths = np.diff(arrivals), np.array([float(r.output_tokens) for r in records])
    spread = sum(float(x.var() / max(x.mean(), 1e-300) ** 2) for x in (gaps, lengths))
    chance = max(1.0, float(np.sqrt(spread * len(arrivals))))
    steadily = growing and quarters[2] - quarters[0] > 0.4 * grown
    if steadily and grown > 2 * chance:
        return "overloaded"
    sudden = quarters[3] > 2 * max(1.0, float(np.median(quarters[:3])))
    return "backlogged" if sudden or (steadily and grown > chance) else "stable"
