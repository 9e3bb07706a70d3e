"""Where a curve of speed-ups crosses one: the batch or context at which speculation starts or stops to pay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Crossing:
    """Where a speed-up crosses the level: ``at`` [1], and whether it pays beyond."""

    at: float
    pays_beyond: bool


def crossings(at: Vector, speedup: Vector, level: float = 1.0) -> tuple[Crossing, ...]:
    """Where ``speedup`` (n,) [1] over ``at`` (n,) [sequences] or [tokens] crosses ``level``, in order.

    Both are interpolated by their logarithms; a stretch without a figure (nan) has no crossing at its ends.
    Source: definition.

    >>> [c.at for c in crossings(np.array([1.0, 4.0, 16.0]), np.array([2.0, 1.0, 0.5]))]
    [4.0]
    """
    y = np.log(speedup) - np.log(level)
    x = np.log(at)
    above = y > 0
    known = np.isfinite(y[:-1]) & np.isfinite(y[1:])
    found = []
    for i in np.flatnonzero((above[:-1] != above[1:]) & known):
        share = y[i] / (y[i] - y[i + 1])
        where = float(np.exp(x[i] + share * (x[i + 1] - x[i])))
        found.append(Crossing(round(where, 9), bool(above[i + 1])))
    return tuple(found)
