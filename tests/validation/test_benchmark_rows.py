"""Results of benchmark tools as rows: the figures, the configuration, and runs that are no closed loop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner.errors import InputError
from planner.hardware import load_database
from planner.validation.benchmark_rows import rows_from_results
from planner.validation.points import MeasuredPoint, read_point

GIVEN = {"gpu": "h100-sxm", "model": "llama-3.1-8b", "engine": "vllm", "tp": "2"}
VLLM = {
    "date": "20261124-044902", "backend": "vllm", "model_id": "tiny", "request_rate": "inf", "max_concurrency": 8,
    "completed": 10, "total_input_tokens": 5000, "total_output_tokens": 1000, "output_throughput": 300.0,
    "request_throughput": 3.0, "mean_e2el_ms": 2600.0, "mean_ttft_ms": 60.0, "median_ttft_ms": 55.0, "p99_ttft_ms": 99,
    "mean_tpot_ms": 9.0, "median_tpot_ms": 8.5, "p99_tpot_ms": 12.0,
}  # fmt: skip
AIPERF = {
    "input_sequence_length": {"unit": "tokens", "avg": 500}, "output_sequence_length": {"unit": "tokens", "avg": 100},
    "request_count": {"avg": 10.0}, "time_to_first_token": {"unit": "ms", "avg": 60, "p50": 55, "p99": 99},
    "inter_token_latency": {"unit": "ms", "avg": 9, "p50": 8.5, "p99": 12}, "start_time": "2026-11-24T04:51:56",
    "input_config": {"models": {"items": [{"name": "tiny"}]}, "phases": [{"type": "concurrency", "concurrency": 8}]},
}  # fmt: skip
INFERENCE_PERF = {
    "load_summary": {"count": 10, "concurrency": 8},
    "successes": {
        "count": 10, "prompt_len": {"mean": 500}, "output_len": {"mean": 100},
        "latency": {"time_to_first_token": {"mean": 0.06, "median": 0.055, "p99": 0.099},
                    "time_per_output_token": {"mean": 0.009, "median": 0.0085, "p99": 0.012}},
    },
}  # fmt: skip


def guidellm(**strategy: Any) -> dict[str, Any]:
    def said(mean: float, median: float = 1.0, p99: float = 1.0) -> dict[str, Any]:
        return {"successful": {"mean": mean, "median": median, "percentiles": {"p99": p99}}}

    return {
        "config": {"strategy": strategy},
        "start_time": 1795495901.1,
        "metrics": {
            "request_totals": {"successful": 10}, "prompt_token_count": said(500), "output_token_count": said(100),
            "output_tokens_per_second": said(300), "time_to_first_token_ms": said(60, 55, 99),
            "time_per_output_token_ms": said(99), "inter_token_latency_ms": said(9, 8.5, 12),
        },
    }  # fmt: skip


def written(folder: Path, *data: Any) -> Path:
    file = folder / "results.json"
    file.write_text("\n".join(json.dumps(d) for d in data))
    return file


@pytest.mark.parametrize(
    "data", [VLLM, AIPERF, INFERENCE_PERF, {"benchmarks": [guidellm(type_="concurrent", streams=8)]}]
)
def test_every_tool_gives_the_same_row(tmp_path: Path, data: dict[str, Any]) -> None:
    (row,), skipped = rows_from_results(written(tmp_path, data), GIVEN)
    assert skipped == []
    point = read_point(row, "f", load_database())
    assert isinstance(point, MeasuredPoint)
    assert (point.accelerator, point.model, point.engine, point.workers.tensor) == (
        "h100-sxm", "llama-3.1-8b", "vllm", 2,
    )  # fmt: skip
    assert (point.input_tokens, point.output_tokens, point.concurrency, point.prompts) == (500, 100, 8, 10)
    assert [point.value("ttft", s) for s in ("mean", "p50", "p99")] == pytest.approx([0.06, 0.055, 0.099])
    assert [point.value("tpot", s) for s in ("mean", "p50", "p99")] == pytest.approx([0.009, 0.0085, 0.012])
    if data is not INFERENCE_PERF:
        assert point.date == "2026-11-24"


def test_appended_results_are_rows_each(tmp_path: Path) -> None:
    rows, _ = rows_from_results(written(tmp_path, VLLM, {**VLLM, "max_concurrency": 2}), GIVEN)
    assert [r["concurrency_or_batch"] for r in rows] == ["8", "2"]
    assert rows[0]["id"] != rows[1]["id"]


def test_metadata_says_the_hardware_and_options_win(tmp_path: Path) -> None:
    file = written(tmp_path, {**VLLM, "gpu": "l4", "tensor_parallel": "4"})
    (row,), _ = rows_from_results(file, {})
    assert (row["gpu"], row["tp"], row["n_gpus"], row["model"], row["engine"]) == ("l4", "4", "4", "tiny", "vllm")
    (row,), _ = rows_from_results(file, GIVEN)
    assert (row["gpu"], row["tp"], row["n_gpus"], row["model"]) == ("h100-sxm", "2", "2", "llama-3.1-8b")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({**VLLM, "request_rate": 3.0, "max_concurrency": None}, "without a limit of concurrency"),
        ({**VLLM, "max_concurrency": None}, "everything at once"),
        ({**VLLM, "request_rate": 3.0, "request_throughput": 0.5}, "below its limit"),
        ({**VLLM, "completed": 0}, "no request"),
        ({**VLLM, "total_input_tokens": "many"}, "malformed"),
        ({"benchmarks": [guidellm(type_="constant", rate=3.0)]}, "without a limit of concurrency"),
        ({"benchmarks": [guidellm(type_="throughput")]}, "everything at once"),
        ({**AIPERF, "input_config": {"phases": [{"rate": 3.0}]}}, "without a limit of concurrency"),
        ({**INFERENCE_PERF, "load_summary": {"requested_rate": 3}}, "without a limit of concurrency"),
    ],
)
def test_no_closed_loop_is_skipped_with_the_reason(tmp_path: Path, data: dict[str, Any], reason: str) -> None:
    rows, (skipped,) = rows_from_results(written(tmp_path, data), GIVEN)
    assert rows == []
    assert reason in skipped.reason


def test_hardware_nobody_said(tmp_path: Path) -> None:
    _, (skipped,) = rows_from_results(written(tmp_path, VLLM), {})
    assert "--gpu" in skipped.reason


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"a": 1}', '{"a": 1}\n{"b"'])
def test_other_files_are_errors(tmp_path: Path, text: str) -> None:
    file = tmp_path / "odd.json"
    file.write_text(text)
    with pytest.raises(InputError):
        rows_from_results(file, GIVEN)
