"""Decode attention of accelerators with HBM, fitted to kernel tables: ``python -m bench.attention_efficiency TABLE``.

``TABLE``: latencies of single calls by heads, batch and context (``gpu, backend, kv_dtype, heads, kv_heads, batch,
ctx, latency_us, kv_bytes, bw_frac``). Rewrites ``[achieved.decode_attention.*]`` in hardware_db/accelerators. Seconds
of a call are ``latency + bytes / (share * bandwidth)``. Only what serving does is fitted: at least four query heads to
a KV head, as other kernels run where there are fewer, and reads that take :data:`LEAST` at the datasheet's bandwidth,
as calls on nearly nothing have less latency than those that fill the device and would take the share with them. Parts
with GDDR keep their fits: their last-level caches hold most of a table's reads, and serving's next layer finds none.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]

ACCELERATORS = Path(__file__).resolve().parent.parent / "hardware_db" / "accelerators"
PARTS = {
    "a100_sxm": "a100-sxm-80gb", "h100_sxm": "h100-sxm", "h200_sxm": "h200-sxm", "b200_sxm": "b200-sxm",
    "b300_sxm": "b300-sxm", "gb200": "gb200-nvl72", "gb300": "gb300-nvl72",
}  # fmt: skip
FORMATS = {"bfloat16": "bf16", "fp8": "fp8"}
#: shortest read at datasheet bandwidth that is fitted [s], query heads to a KV head, largest share memory can give [1],
#: relative residual beyond which a point counts linearly [1]
LEAST, GROUP, MOST, HUBER = 2e-6, 4, 0.95, 0.1
ROUNDS = 50


def bounded_fit(columns: Vector, targets: Vector, least: Vector) -> Vector:
    """Coefficients (k,) of ``columns`` (n, k) that give ``targets`` (n,), none below ``least`` (k,), [1].

    Least squares, linear beyond :data:`HUBER`; a coefficient that would fall below its bound is set to it.

    >>> bounded_fit(np.array([[1.0, 1.0], [1.0, 2.0]]), np.array([2.0, 4.0]), np.array([0.5, 0.0])).round(2).tolist()
    [0.5, 1.71]
    """
    weight, found = np.ones(len(targets)), least.copy()
    for _ in range(ROUNDS):
        root, free = np.sqrt(weight), np.ones(len(least), dtype=bool)
        while free.any():
            rest = targets - columns[:, ~free] @ least[~free]
            found = least.copy()
            found[free] = np.linalg.lstsq(columns[:, free] * root[:, None], rest * root, rcond=None)[0]
            if not (found < least).any():
                break
            free &= found >= least
        off = np.abs(columns @ found - targets)
        weight = np.where(off > HUBER, HUBER / np.maximum(off, 1e-9), 1.0)
    return found


def fit(reads: Vector, seconds: Vector) -> tuple[float, float]:
    """Share of bandwidth [1] and latency [s] from ideal ``reads`` and measured ``seconds``, both (n,) [s].

    Least squares of relative errors, linear beyond :data:`HUBER`.

    >>> share, latency = fit(np.array([1e-5, 1e-4, 1e-3]), np.array([2.25e-5, 1.35e-4, 1.26e-3]))
    >>> round(share, 3), round(latency * 1e6, 1)
    (0.8, 10.0)
    """
    columns = np.stack([np.ones_like(reads) * 1e-6, reads], axis=1) / seconds[:, None]
    latency, slowness = bounded_fit(columns, np.ones(len(seconds)), np.array([-np.inf, 1 / MOST]))
    return float(1 / slowness), float(latency * 1e-6)


def main(table: Path) -> None:
    """Fit every accelerator, format and engine of the table and write what came out."""
    calls: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
    with table.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            seconds = float(row["latency_us"]) * 1e-6
            ideal = float(row["bw_frac"]) * seconds
            kept = ideal >= LEAST and int(row["heads"]) >= GROUP * int(row["kv_heads"])
            if kept and row["gpu"] in PARTS and row["kv_dtype"] in FORMATS:
                calls[PARTS[row["gpu"]], FORMATS[row["kv_dtype"]], row["backend"]].append((ideal, seconds))
    for (part, fmt, engine), found in sorted(calls.items()):
        reads, seconds_of = np.array(found).T
        share, latency = fit(reads, seconds_of)
        residual = float(np.mean(np.abs((latency + reads / share) / seconds_of - 1)))
        values = {"memory": share, "latency_us": latency * 1e6, "residual": residual, "points": len(found)}
        path = ACCELERATORS / f"{part}.toml"
        text, head = path.read_text(encoding="utf-8"), f"[achieved.decode_attention.{fmt}.{engine}]\n"
        if head not in text:
            print(f"{part}: no {head.strip()}")
            continue
        before, after = text.split(head)
        section, gap, rest = after.partition("\n\n")
        for key, value in values.items():
            section = re.sub(rf"(?m)^{key} = .*$", f"{key} = {value:.4g}", section)
        path.write_text(before + head + section + gap + rest, encoding="utf-8")
        print(part, fmt, engine, " ".join(f"{key} {value:.4g}" for key, value in values.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
