"""Run requests through replicas in discrete events; one record a request, in the order given."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, repeat
from typing import TYPE_CHECKING, Any

from planner.errors import InputError
from planner.serving.engine_limits import EngineLimits
from planner.serving.progress import Progress
from planner.serving.replica import Follow, Replica
from planner.serving.requests import RequestRecord, Requests, read_requests
from planner.serving.step_time import StepTime

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Run:
    """A finished simulation: ``records`` in the order of the requests, and what the replicas did.

    ``busy_s`` seconds in steps of each replica [s], ``steps`` taken [1], ``prefilled`` and ``decoded``
    [tokens] over all; ``duration_s`` from the first arrival to the last token [s].
    """

    records: list[RequestRecord]
    busy_s: tuple[float, ...]
    steps: int
    prefilled: int
    decoded: int

    @property
    def duration_s(self) -> float:
        """First arrival to last token, [s]; 0 without requests. Source: definition."""
        if not self.records:
            return 0.0
        return max(r.completion_s for r in self.records) - min(r.arrival_s for r in self.records)

    @property
    def utilisation(self) -> float:
        """Share of the replicas' time spent in steps, [1]. Source: definition."""
        span = self.duration_s * len(self.busy_s)
        return sum(self.busy_s) / span if span > 0 else 0.0


def simulate(
    requests: Iterable[Any] | Requests,
    step_time: StepTime,
    *,
    token_budget: int,
    max_sequences: int,
    kv_tokens: int | None = None,
    block_tokens: int = 16,
    max_chunk_tokens: int | None = None,
    prefix_block_tokens: int = 512,
    acceptance: Sequence[float] = (),
    concurrency: int | None = None,
    think_time_s: float = 0.0,
    seed: int = 0,
    mixed: bool = True,
) -> list[RequestRecord]:
    """Run requests through one replica; one record each, in the order given, [s] and [tokens].

    A step serves every decoding sequence and gives the rest of ``token_budget`` [tokens] to prompts,
    first come first served (smaller ``priority`` first), at most ``max_sequences`` at once and
    ``max_chunk_tokens`` of one prompt. A prompt is admitted when its blocks of ``block_tokens`` fit
    into ``kv_tokens`` [tokens]; when growing sequences find no block, the newest is preempted,
    recomputed later from its place in the queue, and that step admits nobody.

    Requests are mappings or objects with arrival_s, input_tokens, output_tokens, and optionally
    ``cached_tokens`` (not prefilled, but read and stored), ``prefix`` (hashes of its successive blocks
    of ``prefix_block_tokens``, found in the cache when an earlier request filled them), ``priority``
    and ``class``.

    ``acceptance`` (k,) [1] of each draft position: steps verify k drafts, and each request's number of
    steps is drawn with ``seed``. ``concurrency``: a closed loop that ignores arrival times, with that
    many requests in flight from time 0 and the next one sent ``think_time_s`` [s] after a completion.
    ``mixed`` False: prompts first, as SGLang's default: steps with prompts decode nobody.

    Raises InputError for malformed requests and for one that can never fit.

    Source: continuous batching, Yu et al., "Orca", OSDI 2022; chunked prefill, arXiv 2403.02310.

    >>> from planner.serving import LinearStepTime
    >>> one = simulate([{"arrival_s": 0.0, "input_tokens": 100, "output_tokens": 3}],
    ...                LinearStepTime(0.01, 0.0, 0.0, 1e-4), token_budget=2048, max_sequences=8)
    >>> one[0].first_token_s, one[0].completion_s
    (0.02, 0.04)
    """
    limits = EngineLimits(
        token_budget, max_sequences, kv_tokens, block_tokens, max_chunk_tokens, prefix_block_tokens,
        1 + len(acceptance), mixed,
    )  # fmt: skip
    return run_replica(
        read_requests(requests), step_time, limits, acceptance=acceptance, concurrency=concurrency,
        think_time_s=think_time_s, seed=seed,
    ).records  # fmt: skip


