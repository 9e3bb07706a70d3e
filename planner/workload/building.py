"""From a workload file to a :class:`Workload`: checks across fields, defaults written down."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from planner.documents import Document, apply_overrides, parse_toml, read_toml
from planner.workload.length_tables import build_lengths
from planner.workload.schema import METRICS, STATISTICS, Demand, RequestTable, Slos, WorkloadFile
from planner.workload.validation import validate
from planner.workload.workload import RequestClass, Slo, Workload, WorkloadDemand

SECONDS_PER_DAY = 86_400.0
CV_DEFAULTS = {"context": 1.0, "reasoning": 1.5, "answer": 1.0}


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
        file.name or Path(document.name).stem.strip("<>"), _model(file.model, document), classes, demand, tuple(slos),
        file.subagents, file.speculation, file.precision, file.hardware, file.parallelism,
        file.engine, file.reliability, file.objective, tuple(assumptions), _resolved(file),
    )  # fmt: skip


def _model(model: str, document: Document) -> str:
    """The model as named, or the path of a config that lies beside the workload file."""
    beside = Path(document.name).parent / model
    is_config = model.endswith((".json", ".toml")) or beside.is_dir()
    return str(beside) if is_config and beside.exists() and not Path(model).exists() else model


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
