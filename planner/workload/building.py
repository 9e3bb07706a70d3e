"""From a workload file to a :class:`Workload`: checks across fields, defaults written down."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from planner.documents import Document, parse_toml, read_toml
from planner.settings import apply_overrides
from planner.workload.demand import Recorded, build_demand, read_recorded
from planner.workload.length_tables import build_lengths
from planner.workload.schema import (
    METRICS,
    STATISTICS,
    ContextTable,
    PauseTable,
    RequestTable,
    Slos,
    WorkloadFile,
)
from planner.workload.sessions import SessionModel, turn_lengths
from planner.workload.validation import validate
from planner.workload.workload import RequestClass, Slo, Workload

CV_DEFAULTS = {"context": 1.0, "reasoning": 1.5, "answer": 1.0, "turns": 1.0, "appended": 1.0}


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
    recorded = read_recorded(file, document)
    classes = _classes(file, document, recorded, assumptions)
    session = _session(file, document, classes, assumptions)
    if session is not None:
        classes = (turns_class(session),)
    demand = build_demand(file.demand, document, classes, recorded, session, assumptions)
    _check_subagents(file, document, classes)
    _check_speculation(file, document)
    _note_defaults(file, document, assumptions)
    slos = _slos(file.slo, None, document, ("slo",))
    for i, request in enumerate(file.requests or []):
        slos += _slos(request.slo, request.name, document, ("requests", i, "slo"))
    return Workload(
        file.name or Path(document.name).stem.strip("<>"), _model(file.model, document), classes, demand, tuple(slos),
        file.subagents, file.speculation, file.precision, file.hardware, file.parallelism,
        file.engine, file.reliability, file.objective, tuple(assumptions), _resolved(file), file.serving,
        file.cost,
    )  # fmt: skip


def _model(model: str, document: Document) -> str:
    """The model as named, or the path of a config that lies beside the workload file."""
    beside = Path(document.name).parent / model
    is_config = model.endswith((".json", ".toml")) or beside.is_dir()
    return str(beside) if is_config and beside.exists() and not Path(model).exists() else model


def _resolved(file: WorkloadFile) -> dict[str, Any]:
    return file.model_dump(mode="json", exclude_none=True)


def _classes(
    file: WorkloadFile,
    document: Document,
    recorded: Recorded | None,
    assumptions: list[tuple[str, str, str]],
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
    if recorded is not None:
        return (_recorded_class(file, document, recorded, assumptions),)
    if file.context is None:
        raise document.error(("context",), "is missing", "[context] with lengths, or [[requests]]")
    return (_class(file, "all", 1.0, document, (), assumptions),)


def _recorded_class(
    file: WorkloadFile, document: Document, recorded: Recorded, assumptions: list[tuple[str, str, str]]
) -> RequestClass:
    """Lengths of the trace, joint where all of them are its own; those given in the file instead."""
    context, answers = file.context, file.reasoning is not None or file.answer is not None
    joint = recorded.lengths
    only_cached = isinstance(context, ContextTable) and context.model_fields_set == {"cached_fraction"}
    if only_cached:
        assert isinstance(context, ContextTable)
        joint, context = joint.with_cached_fraction(context.cached_fraction), None
    built = {
        key: build_lengths(table, document, (key,), CV_DEFAULTS[key], assumptions)
        for key, table in (("context", context), ("reasoning", file.reasoning), ("answer", file.answer))
    }
    cached = joint.cached_fraction if context is None else getattr(context, "cached_fraction", 0.0)
    if context is None and not answers:
        kept = joint if recorded.paired else None
        return RequestClass("all", 1.0, joint.context, cached, None, joint.answer, kept)
    answer = built["answer"] if answers else joint.answer
    return RequestClass("all", 1.0, built["context"] or joint.context, cached, built["reasoning"], answer)


def _session(
    file: WorkloadFile,
    document: Document,
    classes: tuple[RequestClass, ...],
    assumptions: list[tuple[str, str, str]],
) -> SessionModel | None:
    table = file.session
    if table is None:
        return None
    if file.demand.sessions is None:
        raise document.error(("session",), "given without demand.sessions", "[demand] sessions = how many are open")
    if file.requests:
        raise document.error(("session",), "given beside [[requests]]", "lengths of one class")
    if "think_time" in document.data["demand"]:
        raise document.error(("demand", "think_time"), "given beside [session]", "session.pause")
    lengths = {
        key: build_lengths(getattr(table, key), document, ("session", key), CV_DEFAULTS[key], assumptions)
        for key in ("turns", "appended")
    }
    turns, appended, first = lengths["turns"], lengths["appended"], classes[0]
    assert turns is not None and appended is not None
    pause = table.pause if isinstance(table.pause, PauseTable) else PauseTable(mean=table.pause, cv=1.0)
    if not isinstance(table.pause, PauseTable) and pause.mean > 0:
        assumptions.append(("session.pause.cv", "1", "default"))
    opening = first.context.mean
    if table.pinned > opening:
        raise document.error(
            ("session", "pinned"), f"is {table.pinned:g}, longer than the mean first prompt of {opening:.0f} tokens",
            "at most the mean context",
        )  # fmt: skip
    if table.max_context is not None and table.max_context <= opening + appended.mean:
        raise document.error(
            ("session", "max_context"), f"is {table.max_context:g}, less than a first prompt and one turn",
            f"more than {opening + appended.mean:.0f}",
        )  # fmt: skip
    output = tuple(part for part in (first.reasoning, first.answer) if part is not None)
    pinned = table.pinned or first.cached_fraction * opening
    return SessionModel(
        turns, first.context, appended, output, pause.mean, pause.cv, table.cache_ttl, pinned, table.kept_output,
        table.max_context,
    )  # fmt: skip


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


def turns_class(session: SessionModel) -> RequestClass:
    """Every turn of a session as one request: input, cached and output hang together, [tokens]."""
    joint = turn_lengths(session)
    return RequestClass("all", 1.0, joint.context, joint.cached_fraction, None, joint.answer, joint)


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


def _check_speculation(file: WorkloadFile, document: Document) -> None:
    speculation = file.speculation
    given = [
        n for n in ("acceptance", "acceptance_per_position", "acceptance_length") if getattr(speculation, n) is not None
    ]
    if len(given) > 1:
        raise document.error(("speculation", given[1]), f"given beside {given[0]}", "one of the two")
    rates = speculation.acceptance_per_position or []
    if any(later > earlier for earlier, later in pairwise(rates)):
        raise document.error(
            ("speculation", "acceptance_per_position"), "rises with the position",
            "shares of all drafts, none above the one before; shares given the ones before go in acceptance",
        )  # fmt: skip


def _slos(table: Slos, class_name: str | None, document: Document, path: tuple[str | int, ...]) -> list[Slo]:
    """The limits of one table; InputError where a higher percentile has the lower limit."""
    found: list[Slo] = []
    for metric in METRICS:
        below: Slo | None = None
        for statistic in STATISTICS:
            limit = getattr(table, f"{metric}_{statistic}", None)
            if limit is None:
                continue
            found.append(Slo(metric, statistic, limit, class_name))
            if statistic == "mean":
                continue
            if below is not None and limit < below.limit_s:
                raise document.error(
                    (*path, f"{metric}_{statistic}"), f"is {limit:g} s, less than {metric}_{below.statistic}",
                    "a higher percentile's limit at least as high",
                )  # fmt: skip
            below = found[-1]
    return found


def _note_defaults(file: WorkloadFile, document: Document, assumptions: list[tuple[str, str, str]]) -> None:
    """Record the defaults that decide something and were not given."""
    watched = {
        "demand": () if file.demand.trace is not None else ("peak_to_mean", "arrival_cv"),
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
