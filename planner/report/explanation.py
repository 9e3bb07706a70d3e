"""The story of a plan as a person reads it: one screen, or all of it."""

from __future__ import annotations

from collections.abc import Sequence

from planner.decisions.explanation_result import Claim, Component, CurvePoint, Explanation, Roofline, whose
from planner.report.blocks import Block, Heading, Text, sheet
from planner.units import format_bytes, format_duration

SHOWN = 6  # operators on one screen

NAMES = {
    "weights": "weights", "kv": "KV cache", "indexer": "indexer", "state": "state", "activations": "activations",
    "network": "network", "overhead": "launches, host", "drafts": "drafting",
}  # fmt: skip
WORDS = {"true": "true here", "partly": "partly true here", "false": "false here"}
STYLES = {"true": "good", "partly": "plain", "false": "bad"}


def explanation_blocks(result: Explanation, full: bool) -> list[Block]:
    """The blocks of an explanation, one screen or ``full``; every figure is the result's own."""
    name = result.workload.get("name") or "workload"
    blocks: list[Block] = [
        Heading(f"{name}: {result.workload['model']}"),
        Text(result.statement),
        component_sheet(result.components),
        roofline_sheet(result.operators if full else result.operators[:SHOWN]),
        Text("Below its ridge an operator waits for memory, above it for arithmetic; the rest is latency.", "note"),
        *(Text(line) for line in _regimes(result)),
        speed_sheet(result.speeds),
        *(Text(line) for line in _rest(result)),
    ]
    if full:
        blocks += [
            Heading("Along the batch, bytes of one accelerator"), curve_sheet(result.curve),
            *_attention(result),
            Heading("What people say, here"), *_claims(result.claims),
        ]  # fmt: skip
    blocks += [
        Heading("Assumed"), sheet(("Key", "Value", "From"), [(a.key, a.value, a.origin) for a in result.assumptions]),
    ] if full else [
        Text("Assumed: " + "; ".join(f"{a.key}: {a.value}" for a in result.assumptions) + ".", "note"),
        Text("--full: all operators, the curve along the batch, eleven claims judged.", "note"),
    ]  # fmt: skip
    return [*blocks, *(Text(f"warning: {w}", "bad") for w in result.warnings)]


def component_sheet(parts: Sequence[Component]) -> Block:
    """Bytes and seconds of a step by component."""
    rows = [
        (
            NAMES[c.name], None if c.bytes_per_step is None else format_bytes(c.bytes_per_step),
            format_duration(c.seconds), f"{c.share:.0%}", _part(c.arithmetic_s, c.seconds),
        )
        for c in parts
    ]  # fmt: skip
    columns = ("A step goes to", "bytes/GPU", "time", "share", "arithmetic")
    return sheet(columns, rows, numeric=columns[1:])


def _part(part: float, whole: float) -> str | None:
    return f"{part / whole:.0%}" if part > 0 else None


def roofline_sheet(operators: Sequence[Roofline]) -> Block:
    """Operators under the roof."""
    rows = [
        (
            o.name, format_duration(o.seconds), f"{o.share:.0%}", _number(o.flops_per_byte),
            _number(o.ridge_flops_per_byte), o.bound_by, _percent(o.achieved_share), _percent(o.bandwidth_share),
            _crossing(o),
        )
        for o in operators
    ]  # fmt: skip
    columns = ("Operator", "time", "share", "FLOP/B", "ridge", "bound by", "of roof", "bandwidth", "compute at")
    return sheet(columns, rows, numeric=(*columns[1:5], *columns[6:]))


def _crossing(operator: Roofline) -> str | None:
    """The batch from which an operator is compute-bound, in words."""
    if operator.ridge_flops_per_byte is None:
        return None
    at = operator.compute_bound_batch
    return "never" if at is None else "always" if at == 1 else f"{at:.0f}"


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3g}"


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.0%}"


def _batch(value: float | None) -> str:
    return "at no batch" if value is None else f"from batch {value:.0f}"


