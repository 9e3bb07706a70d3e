"""The simulate command: records in both formats, durations, fleets, and wrong options."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

CHAT = ("planner/workload/examples/chat.toml", "--gpus", "b200-sxm", "-n", "400")


def planner(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "planner", *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_records(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    done = planner("simulate", *CHAT, "--records", str(path), "--format", "json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    if suffix == "csv":
        with path.open() as file:
            rows = list(csv.DictReader(file))
    else:
        from pyarrow import parquet

        rows = parquet.read_table(path).to_pylist()
    assert len(rows) == result["requests"] == 400
    ends = [float(r["completion_s"]) - float(r["first_token_s"]) for r in rows]
    assert min(ends) >= 0
    assert all(int(r["output_tokens"]) >= 1 for r in rows)


def test_duration_replicas_and_routing() -> None:
    done = planner("simulate", CHAT[0], "--gpus", "b200-sxm", "--duration", "1min", "--replicas", "0",
                   "--routing", "power-of-two", "--format", "json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["routing"] == "power-of-two"
    assert result["pools"][0]["replicas"] == result["plan"]["replicas"] - result["plan"]["spare_replicas"]
    assert result["requests"] == pytest.approx(60 * result["plan"]["throughput"]["requests_per_second"], rel=0.01)


def test_same_seed_same_bytes() -> None:
    first, again = (planner("simulate", *CHAT, "--seed", "3", "--format", "json").stdout for _ in range(2))
    assert first == again != planner("simulate", *CHAT, "--seed", "4", "--format", "json").stdout


@pytest.mark.parametrize(("options", "says"), [
    (("--records", "x.txt"), "--records"),
    (("--records", "/nowhere/x.parquet"), "no such folder"),
    (("--records", "/nowhere/x.csv"), "--records: no such folder"),
    (("--duration", "5 parsecs"), "--duration"),
    (("--duration", "0s"), "--duration"),
    (("--rate", "0"), "--rate"),
    (("--replicas", "5000"), "serving replicas"),
    (("--routing", "randm"), "--routing"),
    (("--trace", "missing.csv"), "missing.csv"),
])  # fmt: skip
def test_wrong_options_are_one_line(options: tuple[str, ...], says: str) -> None:
    done = planner("simulate", *CHAT, *options)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
