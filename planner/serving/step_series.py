"""How many steps of a stretch there are before an arrival: steps that get longer, one after another."""

from __future__ import annotations

import math
from collections.abc import Sequence

from planner.serving.step_time import StepTime


def steps_until(wait: float, base: float, slope: float, limit: int) -> int:
    """Fewest steps whose time reaches ``wait`` [s], of times base, base + slope, … [s]; 1 to ``limit``.

    Source: the positive root of the series' quadratic.

    >>> steps_until(0.35, 0.1, 0.0, 100), steps_until(0.35, 0.1, 0.1, 100)
    (4, 3)
    """
    if wait <= base:
        return 1
    if slope > 0:
        half = base - slope / 2
        guess = (math.sqrt(half * half + 2 * slope * wait) - half) / slope
    else:
        guess = wait / base if base > 0 else limit
    if guess >= limit + 1:
        return limit
    k = max(1, min(limit, math.ceil(guess) - 1))
    while k < limit and k * base + slope * k * (k - 1) / 2 < wait:
        k += 1
    return k


def chunk_steps(
    step_time: StepTime,
    batch: int,
    chunks: Sequence[tuple[int, int]],
    wait: float,
    base: float,
    slope: float,
    limit: int,
) -> tuple[int, float]:
    """Steps, up to ``limit`` [1], that prefill chunk after chunk, the last begun within ``wait``, and their time [s].

    ``chunks``: tokens and those before them of each prompt's first [tokens], beside decodes of ``base``,
    ``base + slope``, … [s]. Often not the most there are, and fewer than two when it does not pay.
    Source: the first chunk is the shortest, so the mean of fewer chunks is no longer.

    >>> from planner.serving import LinearStepTime
    >>> chunk_steps(LinearStepTime(0, 0, 0, 1e-3), 0, [(100, 0)], 0.35, 0.0, 0.0, 9)
    (4, 0.4)
    """
    if limit > 1 and wait != math.inf:
        limit = min(limit, 1 + int(wait / (base + step_time.prefill(batch, chunks))))
    while limit > 1:
        ahead, last = limit - 1, 0.0
        seconds = limit * base + slope * limit * ahead / 2 + step_time.prefill_run(batch, chunks, limit)
        if seconds > wait:
            last = base + slope * ahead + step_time.prefill(batch, [(t, k + ahead * t) for t, k in chunks])
        if seconds <= wait or seconds - last < wait:
            return limit, seconds
        limit = min(ahead, 1 + int(limit * wait / seconds))
    return limit, 0.0
