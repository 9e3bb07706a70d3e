"""A sized candidate's replica in the simulator: its step, its limits, its share of the traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.cost.acceptance import alpha_from_length
from planner.cost.step import StepModel
from planner.serving.engine_limits import EngineLimits
from planner.serving.fleet import Routing, simulate_fleet
from planner.serving.model_step_time import model_step_time
from planner.serving.requests import Requests
from planner.serving.simulator import Run
from planner.serving.statistics import Columns, Distribution, columns, distribution
from planner.serving.step_time import StepTime
from planner.sizing.result import Latency, Percentiles
from planner.sizing.search import Search, Sized
from planner.workload import Slo
from planner.workload.arrivals import arrival_kind
from planner.workload.drawing import DrawnRequests, draw_requests
from planner.workload.traces import Trace

#: sequences a step's table reaches to at most
MOST_SEQUENCES = 4096
#: shares of the arrivals at both ends that statistics leave out: filling and draining
EDGE = 0.1
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Traffic:
    """Requests for one or several replicas; ``resident`` first ones stand for those already in service.

    ``concurrency`` and ``think_time_s`` [s]: a closed loop that the first arrival times open.
    ``prefix_block_tokens`` a hash of their prefixes stands for [tokens].
    """

    requests: Requests
    resident: int = 0
    concurrency: int | None = None
    think_time_s: float = 0.0
    prefix_block_tokens: int | None = None


@dataclass(frozen=True)
class Measured:
    """A run's latencies, the edges left out, [s]; ``mean_batch`` sequences in service of a replica [1]."""

    run: Run
    latencies: Columns
    mean_batch: float
    resident: int

    def statistic(self, slo: Slo) -> float:
        """The simulated figure a limit is about, [s]. Source: definition."""
        found = self.latencies if slo.class_name is None else self._of_class(slo.class_name)
        sample = {"ttft": found.ttft, "tpot": found.tpot, "itl": found.tpot, "e2e": found.e2e}[slo.metric]
        value: float = getattr(distribution(sample), slo.statistic)
        return value

    def _of_class(self, name: str) -> Columns:
        return columns(self.run.records[self.resident :], EDGE, EDGE, name)

    def latency(self) -> Latency:
        """Percentiles of all three latencies, [s]. Source: :func:`planner.serving.statistics.distribution`."""
        return latency_of(self.latencies)

    def ttft(self) -> Distribution:
        """Time to first token, [s]. Source: :func:`planner.serving.statistics.distribution`."""
        return distribution(self.latencies.ttft)


def latency_of(found: Columns) -> Latency:
    """Percentiles of simulated latencies, [s]. Source: :func:`planner.serving.statistics.distribution`."""

    def of(sample: Vector) -> Percentiles:
        d = distribution(sample)
        return Percentiles(mean=d.mean, p50=d.p50, p95=d.p95, p99=d.p99)

    return Latency(ttft_s=of(found.ttft), time_per_output_token_s=of(found.tpot), e2e_s=of(found.e2e))


def replica_step_time(found: Search, sized: Sized, sequences: int) -> StepTime:
    """Step time of a candidate for up to ``sequences`` at once, [s].

    Source: :func:`planner.serving.model_step_time.model_step_time`.
    """
    seat, load = sized.seat, found.load
    step = StepModel(found.model, seat.precision.formats, seat.precision.kv, found.constants.draft_independence)
    return model_step_time(
        step, sized.rows.options[0].drafter, seat.machine, seat.layout,
        sequences=min(sequences, MOST_SEQUENCES), budget=sized.rows.budget, longest=float(load.contexts.max()),
        shared_read=load.read_share,
    )  # fmt: skip


def replica_limits(found: Search, sized: Sized, sequences: int, longest: float = 0.0) -> EngineLimits:
    """What bounds a candidate's steps, all ranks together; units of EngineLimits.

    The cache in tokens is its bytes over those of a resident sequence of mean context, sharing
    included; at least one sequence of ``longest`` [tokens] fits. Source: the search's rows.
    """
    rows, load = sized.rows, found.load
    ranks = int(rows.ranks[0, 0])
    tokens = float(rows.kv_room[0, 0]) / max(float(rows.kv_mean[0, 0]), 1.0) * load.context_mean
    block = found.engine.block_tokens
    queries = rows.options[0].drafter.draft_tokens + 1
    return EngineLimits(
        token_budget=max(int(rows.budget) * ranks, sequences * queries),
        max_sequences=sequences,
        kv_tokens=max(int(tokens), int(longest) + 2 * block),
        block_tokens=block,
        max_chunk_tokens=int(rows.budget),
        sequence_tokens=queries,
        mixed=found.engine.mixed_steps,
    )


def draft_acceptance(sized: Sized) -> tuple[float, ...]:
    """Acceptance of each draft position that gives the candidate's acceptance length, [1].

    Source: the geometric law of Leviathan et al., arXiv 2211.17192.
    """
    option = sized.rows.options[0]
    k = option.drafter.draft_tokens
    return (alpha_from_length(option.acceptance, k),) * k if k else ()


