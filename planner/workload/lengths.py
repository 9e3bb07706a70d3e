"""Distributions of token counts: moments, quantiles and stratified samples."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]


def normal_quantile(p: Any) -> Any:
    """Inverse of the standard normal distribution, for p in (0, 1), array or scalar, [1].

    Source: Acklam's rational approximation; relative error below 1.2e-9.

    >>> round(float(normal_quantile(0.975)), 6)
    1.959964
    """
    a = (-39.69683028665376, 220.9460984245205, -275.9285104469687, 138.3577518672690,
         -30.66479806614716, 2.506628277459239)  # fmt: skip
    b = (-54.47609879822406, 161.5858368580409, -155.6989798598866, 66.80131188771972,
         -13.28068155288572)  # fmt: skip
    c = (-0.007784894002430293, -0.3223964580411365, -2.400758277161838, -2.549732539343734,
         4.374664141464968, 2.938163982698783)  # fmt: skip
    d = (0.007784695709041462, 0.3224671290700398, 2.445134137142996, 3.754408661907416)
    x = np.clip(np.asarray(p, dtype=float), 1e-300, 1 - 1e-16)
    tail = np.sqrt(-2 * np.log(np.minimum(x, 1 - x)))
    outer = np.polyval(c, tail) / np.polyval((*d, 1.0), tail)
    q = x - 0.5
    r = q * q
    inner = np.polyval(a, r) * q / np.polyval((*b, 1.0), r)
    return np.where(np.abs(q) <= 0.47575, inner, np.where(q < 0, outer, -outer))[()]


def normal_cdf(z: Any) -> Any:
    """Standard normal distribution function, array or scalar, [1]. Source: the error function.

    >>> float(normal_cdf(0.0))
    0.5
    """
    flat = np.atleast_1d(np.asarray(z, dtype=float))
    values = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in flat.ravel()])
    return values.reshape(np.shape(z))[()]


#: irrational steps, one per dimension, whose multiples fill the unit interval evenly
PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71)
STEPS = tuple(math.sqrt(prime) for prime in PRIMES)


def shuffled(n: int, dimension: int) -> npt.NDArray[np.int64]:
    """A fixed order of 0..n-1 that pairs strata of different ``dimension`` evenly, (n,), [1].

    The ranks of the fractional parts of ``i * sqrt(prime)``: the same every time, and no two
    dimensions move together. Source: Kronecker sequences.

    >>> shuffled(5, 0)
    array([2, 4, 1, 3, 0])
    """
    return np.argsort(np.argsort((np.arange(1, n + 1) * STEPS[dimension]) % 1.0))


class Lengths(ABC):
    """A distribution of lengths, [tokens]."""

    @property
    def mean(self) -> float:
        """Mean length, [tokens]. Source: first moment."""
        return self.moment(1)

    @property
    def cv(self) -> float:
        """Standard deviation over mean, [1]. Source: moments."""
        return math.sqrt(max(0.0, self.moment(2) / self.mean**2 - 1)) if self.mean else 0.0

    @abstractmethod
    def moment(self, k: int) -> float:
        """E[X^k], [tokens^k], k = 1, 2, 3. Source: the distribution's closed form."""

    @abstractmethod
    def quantile(self, q: Any) -> Any:
        """Length not exceeded with probability q in (0, 1), [tokens], in the shape of q."""

    def stratified(self, n: int) -> Vector:
        """n equally likely points, the quantiles at (i + 1/2)/n, (n,), [tokens]."""
        return np.asarray(self.quantile((np.arange(n) + 0.5) / n), dtype=float)

    def mean_min(self, limit: float) -> float:
        """E[min(X, limit)], [tokens]. Source: a stratified sum of 4096 points unless closed."""
        return float(np.minimum(self.stratified(4096), limit).mean())

    def sample(self, rng: np.random.Generator, n: int) -> Vector:
        """n independent draws, (n,), [tokens]. Source: inversion."""
        return np.asarray(self.quantile(rng.random(n) * (1 - 2e-12) + 1e-12), dtype=float)

    @abstractmethod
    def describe(self) -> str:
        """One phrase for people."""


