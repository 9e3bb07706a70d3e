"""What a decision may hang on: the inputs of a plan, each as one number that a factor moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from planner.decisions.replanning import Change
from planner.sizing.result import Plan, Recommendation
from planner.workload import Workload

Kind = Literal["setting", "price", "bandwidth"]
DEMANDS = {
    "requests_per_second": "1/s", "concurrent_users": "users", "sessions": "sessions", "tokens_per_day": "tokens/day",
}  # fmt: skip
UPPER = ("p99", "p95", "p90")
#: how close a percentile may come to the one below it
ABOVE = 1.01


@dataclass(frozen=True)
class Lever:
    """One input: ``keys`` move together, from ``values`` in ``unit``, by a factor from ``least`` to ``most`` [1]."""

    name: str
    kind: Kind
    keys: tuple[str, ...]
    values: tuple[float, ...]
    unit: str
    least: float = 0.0
    most: float = float("inf")

    def value(self, factor: float, at: int = 0) -> float:
        """The value a factor leads to, to four digits, in the lever's unit."""
        return self.values[at] if factor == 1.0 else float(f"{self.values[at] * factor:.4g}")

    def allows(self, factor: float) -> bool:
        """Whether the input may be moved this far."""
        return self.least < factor < self.most

    def change(self, factor: float) -> Change:
        """The change of a plan's inputs that a factor stands for."""
        moved = [(key, self.value(factor, i)) for i, key in enumerate(self.keys)]
        if self.kind == "price":
            return Change(prices=tuple(moved))
        if self.kind == "bandwidth":
            return Change(bandwidth=tuple(moved))
        return Change(settings=tuple(f"{key}={value!r}" for key, value in moved))


def levers(workload: Workload, found: Recommendation) -> tuple[Lever, ...]:
    """The inputs of a workload that its plan may hang on, the plan's own prices and efficiencies among them.

    Lengths given as samples, a histogram or a trace have no one number to move and are left out.
    """
    assert found.plan is not None
    listed = [_demand(workload), *_lengths(workload), *_acceptance(workload, found.plan), *_prices(found)]
    name = found.plan.accelerator
    listed.append(Lever(f"bandwidth efficiency of {name}", "bandwidth", (name,), (1.0,), "of now", 0.05, 20.0))
    listed += _limits(workload)
    return tuple(lever for lever in listed if lever is not None)


def _demand(workload: Workload) -> Lever | None:
    table = workload.resolved["demand"]
    for key, unit in DEMANDS.items():
        if key in table:
            return Lever("demand", "setting", (f"demand.{key}",), (float(table[key]),), unit)
    demand = workload.demand  # of a trace
    if demand.requests_per_second is not None:
        return Lever("demand", "setting", ("demand.requests_per_second",), (demand.requests_per_second,), "1/s")
    if demand.concurrent_users is not None:
        return Lever("demand", "setting", ("demand.concurrent_users",), (demand.concurrent_users,), "users")
    return None


def is_given(workload: Workload, field: str) -> bool:
    """Whether any class of the workload has lengths for ``field``."""
    return any(t.get(field) is not None for t in (workload.resolved, *(workload.resolved.get("requests") or ())))


def _lengths(workload: Workload) -> list[Lever]:
    classes = workload.resolved.get("requests")
    found = []
    for field in ("context", "reasoning", "answer"):
        if classes:
            parts = [(f"requests[{i}].{field}", c[field]) for i, c in enumerate(classes) if c.get(field) is not None]
        else:
            table = workload.resolved.get(field)
            parts = [] if table is None else [(field, table)]
        lever = _length(field, parts)
        if lever is not None:
            found.append(lever)
    return found


def _length(field: str, parts: Sequence[tuple[str, Any]]) -> Lever | None:
    """The upper percentile of a field where there is one, else its mean, of all classes at once."""
    moved = [(place, *one) for place, table in parts if (one := _one_number(table)) is not None]
    if not moved or len(moved) < len(parts):
        return None
    statistics = {key for _, key, _, _ in moved}
    statistic = statistics.pop() if len(statistics) == 1 else ""
    every = " of every class" if len(moved) > 1 else ""
    return Lever(
        f"{field} {statistic or 'length'}{every}", "setting",
        tuple(f"{place}.{key}" if key else place for place, key, _, _ in moved), tuple(v for _, _, v, _ in moved),
        "tokens", max(least for *_, least in moved),
    )  # fmt: skip


def _one_number(table: Any) -> tuple[str, float, float] | None:
    """Key, value and least factor of the number that moves a length, None where there is no such number."""
    if not isinstance(table, Mapping):
        return "", float(table), 0.0
    given = [name for name in ("p50", "p90", "p95", "p99") if name in table]
    if len(given) > 1 and given[-1] in UPPER:
        upper, below = float(table[given[-1]]), float(table[given[-2]])
        return given[-1], upper, ABOVE * below / upper
    if given or "mean" in table:
        key = given[0] if given else "mean"
        return key, float(table[key]), 0.0
    return None


def _acceptance(workload: Workload, plan: Plan) -> list[Lever]:
    speculation = workload.speculation
    if speculation.enabled is False or not plan.speculation.considered:
        return []
    now = 1.0 if speculation.acceptance_factor is None else speculation.acceptance_factor
    return [Lever("acceptance", "setting", ("speculation.acceptance_factor",), (now,), "of drafts", 0.0)] if now else []


def _prices(found: Recommendation) -> list[Lever]:
    """The price of the plan's accelerator, and of the nearest rival's."""
    assert found.plan is not None
    plans = [found.plan, *(a.plan for a in found.alternatives if a.plan is not None)]
    seen: dict[str, float] = {}
    for plan in plans[:2]:
        if plan.cost.price_per_gpu_hour > 0:
            seen.setdefault(plan.accelerator, plan.cost.price_per_gpu_hour)
    return [Lever(f"price of {name}", "price", (name,), (usd,), "$/h") for name, usd in seen.items()]


def _limits(workload: Workload) -> list[Lever]:
    """Every limit by itself; between those of a lower and a higher percentile."""
    tables = [("slo", "", workload.resolved.get("slo") or {})]
    for i, c in enumerate(workload.resolved.get("requests") or ()):
        tables.append((f"requests[{i}].slo", f" of {c['name']}", c.get("slo") or {}))
    found = []
    for place, whose, limits in tables:
        for key, seconds in limits.items():
            metric = key.partition("_")[0]
            same = [limits[k] for k in (f"{metric}_p50", f"{metric}_p95", f"{metric}_p99") if k in limits and k != key]
            ordered = not key.endswith("_mean")
            least = max((s / seconds for s in same if s <= seconds), default=0.0) if ordered else 0.0
            most = min((s / seconds for s in same if s > seconds), default=float("inf")) if ordered else float("inf")
            found.append(
                Lever(f"limit {key}{whose}", "setting", (f"{place}.{key}",), (float(seconds),), "s", least, most)
            )
    return found
