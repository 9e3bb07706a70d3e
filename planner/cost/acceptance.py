"""How many draft tokens are accepted: formulae, and measured curves by method, task and model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.documents import read_toml
from planner.errors import InputError, nearest
from planner.hardware import database_root

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


@dataclass(frozen=True)
class Curve:
    """One measured curve: acceptance length [tokens] at draft lengths [tokens]."""

    draft_tokens: tuple[float, ...]
    lengths: tuple[float, ...]
    kind: str
    source: str

    def at(self, k: Vector) -> Vector:
        """Length at k, [tokens]: linear between points, flat beyond, never falling with k.

        Source: the measurements; their small dips are noise of sampling.
        """
        x = np.concatenate([[0.0], self.draft_tokens])
        y = np.maximum.accumulate(np.concatenate([[1.0], self.lengths]))
        return np.interp(k, x, y)


@dataclass(frozen=True)
class AcceptanceData:
    """Everything known about acceptance; built by :func:`load_acceptance`."""

    learned: Mapping[tuple[str, str], Curve]
    defaults: Mapping[str, Curve]
    ngram: Mapping[str, Curve]
    ngram_task: Mapping[str, str]
    task_factor: Mapping[str, tuple[float, float, float]]
    temperature_slope: float
    interval: float
    token_overhead_s: float
    ngram_verify_share: float
    draft_vocab: int

    def family(self, model: str, method: str) -> Curve | None:
        """The measured curve of this model's drafter, [tokens], or None. Source: the data files."""
        name = _key(model)
        for (known, kind), curve in self.learned.items():
            if kind == method and (name.startswith(known) or known.startswith(name)):
                return curve
        return None

    def has_head(self, model: str, method: str) -> bool:
        """Whether a public drafter of this method was measured for this model."""
        return self.family(model, method) is not None

    def length(
        self,
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
            return self._bounded(k, lengths, lengths, lengths, "measured", "the workload file")
        if user_length is not None:
            lengths = np.minimum(np.full_like(k, user_length), k + 1)
            return self._bounded(k, lengths, lengths, lengths, "measured", "the workload file")
        if method == "n-gram":
            curve = self.ngram[self.ngram_task.get(task, task)]
            middle = curve.at(k)
            extra = (middle - 1) * self.interval
            return self._bounded(k, middle, middle - extra, middle + extra, curve.kind, curve.source)
        found = self.family(model, method) or self.defaults.get(method)
        if found is None:
            raise InputError(
                f"no acceptance known for {method!r}", key="speculation.methods",
                suggestion=nearest(method, [*self.defaults, "n-gram"]),
            )  # fmt: skip
        factor, low, high = self.task_factor[task]
        # the curves are at temperature 1: colder sampling accepts more
        warm = (1 - self.temperature_slope * min(temperature, 1.0)) / (1 - self.temperature_slope)
        gain = (found.at(k) - 1) * warm
        spread = self.interval
        return self._bounded(
            k, 1 + gain * factor, 1 + gain * min(low, factor * (1 - spread)),
            1 + gain * max(high, factor * (1 + spread)), found.kind, found.source,
        )  # fmt: skip

    @staticmethod
    def _bounded(k: Vector, middle: Vector, low: Vector, high: Vector, kind: str, source: str) -> Acceptance:
        return Acceptance(
            np.clip(middle, 1.0, k + 1), np.clip(low, 1.0, k + 1), np.clip(high, 1.0, k + 1), kind, source
        )


def _key(model: str) -> str:
    return model.lower().split("/")[-1].replace("-instruct", "")


def _curve(entry: Mapping[str, Any]) -> Curve:
    return Curve(
        tuple(float(x) for x in entry["draft_tokens"]),
        tuple(float(x) for x in entry["acceptance_length"]),
        str(entry["kind"]),
        str(entry["source"]),
    )


@lru_cache(maxsize=1)
def load_acceptance() -> AcceptanceData:
    """The bundled acceptance data, [tokens] and [s]. Source: named in each entry of the files."""
    root = database_root() / "acceptance"
    learned_file, defaults = read_toml(root / "learned.toml").data, read_toml(root / "defaults.toml").data
    learned: dict[tuple[str, str], Curve] = {}
    for entry in learned_file["curve"]:
        # the last of a model's curves (thinking on) stands for it
        learned[_key(entry["model"]), entry["method"]] = _curve(entry)
    factors = {
        task: (v["value"], v["low"], v["high"]) for task, v in defaults["task_factor"].items() if isinstance(v, dict)
    }
    cost = defaults["draft_cost"]
    return AcceptanceData(
        learned,
        {e["method"]: _curve(e) for e in defaults["default"]},
        {e["task"]: _curve(e) for e in defaults["ngram"]},
        defaults["ngram_task"],
        factors,
        float(defaults["temperature"]["slope"]),
        float(defaults["interval"]["share"]),
        float(cost["token_overhead_s"]),
        float(cost["ngram_verify_share"]),
        int(cost["draft_vocab"]),
    )


def speculation_speedup(length: float, step_seconds: float, verify_and_draft_seconds: float) -> float:
    """Speed-up of time per output token: ``AL * t_1 / t_spec``, [1].

    length [tokens] per step, times [s]. Source: Leviathan et al., arXiv 2211.17192.

    >>> speculation_speedup(2.88, 0.010, 0.014)
    2.057142857142857
    """
    return length * step_seconds / verify_and_draft_seconds if verify_and_draft_seconds else math.inf
