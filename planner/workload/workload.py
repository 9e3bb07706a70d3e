"""A workload as the planner uses it: distributions, moments, demand, limits, and every assumption."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from planner.workload.joint import JointLengths
from planner.workload.lengths import Lengths, shuffled
from planner.workload.schema import (
    Cost,
    EngineTable,
    Hardware,
    Objective,
    Parallelism,
    Precision,
    Reliability,
    Serving,
    Speculation,
    Subagents,
)

if TYPE_CHECKING:
    from planner.workload.sessions import SessionModel
    from planner.workload.traces import Trace

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Slo:
    """A limit: ``statistic`` of ``metric`` at most ``limit_s`` [s], for one class or all."""

    metric: str
    statistic: str
    limit_s: float
    class_name: str | None = None

    @property
    def label(self) -> str:
        """The limit as users write it, with its class. Source: the workload file."""
        return f"{self.metric}_{self.statistic}" + (f" of {self.class_name}" if self.class_name else "")


@dataclass(frozen=True)
class RequestClass:
    """One class of requests; lengths in tokens, ``share`` sums to one over classes.

    With a ``joint`` sample input, cached and output tokens hang together as they do in it, and
    ``context`` and ``answer`` are what it looks like from one side; without one they are independent.
    """

    name: str
    share: float
    context: Lengths
    cached_fraction: float
    reasoning: Lengths | None
    answer: Lengths | None
    joint: JointLengths | None = field(default=None, compare=False)

    def output_moment(self, k: int) -> float:
        """E[O^k] of reasoning plus answer, independent, [tokens^k], k = 1..3. Source: binomial."""
        if self.joint is not None:
            return self.joint.moments["o" if k == 1 else f"o{k}"]
        parts = [p for p in (self.reasoning, self.answer) if p is not None]
        if len(parts) == 1:
            return parts[0].moment(k)
        a, b = parts
        if k == 1:
            return a.moment(1) + b.moment(1)
        if k == 2:
            return a.moment(2) + 2 * a.moment(1) * b.moment(1) + b.moment(2)
        return a.moment(3) + 3 * a.moment(2) * b.moment(1) + 3 * a.moment(1) * b.moment(2) + b.moment(3)

    @property
    def products(self) -> dict[str, float]:
        """Means of products of input I, prefilled P and output O: i, p, o, o2, o3, io, iio, ioo.

        [tokens] and their powers. Source: the joint sample, or independence.
        """
        if self.joint is not None:
            return self.joint.moments
        i1, i2 = self.context.moment(1), self.context.moment(2)
        o1, o2, o3 = (self.output_moment(k) for k in (1, 2, 3))
        return {
            "i": i1, "p": (1 - self.cached_fraction) * i1, "o": o1, "o2": o2, "o3": o3, "io": i1 * o1,
            "iio": i2 * o1, "ioo": i1 * o2,
        }  # fmt: skip

    def stratified(self, n: int) -> tuple[Vector, Vector, Vector]:
        """Input, cached and output of n requests whose means are exact, (n,) each, [tokens].

        Source: Latin hypercube; a joint sample is stratified as it is.
        """
        if self.joint is not None:
            sample = self.joint.stratified(n)
            return sample.input, sample.cached, np.maximum(sample.output, 1.0)
        i = _exact(self.context.stratified(n)[shuffled(n, 0)], self.context.mean)
        o = np.zeros(n)
        for dimension, part in enumerate((self.reasoning, self.answer), start=1):
            if part is not None:
                o += _exact(part.stratified(n)[shuffled(n, dimension)], part.mean)
        return i, self.cached_fraction * i, np.maximum(o, 1.0)


@dataclass(frozen=True)
class Moments:
    """Moments of the mix of classes, I input and O output tokens; products as each class has them.

    ``mean_prefill`` E[(1-c)I]; ``resident_context`` E[IO + O^2/2]/E[O]; ``resident_second``
    E[I^2 O + I O^2 + O^3/3]/E[O]; ``kv_token_steps`` E[IO + O^2/2]. Tokens and their powers.
    """

    mean_input: float
    mean_prefill: float
    mean_output: float
    second_output: float
    resident_context: float
    resident_second: float
    kv_token_steps: float


@dataclass(frozen=True)
class RequestSample:
    """Stratified requests: (n,) arrays of [tokens], with ``weights`` [1] and the ``classes`` index."""

    input: Vector
    cached: Vector
    output: Vector
    weights: Vector
    classes: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Workload:
    """What is asked of the fleet; built by :func:`planner.workload.load_workload`."""

    name: str
    model: str
    classes: tuple[RequestClass, ...]
    demand: WorkloadDemand
    slo: tuple[Slo, ...]
    subagents: Subagents | None
    speculation: Speculation
    precision: Precision
    hardware: Hardware
    parallelism: Parallelism
    engine: EngineTable
    reliability: Reliability
    objective: Objective
    assumptions: tuple[tuple[str, str, str], ...]
    resolved: dict[str, Any]
    serving: Serving = field(default_factory=Serving)
    cost: Cost | None = None

    @cached_property
    def moments(self) -> Moments:
        """Moments of the mix, [tokens]. Source: length-biased residence of a sequence.

        A resident sequence is chosen in proportion to its output and is uniformly through it.
        """
        total: dict[str, float] = dict.fromkeys(("i", "p", "o", "o2", "resident", "second"), 0.0)
        for c in self.classes:
            m = c.products
            values = {
                "i": m["i"], "p": m["p"], "o": m["o"], "o2": m["o2"], "resident": m["io"] + m["o2"] / 2,
                "second": m["iio"] + m["ioo"] + m["o3"] / 3,
            }  # fmt: skip
            for key, value in values.items():
                total[key] += c.share * value
        return Moments(
            total["i"], total["p"], total["o"], total["o2"],
            total["resident"] / total["o"], total["second"] / total["o"], total["resident"],
        )  # fmt: skip

    def request_sample(self, n: int = 256) -> RequestSample:
        """n stratified requests whose means are exact, (n,) arrays of [tokens].

        Each class gets strata in proportion to its share (at least 16). Source: Latin hypercube.
        """
        known: dict[int, RequestSample] = self.__dict__.setdefault("_samples", {})
        if n not in known:
            known[n] = self._draw(n)
        return known[n]

    def _draw(self, n: int) -> RequestSample:
        counts = [max(16, round(n * c.share)) for c in self.classes]
        counts[int(np.argmax(counts))] += n - sum(counts)
        inputs: list[Vector] = []
        cached: list[Vector] = []
        outputs: list[Vector] = []
        weights, index = [], []
        for at, (c, count) in enumerate(zip(self.classes, counts, strict=True)):
            for found, values in zip((inputs, cached, outputs), c.stratified(count), strict=True):
                found.append(values)
            weights.append(np.full(count, c.share / count))
            index.append(np.full(count, at))
        return RequestSample(
            np.concatenate(inputs), np.concatenate(cached), np.concatenate(outputs),
            np.concatenate(weights), np.concatenate(index),
        )  # fmt: skip

    def resident_contexts(self, n: int = 64) -> Vector:
        """n equally likely contexts of a random resident sequence, (n,), [tokens].

        Length-biased by output, uniform position, rescaled so that the mean is exact.
        Source: renewal theory (inspection paradox).
        """
        s = self.request_sample(4096)
        position = (shuffled(len(s.input), 3) + 0.5) / len(s.input)
        context = s.input + position * s.output
        bias = s.weights * s.output
        order = np.argsort(context)
        cumulative = np.cumsum(bias[order]) / bias.sum()
        at = np.searchsorted(cumulative, (np.arange(n) + 0.5) / n)
        points = context[order][np.minimum(at, len(context) - 1)]
        return _exact(points, self.moments.resident_context)

    def output_quantile(self, q: Any) -> Any:
        """Quantile of output tokens of the mix, [tokens], shape of q. Source: stratified sample."""
        s = self.request_sample(4096)
        order = np.argsort(s.output)
        cumulative = np.cumsum(s.weights[order]) / s.weights.sum()
        at = np.searchsorted(cumulative, np.asarray(q, dtype=float) - 1e-12)
        return s.output[order][np.minimum(at, len(order) - 1)]

    @property
    def sequences_per_request(self) -> int:
        """Sequences one demanded request starts, [1]. Source: the workload."""
        return self.subagents.fan_out if self.subagents else 1

    @property
    def peak_requests_per_second(self) -> float | None:
        """Request rate at peak, [1/s]; None when demand is users, whose rate depends on the plan."""
        rate = self.demand.requests_per_second
        return None if rate is None else rate * self.demand.peak_to_mean


@dataclass(frozen=True)
class WorkloadDemand:
    """Demand in one form: ``kind`` rate, users or sessions; [1/s], users or sessions, [s].

    ``think_time`` is the mean pause between answer and next request; ``arrivals`` poisson, gamma or
    weibull, with ``arrival_cv`` [1]; ``session`` how agent sessions go; ``trace`` the recorded traffic
    that rate, peaks and lengths were taken from, for replay.
    """

    kind: str
    requests_per_second: float | None
    concurrent_users: float | None
    think_time: float
    peak_to_mean: float
    arrival_cv: float
    arrivals: str = "poisson"
    session: SessionModel | None = None
    trace: Trace | None = field(default=None, compare=False, repr=False)


def _exact(points: Vector, mean: float) -> Vector:
    """Points rescaled so that their mean is exact, [tokens]."""
    return points * (mean / points.mean()) if points.mean() > 0 else points
