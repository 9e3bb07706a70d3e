"""Errors of every published table the planner was held against: ``python -m bench.kinds FILE ...``.

Writes bench/data/kinds.csv, by table and kind of measurement: clean rows, at least :data:`FEWEST`, as ``planner
validate`` says them, with the constants that ship. docs/generate.py puts them on docs/accuracy.md.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from bench.accuracy import DATA, METRICS
from planner.validation.files import read_tables
from planner.validation.runs import validate
from planner.validation.scores import scores

KINDS, FEWEST = DATA / "kinds.csv", 5
NAMES = {**METRICS, "throughput": "throughput", "speedup": "speed-up", "kernel": "kernel",
         "acceptance_length": "acceptance length"}  # fmt: skip
COLUMNS = ("file", "kind", "metric", "statistic", "n", "median", "mean", "bias", "rank")


def main(files: list[Path]) -> None:
    """Compare all rows and write the table."""
    found = scores(validate(read_tables(files)).compared, ("file", "kind"))
    with KINDS.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for s in sorted(found, key=lambda s: (s.group["file"], s.group["kind"])):
            if s.rows == "clean" and s.n >= FEWEST:
                rank = "" if s.rank_correlation is None else f"{s.rank_correlation:.3f}"
                writer.writerow((
                    s.group["file"], s.group["kind"], s.metric, s.statistic, s.n, f"{s.median_ape:.4f}",
                    f"{s.mean_ape:.4f}", f"{s.median_ratio:.3f}", rank,
                ))  # fmt: skip


def kinds_section() -> list[str]:
    """The table as a section of docs/accuracy.md."""
    with KINDS.open(encoding="utf-8", newline="") as found:
        rows = list(csv.DictReader(found))
    lines = ["", "## Every published table", "",
             "With the constants that ship, `planner validate` on all tables at hand (`python -m bench.kinds`): clean",
             "rows; means where they were published, else medians, or 99th percentiles. *Bias* is the median of",
             "predicted over measured.", "", "| table | kind | figure | rows | median | mean | bias | rank |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for r in rows:
        name = NAMES[r["metric"]] + (", p99" if r["statistic"] == "p99" else "")
        cells = (r["file"].removesuffix(".csv"), r["kind"], name, r["n"], f"{float(r['median']):.1%}",
                 f"{float(r['mean']):.1%}", f"{float(r['bias']):.2f}", r["rank"])  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
