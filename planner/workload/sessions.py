"""Agent sessions: turns that append to a growing context, with pauses of tools and people between."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.workload.joint import JointLengths
from planner.workload.lengths import Constant, Lengths, Lognormal, Vector

#: sessions whose turns stand for all, and the seed they are drawn with
SESSIONS, SEED = 4096, 20_261
#: turns after which a session is cut, and turns kept of all sessions
MOST_TURNS, MOST = 5000, 400_000


@dataclass(frozen=True)
class SessionModel:
    """How a session goes: ``turns`` per session [1], ``opening`` of its first prompt, ``appended`` by each
    later one, ``output`` parts of an answer [tokens]; ``pause`` between answer and next prompt, mean [s]
    and cv [1]; ``ttl`` after which an idle context is dropped [s], None while memory lasts; ``pinned``
    tokens of the opening that are always cached; ``kept_output`` share of an answer that later prompts
    repeat [1]; ``max_context`` at which a session starts over from its opening [tokens].
    """

    turns: Lengths
    opening: Lengths
    appended: Lengths
    output: tuple[Lengths, ...]
    pause_mean: float
    pause_cv: float
    ttl: float | None = None
    pinned: float = 0.0
    kept_output: float = 1.0
    max_context: float | None = None

    @property
    def pause(self) -> Lengths:
        """Pauses as a lognormal, [s]. Source: the workload's mean and cv."""
        if self.pause_mean == 0 or self.pause_cv == 0:
            return Constant(self.pause_mean)
        return Lognormal.from_mean(self.pause_mean, self.pause_cv)


@dataclass(frozen=True, eq=False)
class SessionTurns:
    """Turns of drawn sessions, session by session in order, (n,) arrays: ``session`` and ``turn`` from 0
    [1]; ``input`` of which ``cached``, and ``output`` [tokens]; ``pause_s`` after the answer [s].
    """

    session: npt.NDArray[np.int64]
    turn: npt.NDArray[np.int64]
    input: Vector
    cached: Vector
    output: Vector
    pause_s: Vector

    def __len__(self) -> int:
        return len(self.session)


def draw_sessions(model: SessionModel, count: int, seed: int = 0) -> SessionTurns:
    """``count`` sessions, turn by turn, the same for the same seed; units as in :class:`SessionTurns`.

    Turn j has the input of turn j-1, its kept output, and what is appended. All of turn j-1 is cached,
    answer included, unless the pause was longer than the model's ttl: then only what is pinned.
    Capacity is no limit here.

    Source: the turn model of agents; prefix caching, Kwon et al., arXiv 2309.06180.
    """
    rng = np.random.default_rng(seed)
    length = np.clip(np.rint(model.turns.sample(rng, count)), 1, MOST_TURNS).astype(np.int64)
    session = np.repeat(np.arange(count), length)
    starts = np.cumsum(length) - length
    turn = np.arange(len(session)) - np.repeat(starts, length)
    opening = np.maximum(model.opening.sample(rng, count), 1.0)
    appended = np.maximum(model.appended.sample(rng, len(session)), 1.0)
    output = np.maximum(sum((part.sample(rng, len(session)) for part in model.output), np.zeros(len(session))), 1.0)
    pause = model.pause.sample(rng, len(session))
    inputs, cached = np.zeros(len(session)), np.zeros(len(session))
    for j in range(int(length.max())):
        going = starts[length > j] + j
        base = opening[length > j]
        pinned = np.minimum(model.pinned, base)
        if j == 0:
            inputs[going], cached[going] = base, pinned
            continue
        before = inputs[going - 1] + model.kept_output * output[going - 1]
        asked = before + appended[going]
        over = np.zeros(len(going), dtype=bool) if model.max_context is None else asked > model.max_context
        lost = over | (pause[going - 1] > (math.inf if model.ttl is None else model.ttl))
        # of an answer that is repeated in part nothing after its cut is found again
        held = before if model.kept_output == 1.0 else inputs[going - 1]
        inputs[going] = np.where(over, base + appended[going], asked)
        cached[going] = np.where(lost, pinned, held)
    return SessionTurns(session, turn, inputs, np.minimum(cached, inputs - 1), output, pause)


def turn_lengths(model: SessionModel) -> JointLengths:
    """The turns of many sessions as one sample of requests, each turn equally likely, [tokens].

    Source: :func:`draw_sessions`, 4096 sessions, always the same ones.
    """
    count = int(min(SESSIONS, max(64, MOST / max(1.0, model.turns.mean))))
    drawn = draw_sessions(model, count, SEED)
    return JointLengths(drawn.input, np.maximum(drawn.cached, 0.0), drawn.output)
