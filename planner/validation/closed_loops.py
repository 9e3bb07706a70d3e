"""Served benchmarks at a fixed number of requests in flight, and the configurations they let one choose among."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from planner.errors import InputError
from planner.hardware import Database
from planner.validation.comparison import Comparison, Skipped
from planner.validation.labels import format_named
from planner.validation.points import MeasuredPoint
from planner.validation.protocols import Prediction, predict

#: streams of a closed loop beyond which it is not simulated
MOST_STREAMS = 65536
UNKNOWN = "speculation not recorded, predicted without"
GENERIC = "engine without constants"


@dataclass(frozen=True)
class Offer:
    """One measured configuration somebody could have chosen, with what was predicted of it.

    ``choice``: what is given (model, accelerator, precision, lengths); ``setting``: what is chosen. Throughput in
    output tokens per second and accelerator; interactivity in tokens per second of a user, None where everything
    was queued.
    """

    choice: tuple[str, ...]
    setting: str
    measured: float
    predicted: float
    measured_interactivity: float | None = None
    predicted_interactivity: float | None = None


def same_loops(points: Iterable[MeasuredPoint]) -> list[tuple[MeasuredPoint, ...]]:
    """Points by all that their simulation depends on: each group is run once."""
    groups: dict[tuple[object, ...], list[MeasuredPoint]] = {}
    for p in points:
        key = (
            p.accelerator, p.model, p.engine, p.weights, p.kv, p.workers, p.input_tokens, p.output_tokens, p.protocol,
            p.pipeline, p.spread, p.concurrency, p.prompts,
        )  # fmt: skip
        groups.setdefault(key, []).append(p)
    return [tuple(group) for group in groups.values()]


def compare_loops(
    groups: Sequence[Sequence[MeasuredPoint]], database: Database
) -> tuple[list[Comparison], list[Skipped]]:
    """Time to first token [s], time per output token [s] and throughput [tokens/s] of every point of ``groups``.

    Means where they were published, else medians, and 99th percentiles. Source:
    :func:`planner.validation.protocols.predict`.
    """
    compared: list[Comparison] = []
    skipped: list[Skipped] = []
    for group in groups:
        first = group[0]
        try:
            if first.protocol != "closed loop":
                raise InputError(f"a load ({first.protocol}) whose rate is not recorded")
            if first.concurrency > MOST_STREAMS:
                raise InputError(f"more than {MOST_STREAMS} requests in flight")
            prediction = predict(first, database)
        except InputError as error:
            skipped += [Skipped(p.id, p.file, str(error.problem)) for p in group]
            continue
        for point in group:
            made = _figures(point, prediction)
            compared += made
            if not made:
                skipped.append(Skipped(point.id, point.file, "holds no figure we predict"))
    return compared, skipped


def _figures(point: MeasuredPoint, prediction: Prediction) -> list[Comparison]:
    wanted = []
    for metric in ("tpot", "ttft"):
        wanted += [(metric, s) for s in (typical(point, metric), "p99") if s and point.value(metric, s)]
    wanted += [("throughput", "mean")] if point.value("throughput") else []
    reasons = [UNKNOWN] if point.speculation == "unknown" else []
    reasons += [GENERIC] if point.engine == "generic" else []
    return [
        Comparison(
            point.id, point.file, metric, point.value(metric, statistic) or 0.0, prediction.value(metric, statistic),
            "tokens/s" if metric == "throughput" else "s", statistic, point.accelerator, point.model, point.engine,
            precision_of(point), str(point.concurrency), "aggregated", " ".join(choice_of(point)), "; ".join(reasons),
        )
        for metric, statistic in wanted
    ]  # fmt: skip


def typical(point: MeasuredPoint, metric: str) -> str:
    """The statistic that says what is usual: the mean, else the median, else nothing."""
    return next((s for s in ("mean", "p50") if point.value(metric, s)), "")


def precision_of(point: MeasuredPoint) -> str:
    """The weights' format as the row says it, else as the planner was asked."""
    return format_named(point.labels.get("weight_precision", "")) or point.weights


def choice_of(point: MeasuredPoint) -> tuple[str, ...]:
    """What whoever chooses a configuration has been given: model, accelerator, precision and lengths."""
    return (
        point.model, point.accelerator, precision_of(point), f"{point.input_tokens:g}/{point.output_tokens:g}"
    )  # fmt: skip


def offer(
    choice: tuple[str, ...],
    setting: str,
    concurrency: int,
    output_tokens: float,
    accelerators: int,
    measured: tuple[float, float],
    predicted: tuple[float, float],
) -> Offer:
    """A configuration by its times per output token and to the first, measured and predicted, [s].

    A closed loop serves ``concurrency * O / (TTFT + TPOT * (O - 1))`` output tokens per second. Source: Little's law.

    >>> offer(("m",), "s", 8, 101, 2, (0.01, 1.0), (0.01, 0.5)).measured
    202.0
    """
    rates = []
    for tpot, ttft in (measured, predicted):
        seconds = ttft + tpot * max(output_tokens - 1, 0)
        rates.append((concurrency * output_tokens / seconds / accelerators, 1 / tpot))
    (one, fast), (other, guessed) = rates
    return Offer(choice, setting, one, other, fast, guessed)


def offers(
    points: Mapping[tuple[str, str], MeasuredPoint], compared: Sequence[Comparison], flagged: Iterable[tuple[str, str]]
) -> list[Offer]:
    """Configurations to choose among: served ones by their latencies, queued ones by their throughput.

    ``points`` by file and id, as ``flagged`` ones, which are left out. Source: :func:`offer`.
    """
    doubted = set(flagged)
    figures: dict[tuple[str, str], dict[str, Comparison]] = {}
    found = []
    for c in compared:
        key = (c.file, c.id)
        if key in doubted:
            continue
        if key in points and c.metric in ("tpot", "ttft") and c.statistic != "p99":
            figures.setdefault(key, {})[c.metric] = c
        elif key not in points and c.metric == "throughput" and c.configuration:
            found.append(Offer((c.configuration,), c.id, c.measured, c.predicted))
    for key, both in figures.items():
        point = points[key]
        if len(both) < 2 or point.speculation:
            continue
        gpus = point.pipeline * point.workers.accelerators + (point.prefill.accelerators if point.prefill else 0)
        setting = f"{point.engine} {point.workers} {point.prefill} {point.pipeline} {point.concurrency}"
        sides = [tuple(getattr(both[m], side) for m in ("tpot", "ttft")) for side in ("measured", "predicted")]
        found.append(offer(choice_of(point), setting, point.concurrency, point.output_tokens, gpus, *sides))
    return found
