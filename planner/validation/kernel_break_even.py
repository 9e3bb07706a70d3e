"""The context from which sparse attention is faster than dense, measured and predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.hardware import Database
from planner.validation.kernel_modules import contexts_of, curves_of, pairs_of
from planner.validation.kernel_rows import Outcome, Row, Vector

#: farthest context at which a predicted break-even is looked for, [tokens]
FARTHEST = 2.0**21


@dataclass(frozen=True)
class BreakEven:
    """Context from which sparse attention is faster than dense, [tokens]; None: not within the table.

    ``predicted`` may lie beyond the table; None: not below two million tokens. ``longest`` the table measured.
    """

    accelerator: str
    engine: str
    weights: str
    kv: str
    heads: int
    batch: float
    measured: float | None
    predicted: float | None
    longest: float

    @property
    def factor(self) -> float:
        """How far apart both are, at least 1, [1]: a context beyond the table counts as its longest.

        >>> BreakEven("h200-sxm", "vllm", "bf16", "bf16", 128, 8, 60000.0, 50000.0, 131072.0).factor
        1.2
        """
        measured = min(self.measured or self.longest, self.longest)
        predicted = self.predicted or math.inf
        if self.measured is None:
            predicted = min(predicted, self.longest)
        return max(measured / predicted, predicted / measured)


def crossing(contexts: Vector, gain: Vector) -> float | None:
    """The context from which ``gain`` stays above 1, [tokens], between points on log scales; None if it ends below.

    >>> round(crossing(np.array([1024.0, 4096.0]), np.array([0.5, 2.0])), 6), crossing(np.ones(2), np.zeros(2))
    (2048.0, None)
    """
    there = ~np.isnan(gain)
    x, y = np.log(contexts[there]), np.log(np.maximum(gain[there], 1e-9))
    if not len(y) or y[-1] < 0:
        return None
    below = np.flatnonzero(y < 0)
    if not len(below):
        return float(np.exp(x[0]))
    i = int(below[-1])
    return float(np.exp(x[i] - y[i] * (x[i + 1] - x[i]) / (y[i + 1] - y[i])))


def break_even_contexts(rows: Sequence[Row], database: Database) -> list[BreakEven]:
    """Where DSA overtakes MLA, measured and predicted, for every pair of rows of a module table, [tokens].

    Measured between the table's contexts on log scales; predicted on a finer grid of the same model.
    Source: :class:`Module`.
    """
    if not rows:
        return []
    _, contexts = contexts_of(rows)
    fine = np.geomspace(contexts[0], FARTHEST, 400)
    found = []
    for sparse, dense in pairs_of(curves_of(rows, Outcome(""), database.uncalibrated())):
        batch = np.array([sparse.batch])
        gain = dense.module.seconds(batch, fine) / sparse.module.seconds(batch, fine)
        measured = dense.measured / sparse.measured
        if np.isnan(measured).all():
            continue
        longest = float(contexts[~np.isnan(measured)][-1])
        found.append(BreakEven(
            sparse.module.bench.chip.name, sparse.module.bench.engine, sparse.module.weights, sparse.module.kv,
            int(sparse.labels["heads"]), sparse.batch, crossing(contexts, measured), crossing(fine, gain), longest,
        ))  # fmt: skip
    return found
