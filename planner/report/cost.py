"""A cost report as a person reads it: terms, money per token, energy, the API beside it."""

from __future__ import annotations

from planner.decisions.cost_result import BreakEven, CostReport, Energy
from planner.report.blocks import Block, Heading, Text, sheet
from planner.report.recommendation import fleet_text
from planner.units import format_duration, format_money


def cost_blocks(result: CostReport) -> list[Block]:
    """The blocks of one cost report; every figure is the result's own."""
    plan = result.plan
    name = result.workload.get("name") or "workload"
    blocks: list[Block] = [
        Heading(f"{name}: {result.workload['model']}"),
        Text(result.statement, "good"),
        Text(f"On {fleet_text(plan)}."),
        Heading("Money"),
        sheet(("", ""), _money(result), header=False),
        Heading("Split over tokens"),
        _split(result),
    ]
    if result.energy is not None:
        blocks += [Heading("Energy"), sheet(("", ""), _energy(result.energy), header=False)]
    if result.break_even is not None:
        blocks += [Heading("Beside an API"), sheet(("", ""), _api(result.break_even), header=False)]
    return [
        *blocks,
        Heading("Assumed"),
        sheet(("Key", "Value", "From"), [(a.key, a.value, a.origin) for a in result.assumptions]),
        *(Text(f"warning: {w}", "bad") for w in result.warnings),
    ]


def _money(result: CostReport) -> list[tuple[str, str]]:
    terms = result.terms
    rows = [("Accelerator", f"{format_money(terms.usd_per_gpu_hour)} an hour ({terms.price_source})")]
    parts = (terms.capital_usd_per_gpu_hour, terms.power_usd_per_gpu_hour, terms.hosting_usd_per_gpu_hour)
    if None not in parts:
        capital, power, hosting = (format_money(p or 0.0) for p in parts)
        rows.append(("Of it", f"{capital} capital, {power} power, {hosting} hosting"))
    rows += [
        ("Fleet", f"{format_money(result.usd_per_hour)} an hour, {format_money(result.usd_per_month)} a month"),
        ("Per request", f"{format_money(result.usd_per_request)} at {result.mean_requests_per_second:.3g} requests/s"),
    ]
    if result.usd_per_solved_task is not None:
        rows.append(("Per solved task", format_money(result.usd_per_solved_task)))
    rows.append(("All on output", f"{format_money(result.usd_per_million_output_tokens_alone)} per M output tokens"))
    return rows


def _split(result: CostReport) -> Block:
    rows = [
        (
            part.tokens, f"{part.tokens_per_request:,.0f}", format_duration(part.gpu_seconds_per_request),
            f"{part.share:.1%}", format_money(part.usd_per_request),
            None if part.usd_per_million_tokens is None else format_money(part.usd_per_million_tokens),
        )
        for part in result.split
    ]  # fmt: skip
    columns = ("tokens", "per request", "GPU seconds", "share", "$/request", "$/M tokens")
    return sheet(columns, rows, numeric=columns[1:])


def _energy(energy: Energy) -> list[tuple[str, str]]:
    rows = [
        ("Electricity", f"{energy.kwh_per_month:,.0f} kWh a month: {energy.watts_per_gpu:g} W, PUE {energy.pue:g}"),
        ("Per output token", f"{energy.joules_per_output_token:.3g} J"),
    ]  # fmt: skip
    if energy.kg_co2_per_month is not None and energy.grams_co2_per_million_output_tokens is not None:
        rows += [
            ("Carbon", f"{energy.kg_co2_per_month:,.0f} kg CO2e a month, "
                       f"{energy.grams_co2_per_million_output_tokens:,.0f} g per M output tokens"),
            ("Grid", f"{energy.grams_co2_per_kwh:g} g/kWh ({energy.grid})"),
        ]  # fmt: skip
    return rows


def _api(found: BreakEven) -> list[tuple[str, str]]:
    even = f"{found.utilisation:.1%} utilisation, {found.requests_per_second:.3g} requests/s"
    cheaper = "the fleet" if found.fleet_is_cheaper else "the API"
    return [
        ("API", f"{format_money(found.api_usd_per_request)} per request, "
                f"{format_money(found.api_usd_per_month)} a month at this load"),
        ("Break-even", even if found.utilisation <= 1 else f"{even}: more than the fleet serves"),
        ("Now", f"{found.utilisation_now:.1%} utilisation: {cheaper} is cheaper"),
    ]  # fmt: skip
