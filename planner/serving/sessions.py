"""Sessions of turns: how the context grows, what each turn prefills, what keeps it warm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.errors import InputError
from planner.serving.pauses import AnyPause
from planner.workload.lengths import Lengths, Vector, normal_cdf

#: sessions counted of a distribution of turns, stratified
STRATA = 8192
#: probability of a longer session at which a geometric number of turns is cut
CUT = 1e-9


def turn_survival(count: Lengths) -> Vector:
    """Probability that a session has a j-th turn, P(J >= j) for j = 1, 2, ..., (turns,), [1].

    ``count`` is the distribution of turns per session [turns], rounded, at least one.

    Source: stratified quantiles of the distribution.

    >>> from planner.workload.lengths import Constant
    >>> turn_survival(Constant(3))
    array([1., 1., 1.])
    """
    turns = np.maximum(1, np.rint(count.stratified(STRATA))).astype(int)
    ended = np.bincount(turns)[1:] / STRATA
    return np.concatenate(([1.0], 1 - np.cumsum(ended)[:-1]))


def geometric_turns(mean: float) -> Vector:
    """P(J >= j) when every turn is the last with the same probability, (turns,), [1].

    ``mean`` turns per session [turns], at least one, else InputError. Source: geometric distribution.

    >>> survival = geometric_turns(10.0)
    >>> round(float(survival.sum()), 3), round(float(survival[1]), 2)
    (10.0, 0.9)
    """
    if not 1 <= mean < 1e6:
        raise InputError(f"{mean:g} turns per session", expected="at least 1, below a million")
    stays = 1 - 1 / mean
    most = 1 if stays == 0 else int(np.ceil(np.log(CUT) / np.log(stays))) + 1
    return np.power(stays, np.arange(most))


@dataclass(frozen=True)
class Turns:
    """A session: its first prompt, then turns that append to what is already there.

    ``survival`` P(J >= j), (turns,) [1]; lengths ``opening`` of the first prompt, ``appended`` by each
    later one (a tool's result, a person's words) and ``output`` of each answer [tokens], independent;
    ``pinned`` tokens of the opening are common to all sessions and always cached [tokens];
    ``kept_output`` is the share of an answer that later prompts repeat [1], below one where reasoning
    is dropped. A compaction begins a new session: count the turns between two of them.
    """

    survival: npt.NDArray[np.float64]
    opening: Lengths
    appended: Lengths
    output: Lengths
    pinned: float = 0.0
    kept_output: float = 1.0

    @property
    def count(self) -> float:
        """Mean turns per session, [turns]. Source: sum of the survival function."""
        return float(np.sum(self.survival))

    @property
    def weight(self) -> Vector:
        """Share of all turns that are the j-th of their session, (turns,), [1]. Source: length bias."""
        return self.survival / np.sum(self.survival)

    @property
    def last(self) -> float:
        """Share of turns that end their session, [1]. Source: one in every session."""
        return 1 / self.count


@dataclass(frozen=True)
class TurnContexts:
    """Per turn j, (turns,) each: ``prefix`` before it and ``after`` it [tokens], ``variance`` after [tokens^2]."""

    prefix: Vector
    after: Vector
    variance: Vector


def turn_contexts(turns: Turns) -> TurnContexts:
    """Mean context before and after each turn [tokens] and its variance [tokens^2], (turns,) each.

    After turn j ``opening + (j-1)*A + j*k*O``; before it, what the turn before left. Variances add:
    lengths of different turns are independent.

    Source: sums of independent lengths.

    >>> from planner.workload.lengths import Constant
    >>> session = Turns(geometric_turns(5.0), Constant(8000), Constant(1000), Constant(500))
    >>> turn_contexts(session).after[:3]
    array([ 8500., 10000., 11500.])
    """
    j = np.arange(1, len(turns.survival) + 1, dtype=float)
    kept = turns.kept_output
    after = turns.opening.mean + (j - 1) * turns.appended.mean + j * kept * turns.output.mean
    spread = [(x.cv * x.mean) ** 2 for x in (turns.opening, turns.appended, turns.output)]
    variance = spread[0] + (j - 1) * spread[1] + j * kept**2 * spread[2]
    return TurnContexts(np.concatenate(([0.0], after[:-1])), after, variance)


def mean_context(turns: Turns) -> float:
    """Mean context that a turn leaves behind, over all turns, [tokens].

    Long sessions have more turns, and later ones: for a geometric J twice what its mean suggests.

    Source: length-biased mean over :func:`turn_contexts`.

    >>> from planner.workload.lengths import Constant
    >>> session = Turns(geometric_turns(5.0), Constant(8000), Constant(1000), Constant(500))
    >>> round(mean_context(session))
    14500
    """
    return float(np.sum(turns.weight * turn_contexts(turns).after))


def context_quantile(turns: Turns, q: float) -> float:
    """Context after a turn that is not exceeded with probability ``q`` over all turns, [tokens].

    Each turn's context is a lognormal of its mean and variance; the mixture over turns is inverted by
    bisection. Against drawn sessions within 2 % for q of 0.5 to 0.99.

    Source: Fenton, "The sum of log-normal probability distributions", IRE Trans. 1960.

    >>> from planner.workload.lengths import Constant, Lognormal
    >>> session = Turns(
    ...     geometric_turns(20.0), Constant(15_000), Lognormal.from_mean(3000, 2.0), Lognormal.from_mean(500, 1.0)
    ... )
    >>> round(context_quantile(session, 0.5)), round(context_quantile(session, 0.95))
    (58917, 228333)
    """
    contexts = turn_contexts(turns)
    cv2 = contexts.variance / contexts.after**2
    sigma = np.sqrt(np.log1p(np.maximum(cv2, 1e-12)))
    mu = np.log(contexts.after) - sigma**2 / 2
    low, high = 0.0, float(np.max(contexts.after + 40 * np.sqrt(contexts.variance)) * 2)
    for _ in range(60):
        middle = (low + high) / 2
        below = float(np.sum(turns.weight * normal_cdf((np.log(middle) - mu) / sigma)))
        low, high = (middle, high) if below < q else (low, middle)
    return (low + high) / 2


def prefill_per_turn(turns: Turns, hit: Any) -> Any:
    """Mean tokens a turn prefills when its prefix is still cached with probability ``hit`` [1], [tokens].

    ``A + (1 - hit)*(prefix - pinned)``; a first turn brings its opening less what is ``pinned``.
    In the shape of ``hit``.

    Source: the turn model; prefix caching, Kwon et al., arXiv 2309.06180.

    >>> from planner.workload.lengths import Constant
    >>> session = Turns(geometric_turns(5.0), Constant(8000), Constant(1000), Constant(500), pinned=6000)
    >>> [round(float(x)) for x in prefill_per_turn(session, np.array([0.0, 0.9, 1.0]))]
    [8000, 1880, 1200]
    """
    first = turns.weight[0]
    old = float(np.sum(turns.weight[1:] * (turn_contexts(turns).prefix[1:] - turns.pinned)))
    fresh = first * max(0.0, turns.opening.mean - turns.pinned) + (1 - first) * turns.appended.mean
    return fresh + (1 - np.asarray(hit, dtype=float)) * old


def interactive_throughput(users: Any, ttft: Any, output: Any, itl: Any, pause: Any) -> Any:
    """Turns per second of ``users`` who wait, pause and ask again: ``N/(TTFT + O*ITL + Z)``, [1/s].

    ttft and pause Z [s], output O [tokens], itl the time per output token [s]. Broadcasts.

    Source: the interactive response-time law; Denning & Buzen, ACM Computing Surveys 10(3) 1978.

    >>> round(float(interactive_throughput(200, 0.8, 500, 0.02, 30.0)), 3)
    4.902
    """
    return users / (ttft + output * itl + pause)


def active_fraction(ttft: Any, output: Any, itl: Any, pause: Any) -> Any:
    """Share of open sessions with a request in flight: ``(TTFT + O*ITL)/(TTFT + O*ITL + Z)``, [1].

    Arguments as :func:`interactive_throughput`. Broadcasts. Source: Little's law on the cycle.

    >>> round(float(active_fraction(0.8, 500, 0.02, 30.0)), 3)
    0.265
    """
    busy = ttft + output * itl
    return busy / (busy + pause)


def keep_warm_tokens(sessions: Any, context: Any, pause: AnyPause, ttl: Any, cycle: Any) -> Any:
    """KV held for sessions that pause: ``N * ctx * E[min(pause, TTL)] / cycle``, [tokens].

    sessions N [1], mean context [tokens], ``ttl`` after which an idle context is dropped [s] (infinity:
    never), mean ``cycle`` of a turn, answer and pause [s]. On top of the KV of requests in flight.
    Broadcasts; context and pause are independent.

    Source: Little's law.

    >>> from planner.serving.pauses import Pause
    >>> round(float(keep_warm_tokens(200, 60_000, Pause(30.0, 2.0), 60.0, 40.8)))
    6200167
    """
    return sessions * context * pause.mean_min(ttl) / cycle
