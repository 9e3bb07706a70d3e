"""A simulation beside the closed forms of its plan."""

from __future__ import annotations

from planner.report.blocks import Block, Heading, Text, sheet
from planner.report.recommendation import layout_text
from planner.sizing.result import Simulation
from planner.units import format_duration

STATISTICS = ("mean", "p50", "p95", "p99")


def simulation_blocks(result: Simulation) -> list[Block]:
    """Percentiles of the simulation and of the closed forms, and what the run was like."""
    plan = result.plan
    source = f"the trace {result.trace}" if result.trace else f"traffic drawn with seed {result.seed}"
    rows = []
    for name, simulated, closed in (
        ("Time to first token", result.ttft_s, plan.latency.ttft_s),
        ("Time per output token", result.time_per_output_token_s, plan.latency.time_per_output_token_s),
        ("End to end", result.e2e_s, plan.latency.e2e_s),
    ):
        rows.append((name, "simulated", *(format_duration(getattr(simulated, s)) for s in STATISTICS)))
        rows.append(("", "closed form", *(format_duration(getattr(closed, s)) for s in STATISTICS)))
    width = result.ttft_mean_half_width_s
    interval = f", mean time to first token within {format_duration(width)} (95 %)" if width is not None else ""
    return [
        Heading(f"One replica of {plan.gpus_per_replica} x {plan.accelerator}, {layout_text(plan)}"),
        Text(
            f"{result.requests} sequences of {source} over {format_duration(result.duration_s)}: {result.verdict}",
            "good" if result.verdict == "stable" else "bad",
        ),
        Text(
            f"{result.requests_per_second:.3g} sequences/s, {result.output_tokens_per_second:.0f} output tokens/s, "
            f"{result.mean_in_flight:.1f} in flight, {result.preemptions} preemptions{interval}"
        ),
        sheet(("Latency", "", *STATISTICS), rows, numeric=STATISTICS),
    ]
