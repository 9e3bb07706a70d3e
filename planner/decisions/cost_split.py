"""Whose seconds are whose: prefilled, cached and output tokens of a request in the plan's steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from planner.decisions.planned import Planned
from planner.serving.load import Load
from planner.sizing.operating import BATCHES, price_group
from planner.sizing.plan import step_model
from planner.workload import Workload


@dataclass(frozen=True)
class Split:
    """Of one request, all its sequences: [tokens], and accelerator-seconds of steps [s]."""

    new: float
    cached: float
    output: float
    input_seconds: float
    cached_seconds: float
    output_seconds: float

    @property
    def seconds(self) -> float:
        """All accelerator-seconds, [s]. Source: definition."""
        return self.input_seconds + self.cached_seconds + self.output_seconds


def split_of(base: Planned, workload: Workload) -> Split:
    """The seconds a request takes of the plan's accelerators, [s], at its replicas' mean batch at peak.

    A prompt takes what it adds to the steps it rides on; of that cached tokens take what reading them adds to
    the same prompt without them. An answer takes its share 1/B of every step it is in. Idle time and spares are
    nobody's: they fall to all in proportion.

    Source: definition, on the plan's own step times.
    """
    load, rows = base.found.load, base.best.rows
    batch = max(base.plan.mean_batch, 1.0)
    devices = float(np.asarray(base.best.seat.layout.devices))
    ranks = float(rows.ranks[0, 0])
    prompt = float(np.interp(batch, BATCHES, rows.work[0])) / ranks
    alone = min(_uncached(base, load, batch) / ranks, prompt)
    step = float(np.interp(batch, BATCHES, rows.steps[0]))
    answer = load.decode_steps / float(rows.acceptance[0, 0]) * step / batch
    k = load.fan_out
    new = float(np.average(load.new, weights=load.weights))
    read = max(workload.moments.mean_input - new, 0.0)
    each = k * devices
    return Split(
        k * new, k * read, k * load.mean_output, each * alone, each * (prompt - alone), each * answer
    )  # fmt: skip


def _uncached(base: Planned, load: Load, batch: float) -> float:
    """Seconds the new tokens of a prompt would add to its steps with nothing cached before them, [s]."""
    found, best = base.found, base.best
    bare = replace(load, cached=np.zeros_like(load.cached))
    rows = price_group(
        step_model(found, best.seat.precision), [best.seat], [best.rows.options[0]], bare,
        found.engine.hybrid_kv_manager, best.rows.budget,
    )  # fmt: skip
    return float(np.interp(batch, BATCHES, rows.work[0]))
