"""How many draft tokens are accepted: formulae, and measured curves by method, task and model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.errors import InputError
from planner.hardware.acceptance import AcceptanceData, Curve

Vector = npt.NDArray[np.float64]


def acceptance_length(alpha: float, draft_tokens: Any) -> Any:
    """Tokens per step when each draft is accepted with probability ``alpha`` on its own, [tokens].

    ``(1 - a^(k+1)) / (1 - a)`` for k ``draft_tokens`` [tokens], scalar or array; alpha in [0, 1].
    Source: Leviathan, Kalman & Matias, arXiv 2211.17192, equation 1.

    >>> round(acceptance_length(0.8, 3), 3)
    2.952
    """
    k = np.asarray(draft_tokens, dtype=float)
    value = k + 1 if alpha >= 1 else (1 - alpha ** (k + 1)) / (1 - alpha)
    return value[()] if isinstance(draft_tokens, np.ndarray) else float(value)


def positional_acceptance_length(conditional: Sequence[float]) -> float:
    """Tokens per step from acceptance by position, each given all before, [tokens].

    ``1 + sum_j prod_{i<=j} p_i``, p in [0, 1]. Source: definition; n-gram drafts are far from
    independent, so this is the form to use for them.

    >>> round(positional_acceptance_length([0.263, 0.878, 0.924, 0.942, 0.939]), 3)
    2.097
    """
    return 1.0 + float(np.sum(np.cumprod(np.asarray(conditional, dtype=float))))


def alpha_from_length(length: float, draft_tokens: int) -> float:
    """Independent acceptance that gives an acceptance ``length`` [tokens] at k tokens, [1].

    Bisection of :func:`acceptance_length`. Source: arXiv 2211.17192, inverted.

    >>> round(alpha_from_length(2.88, 3), 3)
    0.784
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if acceptance_length(middle, draft_tokens) < length else (low, middle)
    return (low + high) / 2


def measured_length(curve: Curve, draft_tokens: int) -> float:
    """Acceptance length at any draft length from a few measured ones, [tokens].

    Between the measured ones linear; beyond them as if every draft were accepted on its own with the
    probability the nearest of them implies. Source: arXiv 2211.17192, equation 1; the measurements.

    >>> from planner.hardware.acceptance import Curve
    >>> random_tokens = Curve((3.0,), (2.5,), "measured", "a run")
    >>> [round(measured_length(random_tokens, k), 2) for k in (1, 2, 3)]
    [1.69, 2.17, 2.5]
    """
    first, last = curve.draft_tokens[0], curve.draft_tokens[-1]
    if first <= draft_tokens <= last:
        return float(curve.at(np.array(float(draft_tokens))))
    nearest = 0 if draft_tokens < first else -1
    alpha = alpha_from_length(curve.lengths[nearest], int(curve.draft_tokens[nearest]))
    return float(acceptance_length(alpha, draft_tokens))


def continued_length(lengths: Sequence[float], draft_tokens: int) -> float:
    """Acceptance length at ``draft_tokens`` [tokens] from ``lengths`` [tokens] at 1, 2, 3, ..., [tokens].

    Every further draft is accepted with the chance of the last one measured, given those before.
    Source: definition; chances fall slowly with the position.

    >>> round(continued_length([1.84, 2.50, 2.99], 5), 2)
    3.62
    """
    known = [1.0, *lengths]
    gains = np.diff(known)
    chance = min(1.0, float(gains[-1] / gains[-2])) if len(gains) > 1 and gains[-2] > 0 else float(gains[-1])
    found, gain = known[min(draft_tokens, len(lengths))], float(gains[-1])
    for _ in range(len(lengths), draft_tokens):
        gain *= chance
        found += gain
    return float(found)


@dataclass(frozen=True)
class Acceptance:
    """Acceptance length per draft length, [tokens], with its spread and where it is from."""

    length: Vector
    low: Vector
    high: Vector
    kind: str
    source: str


