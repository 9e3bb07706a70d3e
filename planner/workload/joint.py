"""Requests whose input, cached and output tokens were observed, or drawn, together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from planner.workload.lengths import Empirical, Vector

#: values a marginal distribution keeps
MARGINAL = 20_000
#: share of the requests nearest in input among which the siblings of a task find their outputs
NEAR = 0.01
#: requests picked in all while one stratified sample is sought
PICKED = 32_768


@dataclass(frozen=True, eq=False)
class JointLengths:
    """Equally likely requests, (n,) arrays of [tokens]: one index is one request, correlation and all."""

    input: Vector
    cached: Vector
    output: Vector

    def __len__(self) -> int:
        return len(self.input)

    @cached_property
    def context(self) -> Empirical:
        """Input lengths alone, [tokens]. Source: the sample."""
        return marginal(self.input)

    @cached_property
    def answer(self) -> Empirical:
        """Output lengths alone, [tokens]. Source: the sample."""
        return marginal(self.output)

    @property
    def cached_fraction(self) -> float:
        """Share of all input tokens that are cached, [1]. Source: the sample."""
        return float(self.cached.sum() / self.input.sum())

    def with_cached_fraction(self, fraction: float) -> JointLengths:
        """The same requests with ``fraction`` [1] of every input cached."""
        return JointLengths(self.input, fraction * self.input, self.output)

    @cached_property
    def moments(self) -> dict[str, float]:
        """Means of products, [tokens] and powers: i, p (prefilled), o, o2, o3, io, iio, ioo.

        Source: the sample.
        """
        i, o = self.input, self.output
        return {
            "i": float(i.mean()), "p": float((i - self.cached).mean()), "o": float(o.mean()),
            "o2": float((o * o).mean()), "o3": float((o * o * o).mean()), "io": float((i * o).mean()),
            "iio": float((i * i * o).mean()), "ioo": float((i * o * o).mean()),
        }  # fmt: skip

    def stratified(self, n: int) -> JointLengths:
        """``n`` requests with the sample's marginal quantiles, means and dependence, (n,) [tokens].

        Rows are picked, and their input and output replaced by the quantiles of the same rank. Of several
        picks, always the same ones, the one is taken whose products of lengths and squared prefill are
        nearest to the sample's. Source: empirical copula; rejective sampling.
        """
        rng = np.random.default_rng(0)
        ordered = (np.sort(self.input), np.sort(self.output))
        wanted = _products(self)
        best = self._pick(self._path(n), *ordered)
        least = float(np.max(np.abs(_products(best) / wanted - 1)))
        for _ in range(PICKED // n):
            found = self._pick(rng.integers(len(self), size=n), *ordered)
            error = float(np.max(np.abs(_products(found) / wanted - 1)))
            if error < least:
                best, least = found, error
        return best

    def _pick(self, at: npt.NDArray[np.int64], inputs: Vector, outputs: Vector) -> JointLengths:
        i, o = _ranked(self.input[at], inputs), _ranked(self.output[at], outputs)
        cached = self.cached[at] / self.input[at] * i
        wanted, found = float(self.cached.mean()), float(cached.mean())
        if found > wanted:
            cached = cached * (wanted / found)
        elif found < wanted:  # what is prefilled shrinks alike
            cached = i - (i - cached) * ((i.mean() - wanted) / (i.mean() - found))
        return JointLengths(i, cached, o)

    def _path(self, n: int) -> npt.NDArray[np.int64]:
        """Every (len/n)-th row along bands of output, each in order of input, every other one backwards."""
        bands = max(1, int(np.sqrt(n)))
        place = np.empty(len(self), dtype=np.int64)
        place[np.argsort(self.output, kind="stable")] = np.arange(len(self)) * bands // len(self)
        path = np.lexsort((np.where(place % 2, -self.input, self.input), place))
        return path[((np.arange(n) + 0.5) * len(self) / n).astype(np.int64)]

    @cached_property
    def by_input(self) -> npt.NDArray[np.int64]:
        """Indices in order of input, (n,), [1]. Source: sorting."""
        return np.argsort(self.input, kind="stable")

    def draw(self, tasks: int, fan_out: int, rng: np.random.Generator) -> tuple[Vector, Vector, Vector]:
        """Input, cached and output [tokens] of ``tasks`` times ``fan_out`` sequences, task by task.

        The sequences of a task have the input of one request, and the outputs of requests with about as
        much input.
        """
        if fan_out == 1:
            at = rng.integers(len(self), size=tasks)
            return self.input[at], self.cached[at], self.output[at]
        place = np.repeat(rng.integers(len(self), size=tasks), fan_out)
        reach = max(1, int(NEAR * len(self)))
        near = np.clip(place + rng.integers(-reach, reach + 1, size=len(place)), 0, len(self) - 1)
        own, others = self.by_input[place], self.by_input[near]
        return self.input[own], self.cached[own], self.output[others]


def marginal(lengths: Vector) -> Empirical:
    """The distribution of observed lengths (n,) [tokens], thinned to its quantiles when they are many."""
    if len(lengths) > MARGINAL:
        order = np.sort(lengths)
        edges = np.linspace(0, len(order), MARGINAL + 1).astype(np.int64)
        return Empirical(tuple((np.add.reduceat(order, edges[:-1]) / np.diff(edges)).tolist()))
    values, counts = np.unique(lengths, return_counts=True)
    return Empirical(tuple(values.tolist()), tuple((counts / counts.sum()).tolist()))


def _products(lengths: JointLengths) -> Vector:
    """E[IO], E[I^2 O], E[I O^2], and of what is prefilled E[P], E[P^2], E[PO], [tokens] and powers."""
    i, o = lengths.input, lengths.output
    new = i - lengths.cached
    products = (i * o, i * i * o, i * o * o, new, new * new, new * o)
    return np.array([product.mean() for product in products])


def _ranked(points: Vector, ordered: Vector) -> Vector:
    """Quantiles of ``ordered`` lengths in the order of the points, with the same mean, (n,) [tokens]."""
    n = len(points)
    at = np.minimum(((np.arange(n) + 0.5) * len(ordered) / n).astype(np.int64), len(ordered) - 1)
    found = np.empty(n)
    found[np.argsort(points, kind="stable")] = ordered[at]
    return found * (ordered.mean() / found.mean())
