"""How long a session is silent between an answer and its next prompt: a tool at work, or a person."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from planner.errors import InputError, nearest
from planner.workload.lengths import normal_cdf

SHAPES = ("lognormal", "gamma", "exponential")
#: terms after which the series and the continued fraction have long converged
TERMS = 3000


def gamma_cdf(shape: float, x: Any) -> Any:
    """Regularised lower incomplete gamma function P(a, x), [1], in the shape of ``x`` [1].

    Power series below ``a + 1``, Lentz's continued fraction above.

    Source: DLMF 8.7.1 and 8.9.2, https://dlmf.nist.gov/8.

    >>> round(float(gamma_cdf(2.0, 3.0)), 6)
    0.800852
    """
    y = np.atleast_1d(np.asarray(x, dtype=float))
    finite = np.where(np.isfinite(y) & (y > 0), y, 1.0)
    with np.errstate(under="ignore"):
        front = np.exp(shape * np.log(finite) - finite - math.lgamma(shape))
    low = np.minimum(finite, shape + 1)
    term = np.full_like(low, 1 / shape)
    series = term.copy()
    for i in range(1, TERMS):
        term = term * low / (shape + i)
        series += term
        if np.all(term < 1e-16 * series):
            break
    high = np.maximum(finite, shape + 1)
    b = high + 1 - shape
    c, d = np.full_like(b, 1e300), 1 / b
    fraction = d.copy()
    for i in range(1, TERMS):
        a = -i * (i - shape)
        b = b + 2
        d = 1 / (a * d + b)
        c = b + a / c
        step = c * d
        fraction *= step
        if np.all(np.abs(step - 1) < 1e-15):
            break
    value = np.where(finite < shape + 1, front * series, 1 - front * fraction)
    value = np.where(y <= 0, 0.0, np.where(np.isposinf(y), 1.0, value))
    return np.clip(value, 0.0, 1.0).reshape(np.shape(x))[()]


@dataclass(frozen=True)
class Pause:
    """A pause with ``mean`` [s] and coefficient of variation ``cv`` [1].

    ``shape`` is lognormal, gamma or exponential (cv 1); a cv of zero is a constant. InputError when
    one of them makes no sense.
    """

    mean: float
    cv: float = 1.0
    shape: str = "lognormal"

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise InputError(
                f"unknown shape of a pause {self.shape!r}",
                expected="one of " + ", ".join(SHAPES),
                suggestion=nearest(self.shape, SHAPES),
            )
        if not (math.isfinite(self.mean) and self.mean > 0):
            raise InputError(f"the mean of a pause is {self.mean:g}", expected="a positive number of seconds")
        if not (math.isfinite(self.cv) and self.cv >= 0):
            raise InputError(f"the cv of a pause is {self.cv:g}", expected="zero or more")
        if self.shape == "exponential" and self.cv != 1:
            raise InputError(f"an exponential pause with cv {self.cv:g}", expected="cv 1, or shape gamma")

    def _lognormal(self) -> tuple[float, float]:
        s2 = math.log1p(self.cv**2)
        return math.log(self.mean) - s2 / 2, math.sqrt(s2)

    def cdf(self, seconds: Any) -> Any:
        """P(pause < ``seconds``), [1], in the shape of ``seconds`` [s]. Source: closed forms.

        >>> round(float(Pause(60.0, 1.0, "exponential").cdf(60.0)), 4)
        0.6321
        """
        t = np.asarray(seconds, dtype=float)
        if self.cv == 0:
            return (t > self.mean).astype(float)[()]
        if self.shape == "exponential" or (self.shape == "gamma" and self.cv == 1):
            return -np.expm1(-np.maximum(t, 0) / self.mean)[()]
        if self.shape == "gamma":
            return gamma_cdf(1 / self.cv**2, t / (self.mean * self.cv**2))
        mu, sigma = self._lognormal()
        return normal_cdf((np.log(np.maximum(t, 1e-300)) - mu) / sigma)

    def mean_min(self, seconds: Any) -> Any:
        """E[min(pause, ``seconds``)], [s], in the shape of ``seconds`` [s]. Source: partial expectations.

        >>> round(float(Pause(60.0, 2.0).mean_min(60.0)), 2), float(Pause(60.0, 2.0).mean_min(np.inf))
        (31.55, 60.0)
        """
        t = np.maximum(np.asarray(seconds, dtype=float), 0.0)
        bounded = np.minimum(t, 1e300)
        if self.cv == 0:
            return np.minimum(t, self.mean)[()]
        if self.shape == "exponential" or (self.shape == "gamma" and self.cv == 1):
            return self.mean * self.cdf(t)
        if self.shape == "gamma":
            k, scale = 1 / self.cv**2, self.mean * self.cv**2
            below = gamma_cdf(k + 1, t / scale)
        else:
            mu, sigma = self._lognormal()
            below = normal_cdf((np.log(np.maximum(t, 1e-300)) - mu) / sigma - sigma)
        above = 1 - np.asarray(self.cdf(t))
        return (self.mean * below + np.where(above > 0, bounded * above, 0.0))[()]


@dataclass(frozen=True)
class PauseMixture:
    """One of several pauses, each with its ``weights`` [1]: most turns wait for a tool, some for a person."""

    parts: tuple[Pause, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.parts) != len(self.weights) or not self.parts:
            raise InputError("a mixture of pauses needs one weight for each", expected="as many weights as pauses")
        if min(self.weights) < 0 or sum(self.weights) <= 0:
            raise InputError(f"weights of pauses {self.weights}", expected="none below zero, and not all zero")

    @property
    def mean(self) -> float:
        """Mean pause, [s]. Source: total expectation."""
        return float(self._sum([p.mean for p in self.parts]))

    def _sum(self, values: list[Any]) -> Any:
        total = sum(self.weights)
        return sum(w / total * np.asarray(v) for w, v in zip(self.weights, values, strict=True))

    def cdf(self, seconds: Any) -> Any:
        """P(pause < ``seconds``), [1], in the shape of ``seconds`` [s]. Source: total probability.

        >>> tools_and_people = PauseMixture((Pause(5.0, 1.0, "exponential"), Pause(300.0, 1.5)), (0.9, 0.1))
        >>> round(float(tools_and_people.cdf(60.0)), 3)
        0.917
        """
        return self._sum([p.cdf(seconds) for p in self.parts])

    def mean_min(self, seconds: Any) -> Any:
        """E[min(pause, ``seconds``)], [s], in the shape of ``seconds`` [s]. Source: total expectation."""
        return self._sum([p.mean_min(seconds) for p in self.parts])


AnyPause: TypeAlias = Pause | PauseMixture
