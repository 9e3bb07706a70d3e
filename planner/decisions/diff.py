"""Two plans beside each other: what changed in the workload and in the plan, the money, and why."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from planner.errors import InputError
from planner.sizing.frozen_result import Result
from planner.sizing.nearest_miss import missed
from planner.sizing.result import SCHEMA_VERSION, Plan, Recommendation, Why

#: fields of a plan that say what is bought and how it is run
DECIDED = (
    "serving", "accelerator", "gpus", "replicas", "spare_replicas", "gpus_per_replica", "tensor_parallel",
    "pipeline_parallel", "data_parallel", "expert_parallel", "engine", "weight_dtype", "kv_dtype", "max_batch",
    "speculation.method", "speculation.draft_tokens", "disaggregation.prefill.replicas",
    "disaggregation.prefill.gpus_per_replica", "disaggregation.decode.replicas",
)  # fmt: skip
FIGURES = (
    "latency.ttft_s.p95", "latency.time_per_output_token_s.p95", "latency.e2e_s.p95", "mean_batch",
    "throughput.requests_per_second", "throughput.max_requests_per_second",
    "throughput.output_tokens_per_second_per_gpu", "speculation.acceptance_length", "memory.weights", "memory.kv",
    "memory.kv_capacity", "power_w", "cost.price_per_gpu_hour", "cost.price_source",
)  # fmt: skip
#: relative difference below which a figure counts as the same
SAME = 1e-9
#: relative difference from which a reason is worth saying
WORTH_SAYING = 0.02


class Changed(Result):
    """One field, before and after; None where there is none."""

    field: str
    before: Any
    after: Any


class MoneyPart(Result):
    """What one cause adds to the cost per hour; all parts add up to the difference."""

    cause: str
    ratio: float
    usd_per_hour: float


class Money(Result):
    """Cost before and after."""

    usd_per_hour_before: float
    usd_per_hour_after: float
    usd_per_hour: float  # after less before
    usd_per_month: float
    usd_per_million_output_tokens: float
    parts: tuple[MoneyPart, ...] = ()


class Difference(Result):
    """What is different from A to B. ``same_plan``: the same is bought and run the same way, figures aside."""

    schema_version: str = SCHEMA_VERSION
    a: str
    b: str
    same_plan: bool
    workload: tuple[Changed, ...]
    plan: tuple[Changed, ...]
    figures: tuple[Changed, ...]
    money: Money | None
    reasons: tuple[str, ...]


def read_plan(text: str, name: str) -> Recommendation | None:
    """A recommendation saved as JSON; None where the text is no JSON object, and so a workload.

    Raises InputError for JSON that is no recommendation, with what is wrong in it.
    """
    if not text.lstrip().startswith("{"):
        if name.lower().endswith(".json"):
            raise InputError("is no JSON object", file=name, expected="what `planner recommend --format json` prints")
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        problem = f"is not valid JSON: {getattr(error, 'msg', 'nested too deeply')}"
        raise InputError(problem, file=name, line=line) from None
    expected = "what `planner recommend --format json` prints"
    if not isinstance(data, dict) or "plan" not in data or "workload" not in data:
        raise InputError("holds no recommendation", file=name, expected=expected)
    version = data.get("schema_version")
    if version != SCHEMA_VERSION:
        raise InputError(f"is {version!r}", file=name, key="schema_version", expected=f"{SCHEMA_VERSION!r}")
    try:
        return Recommendation.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(str(first["msg"]).lower(), file=name, key=key, expected=expected) from None


def difference(a: Recommendation, b: Recommendation, names: tuple[str, str] = ("A", "B")) -> Difference:
    """What changed from ``a`` to ``b``, the money and the reasons; units as in the plans.

    Source: both results, field by field.
    """
    before, after = _flat(a.plan), _flat(b.plan)
    decided = _changes(before, after, DECIDED)
    there = (a.plan is None, b.plan is None)
    if a.plan is None or b.plan is None:
        decided = () if all(there) else (Changed(field="plan", before=_headline(a.plan), after=_headline(b.plan)),)
    workload, other = _nested(a.workload), _nested(b.workload)
    return Difference(
        a=names[0],
        b=names[1],
        same_plan=not decided,
        workload=_changes(workload, other, tuple(dict.fromkeys([*workload, *other]))),
        plan=decided,
        figures=() if any(there) else _changes(before, after, FIGURES),
        money=_money(a.plan, b.plan),
        reasons=_reasons(a, b),
    )


def _headline(plan: Plan | None) -> str | None:
    return None if plan is None else f"{plan.gpus} x {plan.accelerator}"


def _flat(plan: Plan | None) -> dict[str, Any]:
    return {} if plan is None else _nested(plan.model_dump(mode="json", exclude={"speculation": {"considered"}}))


def _nested(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested table as one level with dotted keys, tables in lists by their place."""
    flat: dict[str, Any] = {}
    for key, entry in value.items():
        name = f"{prefix}{key}"
        if isinstance(entry, Mapping):
            flat |= _nested(entry, f"{name}.")
        elif isinstance(entry, list | tuple) and entry and all(isinstance(x, Mapping) for x in entry):
            for i, x in enumerate(entry):
                flat |= _nested(x, f"{name}[{i}].")
        elif entry is not None:
            flat[name] = entry
    return flat


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[Changed, ...]:
    return tuple(
        Changed(field=k, before=before.get(k), after=after.get(k))
        for k in keys
        if not _same(before.get(k), after.get(k))
    )


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=SAME)
    return bool(one == other)