@dataclass(frozen=True)
class Constant(Lengths):
    """Always ``value`` tokens."""

    value: float

    def moment(self, k: int) -> float:
        """value^k, [tokens^k]. Source: definition."""
        return self.value**k

    def quantile(self, q: Any) -> Any:
        """value, [tokens]. Source: definition."""
        return (np.zeros_like(np.asarray(q, dtype=float)) + self.value)[()]

    def mean_min(self, limit: float) -> float:
        """min(value, limit), [tokens]. Source: definition."""
        return min(self.value, limit)

    def describe(self) -> str:
        """The value."""
        return f"constant {self.value:g}"


@dataclass(frozen=True)
class Lognormal(Lengths):
    """ln X is normal with mean ``mu`` and standard deviation ``sigma``."""

    mu: float
    sigma: float

    @classmethod
    def from_mean(cls, mean: float, cv: float) -> Lognormal:
        """From mean [tokens] and coefficient of variation [1]. Source: moments of the lognormal.

        >>> round(Lognormal.from_mean(1000, 1.0).mean, 6)
        1000.0
        """
        s2 = math.log1p(cv * cv)
        return cls(math.log(mean) - s2 / 2, math.sqrt(s2))

    def moment(self, k: int) -> float:
        """exp(k*mu + k^2 sigma^2/2), [tokens^k]. Source: closed form."""
        return math.exp(k * self.mu + k * k * self.sigma**2 / 2)

    def quantile(self, q: Any) -> Any:
        """exp(mu + sigma*z(q)), [tokens]. Source: closed form."""
        return np.exp(self.mu + self.sigma * normal_quantile(q))

    def mean_min(self, limit: float) -> float:
        """E[min(X, w)], [tokens]. Source: partial expectation of the lognormal.

        >>> round(Lognormal(0.0, 1.0).mean_min(1e9), 4)
        1.6487
        """
        if limit <= 0:
            return 0.0
        if self.sigma == 0:
            return min(math.exp(self.mu), limit)
        d = (math.log(limit) - self.mu) / self.sigma
        below = float(normal_cdf(d - self.sigma))
        return self.mean * below + limit * float(normal_cdf(-d))

    def sample(self, rng: np.random.Generator, n: int) -> Vector:
        """n independent draws, (n,), [tokens]. Source: NumPy's generator."""
        return rng.lognormal(self.mu, self.sigma, n)

    def describe(self) -> str:
        """Median and spread."""
        return f"lognormal, median {math.exp(self.mu):.0f}, mean {self.mean:.0f}, cv {self.cv:.2f}"


#: shape from which the gamma's quantile is its normal approximation, right to a ten-thousandth
NEARLY_NORMAL = 60.0


@dataclass(frozen=True)
class Gamma(Lengths):
    """Gamma with ``shape`` and ``scale`` [tokens]."""

    shape: float
    scale: float

    @classmethod
    def from_mean(cls, mean: float, cv: float) -> Gamma:
        """From mean [tokens] and cv [1]. Source: moments of the gamma.

        >>> round(Gamma.from_mean(1000, 0.5).mean, 6)
        1000.0
        """
        return cls(1 / cv**2, mean * cv**2)

    def moment(self, k: int) -> float:
        """scale^k * Gamma(shape+k)/Gamma(shape), [tokens^k]. Source: closed form."""
        return self.scale**k * math.exp(math.lgamma(self.shape + k) - math.lgamma(self.shape))

    def cdf(self, x: Vector) -> Vector:
        """Regularised lower incomplete gamma function at x [tokens], [1].

        Source: its power series; converges for all x met here.
        """
        y = np.asarray(x, dtype=float) / self.scale
        term = np.ones_like(y)
        total = np.ones_like(y)
        a = self.shape
        for i in range(1, 400):
            term = term * y / (a + i)
            total = total + term
            if np.all(term < 1e-15 * total):
                break
        logs = a * np.log(np.maximum(y, 1e-300)) - y - math.lgamma(a + 1)
        return np.clip(np.exp(np.minimum(logs, 50)) * total, 0.0, 1.0)

    def sample(self, rng: np.random.Generator, n: int) -> Vector:
        """n independent draws, (n,), [tokens]. Source: NumPy's generator."""
        return rng.gamma(self.shape, self.scale, n)

    def quantile(self, q: Any) -> Any:
        """Inverse of the distribution function by bisection, [tokens], shape of q.

        Source: the function's series; from shape 60 Wilson and Hilferty's cube of a normal, PNAS 1931.
        """
        p = np.asarray(q, dtype=float)
        if self.shape > NEARLY_NORMAL:
            ninth = 1 / (9 * self.shape)
            return (self.shape * self.scale * (1 - ninth + np.asarray(normal_quantile(p)) * math.sqrt(ninth)) ** 3)[()]
        low = np.zeros_like(p)
        high = np.full_like(p, self.scale * (self.shape + 60 * math.sqrt(self.shape) + 60))
        for _ in range(70):
            middle = (low + high) / 2
            under = self.cdf(middle) < p
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        return ((low + high) / 2)[()]

    def describe(self) -> str:
        """Mean and spread."""
        return f"gamma, mean {self.mean:.0f}, cv {self.cv:.2f}"


