"""Kernel figures as papers and engineering blogs print them: achieved rates and "up to" speed-ups."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from planner.cost.attention import attention_cost
from planner.cost.attention.block_sparse import BlockSparseAttentionCost
from planner.cost.shared_prefix import group_tokens
from planner.errors import InputError
from planner.hardware import Database
from planner.models.layers import BlockSparseAttention, FullAttention
from planner.validation.comparison import Comparison
from planner.validation.kernel_rows import Bench, Outcome, Row, bench, number

ACHIEVED_COLUMNS = frozenset(("id", "gpu", "kind", "shape", "metric", "value", "unit"))
PREFIX_COLUMNS = frozenset(("id", "technique", "level", "prefix_or_context_len", "unique_len", "batch", "speedup"))
ABLATION_COLUMNS = frozenset(("id", "feature", "speedup_low", "speedup_high"))
UNITS = {"TFLOP/s": (1e12, "FLOP/s"), "GFLOP/s": (1e9, "FLOP/s"), "TB/s": (1e12, "B/s"), "GB/s": (1e9, "B/s")}
HEADS = re.compile(r"q(\d+)/kv(\d+)/d(\d+)")
LENGTH = re.compile(r"seq (\d+)k")
BATCH = re.compile(r"batch (\d+)")
MHA = re.compile(r"(\d+) heads x (\d+) dim")
NSA = re.compile(r"l=(\d+),d=(\d+),l'=(\d+),n=(\d+),w=(\d+)")
SOFTWARE = re.compile("kernel|graph|overlap scheduler|relaxed", re.IGNORECASE)
UP_TO = "an 'up to' figure at the bounds its source names"
#: kernels whose best rate we have a ceiling for, by the start of their kind, and the operator it is
CEILINGS = {
    "MLA decode dense": "latent_attention", "MLA sparse decode": "sparse_attention",
    "MLA sparse prefill": "prefill_attention", "MHA dense prefill": "prefill_attention",
}  # fmt: skip


def compare_achieved(rows: Sequence[Row], outcome: Outcome, database: Database) -> None:
    """Add achieved rates, [FLOP/s] and [B/s], beside what our model does at the row's shape.

    "Up to" rates are held against the operator's ceiling. Source: the operators' own.
    """
    for row in rows:
        name = row.get("id") or "?"
        try:
            outcome.compared.append(_achieved(row, name, outcome.file, database))
        except InputError as error:
            outcome.skip(name, str(error.problem))


def _achieved(row: Row, name: str, file: str, database: Database) -> Comparison:
    value, kind = number(row.get("value")), row.get("kind") or ""
    if math.isnan(value):
        raise InputError(f"value is {row.get('value')!r}, no positive number")
    if row.get("unit") not in UNITS:
        raise InputError(f"a figure in {row.get('unit')!r} of {kind!r}, which we don't price on its own")
    if kind.startswith("EP "):
        raise InputError(f"{kind}: bottleneck bandwidth of an exchange whose accelerator is not named")
    scale, unit = UNITS[row["unit"]]
    said = f"{row.get('notes') or ''} {row.get('shape') or ''}"
    precision = "fp8" if "FP8" in said.upper() else "bf16"
    engine = "trtllm" if "TensorRT-LLM" in (row.get("source") or "") else "generic"
    on = bench(database, row.get("gpu") or "", engine, kv=precision)
    return Comparison(
        name, file, "kernel", value * scale, _rate(row, kind, unit, on, precision), unit, accelerator=on.chip.name,
        engine=engine, precision=precision, load=row.get("shape") or "", kind=kind,
        extrapolates=UP_TO if "up to" in (row.get("notes") or "") else "",
    )  # fmt: skip


def _rate(row: Row, kind: str, unit: str, on: Bench, precision: str) -> float:
    for start, operator in CEILINGS.items():
        if kind.startswith(start):
            ceiling = on.machine.ceiling(operator)
            return float(ceiling.peak if unit == "FLOP/s" else ceiling.bandwidth)
    shape = row.get("shape") or ""
    heads, length = HEADS.search(shape), LENGTH.search(shape)
    if not kind.startswith("FMHA") or heads is None or length is None:
        raise InputError(f"no ceiling of ours for {kind!r} at {shape!r}")
    cost = attention_cost(FullAttention(int(heads.group(1)), int(heads.group(2)), int(heads.group(3))))
    tokens, batch = int(length.group(1)) * 1024.0, BATCH.search(shape)
    if "prefill" in kind:
        part = cost.prefill(tokens, 0.0, precision)[0]
        rising = tokens / (tokens + float(on.machine.half_tokens))
        seconds = on.machine.ceiling("prefill_attention").seconds(part.flops / rising, part.bytes)
        return float(part.flops / seconds)
    sequences = float(batch.group(1)) if batch else 1.0
    part = cost.decode(tokens, 1, precision)[0]
    seconds = on.machine.ceiling("decode_attention").seconds(sequences * part.flops, sequences * part.bytes)
    return float(sequences * part.bytes / seconds)


def compare_shared_prefix(rows: Sequence[Row], outcome: Outcome, database: Database) -> None:
    """Add speed-ups of shared-prefix and sparse kernels, [1], where a row names what our formulae need.

    Source: :mod:`planner.cost.shared_prefix`; NSA, arXiv 2502.11089.
    """
    for row in rows:
        name = row.get("id") or "?"
        try:
            outcome.compared.append(_gain(row, name, outcome.file, database))
        except InputError as error:
            outcome.skip(name, str(error.problem))


def _gain(row: Row, name: str, file: str, database: Database) -> Comparison:
    measured = number(row.get("speedup"))
    if math.isnan(measured):
        raise InputError(f"speedup is {row.get('speedup') or 'not printed'}, no one figure")
    technique, level = row.get("technique") or "", row.get("level") or ""
    context, batch = _whole(row.get("prefix_or_context_len")), _whole(row.get("batch"))
    nsa = NSA.search(technique)
    if nsa and "EXPECTED" in level and context:
        compress, stride, block, blocks, window = (int(g) for g in nsa.groups())
        spec = BlockSparseAttention(64, 4, 192, 128, block=block, top_blocks=blocks, window=window, stride=stride,
                                    compress_block=compress)  # fmt: skip
        predicted = context / float(BlockSparseAttentionCost(spec).tokens_read(context))
        return Comparison(name, file, "speedup", measured, predicted, "1", load=f"{context:g}", kind="NSA",
                          model=row.get("model_or_heads") or "")  # fmt: skip
    if not technique.startswith("cascade"):
        raise InputError(f"{technique or 'an unnamed technique'} at {level or 'no level'}: not a kernel we price")
    heads, unique = MHA.search(row.get("model_or_heads") or ""), _whole(row.get("unique_len"))
    if heads is None or not context or not unique or not batch:
        raise InputError("heads, prefix, unique length or batch not recorded")
    on = bench(database, row.get("gpu") or "", "generic")
    count = int(heads.group(1))
    cost = attention_cost(FullAttention(count, count, int(heads.group(2))))
    ceiling = on.machine.ceiling("decode_attention")
    tokens = group_tokens(context, unique, batch)
    whole = cost.decode(tokens.read_without_cascade, 1, "bf16")[0]
    prefix, rest = cost.decode(context, int(batch), "bf16")[0], cost.decode(batch * unique, 1, "bf16")[0]
    plain = ceiling.seconds(whole.flops, whole.bytes)
    cascade = ceiling.seconds(prefix.flops, prefix.bytes) + ceiling.seconds(rest.flops, rest.bytes)
    return Comparison(
        name, file, "speedup", measured, float(plain / cascade), "1", accelerator=on.chip.name, engine="generic",
        precision="bf16", load=f"{batch:g}", kind="shared prefix", extrapolates=UP_TO,
    )  # fmt: skip


def _whole(text: str | None) -> float:
    """The number a cell holds, a bound such as ``<=256`` counting as its figure; 0 for none or a range."""
    match = re.fullmatch(r"\s*(?:[<>]=?)?\s*(\d+)\s*", text or "")
    return float(match.group(1)) if match else 0.0


def skip_ablations(rows: Sequence[Row], outcome: Outcome, database: Database) -> None:
    """Ratios of software features: none names the layout and load a prediction would need; all are left out."""
    for row in rows:
        feature = row.get("feature") or "a feature"
        if SOFTWARE.search(feature):
            reason = f"{feature}: a property of an engine's software, a constant of our model and no prediction"
        else:
            reason = f"{feature}: a ratio without the layout and load it was measured at"
        outcome.skip(row.get("id") or "?", reason)
