"""Sensitivity, sweeps and differences as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planner.decisions.diff import Changed, Difference
from planner.decisions.monte_carlo import Risk
from planner.decisions.sensitivity import Flip, Sensitivities, Sensitivity
from planner.decisions.sensitivity_report import SensitivityReport
from planner.decisions.sweep import Sweep, SweepPoint
from planner.report.blocks import Block, Heading, Text, sheet
from planner.units import format_duration, format_money

BAR = 40  # characters of the longest bar
#: what a sweep can draw: the field of a point, its title, how a figure is shown
PLOTS: dict[str, tuple[str, str, Any]] = {
    "cost": ("usd_per_hour", "$/h", format_money),
    "gpus": ("gpus", "GPUs", str),
    "usd-per-million": ("usd_per_million_output_tokens", "$/M out", format_money),
    "ttft": ("ttft_p95_s", "TTFT p95", format_duration),
    "tpot": ("time_per_output_token_p95_s", "TPOT p95", format_duration),
    "e2e": ("e2e_p95_s", "E2E p95", format_duration),
}


def sensitivity_blocks(result: SensitivityReport) -> list[Block]:
    """The plan, its odds, its flips and its tornado."""
    plan = result.plan
    name = result.workload.get("name") or "workload"
    blocks: list[Block] = [
        Heading(f"{name}: {plan.gpus} x {plan.accelerator}, {format_money(plan.cost.usd_per_hour)} per hour"),
        *_risk_blocks(result.risk),
    ]
    if result.sensitivity is not None:
        blocks += _flip_blocks(result.sensitivity) + _tornado_blocks(result.sensitivity)
    return blocks + [Text(f"note: {n}", "note") for n in result.notes]


def _risk_blocks(risk: Risk) -> list[Block]:
    odds = sheet(
        ("Limit", "kept in"), [(c.limit, f"{c.probability:.1%}") for c in risk.limits], numeric=("kept in",)
    )  # fmt: skip
    fleets = [
        (f"{c.confidence:.0%}", c.gpus, c.replicas, "-" if c.usd_per_hour is None else format_money(c.usd_per_hour))
        for c in risk.confidence
    ]
    drawn = [(d.name, f"{d.low:.2f} to {d.high:.2f}", f"{d.level:.0%}", d.source) for d in risk.drawn]
    blocks: list[Block] = [
        Heading("How sure it is"),
        Text(
            f"All limits hold in {risk.probability:.1%} of {risk.draws} draws (seed {risk.seed}) with the "
            f"{risk.serving_replicas} serving replicas planned, spares left aside."
        ),
        odds,
        sheet(("Confidence", "GPUs", "Replicas", "$/h"), fleets, "GPUs for a confidence, spares included",
              numeric=("GPUs", "Replicas", "$/h")),
        sheet(("Drawn", "over planned", "of cases", "source"), drawn, "Drawn from"),
    ]  # fmt: skip
    if risk.unattainable > 0:
        blocks.append(Text(
            f"In {risk.unattainable:.1%} of draws no number of replicas of this configuration keeps every limit: more "
            "room needs another layout, accelerator or limit.", "bad"
        ))  # fmt: skip
    return blocks


def _flip_blocks(found: Sensitivities) -> list[Block]:
    rows, counts, firm = [], [], []
    for s in found.inputs:
        for flip in (s.flip_below, s.flip_above):
            if flip is not None:
                rows.append(_flip_row(s, flip))
        for flip in (s.count_below, s.count_above):
            if flip is not None:
                counts.append(_flip_row(s, flip))
        if s.flip_below is None and s.flip_above is None:
            firm.append(f"{s.name} ({s.looked_at[0]:.2g} to {s.looked_at[1]:.2g} times)")
    columns = ("Input", "now", "same at", "other at", "change", "plan", "$/h")
    numeric = ("now", "same at", "other at", "change", "$/h")
    blocks: list[Block] = [Heading("What flips it")]
    if rows:
        said = Text("Nearest first; planned anew on both sides, in closed form.")
        blocks += [said, sheet(columns, rows, numeric=numeric)]
    if counts:
        blocks.append(sheet(columns, counts, "Only the number of accelerators changes", numeric=numeric))
    if firm:
        blocks.append(Text(f"Nothing flips it within the values looked at: {', '.join(firm)}."))
    return blocks


def _flip_row(s: Sensitivity, flip: Flip) -> tuple[str, ...]:
    cost = "-" if flip.after.usd_per_hour is None else format_money(flip.after.usd_per_hour)
    values = (_value(v, s.unit) for v in (s.value, flip.before.value, flip.after.value))
    return (s.name, *values, f"{flip.factor - 1:+.1%}", flip.statement, cost)


def _value(value: float, unit: str) -> str:
    if unit == "s":
        return format_duration(value)
    if unit.startswith("$"):
        return f"${value:.4g}"
    return f"{value:.4g}" + (f" {unit}" if unit not in ("tokens", "of now", "of drafts") else "")


def _tornado_blocks(found: Sensitivities) -> list[Block]:
    known = [s for s in found.inputs if s.elasticity is not None]
    known.sort(key=lambda s: (-abs(s.elasticity or 0.0), s.name))
    most = max((abs(s.elasticity or 0.0) for s in known), default=0.0)
    rows = [
        (s.name, *("-" if x is None else format_money(x) for x in (s.usd_per_hour_at_0_9, s.usd_per_hour_at_1_1)),
         f"{s.elasticity:+.2f}", bar(abs(s.elasticity or 0.0), most))
        for s in known
    ]  # fmt: skip
    return [
        Heading("What it does to the cost"),
        Text("Percent of cost per percent of the input, before replicas are rounded up; $/h of the plan made anew."),
        sheet(("Input", "$/h at -10 %", "$/h at +10 %", "elasticity", ""), rows,
              numeric=("$/h at -10 %", "$/h at +10 %", "elasticity")),
    ]  # fmt: skip


def bar(value: float, most: float, width: int = BAR) -> str:
    """A bar of a length in proportion, at least a mark where there is anything.

    >>> bar(1.0, 4.0, 8), bar(0.0, 4.0)
    ('██', '')
    """
    if most <= 0 or value <= 0:
        return ""
    return "█" * max(1, round(width * value / most))


def sweep_blocks(result: Sweep, plots: Sequence[str] = ()) -> list[Block]:
    """One row a point; then a drawing of each figure asked for."""
    keys = list(result.axes)
    columns = (*keys, "Accelerator", "GPUs", "Layout", "Weights", "Spec.", "$/h", "$/M out", "TTFT p95", "TPOT p95",
               "Limit that binds")  # fmt: skip
    numeric = (*keys, "GPUs", "$/h", "$/M out", "TTFT p95", "TPOT p95")
    blocks: list[Block] = [
        Heading(f"{len(result.points)} plans"),
        sheet(columns, [_sweep_row(p, keys) for p in result.points], numeric=numeric),
    ]
    for name in plots:
        attribute, title, shown = PLOTS[name]
        values = [getattr(p, attribute) for p in result.points]
        most = max((float(v) for v in values if v is not None), default=0.0)
        rows = [
            (*(p.settings[k] for k in keys), "no plan" if v is None else shown(v), "" if v is None else bar(v, most))
            for p, v in zip(result.points, values, strict=True)
        ]
        blocks.append(sheet((*keys, title, ""), rows, title, numeric=(*keys, title)))
    return blocks


def _sweep_row(p: SweepPoint, keys: Sequence[str]) -> tuple[object, ...]:
    values = tuple(p.settings[k] for k in keys)
    if p.plan is None:
        return (*values, "no plan", *("-",) * 8, p.binding)
    assert p.usd_per_hour is not None
    assert p.usd_per_million_output_tokens is not None
    assert p.ttft_p95_s is not None
    assert p.time_per_output_token_p95_s is not None
    return (
        *values, p.accelerator, p.gpus, p.layout, p.weight_dtype, p.speculation, format_money(p.usd_per_hour),
        format_money(p.usd_per_million_output_tokens), format_duration(p.ttft_p95_s),
        format_duration(p.time_per_output_token_p95_s), p.binding,
    )  # fmt: skip


def difference_blocks(result: Difference) -> list[Block]:
    """What changed in the workload, in the plan and in its figures, the money, and why."""
    blocks: list[Block] = [Heading(f"{result.a} -> {result.b}")]
    if not (result.workload or result.plan or result.figures):
        return [*blocks, Text("No difference.", "good")]
    blocks.append(
        Text("The same plan." if result.same_plan else "Another plan.", "good" if result.same_plan else "bad")
    )
    for title, rows in (("Workload", result.workload), ("Plan", result.plan), ("Figures", result.figures)):
        if rows:
            blocks.append(sheet((title, "A", "B"), [_changed_row(c) for c in rows]))
    money = result.money
    if money is not None:
        blocks.append(Text(
            f"{format_money(money.usd_per_hour_before)} -> {format_money(money.usd_per_hour_after)} per hour "
            f"({_signed(money.usd_per_hour)}), {_signed(money.usd_per_month)} a month, "
            f"{_signed(money.usd_per_million_output_tokens)} per million output tokens"
        ))  # fmt: skip
        if money.parts:
            rows_of = [(p.cause, f"x{p.ratio:.3f}", _signed(p.usd_per_hour)) for p in money.parts]
            blocks.append(sheet(("Money", "", "$/h"), rows_of, numeric=("", "$/h")))
    if result.reasons:
        blocks += [Heading("Why"), *(Text(f"- {r}") for r in result.reasons)]
    return blocks


def _changed_row(c: Changed) -> tuple[object, ...]:
    return (c.field, *(f"{v:.4g}" if isinstance(v, float) else v for v in (c.before, c.after)))


def _signed(usd: float) -> str:
    return ("-" if usd < 0 else "+") + format_money(abs(usd))
