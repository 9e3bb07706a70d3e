"""A recommendation as a person reads it: what to buy, why, how fast, at what cost, what else."""

from __future__ import annotations

from typing import Any

from planner.report.blocks import Block, Heading, Text, sheet
from planner.report.intervals import STATISTICS, curve_texts, gpus_text, range_text, with_interval
from planner.sizing.result import Alternative, Plan, Recommendation, Why
from planner.units import format_bytes, format_count, format_duration, format_money

ALTERNATIVES = 12


def recommendation_blocks(result: Recommendation) -> list[Block]:
    """The blocks of one recommendation; every figure is the result's own."""
    name = result.workload.get("name") or "workload"
    blocks: list[Block] = [Heading(f"{name}: {result.workload['model']}")]
    if result.plan is None:
        blocks += _no_plan(result)
    else:
        assert result.why is not None
        blocks += plan_blocks(result.plan, result.workload)
        if result.plan.disaggregation is not None:
            from planner.report.disaggregation import disaggregation_blocks

            blocks += disaggregation_blocks(result.plan.disaggregation, result.plan.serving == "disaggregated")
        blocks += _why_blocks(result.plan, result.why)
        if result.what_would_change:
            blocks += [Heading("What would change it"), *(Text(f"- {t}") for t in result.what_would_change)]
            blocks.append(Text("- `planner sensitivity` finds the value of every input that flips the plan", "note"))
    blocks += alternative_blocks(result.alternatives)
    blocks += _assumption_blocks(result)
    blocks += [Text(f"warning: {w}", "bad") for w in result.warnings]
    return blocks


def _no_plan(result: Recommendation) -> list[Block]:
    blocks: list[Block] = [Text("No plan keeps every limit.", "bad")]
    if result.nearest_miss is not None:
        blocks.append(Text(f"Nearest miss: {result.nearest_miss.statement}."))
    return blocks


def layout_text(plan: Plan) -> str:
    """The parallelism of a replica in one phrase.

    TP, PP, DP and EP stand for tensor, pipeline, attention-data and expert parallelism.
    """
    parts = [f"TP{plan.tensor_parallel}"]
    if plan.pipeline_parallel > 1:
        parts.append(f"PP{plan.pipeline_parallel}")
    if plan.data_parallel > 1:
        parts.append(f"DP{plan.data_parallel}")
    if plan.expert_parallel > 1:
        parts.append(f"EP{plan.expert_parallel}")
    return " ".join(parts)


def fleet_text(plan: Plan) -> str:
    """Accelerators and how they are joined into replicas, of both pools where there are two."""
    if plan.serving == "disaggregated" and plan.disaggregation is not None:
        pools = ((p, name) for name in ("prefill", "decode") if (p := getattr(plan.disaggregation, name)))
        said = " and ".join(f"{p.replicas} {name} replicas of {p.gpus_per_replica}" for p, name in pools)
        return f"{plan.gpus} x {plan.accelerator}, in pools: {said}"
    return f"{plan.gpus} x {plan.accelerator}, {layout_text(plan)}"


def speculation_text(plan: Plan) -> str:
    """Whether to speculate, with which method, and what it gains."""
    s = plan.speculation
    if not s.enabled:
        best = next(iter(s.considered.items()), None)
        return "off" + (f" (best considered: {best[0]} at {best[1]:.2f}x)" if best else "")
    return (
        f"{s.method}, {s.draft_tokens} draft tokens: {s.acceptance_length:.2f} tokens per step, {s.speedup:.2f}x faster"
    )


def plan_blocks(plan: Plan, workload: dict[str, Any]) -> list[Block]:
    """The plan itself: purchase, configuration, latencies against limits, cost, memory."""
    spare = f", {plan.spare_replicas} spare" if plan.spare_replicas else ""
    shape = f"{plan.replicas} replicas of {plan.gpus_per_replica}{spare}"
    if plan.serving == "disaggregated" and plan.disaggregation is not None:
        pools = plan.disaggregation
        shape = f"pools of {pools.prefill.replicas} prefill and {pools.decode.replicas} decode replicas"
    between = gpus_text(plan).removeprefix(f"{plan.gpus}")
    headline = f"{plan.gpus} x {plan.accelerator}{between} in {shape}: {format_money(plan.cost.usd_per_hour)} per hour"
    throughput = plan.throughput
    most = with_interval(
        throughput.max_requests_per_second, throughput.max_requests_per_second_interval, "{:.3g}".format
    )
    rows = [
        ("Configuration", f"{layout_text(plan)}, weights {plan.weight_dtype}, KV {plan.kv_dtype}, {plan.engine}"),
        ("Batch", f"max-num-seqs {plan.max_batch}, mean {plan.mean_batch:.1f} per replica at peak"),
        ("Speculation", speculation_text(plan)),
        ("Cost", f"{format_money(plan.cost.usd_per_month)} a month, "
                 f"{format_money(plan.cost.usd_per_million_output_tokens)} per million output tokens, input included"),
        ("Price", f"{format_money(plan.cost.price_per_gpu_hour)} per accelerator-hour: {plan.cost.price_source}"),
        ("Throughput", f"{plan.throughput.requests_per_second:.3g} requests/s at peak "
                       f"(up to {most} inside the limits), "
                       f"{plan.throughput.output_tokens_per_second_per_gpu:.0f} output tokens/s per accelerator"),
        ("Memory", f"{format_bytes(plan.memory.weights)} weights, {format_bytes(plan.memory.kv)} KV of "
                   f"{format_bytes(plan.memory.kv_capacity)}, on {format_bytes(plan.memory.capacity)}; "
                   f"longest context {format_count(plan.memory.max_context_tokens)} tokens"),
        ("Power", f"{plan.power_w / 1e3:.1f} kW of accelerators at their limit"),
    ]  # fmt: skip
    if plan.gpus_interval is not None:
        rows.insert(0, ("Accelerators", range_text(plan)))
    if plan.simulated is not None:
        rows.append(("Simulated", _simulated_text(plan)))
    if plan.retention is not None:
        rows.append(("Sessions", plan.retention.statement))
    if plan.sharing is not None:
        rows.append(("Subagents", _sharing_text(plan)))
    return [
        Text(headline, "good"),
        sheet(("", "Plan"), rows, header=False),
        _latency_sheet(plan, workload),
    ]