@dataclass(frozen=True)
class Empirical(Lengths):
    """Observed lengths: ``values`` sorted, with ``weights`` that sum to one."""

    values: tuple[float, ...]
    weights: tuple[float, ...] = ()

    @cached_property
    def _arrays(self) -> tuple[Vector, Vector, Vector]:
        v = np.asarray(self.values, dtype=float)
        w = np.asarray(self.weights, dtype=float) if self.weights else np.full(len(v), 1 / len(v))
        return v, w, np.cumsum(w)

    def moment(self, k: int) -> float:
        """Weighted mean of x^k, [tokens^k]. Source: definition."""
        v, w, _ = self._arrays
        return float(np.sum(w * v**k))

    def quantile(self, q: Any) -> Any:
        """Smallest value whose cumulative weight reaches q, [tokens], shape of q."""
        v, _, reached = self._arrays
        at = np.searchsorted(reached, np.asarray(q, dtype=float) - 1e-12)
        return v[np.minimum(at, len(v) - 1)]

    def mean_min(self, limit: float) -> float:
        """Weighted mean of min(x, limit), [tokens]. Source: definition."""
        v, w, _ = self._arrays
        return float(np.sum(w * np.minimum(v, limit)))

    def describe(self) -> str:
        """Size, mean and spread."""
        return f"empirical, {len(self.values)} values, mean {self.mean:.0f}, cv {self.cv:.2f}"


@dataclass(frozen=True)
class Limited(Lengths):
    """Another distribution with its values moved into [``low``, ``high``]."""

    inner: Lengths
    low: float = 0.0
    high: float = math.inf
    points: int = 8192
    _moments: dict[int, float] = field(default_factory=dict, compare=False, repr=False)

    def moment(self, k: int) -> float:
        """E[clip(X)^k], [tokens^k]. Source: a stratified sum."""
        if k not in self._moments:
            self._moments[k] = float(np.mean(self.stratified(self.points) ** k))
        return self._moments[k]

    def quantile(self, q: Any) -> Any:
        """Clipped quantile, [tokens], shape of q. Source: monotone transformation."""
        return np.clip(self.inner.quantile(q), self.low, self.high)

    def sample(self, rng: np.random.Generator, n: int) -> Vector:
        """n independent draws moved within the limits, (n,), [tokens]. Source: the inner distribution."""
        return np.clip(self.inner.sample(rng, n), self.low, self.high)

    def describe(self) -> str:
        """The inner distribution and its limits."""
        return f"{self.inner.describe()}, between {self.low:g} and {self.high:g}"


def lognormal_from_percentiles(points: Mapping[float, float]) -> tuple[Lognormal, float]:
    """Lognormal through two percentiles, or the best one through more, and its worst relative error.

    points: {probability: length [tokens]}, at least two, increasing. Source: least squares of ln x
    on the normal quantile.

    >>> fit, error = lognormal_from_percentiles({0.5: 12_000, 0.95: 90_000})
    >>> round(float(fit.quantile(0.95))), error < 1e-9
    (90000, True)
    """
    p = np.array(sorted(points))
    y = np.log([points[q] for q in p])
    z = np.asarray(normal_quantile(p))
    sigma = float(np.sum((z - z.mean()) * (y - y.mean())) / np.sum((z - z.mean()) ** 2))
    mu = float(y.mean() - sigma * z.mean())
    return Lognormal(mu, sigma), float(np.max(np.abs(np.expm1(mu + sigma * z - y))))
