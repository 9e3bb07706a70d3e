"""Decode of block-sparse attention, fitted to tables of modules: ``python -m bench.block_sparse_efficiency TABLE``.

``TABLE``: microseconds of whole attention layers by heads, batch and context (``gpu, backend, op, model, gemm, kv,
kernel, heads, batch, L512 ...``); its MSA rows are MiniMax-M3's. Writes ``[achieved.block_indexer.*]`` and
``[achieved.block_sparse_attention.*]`` into hardware_db/accelerators. Seconds of a call are those of its weight
matmuls, as the database has them, and of both kernels ``latency + bytes / (share * bandwidth)``, in relative error,
linear beyond 10 %. Only the sum of the latencies shows in a table: each has half of it.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bench.attention_efficiency import ACCELERATORS, MOST, Vector, bounded_fit
from planner.cost.attention import attention_cost
from planner.hardware import load_database
from planner.validation.files import read_table
from planner.validation.kernel_modules import Curve, contexts_of, curves_of
from planner.validation.kernel_rows import Outcome

INDEX, CORE, SOURCE = "block_indexer", "block_sparse_attention", "AIC-BLOCK"
#: mean residual beyond which a table is not of two kernels bound by memory: TensorRT-LLM's on B200 is at a third, where
#: one sequence's scan of a long context takes as long as that of a hundred
ENOUGH = 0.2
CITATION = (
    "ai-dynamo/aiconfigurator 0.12 systems/data/*/sparse_attention generation module tables of MiniMax-M3 (MSA), "
    "batch 1 to 256, context 512 to 131072: fit t = weight matmuls at AIC-GEMM + latency + bytes/(em*W) of index and "
    "blocks in relative error, linear beyond 10 %, em at most 0.95, latency halved between both "
    "(bench/block_sparse_efficiency.py)"
)


def fitted(curves: list[Curve], contexts: Vector) -> tuple[float, float, float, float, int]:
    """Latency of both kernels [s], shares of bandwidth of index and blocks [1], mean residual [1], and points."""
    columns, targets = [], []
    for c in curves:
        known = ~np.isnan(c.measured)
        seconds, batch = c.measured[known], np.full(int(known.sum()), c.batch)
        parts = {p.operator: p for p in attention_cost(c.module.spec).decode(contexts[known], 1, c.module.kv)}
        ideal = [batch * parts[op].bytes / c.module.bench.chip.bandwidth for op in (INDEX, CORE)]
        columns.append(np.stack([np.full(len(seconds), 1e-6), *ideal], axis=1) / seconds[:, None])
        targets.append(1 - c.module.matmul_seconds(batch) / seconds)
    every, aims = np.concatenate(columns), np.concatenate(targets)
    latency, index, core = bounded_fit(every, aims, np.array([0.0, 1 / MOST, 1 / MOST]))
    residual = float(np.mean(np.abs(every @ [latency, index, core] - aims)))
    return float(latency) * 1e-6, 1 / float(index), 1 / float(core), residual, len(aims)


def write(path: Path, sections: Mapping[str, Mapping[str, float]], key: str, citation: str) -> None:
    """Put fits into an accelerator's file in the order of the sections' names, instead of those of the same operators.

    ``key``, ``citation``: the source they name.
    """
    text = path.read_text(encoding="utf-8")
    operators = "|".join({name.split(".")[1] for name in sections})
    text = re.sub(rf"(?ms)^\[achieved\.(?:{operators})\..*?\n\n", "", text)
    for name, values in sorted(sections.items()):
        body = "".join(f"{k} = {value:.4g}\n" for k, value in values.items())
        section = f'[{name}]\n{body}kind = "measured"\nsource = "{key}"\n\n'
        after = next(m for m in re.finditer(r"(?m)^\[(achieved\..*)\]$", text) if m[1] > name)
        text = text[: after.start()] + section + text[after.start() :]
    if f'key = "{key}"' not in text:
        entry = f'[[sources]]\nkey = "{key}"\ncitation = "{citation}"\nretrieved = "2026-08-21"\n\n'
        at = text.index('[[sources]]\nkey = "AIC-GEMM"')
        text = text[:at] + entry + text[at:]
    path.write_text(text, encoding="utf-8")


def main(table: Path) -> None:
    """Fit every accelerator, cache format and engine of the table and write what came out."""
    rows = [r for r in read_table(table, table.name).rows if r["op"] == "MSA"]
    _, contexts = contexts_of(rows)
    groups: dict[tuple[str, str, str], list[Curve]] = defaultdict(list)
    for c in curves_of(rows, Outcome(""), load_database().uncalibrated()):
        groups[c.module.bench.chip.name, c.module.kv, c.module.bench.engine].append(c)
    files: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for (part, kv, engine), curves in sorted(groups.items()):
        latency, index, core, residual, points = fitted(curves, contexts)
        print(f"{part} {kv} {engine}: {latency * 1e6:.3g} us, index {index:.3g}, blocks {core:.3g}, "
              f"residual {residual:.1%} of {points}")  # fmt: skip
        if residual > ENOUGH:
            continue
        for operator, share in ((INDEX, index), (CORE, core)):
            files[part][f"achieved.{operator}.{kv}.{engine}"] = {
                "memory": share, "latency_us": latency * 5e5, "residual": residual, "points": points,
            }  # fmt: skip
    if "--write" in sys.argv:
        for part, sections in files.items():
            write(ACCELERATORS / f"{part}.toml", sections, SOURCE, CITATION)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
