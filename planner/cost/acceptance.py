"""How many draft tokens are accepted: formulae, and measured curves by method, task and model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.errors import InputError, nearest
from planner.hardware.acceptance import AcceptanceData

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
) -> Acceptance:
    """Acceptance length of ``method`` at ``draft_tokens`` (n,) [tokens] on a task, (n,) [tokens].

    The user's own curve or length first; n-gram by task; learned drafters by model, else the
    median, times the task's and temperature's factor on what exceeds one. Always within
    [1, k+1]. InputError for an unknown method.

    Source: in the result; the factors are in ``hardware_db/acceptance``.
    """
    k = np.asarray(draft_tokens, dtype=float)
    if user_curve:
        lengths = np.array([positional_acceptance_length(user_curve[: int(x)]) for x in k])
        return _bounded(k, lengths, lengths, lengths, "measured", "the workload file")
    if user_length is not None:
        lengths = np.minimum(np.full_like(k, user_length), k + 1)
        return _bounded(k, lengths, lengths, lengths, "measured", "the workload file")
    if method == "n-gram":
        curve = data.ngram[data.ngram_task.get(task, task)]
        middle = curve.at(k)
        extra = (middle - 1) * data.interval
        return _bounded(k, middle, middle - extra, middle + extra, curve.kind, curve.source)
    found = data.family(model, method) or data.defaults.get(method)
    if found is None:
        raise InputError(
            f"no acceptance known for {method!r}", key="speculation.methods",
            suggestion=nearest(method, [*data.defaults, "n-gram"]),
        )  # fmt: skip
    factor, low, high = data.task_factor[task]
    # the curves are at temperature 1: colder sampling accepts more
    warm = (1 - data.temperature_slope * min(temperature, 1.0)) / (1 - data.temperature_slope)
    gain = (found.at(k) - 1) * warm
    spread = data.interval
    return _bounded(
        k, 1 + gain * factor, 1 + gain * min(low, factor * (1 - spread)),
        1 + gain * max(high, factor * (1 + spread)), found.kind, found.source,
    )  # fmt: skip


def _bounded(k: Vector, middle: Vector, low: Vector, high: Vector, kind: str, source: str) -> Acceptance:
    return Acceptance(np.clip(middle, 1.0, k + 1), np.clip(low, 1.0, k + 1), np.clip(high, 1.0, k + 1), kind, source)


def speculation_speedup(length: float, step_seconds: float, verify_and_draft_seconds: float) -> float:
    """Speed-up of time per output token: ``AL * t_1 / t_spec``, [1].

    length [tokens] per step, times [s]. Source: Leviathan et al., arXiv 2211.17192.

    >>> speculation_speedup(2.88, 0.010, 0.014)
    2.057142857142857
    """
    return length * step_seconds / verify_and_draft_seconds if verify_and_draft_seconds else math.inf