def _regimes(result: Explanation) -> list[str]:
    r = result.regimes
    context = r.kv_overtakes_weights_context
    where = "at no context" if context is None else f"from {context:.0f} tokens at this batch"
    return [
        f"Cache over weights: {_batch(r.kv_overtakes_weights_batch)} at these contexts, {where}.",
        f"Memory to compute: {_batch(r.compute_bound_batch)} for weight matmuls, {_batch(r.step_compute_bound_batch)} "
        f"for the step ({result.max_batch:.0f} fit).",
        f"Floor of a token: {format_duration(r.floor_time_per_output_token_s)} alone, "
        f"{format_duration(r.floor_without_bytes_s)} of it before any byte is read.",
    ]


def speed_sheet(points: Sequence[CurvePoint]) -> Block:
    """Per-request speed at one sequence, at the plan's batch and at the largest."""
    rows = [
        (f"{p.batch:.3g}", format_duration(p.step_s), f"{p.tokens_per_second_per_user:.1f}",
         f"{p.tokens_per_second:,.0f}") for p in points
    ]  # fmt: skip
    columns = ("Batch", "step", "tok/s/user", "tok/s/replica")
    return sheet(columns, rows, numeric=columns)


def _rest(result: Explanation) -> list[str]:
    c, a = result.caching, result.attention
    lines = [
        f"Prefix cache: saves {c.prefill_saved:.0%} of prefill and 0 % of decode, {c.replica_time_saved:.0%} of "
        f"{whose(result.plan)} time."
    ]
    if a is not None:
        all_of_it, tail = a.at[0], a.at[-1]
        at = a.sparse_wins_context
        wins = "at no context" if at is None else "at every context" if at == 1 else f"from {at:.0f} tokens"
        lines.append(
            f"Attention ({', '.join(f'{n} {k}' for k, n in a.layers.items())}): a step dense "
            f"{format_duration(all_of_it.dense_s)}, sparse {format_duration(all_of_it.sparse_s)}; at p99 of context "
            f"({tail.context:.0f}) {format_duration(tail.dense_s)} and {format_duration(tail.sparse_s)}; "
            f"sparse wins {wins}."
        )
    return [*lines, f"Speculation: {result.speculation}.", f"Sharing: {result.sharing}."]


def curve_sheet(points: Sequence[CurvePoint]) -> Block:
    """The curve along the batch."""
    rows = [
        (
            f"{p.batch:.4g}", format_bytes(p.weights_bytes), format_bytes(p.cache_bytes), format_duration(p.step_s),
            *(format_duration(x) if x else None for x in (p.memory_s, p.compute_s, p.network_s, p.overhead_s)),
            f"{p.tokens_per_second_per_user:.1f}", f"{p.tokens_per_second:,.0f}",
        )
        for p in points
    ]  # fmt: skip
    columns = ("Batch", "weights", "cache", "step", "memory", "compute", "network", "overhead", "tok/s/user", "tok/s")
    return sheet(columns, rows, numeric=columns)


def _attention(result: Explanation) -> list[Block]:
    a = result.attention
    if a is None:
        return []
    rows = [
        ("all" if x.quantile is None else f"p{x.quantile * 100:.0f}", f"{x.context:.0f}", format_duration(x.dense_s),
         format_duration(x.sparse_s), f"{x.dense_s / x.sparse_s:.2f}x") for x in a.at
    ]  # fmt: skip
    columns = ("Contexts", "tokens", "dense step", "sparse step", "sparse gains")
    return [
        Heading("Dense and sparse attention at the plan's batch"),
        Text(f"This model is {a.kind}; beside it: {a.counterpart}."),
        sheet(columns, rows, numeric=columns[1:]),
    ]


def _claims(found: Sequence[Claim]) -> list[Block]:
    blocks: list[Block] = []
    for c in found:
        blocks += [
            Text(f'{c.number}. "{c.claim}": {WORDS[c.verdict]} ({c.here}).', STYLES[c.verdict]),
            Text(f"   {c.statement} ({c.command})"),
        ]
    return blocks
