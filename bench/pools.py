"""Fits what two pools cost besides their steps: ``admission`` and ``prefill`` of ``hardware_db/disaggregation.toml``.

::

    python -m bench.pools inferencex_dsr1_by_accelerator.csv

Rows without speculation; one value an engine for all accelerators, and what each accelerator's error is when it has
no part in the choice. The loss is the logarithm of predicted over measured time to first token, cut off at a factor
:data:`CUT`: near the load at which prefill and decode take equally long, a row is in one regime or the other. Runs of
one configuration on several days count once, accelerators count alike.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from planner.hardware import Database, load_database
from planner.hardware.database import database_root
from planner.validation.disaggregation import compare_disaggregated, pool_constants
from planner.validation.files import read_table
from planner.validation.points import MeasuredPoint, read_point

ADMISSION = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 18.0)  # [steps]
PREFILL = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)  # [1]
CUT = 1.5
Cell = tuple[float, float]
#: ratios of predicted to measured by accelerator and configuration
Ratios = Mapping[str, Mapping[str, Sequence[float]]]


def ratios_at(points: Sequence[MeasuredPoint], database: Database, engine: str, cell: Cell) -> Ratios:
    """Times to first token over the measured ones with the engine's constants set so."""
    constants = {k: dict(v) for k, v in pool_constants(database_root()).items()}
    constants[engine] = {"admission": cell[0], "prefill": cell[1]}
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    by_id = {p.id: p for p in points}
    for c in compare_disaggregated(points, database, constants)[0]:
        if c.metric == "ttft" and c.statistic != "p99":
            p = by_id[c.id]
            run = f"{p.prefill} {p.workers} {p.input_tokens} {p.output_tokens} {p.concurrency} {p.weights}"
            found[c.accelerator][run].append(c.predicted / c.measured)
    return found


def loss(ratios: Ratios, of: Collection[str]) -> float:
    """Mean cut-off logarithm over accelerators, each the mean of its configurations, [1]."""
    each = []
    for chip in of:
        runs = [np.minimum(np.abs(np.log(values)), np.log(CUT)).mean() for values in ratios[chip].values()]
        each.append(np.mean(runs))
    return float(np.mean(each))


def errors(ratios: Ratios, of: Collection[str]) -> np.ndarray:
    """Absolute relative errors of all rows, [1]."""
    return np.array([abs(r - 1) for chip in of for values in ratios[chip].values() for r in values])


def main() -> int:
    """Print the fit of each engine and the errors of accelerators left out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("table", type=Path)
    given = parser.parse_args()
    database, table = load_database(), read_table(given.table, given.table.name)
    points = [
        p
        for row in table.rows
        if isinstance(p := read_point(row, table.name, database), MeasuredPoint) and p.prefill and not p.speculation
    ]
    for engine in ("sglang", "trtllm"):
        own = [p for p in points if p.engine.split("-")[0] == engine]
        grid = {(a, p): ratios_at(own, database, engine, (a, p)) for a in ADMISSION for p in PREFILL}
        chips = sorted(next(iter(grid.values())))
        best = min(grid, key=lambda cell: loss(grid[cell], chips))
        print(f"{engine}: admission {best[0]:g} steps, prefill {best[1]:g}; ", end="")
        print(f"{len(own)} rows, median error {np.median(errors(grid[best], chips)):.1%}")
        left: list[float] = []
        for chip in chips:
            rest = [c for c in chips if c != chip]
            cell = min(grid, key=lambda cell: loss(grid[cell], rest))
            out = errors(grid[cell], [chip])
            left += out.tolist()
            print(f"  {chip} left out: admission {cell[0]:g}, prefill {cell[1]:g}: {np.median(out):.0%} of {len(out)}")
        print(f"  all left out: {np.median(left):.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
