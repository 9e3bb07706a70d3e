"""Estimates, comparisons and lists as blocks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from planner.hardware import Accelerator, Price
from planner.models import Model, ModelSummary, difference_from_published
from planner.report.blocks import Block, Heading, Text, sheet
from planner.report.intervals import STATISTICS, curve_texts, with_interval
from planner.sizing.result import DatasheetRow, Estimate
from planner.units import format_bytes, format_count, format_duration, format_money


def _rate(value: float | None, scale: float, digits: str = ".4g") -> str | None:
    return None if value is None else format(value / scale, digits)


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def datasheet_blocks(rows: Sequence[DatasheetRow]) -> list[Block]:
    """Accelerators side by side; peaks are dense."""
    table = [
        (r.accelerator, r.vendor, r.released, format_bytes(r.memory_bytes), _rate(r.bandwidth, 1e12),
         _rate(r.peak_bf16, 1e12), _rate(r.peak_fp8, 1e12), _rate(r.peak_fp4, 1e12),
         _rate(r.ridge_point_bf16, 1, ".0f"), r.scale_up_domain, _rate(r.tdp_w, 1, ".0f"),
         None if r.usd_per_hour is None else format_money(r.usd_per_hour),
         _rate(r.bandwidth_per_usd, 1e12, ".2f"), r.efficiencies)
        for r in rows
    ]  # fmt: skip
    columns = ("Accelerator", "Vendor", "Year", "Memory", "TB/s", "bf16", "fp8", "fp4", "Ridge",
               "Domain", "W", "$/h", "TB/s per $", "Kernels")  # fmt: skip
    numeric = columns[2:13]
    return [
        Heading("Accelerators"),
        sheet(columns, table, numeric=numeric),
        Text("bf16, fp8, fp4: dense TFLOP/s. Ridge: bf16 FLOP per byte. $/h: median on-demand price.", "note"),
    ]


def estimate_blocks(result: Estimate) -> list[Block]:
    """One configuration: the step by operator, or the latencies and throughput under the load."""
    c = result.configuration
    title = (
        f"{c['model']} on {c['gpus']} x {c['accelerator']} (TP{c['tensor_parallel']}), "
        f"{c['weight_dtype']} weights, {c['kv_dtype']} KV, {c['engine']}"
    )
    blocks: list[Block] = [Heading(title)]
    if result.step is not None:
        s = result.step
        blocks.append(
            Text(f"A decode step takes {with_interval(s.seconds, s.time_per_output_token_s_interval)}, "
                 f"bound by {s.bound_by}; "
                 f"{with_interval(s.output_tokens_per_second, s.output_tokens_per_second_interval, _figure)} tokens/s, "
                 f"{_figure(s.output_tokens_per_second_per_gpu)} per accelerator")
        )  # fmt: skip
        priced = [
            (o.name, f"{o.flops / 1e9:.4g}", format_bytes(o.bytes), format_duration(o.seconds),
             f"{o.seconds / s.seconds:.0%}", o.bound_by)
            for o in s.operators
        ]  # fmt: skip
        columns = ("Operator", "GFLOP", "Bytes", "Time", "Share", "Bound by")
        blocks.append(sheet(columns, priced, numeric=("GFLOP", "Bytes", "Time", "Share")))
    if result.latency is not None:
        curves = [
            (title, *curve_texts(curve))
            for title, curve in (
                ("Time to first token", result.latency.ttft_s),
                ("Time per output token", result.latency.time_per_output_token_s),
                ("End to end", result.latency.e2e_s),
            )
        ]
        names = ("Latency", *STATISTICS)
        blocks.append(sheet(names, curves, numeric=names[1:]))
    if result.throughput is not None:
        t = result.throughput
        most = with_interval(t.max_requests_per_second, t.max_requests_per_second_interval, "{:.4g}".format)
        blocks.append(
            Text((f"{result.verdict}: " if result.verdict else "")
                 + f"{t.requests_per_second:.4g} requests/s, "
                 f"{with_interval(t.output_tokens_per_second, t.output_tokens_per_second_interval, _figure)} "
                 "output tokens/s, "
                 f"{_figure(t.output_tokens_per_second_per_gpu)} per accelerator; "
                 f"at most {most} requests/s")
        )  # fmt: skip
    if result.memory is not None:
        m = result.memory
        blocks.append(
            Text(f"Memory: {format_bytes(m.weights)} weights, {format_bytes(m.kv_capacity)} left for KV "
                 f"({format_count(m.kv_capacity_tokens)} tokens), "
                f"{format_bytes(m.kv_bytes_per_token_formula)} per token "
                 f"by the formula and {format_bytes(m.kv_bytes_per_token_allocated)} as allocated; "
                 f"longest context {format_count(m.max_context_tokens)}, batch up to {m.max_batch_that_fits}")
        )  # fmt: skip
    blocks += [Text(f"{a.key}: {a.value}", "note") for a in result.assumptions]
    found = result.step.time_per_output_token_s_interval if result.step else None
    if found is None and result.latency is not None:
        found = result.latency.time_per_output_token_s.mean_interval
    if found is not None:
        blocks.append(Text(f"intervals, {found.level:.0%} of cases: {found.source}", "note"))
    return blocks + [Text(f"warning: {w}", "bad") for w in result.warnings]


def models_blocks(models: Sequence[ModelSummary]) -> list[Block]:
    """The catalogue as a table."""
    rows = [
        (m.name, format_count(m.total_parameters), format_count(m.active_parameters), m.layers,
         format_count(m.max_context) if m.max_context else None, m.weights, m.architecture)
        for m in models
    ]  # fmt: skip
    columns = ("Model", "Total", "Active", "Layers", "Context", "Weights", "Architecture")
    return [Heading("Models"), sheet(columns, rows, numeric=("Total", "Active", "Layers", "Context"))]


def prices_blocks(prices: Sequence[Price]) -> list[Block]:
    """Price rows as a table, [$/h]."""
    rows = [
        (p.accelerator, format_money(p.usd_per_gpu_hour), p.provider, p.instance, p.term, p.region, p.as_of)
        for p in prices
    ]
    columns = ("Accelerator", "$/h", "Provider", "Instance", "Term", "Region", "As of")
    return [Heading("Prices per accelerator-hour"), sheet(columns, rows, numeric=("$/h",))]


def accelerator_blocks(chip: Accelerator, prices: Sequence[Price]) -> list[Block]:
    """One accelerator: every fact with its source, efficiencies with residuals, prices."""
    facts = [(path, f"{f.value:.6g}", f.unit, f.kind, f.source, f.note) for path, f in sorted(chip.facts.items())]
    fitted = [
        (f"{op}/{fmt}/{engine}", f"{e.compute:.3f}" if e.compute else "-", f"{e.memory:.3f}" if e.memory else "-",
         format_duration(max(e.latency_s, 0)), f"{e.residual:.1%}" if e.residual is not None else "-", e.source)
        for op, formats in sorted(chip.achieved.items())
        for fmt, engines in sorted(formats.items())
        for engine, e in sorted(engines.items())
    ]  # fmt: skip
    blocks: list[Block] = [
        Heading(f"{chip.name}: {chip.vendor} {chip.architecture}"),
        *([Text(chip.note, "note")] if chip.note else []),
        sheet(("Fact", "SI value", "Given in", "Kind", "Source", "Note"), facts, numeric=("SI value",)),
    ]
    if fitted:
        columns = ("Kernel", "Compute", "Memory", "Latency", "Residual", "Source")
        blocks += [Heading("Achieved"), sheet(columns, fitted, numeric=columns[1:5])]
    if prices:
        blocks += prices_blocks(prices)
    blocks += [Heading("Sources"), sheet(("Key", "Citation", "Retrieved"), chip.sources)]
    return blocks


def model_blocks(model: Model, facts: dict[str, object]) -> list[Block]:
    """One model: sizes, formats, layers and cache."""
    rows = [(k, v) for k, v in facts.items() if not isinstance(v, dict | list)]
    layers = [
        (layer.count, type(layer.attention).__name__ if layer.attention else "-",
         type(layer.mlp).__name__ if layer.mlp else "-")
        for layer in model.layers
    ]  # fmt: skip
    off = difference_from_published(model)
    return [
        Heading(f"{model.name}: {model.architecture}"),
        sheet(("", "Value"), rows, header=False),
        sheet(("Layers", "Attention", "Feed-forward"), layers, numeric=("Layers",)),
        *([Text(f"note: {off}", "note")] if off else []),
    ]


def schema_fields(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every field of a JSON Schema as a record: table, key, type, whether required, default, meaning."""
    tables = {"": schema} | {name: t for name, t in schema.get("$defs", {}).items() if "properties" in t}
    return [
        {"table": name or "(top)", "key": key, "type": _type_text(field), "required": key in table.get("required", ()),
         "default": json.dumps(field["default"]) if _is_plain(field.get("default")) else None,
         "meaning": field.get("description", "")}
        for name, table in tables.items()
        for key, field in table["properties"].items()
    ]  # fmt: skip


def _is_plain(default: object) -> bool:
    return default is not None and not isinstance(default, dict)


def schema_blocks(schema: Mapping[str, Any]) -> list[Block]:
    """The fields of a JSON Schema as a table."""
    rows = [
        (f["table"], f["key"], f["type"], "required" if f["required"] else f["default"], f["meaning"])
        for f in schema_fields(schema)
    ]
    return [Heading(str(schema.get("title", "Schema"))), sheet(("Table", "Key", "Type", "Default", "Meaning"), rows)]


def _type_text(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        return str(field["$ref"]).split("/")[-1]
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type_text(f) for f in field["anyOf"] if f.get("type") != "null"))
    if "enum" in field or "const" in field:
        return ", ".join(str(v) for v in field.get("enum", [field.get("const")]))
    if field.get("type") == "array" and "items" in field:
        return f"list of {_type_text(field['items'])}"
    return str(field.get("type", "any"))
