"""Faster tiers as a person reads them: the cheapest ways, each lever alone, what physics allows."""

from __future__ import annotations

from collections.abc import Sequence

from planner.decisions.speed_result import PhysicalLimit, Speed, Tier
from planner.report.blocks import Block, Heading, Text, sheet
from planner.units import format_money

LIMITS = 12  # accelerators shown in a table

COLUMNS = (
    "Levers", "Accelerator", "Layout", "Weights", "Drafts", "Batch", "tok/s/user", "speed", "cost", "GPUs", "$/h",
    "Gives up",
)  # fmt: skip


def speed_blocks(result: Speed, top: int) -> list[Block]:
    """The blocks of a search for speed, ``top`` ways of them; every figure is the result's own."""
    name = result.workload.get("name") or "workload"
    shown = result.tiers[:top]
    left = len(result.tiers) - len(shown)
    return [
        Heading(f"{name}: {result.workload['model']}"),
        Text(result.statement, "good" if result.tiers else "bad"),
        Text(
            f"From {result.base.tokens_per_second_per_user:.1f} to {result.target_tokens_per_second:.1f} output tokens "
            "per second and user."
        ),
        Heading("Ways there, cheapest first"),
        tier_sheet([result.base, *shown]),
        *([Text(f"… and {left} more (all with --format json)", "note")] if left > 0 else []),
        Heading("Each lever alone"),
        tier_sheet(result.alone),
        Heading(
            f"What {result.target_multiple:.3g} times the speed at {result.price_multiple:.3g} times the price may be"
        ),
        *(Text(f"- {line}") for line in result.hypotheses),
        Heading("One request alone, in the plan's precision"),
        limit_sheet(result.limits),
        Heading("Assumed"),
        sheet(("Key", "Value", "From"), [(a.key, a.value, a.origin) for a in result.assumptions]),
        *(Text(f"warning: {w}", "bad") for w in result.warnings),
    ]


def tier_sheet(tiers: Sequence[Tier]) -> Block:
    """Tiers as a table."""
    rows = [
        (
            " + ".join(t.levers) or "the base", t.accelerator, _layout(t), t.weight_dtype, t.speculation,
            f"{t.batch:.0f}", f"{t.tokens_per_second_per_user:.1f}",
            f"{t.speed_multiple:.2f}x" + ("" if t.reaches_target or not t.levers else " short"),
            f"{t.cost_multiple:.2f}x", t.gpus, format_money(t.usd_per_hour), "; ".join(t.gives_up),
        )
        for t in tiers
    ]  # fmt: skip
    return sheet(COLUMNS, rows, numeric=COLUMNS[5:11])


def _layout(tier: Tier) -> str:
    degrees = (
        ("TP", tier.tensor_parallel), ("PP", tier.pipeline_parallel), ("DP", tier.data_parallel),
        ("EP", tier.expert_parallel),
    )  # fmt: skip
    return " ".join(f"{kind}{degree}" for kind, degree in degrees if degree > 1 or kind == "TP")


def limit_sheet(limits: Sequence[PhysicalLimit]) -> Block:
    """What physics allows one request, the fastest accelerators and those that cannot be planned."""
    known = [x for x in limits if not x.reason][:LIMITS]
    rows = [
        (
            x.accelerator, x.gpus or None, _rate(x.perfect_tokens_per_second), x.bound_by,
            _rate(x.achieved_tokens_per_second), _rate(x.achieved_with_drafts_tokens_per_second), x.reason,
        )
        for x in (*known, *(x for x in limits if x.reason))
    ]  # fmt: skip
    columns = ("Accelerator", "GPUs", "perfect tok/s", "bound by", "achieved", "with drafts", "")
    return sheet(columns, rows, numeric=("GPUs", "perfect tok/s", "achieved", "with drafts"))


def _rate(value: float | None) -> str | None:
    return None if value is None else f"{value:,.0f}"
