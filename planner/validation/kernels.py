"""Kernel tables against our cost model: matmuls, attention, experts, all-reduces, attention modules.

A file is told by its columns. Rows of one accelerator, engine and format are priced as arrays with the same
operators a plan is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from planner.cost.attention import attention_cost
from planner.cost.collectives import measured_all_reduce
from planner.cost.experts import expert_work
from planner.cost.linear import linear_work
from planner.errors import InputError
from planner.hardware import Database
from planner.models.formats import FORMATS
from planner.models.layers import FullAttention
from planner.validation.comparison import Comparison, Skipped
from planner.validation.kernel_modules import MODULE_COLUMNS, compare_modules
from planner.validation.kernel_published import (
    ABLATION_COLUMNS,
    ACHIEVED_COLUMNS,
    PREFIX_COLUMNS,
    compare_achieved,
    compare_shared_prefix,
    skip_ablations,
)
from planner.validation.kernel_rows import KernelTable, Outcome, Price, Row, Vector, bench, known_format

Labels = Mapping[str, str]
Numbers = Mapping[str, Vector]
UNGRAPHED = "vLLM's fp8_block rows of this table hold 60 to 790 us of host time per call"
EAGER = "launched by the host each time; engines replay the kernel from a CUDA graph"
MATRICES = 3  # of a gated expert
#: columns of fits of all-reduces that hold a latency, and its message, [B]
FIT_MESSAGES = {"lat_16KB_us": 16384.0, "lat_1MB_us": 1048576.0, "lat_64MB_us": 67108864.0}
FIT_REASON = "fitted constants, no measured time"


def _matmul(database: Database, labels: Labels, numbers: Numbers) -> Price:
    fmt = known_format(labels["dtype"])
    b = bench(database, labels["gpu"], labels["backend"], fmt)
    width = FORMATS[fmt].bytes_per_element
    flops, weights, activations = linear_work(numbers["m"], numbers["k"], numbers["n"], width)
    seconds = b.machine.ceiling("matmul", fmt).seconds(flops, weights + activations)
    return Price(np.asarray(seconds), weights / b.chip.bandwidth, b, "matmul", fmt)


def _attention(labels: Labels) -> FullAttention:
    heads, kv_heads, dim = (int(float(labels[c] or "nan")) for c in ("heads", "kv_heads", "head_dim"))
    return FullAttention(heads, kv_heads, dim)


def _shape_error(price: Callable[[Database, Labels, Numbers], Price]) -> Callable[[Database, Labels, Numbers], Price]:
    def checked(database: Database, labels: Labels, numbers: Numbers) -> Price:
        try:
            return price(database, labels, numbers)
        except (ValueError, OverflowError, ZeroDivisionError):
            raise InputError("shape columns hold no whole numbers: " + ", ".join(labels.values())) from None

    return checked


def _decode_attention(database: Database, labels: Labels, numbers: Numbers) -> Price:
    kv = known_format(labels["kv_dtype"])
    b = bench(database, labels["gpu"], labels["backend"], kv=kv)
    (part,) = attention_cost(_attention(labels)).decode(numbers["ctx"], 1, kv)
    batch = numbers["batch"]
    seconds = b.machine.ceiling("decode_attention").seconds(batch * part.flops, batch * part.bytes)
    return Price(np.asarray(seconds), batch * part.bytes / b.chip.bandwidth, b, "decode_attention", kv)


def _prefill_attention(database: Database, labels: Labels, numbers: Numbers) -> Price:
    kv = known_format(labels["attn_dtype"])
    b = bench(database, labels["gpu"], labels["backend"], kv=kv)
    length, batch = numbers["isl"], numbers["batch"]
    (part,) = attention_cost(_attention(labels)).prefill(length, 0.0, kv)
    ceiling = b.machine.ceiling("prefill_attention")
    rising = length / (length + b.machine.half_tokens)
    seconds = ceiling.seconds(batch * part.flops / rising, batch * part.bytes)
    return Price(np.asarray(seconds), 0.0, b, "prefill_attention", kv)


def _experts(database: Database, labels: Labels, numbers: Numbers) -> Price:
    fmt = known_format(labels["dtype"])
    b = bench(database, labels["gpu"], labels["backend"], fmt)
    hidden, inter, top_k, experts, ep, tp = (int(labels[c]) for c in ("hidden", "inter", "topk", "experts", "ep", "tp"))
    if not 0 < top_k <= experts:
        raise InputError(f"{top_k} of {experts} experts per token")
    flops, weights, activations = expert_work(
        numbers["tokens"], experts, top_k, MATRICES * hidden * inter, hidden, FORMATS[fmt].bytes_per_element, ep * tp,
        ranks=ep, activation=b.machine.expert_activations.get(fmt, 1.0),
    )  # fmt: skip
    seconds = b.machine.ceiling("experts", fmt).seconds(flops, weights + activations)
    return Price(np.asarray(seconds), weights / b.chip.bandwidth, b, "experts", fmt)


def _all_reduce(database: Database, labels: Labels, numbers: Numbers) -> Price:
    b = bench(database, labels["gpu"], labels["lib"])
    ranks = int(labels["n"])
    if ranks < 2:
        raise InputError(f"an all-reduce among {ranks}")
    one = b.chip.all_reduce(ranks, "nccl" if labels["lib"] == "nccl" else b.engine)
    seconds = measured_all_reduce(numbers["bytes"], one.latency_s, one.bandwidth)
    return Price(np.asarray(seconds), 0.0, b, "", "")


def _eager(labels: Labels) -> str:
    return EAGER if labels["kernel"].endswith("_eager") else ""


def _ungraphed(labels: Labels) -> str:
    return UNGRAPHED if (labels["backend"], labels["dtype"]) == ("vllm", "fp8_block") else ""


TABLES = (
    KernelTable("matmul", ("gpu", "backend", "dtype"), ("n", "k", "m"), "dtype", "m", _matmul, _ungraphed),
    KernelTable("decode attention", ("gpu", "backend", "heads", "kv_heads", "head_dim", "kv_dtype"), ("batch", "ctx"),
                "kv_dtype", "batch", _shape_error(_decode_attention)),
    KernelTable("prefill attention", ("gpu", "backend", "heads", "kv_heads", "head_dim", "attn_dtype"),
                ("batch", "isl"), "attn_dtype", "batch", _shape_error(_prefill_attention)),
    KernelTable("experts", ("gpu", "backend", "hidden", "inter", "topk", "experts", "ep", "tp", "dtype"), ("tokens",),
                "dtype", "tokens", _shape_error(_experts)),
    KernelTable("all-reduce", ("gpu", "lib", "kernel", "n"), ("bytes",), "", "bytes", _shape_error(_all_reduce),
                _eager),
)  # fmt: skip
REDUCE = TABLES[-1]
REDUCE_FIT = frozenset(("gpu", "lib", "kernel", "n", *FIT_MESSAGES))
FITS = frozenset(("t0_us", "points", "mape"))


def _compare_reduce_fit(rows: Sequence[Row], outcome: Outcome, database: Database) -> None:
    """Latencies printed beside a fit of all-reduces: three messages a row."""
    spread = [
        {**{c: row.get(c) or "" for c in REDUCE.labels}, "bytes": f"{message:g}", "latency_us": row.get(column) or ""}
        for row in rows
        for column, message in FIT_MESSAGES.items()
    ]
    REDUCE.compare(spread, outcome, database)


def _skip_fits(rows: Sequence[Row], outcome: Outcome, database: Database) -> None:
    columns = ("gpu", "backend", "op", "dtype", "gemm", "kv", "kv_dtype", "kernel", "heads", "kv_heads", "head_dim")
    for row in rows:
        outcome.skip("/".join(row[c] for c in columns if row.get(c)), FIT_REASON)


#: what a table's columns must contain, and what compares it; the first that fits counts
READERS: tuple[tuple[frozenset[str], Callable[[Sequence[Row], Outcome, Database], None]], ...] = (
    *((table.columns, table.compare) for table in TABLES),
    (REDUCE_FIT, _compare_reduce_fit),
    (MODULE_COLUMNS, compare_modules),
    (FITS, _skip_fits),
    (ACHIEVED_COLUMNS, compare_achieved),
    (PREFIX_COLUMNS, compare_shared_prefix),
    (ABLATION_COLUMNS, skip_ablations),
)


def is_kernel_table(columns: Iterable[str]) -> bool:
    """Whether a table with these columns holds kernel times, fits to them or published kernel figures.

    >>> is_kernel_table(["gpu", "backend", "dtype", "n", "k", "m", "latency_us"]), is_kernel_table(["id", "tpot_ms"])
    (True, False)
    """
    return any(needed <= frozenset(columns) for needed, _ in READERS)


def compare_kernels(
    rows: Sequence[Mapping[str, str]], file: str, database: Database
) -> tuple[list[Comparison], list[Skipped]]:
    """Every row of a kernel table beside our cost model's prediction, or the reason why not, times in [s].

    ``rows``: as read from CSV, all with the same columns; ``file`` for messages. Sources: the operators of
    :mod:`planner.cost`, with the constants of ``database`` for kernels alone: no calibration of whole steps.
    """
    database = database.uncalibrated()
    outcome = Outcome(file)
    columns = frozenset(rows[0]) if rows else frozenset()
    for needed, compare in READERS:
        if needed <= columns:
            compare(rows, outcome, database)
            break
    else:
        for i, _ in enumerate(rows):
            outcome.skip(f"row {i + 1}", "no kernel table has these columns")
    return outcome.compared, outcome.skipped
