"""Readers of recorded traffic, their description, and the workload written from it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from planner.errors import InputError
from planner.workload import load_workload
from planner.workload.description import describe_trace, histogram, peak_to_mean
from planner.workload.traces import read_trace
from planner.workload.writing import workload_text

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:17:03.9799600,4808,10\r\n"
    "2023-11-16 18:17:04.0319600,3180,8\r\n2023-11-16 18:17:06.9799600,110,27"
)
AZURE_2024 = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,100,20\n2024-05-10 00:00:01.009930+00:00,200,30\n"
BURST = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5.0,1,0.4,ChatGPT,472,18,490,Conversation log\n45.0,1,0.4,GPT-4,1087,0,1087,API log\n118.0,2,1,GPT-4,417,276,693,API log\n"
)
MOONCAKE = "\n".join(
    json.dumps({"timestamp": t, "input_length": i, "output_length": o, "hash_ids": h})
    for t, i, o, h in ((0, 1024, 10, [0, 1]), (1000, 1500, 20, [0, 1, 2]), (3000, 1024, 30, [7, 1]))
)
VLLM = json.dumps({"date": "x", "input_lens": [256, 257], "output_lens": [32, 16], "start_times": [10.0, 12.5]})
GUIDE = json.dumps(
    {"benchmarks": [{"requests": {"successful": [
        {"request_start_time": 5.0, "prompt_tokens": 128, "output_tokens": 16},
        {"request_start_time": 4.0, "prompt_tokens": 64, "output_tokens": 8}]}}]}
)  # fmt: skip
AIPERF = "\n".join(
    json.dumps({"metadata": {"session_num": 0, "request_start_ns": int(t * 1e9)}, "metrics": {
        "input_sequence_length": {"value": i}, "output_sequence_length": {"value": o}}, "error": None})
    for t, i, o in ((1.0, 100, 5), (1.5, 200, 6))
)  # fmt: skip


def write(folder: Path, text: str, name: str = "trace") -> Path:
    path = folder / name
    path.write_text(text, newline="")
    return path


@pytest.mark.parametrize(("text", "kind", "arrival", "inputs", "outputs"), [
    (AZURE, "azure", [0, 0.052, 3.0], [4808, 3180, 110], [10, 8, 27]),
    (AZURE_2024, "azure", [0, 1], [100, 200], [20, 30]),
    (BURST, "burstgpt", [0, 113], [472, 417], [18, 276]),
    (MOONCAKE, "mooncake", [0, 1, 3], [1024, 1500, 1024], [10, 20, 30]),
    (VLLM, "vllm-bench", [0, 2.5], [256, 257], [32, 16]),
    (GUIDE, "guidellm", [0, 1], [64, 128], [8, 16]),
    (AIPERF, "aiperf", [0, 0.5], [100, 200], [5, 6]),
])  # fmt: skip
def test_formats(
    tmp_path: Path, text: str, kind: str, arrival: list[float], inputs: list[int], outputs: list[int]
) -> None:
    trace = read_trace(write(tmp_path, text))
    assert trace.format == kind
    assert trace.arrival == pytest.approx(arrival, abs=1e-6)
    assert list(trace.input) == inputs
    assert list(trace.output) == outputs


def test_prefix_reuse_from_hashes(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, MOONCAKE))
    # the second finds two blocks, the third none: its first block is new
    assert trace.cached is not None
    assert list(trace.cached) == [0, 1024, 0]
    described = describe_trace(trace)
    assert described.prefix_reuse == pytest.approx(1024 / (1024 + 1500 + 1024))


def test_failures_are_dropped_and_counted(tmp_path: Path) -> None:
    assert read_trace(write(tmp_path, BURST)).dropped == 1


def test_gzip_and_unsorted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    lines = AZURE.split("\r\n")
    path.write_bytes(gzip.compress("\r\n".join([lines[0], lines[3], lines[1], lines[2]]).encode()))
    assert list(read_trace(path).input) == [4808, 3180, 110]


@pytest.mark.parametrize(("text", "says"), [
    ("", "is empty"), ("  \n ", "is empty"), ("hello,world\n1,2\n", "is no trace known"), ("{}", "is no trace known"),
    ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "no usable requests"),
    (AZURE.replace("3180,8", "3180"), ":3: row is cut short"),
    (AZURE.replace("3180", "many"), ":3: ContextTokens: is 'many'"),
    (AZURE.replace("2023-11-16 18:17:04.0319600", "yesterday"), ":3: TIMESTAMP: is 'yesterday'"),
    (MOONCAKE[:-20], ":3: is not a JSON object"),
    (MOONCAKE.replace('"input_length": 1500', '"input_length": "x"'), ":2: is malformed"),
    (VLLM[:-5], "not valid JSON"), (VLLM.replace("[32, 16]", "[32]"), "is malformed"),
    (GUIDE.replace("successful", "failed"), "is malformed"),
    (BURST.replace("472", "-1").replace("417", "0"), "no usable requests"),
])  # fmt: skip
def test_broken_traces(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read_trace(write(tmp_path, text))
    assert "trace" in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_trace(tmp_path / "nothing.csv")
    (tmp_path / "bad.gz").write_bytes(b"not gzip")
    with pytest.raises(InputError, match="cannot be read or unpacked"):
        read_trace(tmp_path / "bad.gz")
    (tmp_path / "b.csv").write_bytes(b"TIMESTAMP,\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        read_trace(tmp_path / "b.csv")


def test_description_of_known_traffic() -> None:
    from planner.workload.traces import Trace

    rng = np.random.default_rng(2)
    n = 20_000
    trace = Trace("t", "azure", np.concatenate([[0], np.cumsum(rng.exponential(0.2, n - 1))]), rng.lognormal(7, 1, n) + 1,
                  rng.gamma(2.0, 100.0, n) + 1)  # fmt: skip
    d = describe_trace(trace)
    assert d.requests_per_second == pytest.approx(5, rel=0.03)
    assert d.arrival_cv == pytest.approx(1, rel=0.05)
    assert 1 < (d.peak_to_mean or 0) < 1.4
    assert abs(d.correlation) < 0.03
    assert d.input.fits[0].name == "lognormal"
    assert d.output.fits[0].name == "gamma"
    assert d.input.fits[0].distance < 0.02
    assert d.input.p95 == pytest.approx(np.exp(7 + 1.6449), rel=0.05)


def test_peak_ignores_the_partial_last_minute() -> None:
    assert peak_to_mean(np.array([0.0, 10, 20, 60, 120, 121])) == pytest.approx(1.5)


def test_workload_from_a_trace_keeps_rate_and_lengths(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    n = 4000
    t, i, o = (
        np.cumsum(rng.exponential(0.25, n)),
        rng.lognormal(7, 1, n).astype(int) + 1,
        rng.lognormal(5, 0.8, n).astype(int) + 1,
    )
    text = "\n".join(
        json.dumps({"timestamp": int(a * 1000), "input_length": int(b), "output_length": int(c), "hash_ids": []})
        for a, b, c in zip(t, i, o, strict=True)
    )
    trace = read_trace(write(tmp_path, text))
    workload = load_workload("w", text=workload_text(trace, describe_trace(trace), "llama-3.1-8b"))
    assert workload.demand.requests_per_second == pytest.approx(4, rel=0.06)
    assert workload.moments.mean_input == pytest.approx(i.mean(), rel=0.02)
    assert workload.moments.mean_output == pytest.approx(o.mean(), rel=0.02)
    assert float(workload.output_quantile(0.95)) == pytest.approx(np.quantile(o, 0.95), rel=0.05)


def test_equal_lengths_become_constants(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, VLLM.replace("[256, 257]", "[256, 256]").replace("[32, 16]", "[32, 32]")))
    workload = load_workload("w", text=workload_text(trace, describe_trace(trace), "llama-3.1-8b"))
    assert workload.moments.mean_input == pytest.approx(256, rel=0.01)


def test_histograms_hold_every_length() -> None:
    lengths = np.random.default_rng(9).lognormal(6, 2, 5000) + 1
    edges, counts = histogram(lengths)
    assert sum(counts) == 5000
    assert edges == sorted(edges)


def test_a_long_trace(tmp_path: Path) -> None:
    n = 200_000
    text = "Timestamp,Model,Request tokens,Response tokens\n" + "\n".join(
        f"{k * 0.1:.1f},GPT-4,{k % 900 + 1},{k % 70 + 1}" for k in range(n)
    )
    trace = read_trace(write(tmp_path, text))
    assert len(trace) == n
    assert describe_trace(trace).requests_per_second == pytest.approx(10, rel=1e-3)