def expected_acceptance(
    data: AcceptanceData,
    method: str,
    draft_tokens: Vector,
    task: str,
    *,
    model: str = "",
    temperature: float = 1.0,
    user_curve: Sequence[float] = (),
    user_length: float | None = None,
    user_rates: Sequence[float] = (),
    domain: str = "in-domain",
    context: float = 0.0,
) -> Acceptance:
    """Acceptance length of ``method`` at ``draft_tokens`` (n,) [tokens] on a task, (n,) [tokens].

    The user's own curve or length first; n-gram by task; learned drafters by model, else the
    median, times the task's, temperature's and domain's factor at ``context`` [tokens] on what exceeds
    one. Always within [1, k+1]. InputError for an unknown method.

    Source: in the result; the factors are in ``hardware_db/acceptance``.
    """
    k = np.asarray(draft_tokens, dtype=float)
    if user_curve:
        lengths = np.array([positional_acceptance_length(user_curve[: int(x)]) for x in k])
        return _bounded(k, lengths, lengths, lengths, "measured", "the workload file")
    if user_rates:
        lengths = np.array([1 + sum(user_rates[: int(x)]) for x in k])
        return _bounded(k, lengths, lengths, lengths, "measured", "the workload file")
    if user_length is not None:
        lengths = np.minimum(np.full_like(k, user_length), k + 1)
        return _bounded(k, lengths, lengths, lengths, "measured", "the workload file")
    own = data.users(model, method, task)
    if own is not None:
        lengths = own.at(k)
        return _bounded(k, lengths, lengths, lengths, own.kind, own.source)
    if method == "n-gram":
        curve = data.ngram[data.ngram_task.get(task, task)]
        middle = curve.at(k)
        extra = (middle - 1) * data.interval
        return _bounded(k, middle, middle - extra, middle + extra, curve.kind, curve.source)
    found = data.family(model, method) or data.defaults.get(method)
    if found is None:
        raise InputError(
            f"no acceptance known for {method!r}", key="speculation.methods",
            expected="speculation.acceptance or a curve of --acceptance beside it, or one of "
            + ", ".join(sorted([*data.defaults, "n-gram"])),
        )  # fmt: skip
    factor, low, high = data.task_factor[task]
    # the curves are at temperature 1: colder sampling accepts more
    warm = (1 - data.temperature_slope * min(temperature, 1.0)) / (1 - data.temperature_slope)
    gain = (found.at(k) - 1) * warm * float(domain_factor(data, method, domain, context))
    spread = data.interval
    return _bounded(
        k, 1 + gain * factor, 1 + gain * min(low, factor * (1 - spread)),
        1 + gain * max(high, factor * (1 + spread)), found.kind, found.source,
    )  # fmt: skip


def domain_factor(data: AcceptanceData, method: str, domain: str, contexts: Any) -> Any:
    """Factor on (acceptance length - 1) of a drafter of ``domain`` at ``contexts`` [tokens], [1], their shape.

    One for a drafter trained on the workload's text ("in-domain") and for what needs no training; for a
    "generic" one it falls with the logarithm of the context. Source: ``hardware_db/acceptance``.

    >>> from planner.hardware.acceptance import load_acceptance
    >>> round(float(domain_factor(load_acceptance(), "eagle3", "generic", 4096.0)), 3)
    0.75
    """
    match = data.domain
    x = np.asarray(contexts, dtype=float)
    if domain != "generic" or method not in match.methods:
        return np.ones_like(x)
    ends = np.log([match.from_tokens, match.to_tokens])
    return np.interp(np.log(np.maximum(x, 1.0)), ends, [1.0, match.factor])


def _bounded(k: Vector, middle: Vector, low: Vector, high: Vector, kind: str, source: str) -> Acceptance:
    return Acceptance(np.clip(middle, 1.0, k + 1), np.clip(low, 1.0, k + 1), np.clip(high, 1.0, k + 1), kind, source)


def speculation_speedup(length: float, step_seconds: float, verify_and_draft_seconds: float) -> float:
    """Speed-up of time per output token: ``AL * t_1 / t_spec``, [1].

    length [tokens] per step, times [s]. Source: Leviathan et al., arXiv 2211.17192.

    >>> speculation_speedup(2.88, 0.010, 0.014)
    2.057142857142857
    """
    return length * step_seconds / verify_and_draft_seconds if verify_and_draft_seconds else math.inf
