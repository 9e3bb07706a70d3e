"""Pools for prefill and decode as a person reads them."""

from __future__ import annotations

from planner.report.blocks import Block, Heading, Text, sheet
from planner.report.intervals import curve_texts
from planner.sizing.result import DisaggregatedPool, Disaggregation
from planner.units import format_bytes, format_duration, format_money


def disaggregation_blocks(found: Disaggregation, chosen: bool) -> list[Block]:
    """The pools, the transfer between them and what they reach; ``chosen``: the plan is this candidate."""
    transfer, latency = found.transfer, found.latency
    rows = [_row("prefill", found.prefill), _row("decode", found.decode)]
    columns = ("Pool", "Replicas", "Spare", "GPUs each", "Layout", "max-num-seqs", "Mean batch", "Of its limit")
    return [
        Heading("Pools of prefill and decode replicas" + ("" if chosen else ", not chosen")),
        Text(f"{found.statement[0].upper()}{found.statement[1:]}.", "good" if chosen else "plain"),
        sheet(columns, rows, numeric=columns[1:4] + columns[5:]),
        Text(
            f"{found.gpus} x {found.accelerator}, {format_money(found.usd_per_hour)} per hour. A prompt's cache: "
            f"{format_bytes(transfer.bytes_per_token)} a token, {format_duration(transfer.latency_s)} and "
            f"{format_duration(transfer.seconds_per_token)} a token."
        ),
        Text(
            f"p95 ({found.latency_source}): first token {curve_texts(latency.ttft_s)[2]}, transfer included; "
            f"per output token {curve_texts(latency.time_per_output_token_s)[2]}; "
            f"end to end {curve_texts(latency.e2e_s)[2]}."
        ),
    ]


def _row(name: str, pool: DisaggregatedPool) -> tuple[object, ...]:
    degrees = (
        ("TP", pool.tensor_parallel), ("PP", pool.pipeline_parallel), ("DP", pool.data_parallel),
        ("EP", pool.expert_parallel),
    )  # fmt: skip
    layout = " ".join(f"{kind}{degree}" for kind, degree in degrees if degree > 1 or kind == "TP")
    return (
        name, pool.replicas, pool.spare_replicas, pool.gpus_per_replica, layout, pool.max_batch,
        f"{pool.mean_batch:.1f}", f"{pool.utilisation:.0%}",
    )  # fmt: skip
