"""A stopwatch that repeats: warm-up, groups of calls longer than the clock's grain, and the spread that remains."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MOST_CALLS = 2**20  # calls of one repetition, however short
FEWEST = 3  # repetitions of a machine that stalls


@dataclass(frozen=True)
class Sample:
    """Seconds of one call, [s], once per repetition; never empty."""

    seconds: tuple[float, ...]

    @property
    def best(self) -> float:
        """Shortest repetition, [s]: what the machine can do when nothing else runs."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """Median repetition, [s]."""
        return float(np.median(self.seconds))

    @property
    def spread(self) -> float:
        """90th less 10th percentile over the median, [1]: the noise between repetitions.

        >>> round(Sample((1.0, 1.0, 1.1, 1.2, 1.0)).spread, 3)
        0.16
        """
        low, high = np.quantile(self.seconds, (0.1, 0.9))
        return float((high - low) / self.median)

    @property
    def repetitions(self) -> int:
        """How often it was repeated, [1]."""
        return len(self.seconds)


def nothing() -> None:
    """What to wait for where calls return when they are done."""


@dataclass(frozen=True)
class Stopwatch:
    """How long and how often to repeat.

    ``budget`` [s] of one figure, ``least`` and ``most`` repetitions, each at least ``shortest`` [s]
    long; after ``longest`` [s] three repetitions are enough. ``clock`` gives seconds and ``wait`` returns
    when the device is idle.
    """

    budget: float = 1.0
    least: int = 7
    most: int = 100
    shortest: float = 2e-3
    longest: float = 4.0
    clock: Callable[[], float] = time.perf_counter
    wait: Callable[[], None] = nothing

    def time(self, call: Callable[[], object]) -> Sample:
        """Seconds of one ``call``, repeated: :class:`Sample`, [s].

        The first call, which allocates and compiles, is not counted; then the group of calls is doubled
        until it lasts ``shortest``, which warms up. Ends after ``budget`` or ``most`` repetitions and not
        before ``least``, unless those take ``longest``: a machine that stalls is not waited for.
        """
        self._group(call, 1)
        calls, elapsed = 1, self._group(call, 1)
        while elapsed < self.shortest and calls < MOST_CALLS:
            calls *= 2
            elapsed = self._group(call, calls)
        seconds: list[float] = []
        begun = self.clock()
        while len(seconds) < self.most:
            waited = self.clock() - begun
            enough = FEWEST if waited >= self.longest else self.least
            if waited >= self.budget and len(seconds) >= enough:
                break
            seconds.append(max(self._group(call, calls) / calls, 1e-12))  # a clock may stand still
        return Sample(tuple(seconds))

    def _group(self, call: Callable[[], object], calls: int) -> float:
        self.wait()
        begun = self.clock()
        for _ in range(calls):
            call()
        self.wait()
        return self.clock() - begun
