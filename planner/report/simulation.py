"""A simulation beside the closed forms of its plan."""

from __future__ import annotations

from planner.report.blocks import Block, Heading, Text, sheet
from planner.report.intervals import STATISTICS, curve_texts, gpus_text, with_interval
from planner.report.recommendation import layout_text
from planner.sizing.result import Latency, Simulation
from planner.units import format_duration


def simulation_blocks(result: Simulation) -> list[Block]:
    """Percentiles of the simulation and of the closed forms, and what the run was like."""
    plan = result.plan
    source = f"the trace {result.trace}" if result.trace else f"traffic drawn with seed {result.seed}"
    pool = result.pools[0]
    several = f"{pool.replicas} replicas, {result.routing}," if pool.replicas > 1 else "One replica"
    width = result.ttft_mean_half_width_s
    interval = f", mean time to first token within {format_duration(width)} (95 %)" if width is not None else ""
    served = plan.throughput.max_requests_per_second_interval
    most = with_interval(result.max_requests_per_second, served, "{:.3g}".format)
    rows = latency_rows("simulated", result.latency)
    closed = latency_rows("closed form", plan.latency)
    blocks: list[Block] = [
        Heading(f"{several} of {plan.gpus_per_replica} x {plan.accelerator}, {layout_text(plan)}"),
        Text(
            f"{result.requests} sequences of {source} over {format_duration(result.duration_s)}: {result.verdict}",
            "good" if result.verdict == "stable" else "bad",
        ),
        Text(
            f"{result.requests_per_second:.3g} sequences/s, {result.output_tokens_per_second:.0f} output tokens/s, "
            f"{pool.mean_batch:.1f} decoding on a replica, {pool.utilisation:.0%} of the time in steps, "
            f"{result.preemptions} preemptions, {result.cached_fraction:.0%} of input tokens cached{interval}"
        ),
        Text(
            f"The fleet of {gpus_text(plan)} accelerators serves up to {most} requests/s inside the limits "
            "(closed form)."
        ),
        sheet(
            ("Latency", "", *STATISTICS),
            [row for pair in zip(rows, closed, strict=True) for row in (pair[0], ("", *pair[1][1:]))],
            numeric=STATISTICS,
        ),
    ]
    if result.classes:
        blocks += [
            Heading("By class"),
            sheet(
                ("Class", "Latency", *STATISTICS),
                [
                    (c.request_class if i == 0 else "", row[0], *row[2:])
                    for c in result.classes
                    for i, row in enumerate(latency_rows("", c.latency))
                ],
                numeric=STATISTICS,
            ),
        ]
    return blocks


def latency_rows(source: str, latency: Latency) -> list[tuple[str, ...]]:
    """Name, source and statistics of the three latencies, as durations."""
    return [
        (name, source, *curve_texts(curve))
        for name, curve in (
            ("Time to first token", latency.ttft_s),
            ("Time per output token", latency.time_per_output_token_s),
            ("End to end", latency.e2e_s),
        )
    ]
