"""A workload as the planner uses it: distributions, moments, demand, limits, and every assumption."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from planner.documents import Document, apply_overrides, parse_toml, read_toml
from planner.workload.length_tables import build_lengths
from planner.workload.lengths import Lengths, shuffled
from planner.workload.schema import (
    METRICS,
    STATISTICS,
    Demand,
    EngineTable,
    Hardware,
    Objective,
    Parallelism,
    Precision,
    Reliability,
    RequestTable,
    Slos,
    Speculation,
    Subagents,
    WorkloadFile,
)
from planner.workload.validation import validate

Vector = npt.NDArray[np.float64]
SECONDS_PER_DAY = 86_400.0
CV_DEFAULTS = {"context": 1.0, "reasoning": 1.5, "answer": 1.0}


@dataclass(frozen=True)
class Slo:
    """A limit: ``statistic`` of ``metric`` at most ``limit_s`` [s], for one class or all."""

    metric: str
    statistic: str
    limit_s: float
    class_name: str | None = None


@dataclass(frozen=True)
class RequestClass:
    """One class of requests; lengths in tokens, ``share`` sums to one over classes."""

    name: str
    share: float
    context: Lengths
    cached_fraction: float
    reasoning: Lengths | None
    answer: Lengths | None

    def output_moment(self, k: int) -> float:
        """E[O^k] of reasoning plus answer, independent, [tokens^k], k = 1..3. Source: binomial."""
        parts = [p for p in (self.reasoning, self.answer) if p is not None]
        if len(parts) == 1:
            return parts[0].moment(k)
        a, b = parts
        if k == 1:
            return a.moment(1) + b.moment(1)
        if k == 2:
            return a.moment(2) + 2 * a.moment(1) * b.moment(1) + b.moment(2)
        return a.moment(3) + 3 * a.moment(2) * b.moment(1) + 3 * a.moment(1) * b.moment(2) + b.moment(3)


@dataclass(frozen=True)
class Moments:
    """Moments of the mix of classes, I input and O output tokens independent within a class.

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
    """What is asked of the fleet; built by :func:`load_workload`."""

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

    @cached_property
    def moments(self) -> Moments:
        """Moments of the mix, [tokens]. Source: length-biased residence of a sequence.

        A resident sequence is chosen in proportion to its output and is uniformly through it.
        """
        total: dict[str, float] = dict.fromkeys(("i", "p", "o", "o2", "io", "resident", "second"), 0.0)
        for c in self.classes:
            i1, i2 = c.context.moment(1), c.context.moment(2)
            o1, o2, o3 = (c.output_moment(k) for k in (1, 2, 3))
            values = {
                "i": i1, "p": (1 - c.cached_fraction) * i1, "o": o1, "o2": o2, "io": i1 * o1,
                "resident": i1 * o1 + o2 / 2, "second": i2 * o1 + i1 * o2 + o3 / 3,
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
        inputs, cached, outputs, weights, index = [], [], [], [], []
        for at, (c, count) in enumerate(zip(self.classes, counts, strict=True)):
            i = _exact(c.context.stratified(count)[shuffled(count, 0)], c.context.mean)
            o = np.zeros(count)
            for dimension, part in enumerate((c.reasoning, c.answer), start=1):
                if part is not None:
                    o += _exact(part.stratified(count)[shuffled(count, dimension)], part.mean)
            inputs.append(i)
            cached.append(c.cached_fraction * i)
            outputs.append(np.maximum(o, 1.0))
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
    """Demand in one form: ``kind`` rate or users; [1/s], users, [s]."""

    kind: str
    requests_per_second: float | None
    concurrent_users: float | None
    think_time: float
    peak_to_mean: float
    arrival_cv: float


def _exact(points: Vector, mean: float) -> Vector:
    """Points rescaled so that their mean is exact, [tokens]."""
    return points * (mean / points.mean()) if points.mean() > 0 else points


def load_workload(path: str | Path, overrides: Iterable[str] = (), *, text: str | None = None) -> Workload:
    """A workload from a TOML file, ``-`` for standard input, or ``text`` named ``path``.

    ``overrides`` are ``key.path=value`` settings. Raises InputError: file, key, line, expectation.
    """
    document = parse_toml(text, str(path)) if text is not None else read_toml(path)
    return build_workload(apply_overrides(document, overrides))


def build_workload(document: Document) -> Workload:
    """A workload from a parsed document; InputError for anything wrong in it."""
    file = validate(WorkloadFile, document)
    assumptions: list[tuple[str, str, str]] = []
    classes = _classes(file, document, assumptions)
    moments_output = sum(c.share * c.output_moment(1) for c in classes)
    demand = _demand(file.demand, document, moments_output)
    _check_subagents(file, document, classes)
    _note_defaults(file, document, assumptions)
    slos = _slos(file.slo, None)
    for request in file.requests or []:
        slos += _slos(request.slo, request.name)
    return Workload(
        file.name or Path(document.name).stem.strip("<>"), file.model, classes, demand, tuple(slos),
        file.subagents, file.speculation, file.precision, file.hardware, file.parallelism,
        file.engine, file.reliability, file.objective, tuple(assumptions), _resolved(file),
    )  # fmt: skip


def _resolved(file: WorkloadFile) -> dict[str, Any]:
    return file.model_dump(mode="json", exclude_none=True)


def _classes(
    file: WorkloadFile, document: Document, assumptions: list[tuple[str, str, str]]
) -> tuple[RequestClass, ...]:
    if file.requests:
        for key in ("context", "reasoning", "answer"):
            if getattr(file, key) is not None:
                raise document.error((key,), "given beside [[requests]]", "lengths inside each class")
        total = sum(r.share for r in file.requests)
        names = [r.name for r in file.requests]
        if len(set(names)) < len(names):
            raise document.error(("requests",), "two classes have the same name")
        return tuple(
            _class(r, r.name, r.share / total, document, ("requests", i), assumptions)
            for i, r in enumerate(file.requests)
        )
    if file.context is None:
        raise document.error(("context",), "is missing", "[context] with lengths, or [[requests]]")
    return (_class(file, "all", 1.0, document, (), assumptions),)


def _class(
    table: WorkloadFile | RequestTable,
    name: str,
    share: float,
    document: Document,
    path: tuple[str | int, ...],
    assumptions: list[tuple[str, str, str]],
) -> RequestClass:
    if table.reasoning is None and table.answer is None:
        raise document.error((*path, "answer"), "is missing", "[answer] or [reasoning] with lengths")
    built = {
        key: build_lengths(getattr(table, key), document, (*path, key), CV_DEFAULTS[key], assumptions)
        for key in ("context", "reasoning", "answer")
    }
    context = built["context"]
    assert context is not None
    cached = getattr(table.context, "cached_fraction", 0.0)
    return RequestClass(name, share, context, cached, built["reasoning"], built["answer"])


def _demand(table: Demand, document: Document, mean_output: float) -> WorkloadDemand:
    ways = ("requests_per_second", "concurrent_users", "sessions", "tokens_per_day", "trace")
    given = [w for w in ways if getattr(table, w) is not None]
    if table.trace is not None:
        raise document.error(
            ("demand", "trace"), "traces are not read by this version",
            "requests_per_second, and samples for the lengths",
        )  # fmt: skip
    if len(given) != 1:
        listed = ", ".join(ways[:-1])
        problem = "says nothing" if not given else "says it twice: " + " and ".join(given)
        raise document.error(("demand", *given[1:2]), problem, f"exactly one of {listed}")
    kind, rate, users = "rate", table.requests_per_second, None
    if table.tokens_per_day is not None:
        rate = table.tokens_per_day / SECONDS_PER_DAY / mean_output
    elif rate is None:
        kind, users = "users", table.concurrent_users or table.sessions
    return WorkloadDemand(kind, rate, users, table.think_time, table.peak_to_mean, table.arrival_cv)


def _check_subagents(file: WorkloadFile, document: Document, classes: tuple[RequestClass, ...]) -> None:
    agents = file.subagents
    if agents is None:
        return
    mean = sum(c.share * c.context.mean for c in classes)
    if agents.shared_prefix > mean:
        raise document.error(
            ("subagents", "shared_prefix"),
            f"is {agents.shared_prefix:g}, longer than the mean context of {mean:.0f} tokens",
            "at most the mean context",
        )
    speculation = file.speculation
    if speculation.acceptance and speculation.acceptance_length:
        raise document.error(("speculation", "acceptance_length"), "given beside acceptance", "one of the two")


def _slos(table: Slos, class_name: str | None) -> list[Slo]:
    found = []
    for metric in METRICS:
        for statistic in STATISTICS:
            limit = getattr(table, f"{metric}_{statistic}", None)
            if limit is not None:
                found.append(Slo(metric, statistic, limit, class_name))
    return found


def _note_defaults(file: WorkloadFile, document: Document, assumptions: list[tuple[str, str, str]]) -> None:
    """Record the defaults that decide something and were not given."""
    watched = {
        "demand": ("peak_to_mean", "arrival_cv"),
        "precision": ("weights", "kv"),
        "engine": ("name",),
        "objective": ("minimise",),
        "speculation": ("enabled", "task", "margin"),
    }
    for section, keys in watched.items():
        given = document.data.get(section, {})
        for key in keys:
            if key not in given:
                value = getattr(getattr(file, section), key)
                shown = ", ".join(value) if isinstance(value, list) else str(value)
                assumptions.append((f"{section}.{key}", shown, "default"))
    if file.reliability.spare_replicas is None:
        assumptions.append(("reliability.spare_replicas", "1, or 2 from 20 replicas", "default"))
    if file.subagents is not None:
        assumptions.append(("demand", f"a request is one task of {file.subagents.fan_out} sequences", "default"))
