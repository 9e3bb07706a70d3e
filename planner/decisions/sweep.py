"""The same workload planned at many values of some fields: ranges and lists, and every combination of several."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product

from planner.decisions.replanning import Change, Question, for_each, layout_of, replan
from planner.errors import InputError
from planner.sizing.frozen_result import Result
from planner.sizing.nearest_miss import missed
from planner.sizing.result import SCHEMA_VERSION, Plan, Recommendation

#: plans one sweep may ask for
MOST_POINTS = 500
_RANGE = re.compile(r"^\s*([^:,\s]+)\s*:\s*([^:,\s]+)\s*:\s*([^:,\s]+)\s*$")
_NUMBER = re.compile(r"^([-+]?(?:[0-9][0-9_]*)?\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-zµ/]*)$")


@dataclass(frozen=True)
class Axis:
    """One field, ``key`` as ``--set`` takes it, and the texts of its values."""

    key: str
    values: tuple[str, ...]


class SweepPoint(Result):
    """One combination of values, and what came of it."""

    settings: dict[str, str]
    feasible: bool
    accelerator: str | None
    gpus: int | None
    layout: str | None
    weight_dtype: str | None
    speculation: str | None
    usd_per_hour: float | None
    usd_per_million_output_tokens: float | None
    ttft_p95_s: float | None
    time_per_output_token_p95_s: float | None
    e2e_p95_s: float | None
    binding: str  # the limit that sets the fleet, or what the nearest miss misses
    plan: Plan | None


class Sweep(Result):
    """A table of plans, the last field's values changing fastest."""

    schema_version: str = SCHEMA_VERSION
    axes: dict[str, tuple[str, ...]]
    points: tuple[SweepPoint, ...]


def parse_axis(text: str) -> Axis:
    """``key=first:last:step`` or ``key=one,two,…`` as an axis; values with units as ``--set`` takes them.

    Raises InputError for anything else.

    >>> parse_axis("demand.requests_per_second=5:20:5").values
    ('5', '10', '15', '20')
    >>> parse_axis("slo.tpot_p95=20ms:40ms:10ms").values, parse_axis('hardware.allow=["l4"],["b200", "h100"]').values
    (('20ms', '30ms', '40ms'), ('["l4"]', '["b200", "h100"]'))
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or not value.strip():
        raise _wrong(text, "is not a sweep")
    found = _RANGE.match(value)
    numbers = [_NUMBER.match(part) for part in found.groups()] if found else []
    if numbers and all(numbers):
        return Axis(key.strip(), _range(text, [(n.group(1), n.group(2)) for n in numbers if n]))
    if found and any(numbers):
        raise _wrong(text, f"{value.strip()!r} is not a range of numbers")
    values = _list(value)
    if not all(values):
        raise _wrong(text, "has an empty value")
    return Axis(key.strip(), tuple(dict.fromkeys(values)))


def _wrong(text: str, problem: str) -> InputError:
    return InputError(
        f"{text!r} {problem}", key="--sweep", expected="key=first:last:step, or key=one,two,three"
    )  # fmt: skip


def _range(text: str, parts: list[tuple[str, str]]) -> tuple[str, ...]:
    """Values from first to last, both in it where the step meets them, in exact decimals."""
    first, last, step = (Decimal(number) for number, _ in parts)
    units = {unit for _, unit in parts}
    if len(units) > 1:
        raise _wrong(text, "mixes units")
    if step == 0 or (last - first) / step < 0:
        raise _wrong(text, "never gets from its first value to its last")
    count = int((last - first) / step) + 1
    if count > MOST_POINTS:
        raise InputError(f"{text!r} has {count} values", key="--sweep", expected=f"at most {MOST_POINTS}")
    whole = all("." not in number and "e" not in number.lower() for number, _ in parts)
    unit = units.pop()
    return tuple(_plain(first + i * step, whole) + unit for i in range(count))


def _plain(value: Decimal, whole: bool) -> str:
    if whole:
        return str(int(value))
    text = format(value.normalize(), "f")
    return text if "." in text else f"{text}.0"


def _list(text: str) -> list[str]:
    """Parts between commas that are in no bracket and no quotes."""
    parts, depth, quote = [""], 0, ""
    for c in text:
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        depth += (c in "[{") - (c in "]}") if not quote else 0
        if c == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += c
    return [p.strip() for p in parts]


def sweep(
    question: Question,
    axes: Sequence[Axis],
    *,
    simulate: bool = True,
    jobs: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Sweep:
    """A plan at every combination of the axes' values, as ``recommend`` makes it with those settings.

    Units as in the result. Raises InputError for too many points, a field swept twice, or a value its field can't
    have, which is said with the field.

    Source: :func:`planner.sizing.recommend` at every point.
    """
    if not axes:
        raise InputError("nothing to sweep", key="--sweep", expected="a field, as demand.requests_per_second=5:50:5")
    keys = [a.key for a in axes]
    if len(set(keys)) < len(keys):
        twice = next(k for k in keys if keys.count(k) > 1)
        raise InputError(f"{twice} is swept twice", key="--sweep", expected="one list of values for each field")
    grid = list(product(*(a.values for a in axes)))
    if len(grid) > MOST_POINTS:
        raise InputError(f"{len(grid)} points to plan", key="--sweep", expected=f"at most {MOST_POINTS}")
    tasks = [(tuple(zip(keys, values, strict=True)), simulate) for values in grid]
    points: list[SweepPoint] = []
    try:
        for point in for_each(_plan_point, question, tasks, jobs):
            points.append(point)
            if progress is not None:
                progress(f"{len(points)} of {len(grid)} points planned")
    except InputError as error:
        if error.file != "--set":
            raise
        raise InputError(
            error.problem, file="--sweep", key=error.key, expected=error.expected, suggestion=error.suggestion
        ) from None
    return Sweep(axes={a.key: a.values for a in axes}, points=tuple(points))


def _plan_point(question: Question, task: tuple[tuple[tuple[str, str], ...], bool]) -> SweepPoint:
    settings, simulate = task
    change = Change(tuple(f"{key}={value}" for key, value in settings))
    return _point(dict(settings), replan(question, change, simulate=simulate))


def _point(settings: dict[str, str], found: Recommendation) -> SweepPoint:
    plan = found.plan
    if plan is None:
        return SweepPoint(
            settings=settings, feasible=False, accelerator=None, gpus=None, layout=None, weight_dtype=None,
            speculation=None, usd_per_hour=None, usd_per_million_output_tokens=None, ttft_p95_s=None,
            time_per_output_token_p95_s=None, e2e_p95_s=None, binding=missed(found.nearest_miss), plan=None,
        )  # fmt: skip
    s = plan.speculation
    return SweepPoint(
        settings=settings,
        feasible=True,
        accelerator=plan.accelerator,
        gpus=plan.gpus,
        layout=layout_of(plan),
        weight_dtype=plan.weight_dtype,
        speculation=f"{s.method}@{s.draft_tokens}" if s.enabled else "off",
        usd_per_hour=plan.cost.usd_per_hour,
        usd_per_million_output_tokens=plan.cost.usd_per_million_output_tokens,
        ttft_p95_s=plan.latency.ttft_s.p95,
        time_per_output_token_p95_s=plan.latency.time_per_output_token_s.p95,
        e2e_p95_s=plan.latency.e2e_s.p95,
        binding=found.why.binding_constraint if found.why else "",
        plan=plan,
    )
