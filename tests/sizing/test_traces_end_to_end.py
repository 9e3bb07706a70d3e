"""Recorded traffic all the way through the command line: described, replayed, drawn from the description, planned for.

Excerpts of the Azure code and conversation traces and of Mooncake's; sources in tests/workload/fixtures/README.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.workload import load_workload
from planner.workload.traces import Trace, read_trace

FIXTURES = Path(__file__).parent.parent / "workload" / "fixtures"
MODEL = "llama-3.1-8b"


@dataclass(frozen=True)
class Described:
    """A trace, what it holds, and the workload file ``describe`` wrote from it."""

    trace: Path
    read: Trace
    record: dict[str, Any]
    workload: Path


def planner(*arguments: object) -> dict[str, Any]:
    """The JSON a command prints; it must succeed, and say nothing of a traceback."""
    found = subprocess.run(
        [sys.executable, "-m", "planner", *map(str, arguments), "--format", "json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "Traceback" not in found.stderr
    record: dict[str, Any] = json.loads(found.stdout)
    return record


@pytest.fixture(scope="module", params=["azure_2023_code.csv", "azure_2023_conv.csv", "mooncake_conversation.jsonl"])
def described(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Described:
    trace = FIXTURES / request.param
    workload = tmp_path_factory.mktemp("described") / "workload.toml"
    record = planner("describe", trace, "-w", workload, "--model", MODEL)
    return Described(trace, read_trace(trace), record, workload)


def test_described(described: Described) -> None:
    read, record = described.read, described.record
    assert record["requests"] == len(read)
    assert record["input"]["mean"] == pytest.approx(read.input.mean())
    assert record["output"]["p99"] == pytest.approx(np.quantile(read.output, 0.99))
    written = load_workload(described.workload)
    assert written.demand.requests_per_second == pytest.approx(len(read) / float(np.ptp(read.arrival)), rel=0.02)
    assert written.moments.mean_input == pytest.approx(read.input.mean(), rel=0.01)
    assert written.moments.mean_output == pytest.approx(read.output.mean(), rel=0.02)
    if read.hashes is not None:  # prompts reused in the trace are cached in the workload
        assert written.moments.mean_prefill < read.input.mean()


def test_replayed(described: Described, tmp_path: Path) -> None:
    records = tmp_path / "records.csv"
    found = planner("simulate", described.workload, "--trace", described.trace, "--replicas", 0, "--records", records)
    read = described.read
    assert found["requests"] == len(read)
    assert found["requests_per_second"] < found["max_requests_per_second"]
    assert found["output_tokens_per_second"] == pytest.approx(read.output.sum() / found["duration_s"])
    rows = np.genfromtxt(records, delimiter=",", names=True, dtype=None, encoding="utf-8")
    assert rows["output_tokens"].sum() == read.output.sum()
    # the first arrival is when the trace began; the order is that of the trace
    assert rows["arrival_s"] - rows["arrival_s"][0] == pytest.approx(read.arrival - read.arrival[0], abs=1e-6)
    assert np.all(rows["first_token_s"] > rows["arrival_s"])
    assert np.all(rows["completion_s"] >= rows["first_token_s"])
    # the plan keeps up: nobody waits longer and longer
    wait = (rows["first_token_s"] - rows["arrival_s"])[np.argsort(rows["arrival_s"])]
    assert np.median(wait[-len(wait) // 4 :]) < 3 * np.median(wait)
    # nobody gets a second token sooner than a step of an empty replica takes
    idle = planner("recommend", described.workload, "--no-simulate")["plan"]["latency"]["time_per_output_token_s"][
        "p50"
    ]
    assert found["latency"]["time_per_output_token_s"]["mean"] > 0.3 * idle
    assert (found["cached_fraction"] > 0) == (read.hashes is not None)


def test_drawn_from_the_description(described: Described) -> None:
    found = planner("simulate", described.workload, "--requests", 2000)
    again = planner("simulate", described.workload, "--requests", 2000)
    assert found == again
    plan = found["plan"]
    share = plan["throughput"]["requests_per_second"] / (plan["replicas"] - plan["spare_replicas"])
    assert found["requests"] == 2000
    # gamma gaps of cv c: the mean of 2000 of them is within four standard errors
    cv = load_workload(described.workload).demand.arrival_cv
    assert found["requests_per_second"] == pytest.approx(share, rel=4 * cv / np.sqrt(2000) + 0.02)
    per_request = found["output_tokens_per_second"] / found["requests_per_second"]
    spread = described.read.output.std() / described.read.output.mean()
    assert per_request == pytest.approx(described.read.output.mean(), rel=4 * spread / np.sqrt(2000) + 0.02)
    assert found["verdict"] == "stable"


def test_recommended(described: Described) -> None:
    found = planner("recommend", described.workload)
    plan = found["plan"]
    written = load_workload(described.workload)
    assert plan["gpus"] == plan["replicas"] * plan["gpus_per_replica"] >= 1
    assert plan["throughput"]["requests_per_second"] == pytest.approx(written.peak_requests_per_second)
    assert plan["throughput"]["max_requests_per_second"] >= plan["throughput"]["requests_per_second"] * (1 - 1e-9)
    limits = {(s.metric, s.statistic): s.limit_s for s in written.slo}
    names = {"ttft": "ttft_s", "tpot": "time_per_output_token_s", "e2e": "e2e_s"}
    for (metric, statistic), limit in limits.items():
        assert plan["latency"][names[metric]][statistic] <= limit * 1.001, metric
