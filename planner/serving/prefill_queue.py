"""A replica that only prefills: prompts gather while others are prefilled, and go through together.

A *round* is all the prompts that arrived during the round before it, in order of arrival; those behind matter
only as far as they fit into the same step. Several attention ranks have room for more: mostly a prompt boards
the next step, which is as long as the longest chunk on it, and only a full replica makes it wait for rounds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.cost.roofline import Array
from planner.serving.interference import COUNTS, Boarding

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]
ITERATIONS = 24
LEAST_IDLE = 1e-6
MOST_ABOARD = 64.0  # chunks a rank on one step


@dataclass(frozen=True)
class PromptTimes:
    """Prefill of a sample of prompts on replicas that do nothing else, (replicas, samples) unless said.

    ``alone`` [s] from an empty step, host time of its steps included; on a full replica a prompt adds
    ``rank`` [s] to one attention rank and ``stage`` [s] to what a stage's ranks share; ``chunks`` [1] steps it
    takes; ``ranks`` and ``data`` (replicas, 1) ranks side by side, and those that share a stage [1];
    ``tokens`` (samples,) prefilled and ``weights`` (samples,); ``budget`` [tokens] of a rank's step.
    """

    alone: Matrix
    rank: Matrix
    stage: Matrix
    chunks: Matrix
    ranks: Matrix
    data: Matrix
    tokens: Vector
    weights: Vector
    budget: float

    def mean(self, values: Matrix) -> Matrix:
        """Mean over prompts, (replicas, 1), in the unit of the values [s]. Source: definition."""
        found: Matrix = (values @ (self.weights / self.weights.sum()))[:, None]
        return found

    @property
    def work(self) -> Matrix:
        """Time of a whole replica each prompt takes, ranks sharing it evenly, (replicas, samples), [s].

        Source: definition.
        """
        found: Matrix = (self.rank + self.stage * self.data) / self.ranks
        return found

    def stable_rate(self) -> Matrix:
        """Prompts per second at which a replica is always busy, (replicas, 1), [1/s]. Source: :attr:`work`.

        >>> one = np.ones((1, 2))
        >>> times = PromptTimes(one, 0.5 * one, 0 * one, one, 2 * one[:, :1], one[:, :1], one[0], one[0], 8192)
        >>> float(times.stable_rate()[0, 0])
        4.0
        """
        found: Matrix = 1 / self.mean(self.work)
        return found


@dataclass(frozen=True)
class Rounds:
    """What a replica is busy with: ``mean`` [s] and ``variance`` [s^2] of a round, and ``busy`` [1] in them.

    (replicas, 1) each. ``busy``: chance to find a round to wait for.
    """

    mean: Matrix
    variance: Matrix
    busy: Matrix


def gathered_rounds(times: PromptTimes, rate: Matrix, group: float, arrival_cv2: Array) -> Rounds:
    """Rounds when prompts arrive at ``rate`` [1/s], ``group`` K of them at a time; ``arrival_cv2`` of groups [1].

    A prompt adds s [s] of the replica's time and the first one f [s] more: ``X = (E[f] + p0*K*E[s])/(1-rho)``
    with p0 the chance that nobody came during a round, after which the next arrival starts one. Of R ranks a
    group keeps K busy; with room for ``c = R/K`` groups the chance to wait is less by ``rho^(sqrt(2(c+1)) - 2)``.

    Source: embedded chain of a gated queue, p0 by the transform of a gamma of equal moments; Sakasegawa 1977.

    >>> one = np.ones((1, 1))
    >>> times = PromptTimes(0.1 * one, 0.1 * one, 0 * one, one, one, one, one[0], one[0], 8192)
    >>> found = gathered_rounds(times, 5 * one, 1.0, 1.0)
    >>> round(float(found.busy[0, 0]), 3)
    0.5
    """
    work = times.work
    side = np.minimum(1.0, group / times.ranks)
    first = np.maximum(side * times.mean(times.alone - times.rank - times.stage * times.data), 0.0)
    mean, second = times.mean(work), times.mean(work**2)
    whole, square = group * mean, group**2 * second
    scattered = square + (arrival_cv2 - 1) * whole**2  # counts vary by arrival_cv2 of their mean
    rho = np.minimum(rate * mean, 1 - LEAST_IDLE)
    groups = rate / group
    none = np.ones_like(rho)
    length = variance = rho
    for _ in range(ITERATIONS):
        length = (first + none * whole) / (1 - rho)
        moment = first * (2 * length - first) + groups * length * scattered + none * square
        variance = np.maximum(moment / (1 - rho**2) - length**2, 0.0)
        shape = length**2 / np.maximum(variance, 1e-12 * length**2)
        none = 0.5 * none + 0.5 * (1 + groups * length / shape) ** -shape
    tokens = np.average(times.tokens, weights=times.weights)
    room = np.maximum(times.ranks / group, 1.0) * np.where(times.ranks > 1, max(1.0, times.budget / tokens), 1.0)
    waits = rho ** np.maximum(np.sqrt(2 * (room + 1)) - 2, 0.0)
    return Rounds(length, variance, waits * length / (length + none / groups))


def shared_steps(times: PromptTimes, rate: Matrix, group: float, largest: Vector) -> Rounds:
    """Steps of several ranks as rounds, (replicas, 1) each, when prompts arrive at ``rate`` [1/s].

    ``N = rate*c*X + p0*K`` chunks share a step of X [s], c of them a prompt, K = ``group``; the longest of N
    by ``largest`` of :func:`planner.serving.interference.largest_of` [1], at least an even split.

    Source: a two-state chain of steps, as :func:`planner.serving.interference.mixed_steps`.

    >>> one = np.ones((1, 1))
    >>> times = PromptTimes(0.1 * one, 0.1 * one, 0 * one, one, 4 * one, 4 * one, one[0], one[0], 8192)
    >>> found = shared_steps(times, 5 * one, 1.0, np.ones(8))
    >>> round(float(found.mean[0, 0]), 3), round(float(found.busy[0, 0]), 2)
    (0.1, 0.45)
    """
    chunks = times.mean(times.chunks)
    rank, stage = times.mean(times.rank) / chunks, times.mean(times.stage) / chunks
    fixed = np.maximum(times.mean(times.alone) / chunks - rank - stage, 0.0)
    logs = np.log(COUNTS)
    aboard = np.full_like(rank, group)
    length = none = rank
    for _ in range(ITERATIONS):
        longest = np.minimum(aboard, np.interp(np.log(np.maximum(aboard / group, 1.0)), logs, largest))
        length = fixed + rank * np.maximum(longest, aboard / times.ranks)
        length = length + stage * np.maximum(longest, aboard * times.data / times.ranks)
        none = np.exp(-rate / group * length)
        aboard = 0.5 * aboard + 0.5 * np.minimum(rate * chunks * length + none * group, MOST_ABOARD * times.ranks)
    spread = times.mean(times.rank**2 / times.chunks) / chunks - rank**2
    return Rounds(length, np.maximum(spread, 0.0), length / (length + none * group / (chunks * rate)))


def first_token_times(
    meet: Boarding, times: PromptTimes, rounds: Rounds, steps: Rounds, rate: Matrix, group: float, largest: Vector
) -> Matrix:
    """Arrival to the end of its own prefill of every prompt of the sample, (replicas, samples), [s].

    A prompt finds a round in progress: the rest of it, then the prompts that gathered before and the share of
    those behind that fits into the same step. Or, on several ranks, a step: the rest of it, and the longest
    chunk on the next. Or the replica idle. ``meet``: fixed draws; ``rate`` [1/s]; ``group`` siblings of equal
    prompts arrive together and go one after the other unless there are ranks for all; ``largest`` as in
    :func:`shared_steps` [1].

    Source: length-biased residual of a renewal process; :func:`gathered_rounds` and :func:`shared_steps`.
    """
    tokens = np.average(times.tokens, weights=times.weights)
    together = np.clip(times.budget / (group * tokens), 0.5, 1.0)
    shared = times.stage * times.data / times.ranks
    apart = np.where(times.ranks >= group, shared, times.work * together)
    found = times.alone + (group - 1) * apart
    length, left = _found(meet, rounds, 1.0 - rounds.busy, np.ones_like(rounds.busy))
    found = found + left * length + group * _gathered(meet, times, left, rate / group * length, group)
    several = times.ranks > 1
    if np.any(several):
        floor = np.maximum(1.0 - rounds.busy, 0.0)
        length, left = _found(meet, steps, np.minimum(1.0 - steps.busy, floor), floor)
        extra = left * length + _longest_aboard(meet, times, rate / group * length, rate, length, group, largest)
        found = found + np.where(several, extra, 0.0)
    return found


def _found(meet: Boarding, rounds: Rounds, low: Matrix, high: Matrix) -> tuple[Matrix, Matrix]:
    """Length of the round met and the share of it that is left; none met outside ``low`` to ``high`` of the draws."""
    met = (meet.uniform > low) & (meet.uniform <= high)
    left = np.where(met, (meet.uniform - low) / np.maximum(high - low, 1e-12), 0.0)
    ratio = rounds.variance / rounds.mean**2
    biased, spread = rounds.mean * (1 + ratio), ratio / (1 + ratio) / 9
    length = biased * np.maximum(0.0, 1 - spread + meet.normal * np.sqrt(spread)) ** 3
    return np.where(met, length, 0.0), left


def _gathered(meet: Boarding, times: PromptTimes, left: Matrix, count: Matrix, group: float) -> Matrix:
    """Work of the groups in the same round that a prompt waits for: all ahead, of those behind what fits."""
    tokens = np.average(times.tokens, weights=times.weights) * group
    fits = np.minimum(1.0, times.budget * times.ranks / (tokens * (1 + count)))
    before = count * (1 - left)
    work = times.work
    ahead = np.zeros_like(left + work)
    for j in range(meet.arrivals.shape[1]):
        at = meet.arrivals[:, j]
        ahead += work[:, meet.others[:, j]] * np.where(at < before, 1.0, np.where(at < count, fits, 0.0))
    rest = np.maximum(0.0, count - meet.arrivals[:, -1])
    return ahead + times.mean(work) * rest * (1 - left + left * fits)


def _longest_aboard(
    meet: Boarding, times: PromptTimes, count: Matrix, rate: Matrix, length: Matrix, group: float, largest: Vector
) -> Matrix:
    """How much longer a prompt's steps take for the others on them, who came during the last or are still at it."""
    own = times.rank / times.chunks
    longest = own
    for j in range(meet.arrivals.shape[1]):
        other = meet.others[:, j]
        longest = np.maximum(longest, own[:, other] * (meet.arrivals[:, j] < count * times.chunks[:, other]))
    aboard = rate * times.mean(times.chunks) * length
    chunk = times.mean(times.rank) / times.mean(times.chunks)
    many = chunk * np.interp(np.log(np.maximum(aboard / group, 1.0)), np.log(COUNTS), largest)
    longest = np.maximum(longest, np.where(aboard > meet.arrivals.shape[1] * group, many, 0.0))
    longest = np.maximum(longest, aboard * chunk / times.ranks)
    shared = times.mean(times.stage) / times.mean(times.chunks) * aboard * times.data / times.ranks
    return longest - own + times.chunks * shared
