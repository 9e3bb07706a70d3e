"""The fixed time of choosing compressed entries (DeepSeek-V4): ``python -m bench.compressed_efficiency TABLE``.

``TABLE``: microseconds of whole attention layers, as for :mod:`bench.block_sparse_efficiency`. Its layers that
compress 128 tokens into one (HCA) read all of their entries, those that compress four (CSA) choose among them. What
both take beyond their weight matmuls and their reads, at equal formats, heads and batch, differs by the choice: its
median, over contexts at which there is something to choose, is ``latency_us`` of ``[achieved.compressed_indexer.*]``.
What HCA layers alone take beyond, as a median, is their overhead in hardware_db/kernel_tables.toml, which only
comparisons with such tables use.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from bench.attention_efficiency import ACCELERATORS, Vector
from bench.block_sparse_efficiency import write
from planner.cost.attention import attention_cost
from planner.hardware import load_database
from planner.models.layers import CompressedAttention
from planner.validation.files import read_table
from planner.validation.kernel_modules import Curve, contexts_of, curves_of
from planner.validation.kernel_rows import Outcome

INDEX, KEY = "compressed_indexer", "AIC-COMPRESSED"
CITATION = (
    "ai-dynamo/aiconfigurator 0.12 systems/data/*/sparse_attention generation module tables of DeepSeek-V4, batch 1 to "
    "256, context 512 to 131072: median of what CSA layers take beyond HCA ones, weight matmuls at AIC-GEMM and reads "
    "taken off, where entries outnumber those chosen (bench/compressed_efficiency.py)"
)
TABLES = ACCELERATORS.parent / "kernel_tables.toml"
READS_ALL, CHOOSES = "HCA128", "CSA4"
FEW = 8  # sequences up to which fixed times show
FORMATS = ("bf16", "fp8")  # of the cache; its keys are fp8 in both


def beyond(curve: Curve, contexts: Vector) -> Vector:
    """Measured less matmuls, reads and index reads without their fixed time, [s], at every context."""
    machine, batch = curve.module.bench.machine, np.full(len(contexts), curve.batch)
    left = curve.measured - curve.module.matmul_seconds(batch)
    for part in attention_cost(curve.module.spec).decode(contexts, 1, curve.module.kv):
        ceiling = machine.ceiling(part.operator)
        fixed = ceiling.latency if part.operator == INDEX else 0.0
        left = left - ceiling.seconds(batch * part.flops, batch * part.bytes) + fixed
    return np.asarray(left)


def main(table: Path) -> None:
    """Take the differences of every accelerator and engine, and write their medians."""
    rows = [r for r in read_table(table, table.name).rows if r["op"] in (READS_ALL, CHOOSES)]
    _, contexts = contexts_of(rows)
    pairs: dict[tuple[str, ...], dict[str, Curve]] = defaultdict(dict)
    for c in curves_of(rows, Outcome(""), load_database().uncalibrated()):
        if c.batch <= FEW:
            shape = (c.labels[k] for k in ("model", "gemm", "heads"))
            pairs[c.module.bench.chip.name, c.module.bench.engine, *shape, f"{c.batch:g}"][c.labels["op"]] = c
    found: dict[tuple[str, str], list[Vector]] = defaultdict(list)
    overheads: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (part, engine, *_), both in pairs.items():
        if READS_ALL not in both:
            continue
        over = beyond(both[READS_ALL], contexts)
        overheads[part, engine] += over.tolist()
        if CHOOSES in both:
            curve, spec = both[CHOOSES], both[CHOOSES].module.spec
            assert isinstance(spec, CompressedAttention)
            gain = beyond(curve, contexts) - np.nanmedian(over)
            known = ~np.isnan(gain) & (contexts / spec.ratio > spec.top_k)
            found[part, engine].append(np.stack([gain[known], curve.measured[known]]))
    files: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for (part, engine), several in sorted(found.items()):
        gains, whole = np.concatenate(several, axis=1)
        latency = max(0.0, float(np.median(gains)))
        residual = float(np.mean(np.abs(gains - latency) / whole))
        print(f"{part} {engine}: {latency * 1e6:.3g} us of {len(gains)}, residual {residual:.1%}")
        for fmt in FORMATS:
            files[part][f"achieved.{INDEX}.{fmt}.{engine}"] = {
                "latency_us": latency * 1e6, "residual": residual, "points": len(gains),
            }  # fmt: skip
    entries = []
    for (part, engine), seconds in sorted(overheads.items()):
        named = (("operator", "compressed"), ("accelerator", part), ("engine", engine), ("kv", "fp8"))
        body = "".join(f'{k} = "{v}"\n' for k, v in named)
        entries.append(f'[[module]]\n{body}overhead_us = {np.nanmedian(seconds) * 1e6:.4g}\nkind = "measured"\n')
    if "--write" in sys.argv:
        others = [e for e in TABLES.read_text(encoding="utf-8").split("\n\n") if '"compressed"' not in e]
        TABLES.write_text("\n\n".join(e.strip("\n") for e in [*others, *entries]) + "\n", encoding="utf-8")
        for part, sections in files.items():
            write(ACCELERATORS / f"{part}.toml", sections, KEY, CITATION)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