def run_replica(
    requests: Requests,
    step_time: StepTime,
    limits: EngineLimits,
    *,
    acceptance: Sequence[float] = (),
    concurrency: int | None = None,
    think_time_s: float = 0.0,
    apart_s: float = 0.0,
    follow: Follow | None = None,
    prefilled: bool = False,
    seed: int = 0,
) -> Run:
    """As :func:`simulate`, with what the replica did beside the records; same units.

    ``apart_s``: requests of a closed loop that would arrive together come one after the other, so far apart [s].
    ``follow`` names requests that arrive because another has completed; those have an infinite
    arrival time until then. ``prefilled``: prompts come with their cache. Source: as there.
    """
    limits.check(requests)
    progress = Progress(requests, draw_all_steps(requests, acceptance, seed), prefilled)
    follow, arrivals = opening(progress, concurrency, think_time_s, follow, apart_s)
    replica = Replica(progress, step_time, limits, follow)
    for arrival, i in arrivals:
        replica.submit(arrival, i)
    replica.advance()
    return collect(progress, [replica])


def opening(
    progress: Progress,
    concurrency: int | None,
    think_time_s: float,
    follow: Follow | None,
    apart_s: float = 0.0,
    staggered: bool = False,
) -> tuple[Follow | None, list[tuple[float, int]]]:
    """Who follows a completion, and the (arrival [s], request) that wait for none, in order.

    A closed loop of ``concurrency`` [1] with ``think_time_s`` and ``apart_s`` [s] takes the place of ``follow``.
    ``staggered``: those who open it come at their own arrival times instead of together.
    Source: :func:`closed_loop`, :func:`starts`.
    """
    if concurrency is not None:
        follow = closed_loop(progress, concurrency, think_time_s, apart_s, staggered)
    return follow, [(progress.arrival[i], i) for i in starts(progress, concurrency)]


def draw_all_steps(requests: Requests, acceptance: Sequence[float], seed: int) -> Sequence[int] | None:
    """Decode steps of every request after its first token, [1]; None without drafts. Source: draw_steps."""
    if not acceptance:
        return None
    import numpy as np

    from planner.serving.speculative_steps import draw_steps, step_lengths

    rng: np.random.Generator = np.random.default_rng(seed)
    steps: list[int] = draw_steps(np.array(requests.output) - 1, step_lengths(acceptance), rng).tolist()
    return steps


def starts(progress: Progress, concurrency: int | None) -> Sequence[int]:
    """Requests that arrive without another's completion, by index in order of arrival, [1].

    Source: definition of open and closed loops.
    """
    arrival = progress.arrival
    if concurrency is not None:
        return range(min(concurrency, len(arrival)))
    if all(a <= b for a, b in pairwise(arrival)):
        return range(bisect_left(arrival, math.inf))
    return sorted((i for i, t in enumerate(arrival) if t != math.inf), key=arrival.__getitem__)


def closed_loop(
    progress: Progress, concurrency: int, think_time_s: float, apart_s: float = 0.0, staggered: bool = False
) -> Follow:
    """Whoever completes is followed by the next request in line, after ``think_time_s`` [s].

    Those that follow completions of one step, as those that open the loop, come ``apart_s`` [s] after one another;
    ``staggered`` leaves those that open it at their own arrival times.
    Raises InputError for less than one at a time. Source: benchmark clients with a maximum concurrency.
    """
    if concurrency < 1:
        raise InputError(f"concurrency is {concurrency}", expected="1 or more")
    count = len(progress.arrival)
    upcoming = iter(range(min(concurrency, count), count))
    if not staggered:
        for i in range(min(concurrency, count)):
            progress.arrival[i] = i * apart_s
    step, before = -1.0, 0  # the last step that completed requests, and how many so far

    def follow(_: int, completed: float) -> list[tuple[float, int]]:
        nonlocal step, before
        i = next(upcoming, None)
        if i is None:
            return []
        before = before + 1 if completed == step else 0
        step = completed
        progress.arrival[i] = completed + think_time_s + before * apart_s
        return [(progress.arrival[i], i)]

    return follow


def collect(progress: Progress, replicas: Sequence[Replica]) -> Run:
    """Records and counters of replicas that have nothing left to do, [s] and [tokens]. Source: none needed."""
    p, r = progress, progress.requests
    kinds: Iterable[str] = r.kind or repeat("")
    cached = r.cached
    if r.prefix is not None:
        unit = replicas[0].unit
        cached = [max(c, h * unit) for c, h in zip(cached, p.hits, strict=True)]
    records = list(
        map(
            RequestRecord, p.arrival, p.first, p.end, r.input, r.output, p.preempted, cached, p.replica, kinds
        )
    )  # fmt: skip
    return Run(
        records,
        tuple(one.busy for one in replicas),
        sum(one.batch.step for one in replicas),
        sum(one.prefilled for one in replicas),
        round(sum(one.batch.decoded for one in replicas)),
    )
