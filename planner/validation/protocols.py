"""Benchmarks as they were run, in the simulator: closed loop, everything queued, static batch, open loop."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.cost.memory import CacheLayout
from planner.cost.speculation import Drafter
from planner.errors import InputError
from planner.hardware import Database
from planner.serving.engine_limits import EngineLimits
from planner.serving.model_step_time import model_step_time
from planner.serving.requests import Requests
from planner.serving.simulator import run_replica
from planner.serving.statistics import Distribution, distribution
from planner.serving.step_time import StepTime
from planner.sizing.configuration import EstimateRequest, Setup, machine_of, set_up
from planner.sizing.footprint import footprint
from planner.validation.points import MeasuredPoint, Workers

Vector = npt.NDArray[np.float64]
#: most requests of one simulated benchmark, and waves of an offline one
MOST_REQUESTS = 4096
OFFLINE_WAVES = 3
#: most sequences an offline benchmark lets an engine serve at once
OFFLINE_SEQUENCES = 4096
NONE = Drafter("none", 0)
#: requests of a closed loop that are sent together reach the engine one after the other; it begins with the first [s]
APART_SECONDS = 1e-6


@dataclass(frozen=True)
class Prediction:
    """What a benchmark would measure: latencies in seconds, output tokens per second and accelerator."""

    ttft: Distribution
    tpot: Distribution
    e2e: Distribution
    throughput: float

    def value(self, metric: str, statistic: str) -> float:
        """One figure, [s] or [tokens/s]. Source: definition."""
        if metric == "throughput":
            return self.throughput
        return float(getattr(getattr(self, metric), statistic))


@dataclass(frozen=True)
class Replica:
    """One set of workers ready to be simulated: its step and what bounds it."""

    setup: Setup
    step_time: StepTime
    limits: EngineLimits
    request_overhead_s: float


def set_up_point(point: MeasuredPoint, workers: Workers, database: Database) -> Setup:
    """What the point's configuration names, looked up; InputError when it cannot be. Source: the database."""
    request = EstimateRequest(
        point.model, point.accelerator, workers.tensor, point.pipeline, workers.expert, workers.data,
        point.weights, point.kv, point.engine,
    )  # fmt: skip
    return set_up(request, database, ())


def replica_of(point: MeasuredPoint, workers: Workers, database: Database, sequences: int) -> Replica:
    """The point's model on ``workers``, for up to ``sequences`` at once; InputError when it cannot be.

    Source: :func:`planner.serving.model_step_time.model_step_time`; the engine's memory rule.
    """
    setup = set_up_point(point, workers, database)
    machine = machine_of(setup)
    longest = point.input_tokens + point.output_tokens
    recorded = point.recipe.budget(point.input_tokens, max(1, point.concurrency // workers.data))
    budget = recorded or setup.engine.max_batched_tokens(setup.chip.memory_bytes)
    kv_tokens = _kv_tokens(setup, longest)
    block = setup.engine.block_tokens
    if kv_tokens < longest + 2 * block:
        raise InputError(f"{point.model} does not fit {setup.chip.name} with tensor parallelism {workers.tensor}")
    fitting = int(kv_tokens // max(1.0, point.input_tokens))
    sequences = max(1, min(sequences, fitting))
    step = model_step_time(setup.step, NONE, machine, setup.layout, sequences=sequences, budget=budget, longest=longest)
    limits = EngineLimits(
        token_budget=max(budget * workers.data, sequences), max_sequences=sequences, kv_tokens=kv_tokens,
        block_tokens=block, max_chunk_tokens=budget, mixed=setup.engine.mixed_steps,
    )  # fmt: skip
    return Replica(setup, step, limits, float(np.asarray(machine.request_overhead)))


def _kv_tokens(setup: Setup, context: float) -> int:
    """Tokens the replica's caches hold together."""
    room = footprint(setup.step, setup.chip, setup.engine, setup.layout).kv_room
    cache = CacheLayout(setup.model.layers, setup.precision.kv, setup.engine.hybrid_kv_manager)
    each = float(np.asarray(cache.allocated(context, setup.layout) + cache.state(setup.layout)))
    return int(max(room, 0.0) / each * context * float(setup.layout.data))


def predict(point: MeasuredPoint, database: Database, seed: int = 0) -> Prediction:
    """Run the point's benchmark in the simulator; InputError when the configuration cannot be.

    Closed loop: all streams start at once with the recorded spread of lengths; those in step decide by the time a
    request takes to reach the engine which step takes it. Static batch: one wave; offline:
    everything queued. Source: :func:`planner.serving.simulator.run_replica`.
    """
    if point.protocol == "closed loop":
        count = min(point.requests, max(MOST_REQUESTS, point.concurrency))
        return _closed(point, database, point.concurrency, count, seed)
    if point.protocol == "static batch":
        return _closed(point, database, point.concurrency, point.concurrency, seed)
    if point.protocol == "offline":
        sequences = OFFLINE_SEQUENCES * point.workers.data
        replica = replica_of(point, point.workers, database, sequences)
        slots = replica.limits.max_sequences
        resident = min(slots, int((replica.limits.kv_tokens or math.inf) / (point.input_tokens + point.output_tokens)))
        return _run(point, replica, max(resident, 1) * OFFLINE_WAVES, None, seed)
    raise InputError(f"protocol {point.protocol!r} cannot be run")


def _closed(point: MeasuredPoint, database: Database, concurrency: int, count: int, seed: int) -> Prediction:
    replicas = point.workers.count
    each = max(1, concurrency // replicas)
    replica = replica_of(point, point.workers, database, each)
    return _run(point, replica, max(each, count // replicas), each, seed)


def lengths(point: MeasuredPoint, count: int, seed: int) -> tuple[list[int], list[int]]:
    """Input and output tokens of ``count`` requests, evenly spread between the recorded bounds, [tokens].

    Source: the random data set of vLLM's and SGLang's serving benchmarks.
    """
    rng = np.random.default_rng(seed)
    drawn = []
    for longest in (point.input_tokens, point.output_tokens):
        low = max(1, math.floor(point.spread * longest))
        drawn.append(rng.integers(low, max(low, round(longest)) + 1, count).tolist())
    return drawn[0], drawn[1]


def _run(point: MeasuredPoint, replica: Replica, count: int, concurrency: int | None, seed: int) -> Prediction:
    inputs, outputs = lengths(point, count, seed)
    requests = Requests([0.0] * count, inputs, outputs, [0] * count)
    together = concurrency is not None and point.in_step
    run = run_replica(
        requests, replica.step_time, replica.limits, concurrency=concurrency, seed=seed,
        think_time_s=replica.request_overhead_s if together else 0.0, apart_s=APART_SECONDS if together else 0.0,
    )  # fmt: skip
    arrival, first, end, tokens = (
        np.array([getattr(r, name) for r in run.records])
        for name in ("arrival_s", "first_token_s", "completion_s", "output_tokens")
    )
    several = tokens > 1
    tpot = ((end - first)[several] / (tokens[several] - 1)) if several.any() else np.zeros(1)
    waits = (point.recipe.poll_steps(point.concurrency) - 1) / 2 * float(tpot.mean())
    overhead = replica.request_overhead_s + waits
    accelerators = float(replica.setup.layout.devices)
    return Prediction(
        distribution(first - arrival + overhead), distribution(tpot), distribution(end - arrival + overhead),
        float(tokens.sum()) / run.duration_s / accelerators,
    )  # fmt: skip