def draw_traffic(found: Search, rate: float, count: int, seed: int, resident: float) -> Traffic:
    """About ``count`` sequences arriving at ``rate`` [1/s] beside ``resident`` ones already decoding.

    Those have a length-biased output behind and before them, and all their input cached. Bursts are those
    left of the fleet's in the share of its traffic that ``rate`` is.

    Source: :func:`planner.workload.drawing.draw_requests`; :meth:`planner.serving.load.Load.arrival_cv2`.
    """
    cv = float(np.sqrt(found.load.arrival_cv2(rate)))
    demand = found.workload.demand
    kind = arrival_kind(cv) if demand.arrivals == "poisson" else demand.arrivals
    workload = replace(found.workload, demand=replace(demand, arrival_cv=cv, arrivals=kind))
    drawn = draw_requests(workload, rate / workload.sequences_per_request, count, seed)
    first = _resident(drawn, int(resident), seed)
    names = np.array(found.load.class_names)[drawn.classes].tolist() if len(found.load.class_names) > 1 else None
    return Traffic(
        Requests(
            [0.0] * len(first[0]) + drawn.arrival_s.tolist(),
            first[0].tolist() + drawn.input.tolist(),
            first[1].tolist() + drawn.output.tolist(),
            (first[0] - 1).tolist() + drawn.cached.tolist(),
            kind=None if names is None else [""] * len(first[0]) + names,
        ),
        len(first[0]),
    )


def _resident(drawn: DrawnRequests, count: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Contexts so far and outputs still to come of ``count`` sequences in service."""
    rng = np.random.default_rng([seed, 1])
    bias = np.cumsum(drawn.output, dtype=float)
    chosen = np.searchsorted(bias, rng.random(count) * bias[-1])
    made = np.floor(rng.random(count) * drawn.output[chosen]).astype(np.int64)
    return drawn.input[chosen] + made, np.maximum(drawn.output[chosen] - made, 1)


def replay_traffic(trace: Trace, serving: int, simulated: int, cached_fraction: float) -> Traffic:
    """The requests ``simulated`` of ``serving`` replicas get when a trace goes round them, [s] and [tokens].

    With its own prefix hashes where it has them, else its cached share or the workload's. Source: the trace.
    """
    chosen = np.arange(len(trace))[np.arange(len(trace)) % serving < simulated]
    inputs = np.maximum(np.rint(trace.input[chosen]), 1).astype(np.int64)
    outputs = np.maximum(np.rint(trace.output[chosen]), 1).astype(np.int64)
    hashes = trace.hashes
    prefix: list[Sequence[Any]] | None = None if hashes is None else [hashes[i].tolist() for i in chosen]
    cached: Vector = np.zeros(len(chosen))  # hashes say it
    if prefix is None:
        cached = trace.cached[chosen] if trace.cached is not None else cached_fraction * inputs.astype(float)
    return Traffic(
        Requests(
            trace.arrival[chosen].tolist(),
            inputs.tolist(),
            outputs.tolist(),
            np.minimum(np.floor(cached).astype(np.int64), inputs - 1).tolist(),
            prefix,
        ),
        prefix_block_tokens=trace.hash_block_tokens if prefix is not None else None,
    )


def run_traffic(
    found: Search,
    sized: Sized,
    traffic: Traffic,
    *,
    sequences: int,
    replicas: int = 1,
    routing: Routing = "least-loaded",
    scale: float = 1.0,
    seed: int = 0,
) -> Measured:
    """Simulate ``replicas`` of a candidate with ``sequences`` slots each, steps ``scale`` times as long [1].

    The host's time per request, [s], is added to the first token and the end.

    Source: :func:`planner.serving.fleet.simulate_fleet`.
    """
    requests = traffic.requests
    longest = max(i + o for i, o in zip(requests.input, requests.output, strict=True))
    step = replica_step_time(found, sized, sequences)
    limits = replica_limits(found, sized, sequences, longest)
    if traffic.prefix_block_tokens is not None:
        limits = replace(limits, prefix_block_tokens=traffic.prefix_block_tokens)
    run = simulate_fleet(
        requests, step if scale == 1.0 else step.scaled(scale), limits,
        replicas=replicas, routing=routing, acceptance=draft_acceptance(sized), concurrency=traffic.concurrency,
        think_time_s=traffic.think_time_s, staggered=True, seed=seed,
    )  # fmt: skip
    latencies = columns(run.records[traffic.resident :], EDGE, EDGE)
    overhead = float(sized.rows.request_overhead[0, 0])
    latencies = Columns(latencies.ttft + overhead, latencies.tpot, latencies.e2e + overhead)
    return Measured(run, latencies, _mean_batch(run, replicas), traffic.resident)


def _mean_batch(run: Run, replicas: int) -> float:
    """Sequences decoding on a replica on average while requests arrive."""
    last = max(r.arrival_s for r in run.records)
    inside = sum(min(r.completion_s, last) - min(r.first_token_s, last) for r in run.records)
    return inside / max(last, 1e-9) / replicas if last > 0 else float(len(run.records))
