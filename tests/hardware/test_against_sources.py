"""The database against the figures and fits it was made from, row by row; every difference is listed."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from bench import commented_csv
from planner.hardware import Database

FIXTURES = Path(__file__).parent / "fixtures"
SCALES = {"memory.capacity": 1e9, "memory.on_chip": 1e6, "power.tdp": 1.0}
#: what the fits' tables took for a part's bandwidth and fp4 peak, over what its datasheet says
BANDWIDTH = {"b200-sxm": 7.7 / 8, "b300-sxm": 7.75 / 8}
FP4 = {"b300-sxm": 14000 / 13500}
#: fits that are not in the database: calls launched outside a CUDA graph, and fp8 on a part without an fp8 peak
LEFT_OUT = {
    *((name, "vllm", "fp8-block") for name in
      ("h100-sxm", "h200-sxm", "b200-sxm", "b300-sxm", "gb200-nvl72", "gb300-nvl72", "l40s")),
    ("arc-pro-b60", "vllm", "fp8"),
}  # fmt: skip


def rows(name: str) -> list[dict[str, str]]:
    return commented_csv.rows(FIXTURES / name)


def test_every_figure_is_the_datasheets(database: Database) -> None:
    listed = rows("datasheets.csv")
    assert {row["name"] for row in listed} == set(database.accelerators)
    for row in listed:
        chip = database.accelerators[row["name"]]
        for path, text in row.items():
            if path == "name":
                continue
            fact = chip.fact(path)
            scale = SCALES.get(path, 1e12 if path.startswith("compute") else 1e9)
            said = float(text) * scale if text else None
            assert (fact.value if fact else None) == (pytest.approx(said) if said else None), (chip.name, path)


def test_every_matmul_fit_is_in_the_database(database: Database) -> None:
    left_out = set()
    for row in rows("matmul_fits.csv"):
        name, engine, fmt = row["name"], row["engine"], row["format"]
        found = database.accelerators[name].achieved["matmul"].get(fmt, {}).get(engine)
        if found is None:
            left_out.add((name, engine, fmt))
            continue
        compute = float(row["compute"]) * (FP4.get(name, 1.0) if fmt == "nvfp4" else 1.0)
        assert found.compute == pytest.approx(compute, rel=1e-3), row
        assert found.memory == pytest.approx(float(row["memory"]) * BANDWIDTH.get(name, 1.0), rel=1e-3), row
        assert found.latency_s * 1e6 == pytest.approx(float(row["latency_us"]), rel=1e-3, abs=1e-3), row
        assert found.residual == pytest.approx(float(row["residual"]), rel=1e-3), row
        assert found.kind == "measured"
    assert left_out == LEFT_OUT


#: tables taken on a machine whose links are slower than what published serving results send over them
CONTRADICTED = {("l40s", 4), ("l40s", 8)}


def test_every_group_size_has_its_all_reduce(database: Database) -> None:
    """Of several kernels of one library the database holds one, with that kernel's own residual."""
    fits: dict[tuple[str, str, int], list[tuple[float, float, float]]] = defaultdict(list)
    for row in rows("all_reduce_fits.csv"):
        key = (row["name"], row["library"], int(row["ranks"]))
        fits[key].append((float(row["latency_us"]), float(row["bandwidth_gbs"]), float(row["residual"])))
    assert len(fits) > 90
    for (name, library, ranks), kernels in fits.items():
        if (name, ranks) in CONTRADICTED:
            continue
        found = database.accelerators[name].all_reduces[library][ranks]
        ours = (found.latency_s * 1e6, found.bandwidth / 1e9, found.residual)
        assert any(ours == pytest.approx(kernel, rel=2e-3) for kernel in kernels), (name, library, ranks)


def test_contradicted_tables_are_slower_than_published_results_need(database: Database) -> None:
    """Llama 70B on eight L40S, 183 output tokens per second of each and as many prompt tokens: two sums a layer."""
    sent = 2 * 8 * 183.0 * 2 * 80 * 8192 * 2
    tables = [
        float(row["bandwidth_gbs"]) * 1e9
        for row in rows("all_reduce_fits.csv")
        if (row["name"], int(row["ranks"])) == ("l40s", 8)
    ]
    assert max(tables) < sent < database.accelerators["l40s"].all_reduces["trtllm"][8].bandwidth
