"""Whose seconds are whose: prefilled, cached and output tokens of a request in the plan's steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from planner.decisions.planned import Planned
from planner.serving.load import Load
from planner.sizing.disaggregated import Pair
from planner.sizing.operating import BATCHES, price_group
from planner.sizing.plan import step_model
from planner.sizing.pools import prompt_times
from planner.workload import Workload


@dataclass(frozen=True)
class Split:
    """Of one request, all its sequences: [tokens], and accelerator-seconds of steps [s].

    ``prompts`` [1] of the money falls to prompts where a pool of accelerators does nothing else; None: by seconds.
    """

    new: float
    cached: float
    output: float
    input_seconds: float
    cached_seconds: float
    output_seconds: float
    prompts: float | None = None

    @property
    def seconds(self) -> float:
        """All accelerator-seconds, [s]. Source: definition."""
        return self.input_seconds + self.cached_seconds + self.output_seconds

    @property
    def money(self) -> tuple[float, float, float]:
        """Shares of new, cached and output tokens in what a request costs, [1]. Source: definition.

        >>> Split(1, 1, 1, 2.0, 1.0, 1.0).money, Split(1, 1, 1, 2.0, 2.0, 1.0, prompts=0.5).money
        ((0.5, 0.25, 0.25), (0.25, 0.25, 0.5))
        """
        read = self.input_seconds + self.cached_seconds
        prompts = read / self.seconds if self.prompts is None else self.prompts
        new = self.input_seconds / read if read > 0 else 1.0
        return prompts * new, prompts * (1 - new), 1 - prompts


def split_of(base: Planned, workload: Workload) -> Split:
    """The seconds a request takes of the plan's accelerators, [s], at its replicas' mean batch at peak.

    A prompt takes what it adds to the steps it rides on; of that cached tokens take what reading them adds to
    the same prompt without them. An answer takes its share 1/B of every step it is in. Idle time and spares are
    nobody's: they fall to all in proportion. Of two pools each has steps of its own, and prompts pay the prefill
    pool whole, answers the decode pool.

    Source: definition, on the plan's own step times.
    """
    load, rows = base.found.load, base.best.rows
    batch = max(base.plan.mean_batch, 1.0)
    devices = float(np.asarray(base.best.seat.layout.devices))
    step = float(np.interp(batch, BATCHES, rows.steps[0]))
    answer = devices * load.decode_steps / float(rows.acceptance[0, 0]) * step / batch
    if base.pair is None:
        each, prompts = devices / float(rows.ranks[0, 0]), None
        prompt = each * float(np.interp(batch, BATCHES, rows.work[0]))
        alone = min(each * _uncached(base, load, batch), prompt)
    else:
        prompts = base.pair.prefill.gpus / base.pair.gpus
        # the simulation's mean batch counts its start, when replicas fill; no pool is busier than always
        pool = base.pair.decode
        answer = min(answer, devices * (pool.replicas - pool.spares) / base.pair.rate)
        prompt, alone = (_prefilled(base, base.pair, of) for of in (load, _nothing_cached(load)))
    k = load.fan_out
    new = float(np.average(load.new, weights=load.weights))
    read = max(workload.moments.mean_input - new, 0.0)
    return Split(
        k * new, k * read, k * load.mean_output, k * alone, k * (prompt - alone), k * answer, prompts
    )  # fmt: skip


def _uncached(base: Planned, load: Load, batch: float) -> float:
    """Seconds the new tokens of a prompt would add to its steps with nothing cached before them, [s]."""
    found, best = base.found, base.best
    rows = price_group(
        step_model(found, best.seat.precision), [best.seat], [best.rows.options[0]], _nothing_cached(load),
        found.engine.hybrid_kv_manager, best.rows.budget,
    )  # fmt: skip
    return float(np.interp(batch, BATCHES, rows.work[0]))


def _prefilled(base: Planned, pair: Pair, load: Load) -> float:
    """Accelerator-seconds a prompt takes of a full replica that only prefills, [s]."""
    seat = pair.prefill.seat
    times = prompt_times(step_model(base.found, seat.precision), [seat], load, pair.prefill.rows.budget)
    return float(np.asarray(seat.layout.devices)) * float(times.mean(times.work)[0, 0])


def _nothing_cached(load: Load) -> Load:
    return replace(load, cached=np.zeros_like(load.cached))
