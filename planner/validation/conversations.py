"""A benchmark of few conversations, as an engine's script plays it: so many at once until none is left."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from planner.cost.acceptance import alpha_from_length
from planner.cost.layout import Layout
from planner.cost.machine import Machine
from planner.cost.speculation import Drafter
from planner.cost.step import StepModel
from planner.hardware.acceptance import Conversations, load_speculation
from planner.serving.engine_limits import EngineLimits
from planner.serving.model_step_time import model_step_time
from planner.serving.requests import Requests
from planner.serving.simulator import Run, run_replica

NONE = Drafter("none", 0)
#: draws of the answers' lengths a speed-up is the mean of
DRAWS = 4
BUDGET = 8192


def plays(engine: str, dataset: str) -> bool:
    """Whether an engine's figures of a data set were played so. Source: the data file.

    >>> plays("sglang", "MT-bench"), plays("vllm", "MT-bench")
    (True, False)
    """
    known = load_speculation().conversations
    return (engine, dataset.lower()) == (known.engine, known.dataset)


def conversations(played: Conversations, at_once: int, seed: int) -> tuple[Requests, list[int | None]]:
    """First and second turns of every conversation, and who follows each; the first ``at_once`` [1] start together.

    Answers are lognormal and stop at the script's limit [tokens]; a second turn finds the first in the cache.
    Source: sgl-project/sglang benchmark/mtbench, whose ``--parallel`` threads each play a conversation to its end.

    >>> from planner.hardware.acceptance import load_speculation
    >>> requests, after = conversations(load_speculation().conversations, 64, seed=0)
    >>> len(requests.arrival), sum(math.isinf(t) for t in requests.arrival), after[0]
    (160, 96, 80)
    """
    n, rng = played.count, np.random.default_rng(seed)
    spread = math.log(played.answer_p95 / played.answer_p50) / 1.6449
    drawn = played.answer_p50 * np.exp(spread * rng.standard_normal(2 * n))
    answers = [int(x) for x in np.clip(np.round(drawn), 8, played.answer_limit)]
    first, shared, question = int(played.prompt), int(played.shared), int(played.question)
    heard = [first + a for a in answers[:n]]
    requests = Requests(
        [0.0] * min(at_once, n) + [math.inf] * (2 * n - min(at_once, n)),
        [first] * n + [h + question for h in heard],
        answers,
        [shared] * n + heard,
    )  # fmt: skip
    return requests, [*range(n, 2 * n), *[None] * n]


def play(
    step: StepModel,
    drafter: Drafter,
    machine: Machine,
    layout: Layout,
    played: Conversations,
    acceptance: Sequence[float],
    at_once: int,
    seed: int,
) -> Run:
    """The run of all conversations until the last is over, times in [s].

    ``acceptance`` (k,) [1] by position. Source: :func:`planner.serving.simulator.run_replica`.
    """
    requests, after = conversations(played, at_once, seed)
    waiting = iter(range(at_once, played.count))

    def follow(i: int, now: float) -> list[tuple[float, int]]:
        then = after[i] if after[i] is not None else next(waiting, None)
        return [] if then is None else [(now, then)]

    priced = model_step_time(
        step, drafter, machine, layout, sequences=at_once, budget=float(BUDGET),
        longest=played.prompt + played.question + 2 * played.answer_limit,
    )  # fmt: skip
    limits = EngineLimits(
        token_budget=max(BUDGET, at_once * drafter.queries), max_sequences=at_once, sequence_tokens=drafter.queries,
        mixed=False, max_chunk_tokens=BUDGET,
    )  # fmt: skip
    return run_replica(requests, priced, limits, acceptance=acceptance, follow=follow, seed=seed)


def speedup_as_played(
    step: StepModel,
    drafter: Drafter,
    machine: Machine,
    layout: Layout,
    length: float,
    at_once: int,
    played: Conversations | None = None,
) -> float:
    """Output rate with drafts over that without, ``at_once`` [1] conversations at a time, [1].

    ``length`` [tokens] accepted of a step, every draft with the same chance; ``played``: the data file's by default.
    Towards the end fewer run, so the mean batch is below ``at_once``.

    Source: :func:`play`, the same answers with and without.
    """
    known = played or load_speculation().conversations
    chance = (alpha_from_length(length, drafter.draft_tokens),) * drafter.draft_tokens
    gains = [
        play(step, NONE, machine, layout, known, (), at_once, seed).duration_s
        / play(step, drafter, machine, layout, known, chance, at_once, seed).duration_s
        for seed in range(DRAWS)
    ]
    return float(np.mean(gains))
