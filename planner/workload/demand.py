"""Demand of a workload file: a rate, users, sessions, tokens per day, or what a trace recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from planner.documents import Document
from planner.errors import InputError
from planner.workload.arrivals import arrival_kind
from planner.workload.joint import JointLengths
from planner.workload.schema import Demand, WorkloadFile
from planner.workload.sessions import SessionModel
from planner.workload.workload import RequestClass, WorkloadDemand

if TYPE_CHECKING:
    from planner.workload.traces import Trace

SECONDS_PER_DAY = 86_400.0
WAYS = ("requests_per_second", "concurrent_users", "sessions", "tokens_per_day", "trace")


@dataclass(frozen=True)
class Recorded:
    """A workload's trace: its requests as ``lengths``, and whether they are ``paired``."""

    trace: Trace
    lengths: JointLengths
    paired: bool


def read_recorded(file: WorkloadFile, document: Document) -> Recorded | None:
    """The trace that demand.trace names, beside the workload file; None when it names none.

    Raises InputError with the key when there is no such file, else as the trace's reader does.
    """
    name = file.demand.trace
    if name is None:
        return None
    base = Path() if document.name.startswith("<") else Path(document.name).parent
    from planner.workload.traces import read_trace

    path = base / name
    if not path.exists():
        raise document.error(("demand", "trace"), f"no such file: {name}", "a path from the workload file's folder")
    trace = read_trace(path)
    cached = np.zeros(len(trace)) if trace.cached is None else trace.cached
    return Recorded(trace, JointLengths(trace.input, cached, trace.output), trace.paired)


def build_demand(
    table: Demand,
    document: Document,
    classes: Sequence[RequestClass],
    recorded: Recorded | None,
    session: SessionModel | None,
    assumptions: list[tuple[str, str, str]],
) -> WorkloadDemand:
    """Demand in one form. With a trace, rate or users may be given beside it and then count instead of its own.

    Raises InputError when demand is said not at all, or twice.
    """
    given = [w for w in WAYS if getattr(table, w) is not None]
    if recorded is not None and len(given) == 2:
        given.remove("trace")
    if len(given) != 1:
        problem = "says nothing" if not given else "says it twice: " + " and ".join(given)
        raise document.error(("demand", *given[1:2]), problem, "exactly one of " + ", ".join(WAYS))
    cv, peak = table.arrival_cv, table.peak_to_mean
    kind, rate, users = "rate", table.requests_per_second, None
    if given == ["trace"]:
        assert recorded is not None
        kind, rate, users = _of_trace(recorded.trace, document)
    elif table.tokens_per_day is not None:
        rate = table.tokens_per_day / SECONDS_PER_DAY / sum(c.share * c.output_moment(1) for c in classes)
    elif rate is None:
        kind, users = ("sessions", table.sessions) if session is not None else (
            "users", table.concurrent_users or table.sessions
        )  # fmt: skip
    if recorded is not None:
        from planner.workload.traffic import local_cv, peak_to_mean

        own = document.data["demand"]
        if kind == "rate" and recorded.trace.timed:
            cv = cv if "arrival_cv" in own else _noted("arrival_cv", local_cv(recorded.trace.arrival), 1.0, assumptions)
            found = recorded.trace.peak or peak_to_mean(recorded.trace.arrival)
            peak = peak if "peak_to_mean" in own else _noted("peak_to_mean", found, 1.0, assumptions)
        if given == ["trace"] and rate is not None:
            assumptions.append(("demand.requests_per_second", f"{rate:.4g}", "trace"))
    arrivals = table.arrivals or arrival_kind(cv)
    if arrivals == "poisson" and cv != 1.0:
        raise document.error(("demand", "arrivals"), f"is 'poisson' with arrival_cv {cv:g}", "gamma or weibull")
    think = table.think_time if session is None else session.pause_mean
    return WorkloadDemand(
        kind, rate, users, think, peak, cv, arrivals, session, None if recorded is None else recorded.trace
    )


def _of_trace(trace: Trace, document: Document) -> tuple[str, float | None, float | None]:
    """Kind, rate [1/s] and users a trace stands for: a closed loop its users, else its rate."""
    if trace.concurrency is not None:
        return "users", None, trace.concurrency
    from planner.workload.traffic import mean_rate

    rate = mean_rate(trace)
    if rate is None:
        raise InputError(
            f"demand.trace: {trace.name} has no arrival times", file=document.name, line=document.line(("demand",)),
            expected="requests_per_second beside it",
        )  # fmt: skip
    return "rate", rate, None


def _noted(key: str, value: float | None, default: float, assumptions: list[tuple[str, str, str]]) -> float:
    """A value of the trace, written down; the default when the trace is too short to say."""
    source = "trace" if value is not None else "default"
    assumptions.append((f"demand.{key}", f"{default if value is None else value:.4g}", source))
    return default if value is None else value
