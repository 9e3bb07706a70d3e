"""Fan-out in closed form: what every number of branches costs, takes and solves, and which one pays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.serving.branches import tokens_with_alive, useful_work_curve
from planner.serving.fanout import turn_usefulness

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Fork:
    """What a task is: branch lengths by ``quantile`` [tokens], and how likely branches succeed, [1]."""

    quantile: Callable[[Any], Any]
    success: float
    correlation: float = 0.0
    avenues: int | None = None


@dataclass(frozen=True)
class Site:
    """Where it runs: one replica that decodes ``others`` sequences when the task arrives.

    ``steps`` (most, most + 1) [s]: of a step with ``others`` + j sequences when the task has K branches;
    ``acceptance`` tokens per step, ``stretch`` [1] of the steps by prompts among them; ``prefill`` (most,)
    [s] of all of a task's prompts, ``first_token`` (most,) [s] until its branches decode; ``usd_per_second``
    of the whole replica.
    """

    others: float
    steps: Matrix
    prefill: Vector
    first_token: Vector
    usd_per_second: float
    devices: int = 1
    acceptance: float = 1.0
    stretch: float = 1.0


@dataclass(frozen=True)
class Curve:
    """Everything over K = 1..most, (most,) each; seconds, tokens, $ and probabilities."""

    join_mean: Vector
    join_p95: Vector
    token_seconds: Vector
    at_work: Vector
    against_sequential: Vector
    useful: Vector
    gpu_seconds: Vector
    usd: Vector

    @property
    def usd_per_solved(self) -> Vector:
        """Cost of a solved task, (most,), [$]: a task that fails is paid too."""
        with np.errstate(divide="ignore"):
            return self.usd / self.useful

    @property
    def marginal_usd(self) -> Vector:
        """What the K-th branch adds to the cost of a task, (most,), [$]; the first one all of it."""
        return np.diff(self.usd, prepend=0.0)

    @property
    def marginal_useful(self) -> Vector:
        """What the K-th branch adds to the probability that the task is solved, (most,), [1]."""
        return np.diff(self.useful, prepend=0.0)

    @property
    def pays_from(self) -> Vector:
        """Value of a solved task from which the K-th branch pays, (most,), [$]; inf where it adds nothing."""
        gain = self.marginal_useful
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(gain > 1e-12, self.marginal_usd / gain, np.inf)

    def cheapest(self, allowed: npt.NDArray[np.bool_] | None = None) -> int:
        """The K of the lowest cost per solved task among those ``allowed``, [1]."""
        return _best(-self.usd_per_solved, allowed)

    def paying(self, value: float, allowed: npt.NDArray[np.bool_] | None = None) -> int:
        """The K of the highest ``value`` * U(K) - cost(K), ``value`` [$] of a solved task; 0 where none is above 0.

        Where the ratio of marginal cost to marginal work grows with K, this is the marginal rule.
        """
        net = value * self.useful - self.usd
        k = _best(net, allowed)
        return k if k and net[k - 1] > 0 else 0


def _best(merit: Vector, allowed: npt.NDArray[np.bool_] | None) -> int:
    """K of the highest merit, the smallest of equals; 0 when none is allowed."""
    merit = merit if allowed is None else np.where(allowed, merit, -np.inf)
    # rounding must not prefer the larger of two equals
    return int(np.argmax(merit >= merit.max() - 1e-12 * abs(merit.max()))) + 1 if np.isfinite(merit.max()) else 0


def fan_out_curve(fork: Fork, site: Site) -> Curve:
    """Join latency, useful work and cost of every number of branches; units as in :class:`Curve`.

    Branches decode side by side and leave the batch one by one; a sequence pays its share 1/B of each
    step it is in. Join: ``TTFT + sum over j of tokens_j * T(B + j) / AL``.
    """
    most = len(site.steps)
    j = np.arange(most + 1.0)
    alive = _after_first(tokens_with_alive(fork.quantile, most))
    slow = _after_first(tokens_with_alive(fork.quantile, most, 0.95))
    token = site.steps / site.acceptance
    share = j / np.maximum(site.others + j, 1e-12)
    decode = (alive * share * token).sum(axis=1)
    replica = site.prefill + decode
    join = (alive * token).sum(axis=1) * site.stretch
    longest = np.maximum(alive.sum(axis=1), 1e-12)
    k = np.arange(1.0, most + 1)
    return Curve(
        join_mean=site.first_token + join,
        join_p95=site.first_token + (slow * token).sum(axis=1) * site.stretch,
        token_seconds=np.take_along_axis(token, k[:, None].astype(int), axis=1)[:, 0] * site.stretch,
        at_work=alive @ j / longest,
        against_sequential=k * (site.first_token[0] + join[0]) / (site.first_token + join),
        useful=useful_work_curve(most, fork.success, fork.correlation, fork.avenues),
        gpu_seconds=replica * site.devices,
        usd=replica * site.usd_per_second,
    )


def _after_first(alive: Matrix) -> Matrix:
    """The same without the first token of every branch, which its prompt's last step makes."""
    found = alive.copy()
    rows = np.arange(len(found))
    found[rows, rows + 1] = np.maximum(found[rows, rows + 1] - 1.0, 0.0)
    return found


@dataclass(frozen=True)
class TurnsAhead:
    """Depths 1..most of speculating on next turns, (most,) each: probabilities, seconds and $."""

    useful: Vector
    ready: Vector
    saved_seconds: Vector
    wasted_usd: Vector
    pays_from: Vector

    def paying(self, hour_value: float | None) -> int:
        """Deepest turn that pays at ``hour_value`` [$] of an hour not waited.

        Without one: the deepest that is more often useful than wasted.
        """
        pays = self.useful > 0.5 if hour_value is None else self.pays_from < hour_value
        return int(np.argmin(np.append(pays, False)))


def turns_ahead(quality: float, most: int, turn_seconds: float, turn_usd: float) -> TurnsAhead:
    """What speculating 1 to ``most`` turns ahead brings, for a turn of ``turn_seconds`` [s] and ``turn_usd`` [$].

    Turn t is useful with ``quality**t`` [1]: then it is there ``turn_seconds`` earlier and costs nothing
    more, as it would have been made anyway; else its cost is wasted.

    >>> ahead = turns_ahead(0.6, 4, 10.0, 0.01)
    >>> [round(float(u), 3) for u in ahead.useful], ahead.paying(None), ahead.paying(10.0)
    ([0.6, 0.36, 0.216, 0.13], 1, 2)
    """
    useful = turn_usefulness(quality, most)
    with np.errstate(divide="ignore"):
        per_hour = np.where(useful > 0, (1 - useful) * turn_usd / (useful * turn_seconds) * 3600, np.inf)
    return TurnsAhead(useful, np.cumsum(useful), useful * turn_seconds, (1 - useful) * turn_usd, per_hour)
