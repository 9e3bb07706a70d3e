"""Whole attention modules, dense and sparse: weight matmuls, attention kernels, and what the table adds to them.

Sparse attention is worth what dense attention takes at the same context over what it takes itself; the context
from which it pays is where both meet.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median_high

import numpy as np

from planner.cost.attention import attention_cost
from planner.cost.linear import fused_matmuls, linear_work
from planner.documents import number as figure
from planner.documents import only_keys, read_toml, string
from planner.errors import InputError
from planner.hardware import Accelerator, Database
from planner.models.formats import FORMATS
from planner.models.layers import (
    BlockSparseAttention,
    CompressedAttention,
    LatentAttention,
    SparseLatentAttention,
)
from planner.validation.comparison import Comparison
from planner.validation.kernel_rows import Bench, Outcome, Row, Vector, bench, grouped, known_format, number
from planner.validation.labels import model_named

MODULE_COLUMNS = frozenset(("gpu", "backend", "op", "model", "gemm", "kv", "heads", "batch", "L4096"))
LABELS = ("gpu", "backend", "op", "model", "gemm", "kv", "kernel", "heads")
PAIRED = ("gpu", "backend", "gemm", "kv", "heads")
SPARSE, DENSE, BLOCKS = "DSA", "MLA", "MSA"
#: what their tables are called in kernel_tables.toml; those of blocks are fitted whole
TABLES = {SPARSE: "sparse", DENSE: "latent"}
#: whose constants say whether a module was fitted where it is no sparse latent attention
CORES = {DENSE: "latent_attention", BLOCKS: "block_sparse_attention"}
FALLBACK = "a fallback without block selection ran: its time grows with batch times context squared"
Kind = LatentAttention | CompressedAttention | BlockSparseAttention


def attention_of(op: str, label: str, heads: int) -> tuple[Kind, int]:
    """The attention layer an operator's label means in a model, cut to ``heads``, and the model's width, [elements].

    DSA and MLA by kind; CSA4 and HCA128 by the compression ratio they end in; MSA is MiniMax's. InputError for
    anything else. Source: the catalogue.
    """
    model, _ = model_named(label)
    ratio = re.fullmatch(r"(?:CSA|HCA)(\d+)", op)
    for layer in model.layers:
        spec = layer.attention
        if isinstance(spec, SparseLatentAttention) and op == SPARSE and spec.owns_indexer:
            return dataclasses.replace(spec, heads=heads), model.hidden
        if type(spec) is LatentAttention and op == DENSE:
            return dataclasses.replace(spec, heads=heads), model.hidden
        if isinstance(spec, CompressedAttention) and ratio and spec.ratio == int(ratio.group(1)):
            return dataclasses.replace(spec, heads=heads), model.hidden
        if isinstance(spec, BlockSparseAttention) and op == BLOCKS:
            kv = max(1, spec.kv_heads * heads // spec.heads)
            return dataclasses.replace(spec, heads=heads, kv_heads=kv), model.hidden
    raise InputError(f"{label} has no layer of kind {op}")


def _family(chip: Accelerator) -> str:
    """Generation of a chip's kernels: sm90 of Hopper, sm10x of Blackwell for data centres; else its vendor's words."""
    sm = re.search(r"\(sm(\d+)\d\)", chip.architecture)
    return sm.group(1) if sm else chip.architecture


@lru_cache(maxsize=8)
def _overheads(file: Path) -> tuple[tuple[str, str, str, str, float], ...]:
    """Operator, engine, accelerator, cache format and [s] of every entry of the file."""
    document = read_toml(file)
    only_keys(document, document.data, (), ("schema", "source", "retrieved", "module"))
    found = []
    for i, entry in enumerate(document.data["module"]):
        operator, engine, accelerator, kv = (
            string(document, entry, ("module", i), key) for key in ("operator", "engine", "accelerator", "kv")
        )
        seconds = figure(document, entry, ("module", i), "overhead_us", positive=False) * 1e-6
        found.append((operator, engine, accelerator, kv, seconds))
    return tuple(found)


def module_overhead(database: Database, chip: Accelerator, engine: str, kind: str, kv: str) -> float:
    """Time one call of a module takes in the published tables beside its matmuls and attention kernels, [s].

    ``kind``: sparse, latent or compressed.
    That of the accelerator, engine and cache format; else of the nearest: its other cache format, the family,
    the engine anywhere (the upper median: most tables hold the host's launches), else nothing.
    Source: ``hardware_db/kernel_tables.toml``.
    """
    found: list[list[float]] = [[], [], [], []]
    for operator, by, name, fmt, seconds in _overheads(database.root / "kernel_tables.toml"):
        if operator != kind or by != engine:
            continue
        if name == chip.name:
            found[0 if fmt == kv else 1].append(seconds)
        elif fmt == kv:
            found[2 if _family(database.accelerator(name)) == _family(chip) else 3].append(seconds)
    return next((median_high(some) for some in found if some), 0.0)


@dataclass(frozen=True)
class Module:
    """One attention layer on one rank under one engine, as a published table ran it."""

    spec: Kind
    hidden: int
    bench: Bench
    weights: str
    kv: str
    overhead: float

    def seconds(self, batch: Vector, contexts: Vector) -> Vector:
        """Time of one decode call for ``batch`` sequences of ``contexts`` [tokens]; broadcast, [s].

        Sum of the layer's weight matmuls, its attention kernels and the table's overhead. Source: the operators'
        own, as in :meth:`planner.cost.step.StepModel.decode`.
        """
        total = self.overhead + np.zeros(np.broadcast_shapes(batch.shape, contexts.shape)) + self.matmul_seconds(batch)
        for part in attention_cost(self.spec).decode(contexts, 1, self.kv):
            ceiling = self.bench.machine.ceiling(part.operator)
            total = total + ceiling.seconds(batch * part.flops, batch * part.bytes)
        return total

    def matmul_seconds(self, batch: Vector) -> Vector:
        """Time of the layer's weight matmuls for ``batch`` sequences, [s] in its shape. Source: the operator's own."""
        total = np.zeros(batch.shape)
        width = FORMATS[self.weights].bytes_per_element
        for matmul in fused_matmuls(self.spec.projections(self.hidden)):
            flops, weights, activations = linear_work(batch, matmul.inputs, matmul.outputs, width)
            total = total + self.bench.machine.ceiling("matmul", self.weights).seconds(flops, weights + activations)
        return total


def module_of(labels: Mapping[str, str], database: Database) -> Module:
    """The module a row's labels describe; InputError for what we don't know. Source: catalogue and database."""
    if not labels["heads"].isascii() or not labels["heads"].isdigit() or int(labels["heads"]) < 1:
        raise InputError(f"heads is {labels['heads']!r}, no whole number")
    weights, kv = known_format(labels["gemm"]), known_format(labels["kv"])
    spec, hidden = attention_of(labels["op"], labels["model"], int(labels["heads"]))
    on = bench(database, labels["gpu"], labels["backend"], weights, kv)
    kind = "compressed" if isinstance(spec, CompressedAttention) else TABLES.get(labels["op"])
    overhead = module_overhead(database, on.chip, on.engine, kind, kv) if kind else 0.0
    return Module(spec, hidden, on, weights, kv, overhead)


@dataclass(frozen=True)
class Curve:
    """One row: measured and predicted seconds at the table's contexts."""

    name: str
    labels: Mapping[str, str]
    batch: float
    module: Module
    measured: Vector
    predicted: Vector


def contexts_of(rows: Sequence[Row]) -> tuple[list[str], Vector]:
    """The context columns of a table, and their contexts, [tokens]."""
    columns = sorted((c for c in rows[0] if re.fullmatch(r"L\d+", c)), key=lambda c: int(c[1:]))
    return columns, np.array([float(c[1:]) for c in columns])


def curves_of(rows: Sequence[Row], outcome: Outcome, database: Database) -> list[Curve]:
    """Every row's times by context, [s], measured and predicted; rows we can't price go to ``outcome``."""
    columns, contexts = contexts_of(rows)
    found = []
    for values, members in grouped(rows, LABELS).items():
        labels = dict(zip(LABELS, values, strict=True))
        names = ["/".join((*values, rows[i].get("batch") or "")) for i in members]
        fallback = (labels["op"], labels["backend"], labels["kernel"]) == (BLOCKS, "trtllm", "default")
        try:
            if fallback:
                raise InputError(FALLBACK)
            module = module_of(labels, database)
        except InputError as error:
            for name in names:
                outcome.skip(name, str(error.problem))
            continue
        batch = np.array([number(rows[i].get("batch")) for i in members])
        measured = np.array([[number(rows[i].get(c)) for c in columns] for i in members]) * 1e-6
        with np.errstate(all="ignore"):
            predicted = module.seconds(batch[:, None], contexts[None, :])
        for k, name in enumerate(names):
            if math.isnan(batch[k]):
                outcome.skip(name, "batch: not a positive number")
            elif np.isnan(measured[k]).all():
                outcome.skip(name, "holds no time at any context")
            else:
                found.append(Curve(name, labels, float(batch[k]), module, measured[k], predicted[k]))
    return found


def pairs_of(curves: Sequence[Curve]) -> list[tuple[Curve, Curve]]:
    """Sparse and dense rows of the same accelerator, engine, formats, heads and batch."""
    dense = {(*(c.labels[p] for p in PAIRED), c.batch): c for c in curves if c.labels["op"] == DENSE}
    sparse = [c for c in curves if c.labels["op"] == SPARSE]
    pairs = ((c, dense.get((*(c.labels[p] for p in PAIRED), c.batch))) for c in sparse)
    return [(c, d) for c, d in pairs if d is not None]


def _comparison(curve: Curve, outcome: Outcome, name: str, kind: str, measured: float, predicted: float) -> Comparison:
    operator = CORES.get(curve.labels["op"], "sparse_attention")
    metric, unit = ("speedup", "1") if kind == "sparse attention" else ("kernel", "s")
    return Comparison(
        name, outcome.file, metric, measured, predicted, unit, accelerator=curve.module.bench.chip.name,
        model=curve.labels["model"], engine=curve.module.bench.engine, precision=curve.labels["kv"],
        load=f"{curve.batch:g}", kind=kind, extrapolates=curve.module.bench.unfitted(operator, curve.module.kv),
    )  # fmt: skip


def compare_modules(rows: Sequence[Row], outcome: Outcome, database: Database) -> None:
    """Add each module's time at each context [s], and sparse attention's speed-up over dense at each pair, [1].

    Source: :class:`Module`; the speed-up is MLA's time over DSA's at equal heads, batch, formats and context.
    """
    columns, _ = contexts_of(rows)
    curves = curves_of(rows, outcome, database)
    for c in curves:
        for k, column in enumerate(columns):
            if not math.isnan(c.measured[k]):
                name = f"{c.name}/{column}"
                outcome.compared.append(
                    _comparison(c, outcome, name, c.labels["op"], float(c.measured[k]), float(c.predicted[k]))
                )
    for sparse, dense in pairs_of(curves):
        gains = dense.measured / sparse.measured, dense.predicted / sparse.predicted
        for k, column in enumerate(columns):
            if not math.isnan(gains[0][k]):
                name = f"speed-up/{sparse.name}/{column}"
                outcome.compared.append(
                    _comparison(sparse, outcome, name, "sparse attention", float(gains[0][k]), float(gains[1][k]))
                )
