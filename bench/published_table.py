"""Picks the published table the package ships: ``python -m bench.published_table FOLDER``.

FOLDER holds the tables of measurements as collected. Of every table rows are taken evenly: those of a model on an
accelerator, of one mode, scenario and speculation, in the order of lengths, parallelism and load, at equal distances.
Rows that say themselves that they are in doubt are left out. Only the columns that predictions are made from stay,
of notes only what is read from them.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from planner.cli.output import write_file
from planner.validation.files import MEASURED, PUBLISHED, Row, Table, doubtful, read_tables
from planner.validation.runs import route

#: rows of a group, by the start of the table's name
EACH = {"inferencex_via": 2, "inferencex_dsr1": 2, "inferencex_experimental": 2, "specdec": 2, "kernel": 3}
RESULTS = (
    "id", "source", "source_date", "gpu", "n_gpus", "model", "weight_precision", "kv_precision", "engine", "tp", "pp",
    "ep", "dp", "moe_tp", "dp_attention", "isl", "osl", "length_kind", "concurrency_or_batch", "scenario", "mode",
    "speculation", "prefill_tp", "prefill_ep", "prefill_workers", "prefill_gpus", "decode_tp", "decode_ep",
    "decode_workers", "decode_gpus", "completed", *MEASURED, "mean_osl_from_log", "slo_ttft_ms_log",
    "slo_tpot_ms_log", "notes",
)  # fmt: skip
SPECULATION = (
    "id", "source", "gpu", "n_gpus", "target_model", "weight_precision", "engine", "method", "draft_tokens",
    "dataset_or_isl_osl", "temperature", "batch_or_concurrency", "speedup", "acceptance_length_tau",
    "acceptance_rate", "notes",
)  # fmt: skip
ACCEPTANCE = ("id", "source", "gpu", "model", "method", "thinking", "num_draft_tokens", "acceptance_length")
KERNELS = ("id", "source", "gpu", "kind", "shape", "metric", "value", "unit", "notes")
SHIPPED = {"results": ("published", RESULTS), "speculation": ("speculation", SPECULATION),
           "acceptance": ("acceptance", ACCEPTANCE), "kernels": ("kernels", KERNELS)}  # fmt: skip
#: what the planner reads out of notes and descriptions of lengths
READ = re.compile(
    r"MEDIAN|range ratio 0?\.\d+|no MTP|no speculative decoding|spec=none|(?i:mtp)\d?|SIMULATED|EAGLE|length [1-9]|"
    r"enable_attention_dp|attention DP|DEP|not printed|up to|\d+x(?:TP\d+)?EP\d+ (?:prefill|decode)|"
    r"prefill\([^)]*\)=[\d,]+ decode=[\d,]+|FP8|\d+P\b.*?\+ ?\d+D\b"
)
NUMBER = re.compile(r"\d+\.\d{4,}")
KERNEL_MARK = {"id", "gpu", "kind", "shape", "metric", "value", "unit"}


def number(text: str) -> float:
    """A cell as a place in an order."""
    found = re.match(r"\s*([\d.]+)", text)
    return float(found[1]) if found else 0.0


def group(row: Row) -> tuple[str, ...]:
    """What rows are taken evenly from."""
    names = ("gpu", "model", "target_model", "mode", "speculation", "kind", "thinking")
    return (*(row.get(name, "") for name in names), row.get("scenario", "").split("-")[0] if "tp" in row else "")


def place(row: Row) -> tuple[float, ...]:
    """A row's place among those of its group."""
    names = ("isl", "osl", "tp", "num_draft_tokens", "batch_or_concurrency", "concurrency_or_batch")
    return tuple(number(row.get(name, "")) for name in names)


def evenly(rows: Sequence[Row], wanted: int) -> list[Row]:
    """``wanted`` rows at equal distances."""
    ordered = sorted(rows, key=place)
    wanted = min(wanted, len(ordered))
    return [ordered[(2 * i + 1) * len(ordered) // (2 * wanted)] for i in range(wanted)]


def partners(rows: Iterable[Row], chosen: Sequence[Row]) -> list[Row]:
    """For every row with drafts one without that differs in nothing else."""
    names = [c for c in RESULTS if c not in ("id", "source_date", "speculation", *MEASURED)]
    plain = {tuple(r.get(c, "") for c in names): r for r in rows if r.get("speculation") == "none"}
    found = [plain.get(tuple(r.get(c, "") for c in names)) for r in chosen if r.get("speculation") == "mtp"]
    return [r for r in found if r is not None and r not in chosen]


def picked(table: Table) -> list[Row]:
    """The rows of a table that are shipped."""
    rows = [r for r in table.rows if not doubtful(r) and r.get("id")]
    if table.kind == "results":
        rows = [r for r in rows if any(r.get(c) for c in MEASURED) and "not recorded" not in r["gpu"]]
        rows = [r for r in rows if r.get("concurrency_or_batch") or route(r) != "served"]
    if table.kind == "speculation":
        rows = [r for r in rows if r.get("speedup")]
    each = next((n for start, n in EACH.items() if table.name.startswith(start)), 1)
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(group(row), []).append(row)
    step = 2 if table.name.startswith(("mlperf", "trtllm_v0.9")) else 1
    chosen = [row for key in sorted(groups)[::step] for row in evenly(groups[key], each)]
    return chosen + partners(rows, chosen)


def short(row: Row, columns: Sequence[str]) -> dict[str, str]:
    """A row's columns that are kept, numbers to six figures, of notes only what is read."""
    kept = {c: NUMBER.sub(lambda m: f"{float(m[0]):.6g}", row.get(c, "")) for c in columns if c not in ("id", "source")}
    kept = {c: row.get(c, "") for c in ("id", "source") if c in columns} | kept
    if "source" in kept:
        kept["source"] = kept["source"].split(" [")[0]
    for c in ("notes", "length_kind"):
        if c in kept:
            kept[c] = "; ".join(dict.fromkeys(READ.findall(kept[c])))
    if "osl" in columns and not re.match(r"\s*\d|max batch", kept["concurrency_or_batch"]):
        kept["concurrency_or_batch"] = ""
    if kept.get("isl", "").startswith("dataset"):
        kept["isl"] = ""
    return kept


def main() -> None:
    """Write the tables into the package."""
    shipped: dict[str, list[dict[str, str]]] = {}
    for table in read_tables([Path(sys.argv[1])]):
        if table.kind in SHIPPED and (table.kind != "kernels" or set(table.columns) >= KERNEL_MARK):
            shipped.setdefault(table.kind, []).extend(short(r, SHIPPED[table.kind][1]) for r in picked(table))
    for kind, rows in shipped.items():
        name, columns = SHIPPED[kind]
        used = [c for c in columns if any(r[c] for r in rows)]
        out = io.StringIO()
        writer = csv.DictWriter(out, used, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_file(out.getvalue().encode(), PUBLISHED / f"{name}.csv")
        print(f"{name}.csv: {len(rows)} rows, {len(out.getvalue()) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