def _money(a: Plan | None, b: Plan | None) -> Money | None:
    if a is None or b is None:
        return None
    return Money(
        usd_per_hour_before=a.cost.usd_per_hour,
        usd_per_hour_after=b.cost.usd_per_hour,
        usd_per_hour=b.cost.usd_per_hour - a.cost.usd_per_hour,
        usd_per_month=b.cost.usd_per_month - a.cost.usd_per_month,
        usd_per_million_output_tokens=b.cost.usd_per_million_output_tokens - a.cost.usd_per_million_output_tokens,
        parts=money_parts(a, b),
    )


def money_parts(a: Plan, b: Plan) -> tuple[MoneyPart, ...]:
    """The difference in cost per hour by cause, [$/h]: price, requests, accelerators each takes, and rounding.

    Cost is price times demand over the rate per accelerator times what spares and whole replicas add; each
    cause gets the logarithm of its ratio times the logarithmic mean of both costs, so that nothing is left over.

    Source: logarithmic mean Divisia index, Ang, Energy Policy 32(9) 2004.
    """
    ours, theirs = a.cost.usd_per_hour, b.cost.usd_per_hour
    if ours <= 0 or theirs <= 0:
        return ()
    mean = ours if math.isclose(ours, theirs, rel_tol=1e-12) else (theirs - ours) / math.log(theirs / ours)
    rates = [p.throughput.max_requests_per_second / (p.gpus * _serving(p)) for p in (a, b)]
    asked = [p.throughput.requests_per_second for p in (a, b)]
    whole = [p.gpus * rate / q for p, rate, q in zip((a, b), rates, asked, strict=True)]
    ratios = {
        "price of an accelerator-hour": b.cost.price_per_gpu_hour / a.cost.price_per_gpu_hour,
        "requests at peak": asked[1] / asked[0],
        "accelerators per request served inside the limits": rates[0] / rates[1],
        "whole replicas and spares": whole[1] / whole[0],
    }
    return tuple(
        MoneyPart(cause=cause, ratio=ratio, usd_per_hour=mean * math.log(ratio))
        for cause, ratio in ratios.items() if not math.isclose(ratio, 1.0, rel_tol=SAME)
    )  # fmt: skip


def _serving(plan: Plan) -> float:
    """Share of the accelerators that serve; of two pools all are counted."""
    return 1.0 if plan.serving == "disaggregated" else (plan.replicas - plan.spare_replicas) / plan.replicas


def _reasons(a: Recommendation, b: Recommendation) -> tuple[str, ...]:
    """What made the difference, in words: limits, steps, memory."""
    if a.plan is None or b.plan is None:
        missing = [
            f"{name} has no plan: {missed(r.nearest_miss)}"
            for name, r in (("A", a), ("B", b)) if r.plan is None
        ]  # fmt: skip
        return tuple(missing)
    assert a.why is not None
    assert b.why is not None
    said = []
    if a.why.binding_constraint != b.why.binding_constraint:
        said.append(f"the limit that sets the fleet: {a.why.binding_constraint} -> {b.why.binding_constraint}")
    said += _steps(a.why, b.why)
    said += _rates(a.plan, b.plan)
    return tuple(said)


def _steps(a: Why, b: Why) -> list[str]:
    causes = ("compute", "memory", "network", "overhead")
    ours, theirs = (sum(getattr(w.seconds_per_step, c) for c in causes) for w in (a, b))
    said = []
    if abs(theirs / ours - 1) > WORTH_SAYING:
        most = max(causes, key=lambda c: abs(getattr(b.seconds_per_step, c) - getattr(a.seconds_per_step, c)))
        said.append(
            f"a step at the mean batch: {ours * 1e3:.3g} -> {theirs * 1e3:.3g} ms, most of the difference {most} "
            f"({getattr(a.seconds_per_step, most) * 1e3:.3g} -> {getattr(b.seconds_per_step, most) * 1e3:.3g} ms)"
        )
    if a.bound_by != b.bound_by:
        said.append(f"most of a step goes to {a.bound_by} -> {b.bound_by}")
    return said


def _rates(a: Plan, b: Plan) -> list[str]:
    said = []
    each = [p.throughput.max_requests_per_second / max(1, p.replicas - p.spare_replicas) for p in (a, b)]
    if abs(each[1] / each[0] - 1) > WORTH_SAYING:
        said.append(f"one replica serves {each[0]:.3g} -> {each[1]:.3g} requests/s inside the limits")
    batches = (a.mean_batch, b.mean_batch)
    if abs(batches[1] / max(batches[0], 1e-9) - 1) > WORTH_SAYING:
        said.append(f"mean batch of a replica: {batches[0]:.3g} -> {batches[1]:.3g}")
    held = [p.memory.kv / max(p.memory.kv_capacity, 1.0) for p in (a, b)]
    if abs(held[1] - held[0]) > WORTH_SAYING:
        said.append(f"the cache fills {held[0]:.0%} -> {held[1]:.0%} of the memory left for it, on average")
    gains = [p.speculation.speedup if p.speculation.enabled else 1.0 for p in (a, b)]
    if abs(gains[1] / gains[0] - 1) > WORTH_SAYING:
        said.append(f"speculation makes tokens {gains[0]:.2f} -> {gains[1]:.2f} times as fast")
    return said