def _simulated_text(plan: Plan) -> str:
    """What the simulation of the plan's replica was like, and how p95 TTFT hangs on the step's time."""
    s = plan.simulated
    assert s is not None
    text = f"{plan.verdict} over {s.sequences} sequences, {s.utilisation:.0%} of the time in steps"
    if s.preemptions_per_sequence > 0:
        text += f", {s.preemptions_per_sequence:.2g} preemptions a sequence"
    if s.ttft_p95_band_s is not None:
        low, high = (format_duration(x) for x in s.ttft_p95_band_s)
        short, long = s.step_time_factors
        text += f"; p95 time to first token {low} to {high} with steps {short:.2f} to {long:.2f} times as long"
    return text


def _sharing_text(plan: Plan) -> str:
    s = plan.sharing
    assert s is not None
    return (
        f"{s.fan_out} per request share {format_count(s.shared_prefix_tokens)} tokens: stored "
        f"{format_count(s.kv_tokens_stored)} of {format_count(s.kv_tokens_without_sharing)}, read "
        f"{format_count(s.tokens_read_per_step)} a step ({format_count(s.tokens_read_with_cascade)} with a "
        f"cascade kernel); the slowest is done after {format_duration(s.join_latency_s)}; "
        f"useful work {s.useful_work:.2f}"
    )


def _latency_sheet(plan: Plan, workload: dict[str, Any]) -> Block:
    limits = dict(workload.get("slo", {}))
    rows = []
    for key, title, curve in (
        ("ttft", "Time to first token", plan.latency.ttft_s),
        ("tpot", "Time per output token", plan.latency.time_per_output_token_s),
        ("e2e", "End to end", plan.latency.e2e_s),
    ):
        wanted = [
            f"{s} <= {format_duration(limits[f'{key}_{s}'])} "
            + ("ok" if getattr(curve, s) <= limits[f"{key}_{s}"] * 1.0001 else "MISSED")
            for s in STATISTICS
            if f"{key}_{s}" in limits
        ]
        rows.append((title, *curve_texts(curve), ", ".join(wanted)))
    return sheet(("Latency", *STATISTICS, "limit"), rows, numeric=STATISTICS)


def _why_blocks(plan: Plan, why: Why) -> list[Block]:
    crossover, context = why.crossovers.compute_bound_batch, why.crossovers.kv_exceeds_weights_context
    seconds = why.seconds_per_step
    total = seconds.compute + seconds.memory + seconds.network + seconds.overhead
    shares = ", ".join(f"{getattr(seconds, c) / total:.0%} {c}" for c in ("compute", "memory", "network", "overhead"))
    lines = [
        f"The limit that sets the fleet: {why.binding_constraint}.",
        why.statement,
        f"A step: {shares}.",
        "Weight matmuls turn compute-bound "
        + (f"from {crossover:.0f} tokens per step." if crossover else "at no batch up to 65536."),
        "Cache bytes exceed weight bytes "
        + (f"beyond a context of {format_count(context)} tokens at this batch." if context
           else "at no context at this batch."),
        f"The prefix cache removes {why.prefill_saved_by_cache:.0%} of prefill work and nothing of decode.",
    ]  # fmt: skip
    return [Heading("Why"), *(Text(line) for line in lines)]


def alternative_blocks(alternatives: tuple[Alternative, ...], limit: int | None = ALTERNATIVES) -> list[Block]:
    """Rivals as a table, then the infeasible ones with their reasons."""
    feasible = [a for a in alternatives if a.plan is not None]
    infeasible = [a for a in alternatives if a.plan is None]
    blocks: list[Block] = []
    if feasible:
        rows = []
        for a in feasible:
            p = a.plan
            assert p is not None
            rows.append(
                (p.accelerator, gpus_text(p), layout_text(p), p.weight_dtype, p.max_batch,
                 p.speculation.method if p.speculation.enabled else "off",
                 format_money(p.cost.usd_per_hour),
                 format_money(p.cost.usd_per_million_output_tokens),
                 curve_texts(p.latency.ttft_s)[2],
                 curve_texts(p.latency.time_per_output_token_s)[2], a.reason)
            )  # fmt: skip
        columns = ("Accelerator", "GPUs", "Layout", "Weights", "Batch", "Spec.", "$/h", "$/M out",
                   "TTFT p95", "TPOT p95", "Against the best")  # fmt: skip
        numeric = ("GPUs", "Batch", "$/h", "$/M out", "TTFT p95", "TPOT p95")
        blocks += [Heading("Alternatives"), sheet(columns, rows, numeric=numeric)]
    if infeasible:
        shown = infeasible if limit is None else infeasible[:limit]
        blocks += [
            Heading("Left out"),
            sheet(("Accelerator", "Why"), [(a.accelerator, a.reason) for a in shown]),
        ]
        if len(shown) < len(infeasible):
            blocks.append(Text(f"… and {len(infeasible) - len(shown)} more (all with --format json)", "note"))
    return blocks


def _assumption_blocks(result: Recommendation) -> list[Block]:
    if not result.assumptions:
        return []
    rows = [(a.key, a.value, a.origin) for a in result.assumptions]
    return [Heading("Assumed"), sheet(("Key", "Value", "From"), rows)]
