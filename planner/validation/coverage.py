"""How many measured figures lie inside the intervals of their predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.errors import InputError
from planner.hardware import Database
from planner.hardware.intervals import Factors, Known
from planner.models import load_model
from planner.validation.comparison import Comparison

METRICS = ("tpot", "ttft", "throughput")


@dataclass(frozen=True)
class Covered:
    """Share of ``n`` measured means or medians of a metric inside intervals that promise ``level`` of them, [1]."""

    metric: str
    n: int
    covered: float
    level: float


def covered(compared: Sequence[Comparison], database: Database) -> tuple[Covered, ...]:
    """Coverage of the intervals by metric, [1]; figures of unknown models and of other metrics don't count.

    Rates have the interval of times per token, inverted. Source: :class:`planner.hardware.intervals.Intervals`.
    """
    known: dict[tuple[str, str, str], Known | None] = {}
    inside: dict[str, list[bool]] = {}
    level = database.intervals.level
    for c in compared:
        if c.metric not in METRICS or c.statistic == "p99":
            continue
        key = c.accelerator, c.model, c.engine
        if key not in known:
            known[key] = _known(database, *key)
        found = known[key]
        if found is not None:
            factors = _factors(found, c.metric)
            inside.setdefault(c.metric, []).append(factors.low <= c.measured / c.predicted <= factors.high)
    return tuple(Covered(m, len(inside[m]), sum(inside[m]) / len(inside[m]), level) for m in METRICS if m in inside)


def _known(database: Database, accelerator: str, model: str, engine: str) -> Known | None:
    try:
        kind = load_model(model).architecture_kind
        name = engine.split(" ")[0] or "generic"  # before its version
        return database.intervals.of(database.accelerator(accelerator), kind, database.engine(name))
    except InputError:
        return None


def _factors(known: Known, metric: str) -> Factors:
    return {"tpot": known.tpot, "ttft": known.ttft, "throughput": known.tpot.inverse}[metric]
