"""A fan-out as a person reads it: the curve, what sharing saves, what pays, turns ahead."""

from __future__ import annotations

from collections.abc import Sequence

from planner.decisions.fanout_result import Branches, FanOut, NextTurns
from planner.report.blocks import Block, Heading, Text, sheet
from planner.report.recommendation import layout_text
from planner.units import format_bytes, format_duration, format_money

BAR = 24  # characters of the longest bar


def fan_out_blocks(result: FanOut) -> list[Block]:
    """The blocks of one fan-out; every figure is the result's own."""
    plan = result.plan
    name = result.workload.get("name") or "workload"
    return [
        Heading(f"{name}: {result.workload['model']}"),
        Text(result.statement, "good" if result.fan_out_that_pays else "bad"),
        Text(
            f"On {plan.gpus} x {plan.accelerator}, {layout_text(plan)}, {plan.mean_batch:.1f} sequences on a replica "
            f"at peak; a task adds its branches to them."
        ),
        Heading("What a fan-out costs and solves"),
        _curve(result),
        Heading("What sharing the prefix saves"),
        _sharing(result.rows),
        Heading("Turns ahead"),
        *_turns(result.next_turns),
        Heading("Assumed"),
        sheet(("Key", "Value", "From"), [(a.key, a.value, a.origin) for a in result.assumptions]),
        *(Text(f"warning: {w}", "bad") for w in result.warnings),
    ]


def bars(values: Sequence[float | None], marked: int | None = None) -> list[str]:
    """Values as bars of equal scale, negative and missing ones empty; the one at ``marked`` says so."""
    most = max((v for v in values if v is not None), default=0.0)
    drawn = ["▇" * round(BAR * max(v or 0.0, 0.0) / most) if most > 0 else "" for v in values]
    return [bar + (" <" if i == marked else "") for i, bar in enumerate(drawn)]


def _curve(result: FanOut) -> Block:
    """One row per fan-out, the curve that decides as bars: net value, or cost per solved task without a value."""
    priced = result.value_usd is not None
    merit = [r.net_usd if priced else r.usd_per_solved_task for r in result.rows]
    drawn = bars(merit, result.fan_out_that_pays - 1)
    title = "net value" if priced else "$ per solved task"
    rows = [
        (
            r.fan_out, f"{r.useful_work:.1%}", format_duration(r.join_latency_mean_s),
            format_duration(r.join_latency_p95_s), f"{r.branches_at_work:.1f}", f"{r.speedup_over_sequential:.2f}x",
            format_money(r.usd_per_task), _money(r.usd_per_solved_task), _money(r.pays_from_value_usd), _noted(r), bar,
        )
        for r, bar in zip(result.rows, drawn, strict=True)
    ]  # fmt: skip
    columns = (
        "K", "solved", "join mean", "join p95", "at work", "faster", "$/task", "$/solved", "pays from", "", title,
    )  # fmt: skip
    return sheet(columns, rows, numeric=columns[:9])


def _money(usd: float | None) -> str | None:
    return None if usd is None else format_money(usd)


def _noted(row: Branches) -> str:
    if not row.fits:
        return "no room"
    return "" if row.within_limits else "too late"


def _sharing(rows: Sequence[Branches]) -> Block:
    shown = [
        (
            r.fan_out, format_bytes(r.kv_bytes_without_sharing), format_bytes(r.kv_bytes_stored),
            format_bytes(r.read_bytes_per_step_without_cascade), format_bytes(r.read_bytes_per_step_with_cascade),
            format_duration(r.time_per_output_token_s), format_duration(r.time_per_output_token_with_cascade_s),
        )
        for r in rows
    ]  # fmt: skip
    columns = ("K", "KV unshared", "KV stored", "read a step", "with cascade", "per token", "per token, cascade")
    return sheet(columns, shown, numeric=columns)


def _turns(found: NextTurns) -> list[Block]:
    value = found.waiting_hour_value_usd
    worth = f"{format_money(value)} for an hour not waited" if value else "no value of waiting given"
    deep = "no turn" if found.turns_that_pay == 0 else f"{found.turns_that_pay} turn{'s' * (found.turns_that_pay > 1)}"
    rows = [
        (
            r.turns, f"{r.useful:.1%}", f"{r.turns_ready:.2f}", format_duration(r.saved_s), format_money(r.wasted_usd),
            _money(r.pays_from_usd_per_hour),
        )
        for r in found.rows
    ]  # fmt: skip
    columns = ("ahead", "useful", "turns ready", "waiting saved", "wasted", "pays from, per hour waited")
    return [
        Text(
            f"Predicted turns come true with {found.quality:.0%}; a turn takes {format_duration(found.turn_s)} and "
            f"costs {format_money(found.turn_usd)}. With {worth}, {deep} ahead pays."
        ),
        sheet(columns, rows, numeric=columns),
    ]
