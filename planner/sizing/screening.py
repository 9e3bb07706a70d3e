"""A first look at every operating point: which candidates deserve the exact queueing formulae."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.hardware import Assumptions
from planner.serving.latency import percentiles
from planner.serving.load import Load
from planner.sizing.operating import BATCHES, Rows
from planner.workload import Slo

Matrix = npt.NDArray[np.float64]
Z = {"mean": 0.0, "p50": 0.0, "p95": 1.6449, "p99": 2.3263}
TAIL = {"mean": None, "p50": 0.5, "p95": 0.95, "p99": 0.99}
#: candidates this much outside a limit are still looked at exactly
SLACK = 1.15


@dataclass(frozen=True)
class Screened:
    """Best operating point of each row: sequences per second and replica, and how far off limits.

    All (rows,): ``rate`` [1/s] (0: no point within the slack), ``violation`` [1] at the least bad
    point, ``batch`` [sequences] there and ``constraint`` its name; ``e2e`` [s] mean at ``rate``.
    """

    rate: Matrix
    violation: Matrix
    batch: Matrix
    constraint: tuple[str, ...]
    e2e: Matrix


def screen(rows: Rows, load: Load, slos: Sequence[Slo], constants: Assumptions) -> Screened:
    """Judge every row at every batch with first-order formulae.

    Mean batch n gives the rate by Little's law, Poisson spread of n gives percentiles.
    Source: the first-order forms of :mod:`planner.serving`; only ranks, never reported.
    """
    n = BATCHES[None, :]
    steps_needed = load.decode_steps / rows.acceptance
    group = float(load.fan_out)
    # optimistic where ranks prefill side by side: as if they shared every prompt evenly
    rate = 1 / (steps_needed * rows.steps / n + rows.work / rows.ranks)
    rho = rate * rows.work / rows.ranks
    gap = rows.steps / (rows.acceptance * (1 - rho))
    elasticity = np.gradient(np.log(rows.steps), np.log(BATCHES), axis=1)
    scatter = rows.work_second + (group * load.arrival_cv2(rate) - 1) * rows.work**2
    wait = rate * scatter / rows.ranks / (2 * (1 - rho)) + (group - 1) / 2 * rows.work / rows.ranks
    violations: dict[str, Matrix] = {
        "kv memory": (n * rows.kv_mean + constants.kv_tail * np.sqrt(n * rows.kv_second))
        / np.maximum(rows.kv_room, 1.0),
        "slots": (n + 3 * np.sqrt(n)) / np.maximum(rows.slots, 1e-9),
    }
    e2e_mean = _first_token(rows, load, "mean", wait, rho, load.weights) + (
        np.average(load.joined, weights=load.weights) * gap
    )
    for slo in slos:
        weights = load.class_weights(slo.class_name)
        if slo.metric in ("tpot", "itl"):
            spread = (1 + 1.2 * Z[slo.statistic] / np.sqrt(n)) ** np.maximum(elasticity, 0)
            got = gap * spread
        else:
            got = _first_token(rows, load, slo.statistic, wait, rho, weights)
            if slo.metric == "e2e":
                curve = percentiles(load.joined[None, :], weights)
                got = got + float(curve.statistic(slo.statistic)[0, 0]) * gap
        violations[f"{slo.metric}_{slo.statistic}"] = got / slo.limit_s
    stacked = np.stack([np.broadcast_to(v, rows.steps.shape) for v in violations.values()])
    worst = stacked.max(axis=0)
    within = worst <= SLACK
    best = np.where(within, rate, 0.0)
    at = best.argmax(axis=1)
    nearest = worst.argmin(axis=1)
    pick = np.arange(len(rows))
    names = tuple(violations)
    blame = stacked.argmax(axis=0)[pick, nearest]
    return Screened(
        best[pick, at],
        worst[pick, nearest],
        BATCHES[nearest],
        tuple(names[i] for i in blame),
        e2e_mean[pick, at],
    )


def _first_token(
    rows: Rows,
    load: Load,
    statistic: str,
    wait: Matrix,
    rho: Matrix,
    weights: Matrix,
) -> Matrix:
    first, inverse = rows.by_seat()
    q = TAIL[statistic]
    if q is None:
        share = weights / weights.sum()
        own, chunks = (rows.own[first] @ share)[inverse, None], (rows.chunks[:1] @ share)[:, None]
        queue = wait
    else:
        own = percentiles(rows.own[first], weights).statistic(statistic)[inverse]
        chunks = percentiles(rows.chunks[:1], weights).statistic(statistic)  # a prompt's, wherever it runs
        r = np.maximum(rho, 1e-9)
        queue = np.maximum(0.0, -np.log(1 - q) + np.log(r)) * wait / r
    return rows.request_overhead + own + (0.5 + chunks) * rows.steps + queue
