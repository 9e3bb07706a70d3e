"""Real files of traces and tools, and files that are broken, odd, or very long."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import InputError
from planner.workload.description import describe_trace
from planner.workload.percentiles import lengths_from_statistics
from planner.workload.servegen import rate_over_time, read_client
from planner.workload.traces import BlockHashes, read_trace
from planner.workload.traffic import clock_tick, dispersion, gap_cv, local_cv, spread_over_ticks

FIXTURES = Path(__file__).parent / "fixtures"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


@pytest.mark.parametrize(("name", "kind", "requests", "input_mean", "output_mean", "rate", "concurrency"), [
    ("azure_2023_code.csv", "azure", 160, 2227.025, 26.375, None, None),
    ("azure_2023_conv.csv", "azure", 160, 901.48125, 222.575, None, None),
    ("mooncake_conversation.jsonl", "mooncake", 100, 3630.73, 341.32, None, None),
    ("vllm_bench_detailed.json", "vllm-bench", 40, 256.5, 32, None, None),
    ("vllm_bench.json", "vllm-bench", 12, 3079 / 12, 32, 3.28686, 4),
    ("guidellm.json", "guidellm", 3, 128, 16, None, 2),
    ("guidellm.csv", "guidellm", 6, 128, 16, 2.68079, 2),
    ("aiperf_profile_export.jsonl", "aiperf", 6, 128, 58 / 6, None, None),
    ("aiperf_profile_export.json", "aiperf", 6, 128, 58 / 6, 3.57351, 2),
    ("aiperf_profile_export.csv", "aiperf", 6, 128, 9.67, 3.57, None),
    ("inference_perf_summary.json", "inference-perf", 6720, 217.866815, 209.919792, 9.87205, None),
])  # fmt: skip
def test_real_files(
    name: str, kind: str, requests: int, input_mean: float, output_mean: float, rate: float | None,
    concurrency: float | None,
) -> None:  # fmt: skip
    trace = read_trace(FIXTURES / name)
    assert trace.format == kind
    assert (trace.requests or len(trace)) == requests
    assert trace.input.mean() == pytest.approx(input_mean, rel=1e-6)
    assert trace.output.mean() == pytest.approx(output_mean, rel=1e-6)
    assert trace.rate == (None if rate is None else pytest.approx(rate, rel=1e-5))
    assert trace.concurrency == concurrency
    assert trace.dropped == 0


def test_percentiles_of_a_summary_come_back() -> None:
    d = describe_trace(read_trace(FIXTURES / "inference_perf_summary.json"))
    assert (d.input.p50, d.input.p90, d.input.longest) == pytest.approx((111, 585, 1021), rel=0.01)
    assert (d.output.p50, d.output.p90, d.output.longest) == pytest.approx((153.5, 497, 981), rel=0.01)
    assert any("percentiles" in note for note in d.notes)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.2, 1.5), st.integers(200, 5000))
def test_lengths_from_percentiles_meet_percentiles_and_mean(sigma: float, n: int) -> None:
    sample = np.random.default_rng(3).lognormal(6, sigma, n) + 1
    known = {q: float(np.quantile(sample, q)) for q in (0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0)}
    lengths = lengths_from_statistics(known, float(sample.mean()), 20_000)
    assert lengths.mean() == pytest.approx(sample.mean(), rel=0.02)
    for q in (0.1, 0.5, 0.9):
        assert float(np.quantile(lengths, q)) == pytest.approx(known[q], rel=0.02)


# -- formats in detail ---------------------------------------------------------------------------


def write(folder: Path, text: str, name: str = "trace") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_inference_perf_requests_old_and_new(tmp_path: Path) -> None:
    old = {"start_time": 5.0, "end_time": 6.0, "info": {"input_tokens": 100, "output_tokens": 7}, "error": None}
    new = {"start_time": 4.0, "end_time": 6.0, "error": None, "info": {
        "request_metrics": {"text": {"input_tokens": 50}},
        "response_metrics": {"output_tokens": 8, "server_usage": {"completion_tokens": 9}}}}  # fmt: skip
    failed = {"start_time": 7.0, "end_time": 8.0, "info": None, "error": {"error_msg": "x"}}
    trace = read_trace(write(tmp_path, json.dumps([old, new, failed])))
    assert (trace.format, trace.dropped) == ("inference-perf", 1)
    assert (trace.arrival.tolist(), trace.input.tolist(), trace.output.tolist()) == ([0, 1], [50, 100], [9, 7])


def test_inference_perf_cached_tokens(tmp_path: Path) -> None:
    lengths = {"mean": 100.0, "min": 50.0, "median": 90.0, "max": 300.0, "total": 1000.0, "cached": 400.0}
    done = {"count": 10, "prompt_tokens": lengths, "output_len": {"mean": 5.0, "min": 1, "median": 5, "max": 9}}
    trace = read_trace(write(tmp_path, json.dumps({"successes": done})))
    assert trace.cached is not None
    assert trace.cached.sum() / trace.input.sum() == pytest.approx(0.4)


def test_vllm_appended_results_and_failures(tmp_path: Path) -> None:
    one = {"completed": 2, "failed": 1, "total_input_tokens": 20, "total_output_tokens": 6, "request_throughput": 2.0}
    two = {"input_lens": [5, 6, 7], "output_lens": [2, 3, 0], "errors": ["", "", "timeout"]}
    trace = read_trace(write(tmp_path, json.dumps(one)))
    assert (len(trace), trace.dropped, trace.rate, trace.timed) == (2, 1, 2.0, False)
    trace = read_trace(write(tmp_path, json.dumps(one) + "\n" + json.dumps(two) + "\n"))
    assert (trace.input.tolist(), trace.dropped) == ([5, 6], 1)


def test_aiperf_warm_up_is_left_out(tmp_path: Path) -> None:
    lines = (FIXTURES / "aiperf_profile_export.jsonl").read_text().splitlines()
    lines[0] = lines[0].replace('"benchmark_phase": "profiling"', '"benchmark_phase": "warmup"')
    failed = json.loads(lines[1])
    failed["error"], failed["metrics"] = {"type": "timeout"}, {}
    trace = read_trace(write(tmp_path, "\n".join([*lines, json.dumps(failed)])))
    assert (len(trace), trace.dropped) == (5, 1)


def test_log_types_are_kept(tmp_path: Path) -> None:
    text = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n" + "\n".join(
        f"{k},GPT-4,{100 if k % 4 else 9000},{k % 7},0,{'Conversation log' if k % 4 else 'API log'}" for k in range(400)
    )
    trace = read_trace(write(tmp_path, text))
    d = describe_trace(trace)
    assert trace.dropped == 58
    assert trace.kind_names == ("API log", "Conversation log")
    assert [(k.name, k.input_p50) for k in d.kinds] == [("API log", 9000), ("Conversation log", 100)]
    assert sum(k.share for k in d.kinds) == pytest.approx(1)


def test_bailian_blocks_are_16_tokens_and_seconds(tmp_path: Path) -> None:
    row = {"chat_id": 1, "timestamp": 3.5, "input_length": 40, "output_length": 4, "hash_ids": [1, 2, 3]}
    trace = read_trace(write(tmp_path, "\n".join(json.dumps({**row, "timestamp": t}) for t in (3.5, 5.0))))
    assert (trace.hash_block_tokens, trace.arrival.tolist()) == (16, [0, 1.5])
    assert trace.cached is not None
    assert trace.cached.tolist() == [0, 39]


def test_hashes_of_any_kind(tmp_path: Path) -> None:
    base = {"timestamp": 0, "input_length": 1200, "output_length": 4}
    ids = ([1, 2, 3], [1, "a", 2**80], [1, "a", 2**80])
    trace = read_trace(write(tmp_path, "\n".join(json.dumps({**base, "hash_ids": h}) for h in ids)))
    assert trace.hashes is not None
    assert trace.hashes.leading_hits().tolist() == [0, 1, 3]
    assert trace.hashes[1].tolist() == trace.hashes[2].tolist()


def test_hashes_stay_with_their_requests(tmp_path: Path) -> None:
    rows = [(3, 512, [5]), (1, 0, [9]), (2, 1024, [5, 6]), (1, 512, [7])]
    text = "\n".join(
        json.dumps({"timestamp": t * 1000, "input_length": i, "output_length": 1, "hash_ids": h}) for t, i, h in rows
    )
    trace = read_trace(write(tmp_path, text))
    assert trace.dropped == 1
    assert trace.hashes is not None
    assert [trace.hashes[k].tolist() for k in range(3)] == [[7], [5, 6], [5]]
    assert trace.hashes[-1].tolist() == [5]
    with pytest.raises(IndexError):
        trace.hashes[3]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(0, 12), max_size=6), min_size=1, max_size=12))
def test_hits_against_a_loop(prompts: list[list[int]]) -> None:
    ids = np.array([i for p in prompts for i in p], dtype=np.int64)
    hashes = BlockHashes(ids, np.concatenate(([0], np.cumsum([len(p) for p in prompts]))))
    seen: set[int] = set()
    expected = []
    for prompt in prompts:
        hits = 0
        while hits < len(prompt) and prompt[hits] in seen:
            hits += 1
        expected.append(hits)
        seen.update(prompt)
    assert hashes.leading_hits().tolist() == expected


# -- ServeGen ------------------------------------------------------------------------------------


def servegen(folder: Path) -> Path:
    """Two clients over an hour: a steady one, and a bursty one that triples halfway."""
    folder.mkdir()
    write(
        folder, "0,2.0,1.0,Gamma,1.0,0.5\n600,2.0,1.0,Gamma,1.0,0.5\n1200,0,0,,,\n1800,2.0,,,,\n", "chunk-0-trace.csv"
    )
    write(
        folder, "t,rate,cv,dist,p1,p2\n0,1.0,3.0,Weibull,0.4,0.3\n1200,3.0,3.0,Weibull,0.4,0.1\n", "chunk-7-trace.csv"
    )
    short = {"input_tokens": "{100: 0.5, 300.0: 5e-1,}", "output_tokens": "{10: 1}", "reason_ratio": "{}"}
    empty = {"input_tokens": "{}", "output_tokens": "{}"}
    write(folder, json.dumps({"0": empty, "300": short}), "chunk-0-dataset.json")
    long = {"input_tokens": {"5000": 3, "7000": 1}, "output_tokens": {"200": 0.5, "400": 0.5}}
    write(folder, json.dumps({"0": short, "1200": long}), "chunk-7-dataset.json")
    return folder


def test_servegen_folder(tmp_path: Path) -> None:
    folder = servegen(tmp_path / "clients")
    trace = read_trace(folder)
    assert trace.format == "servegen"
    expected = 2 * 1800 + 1 * 1200 + 3 * 1200
    assert trace.rate == pytest.approx(expected / 2400)
    assert trace.peak == pytest.approx(5 / (expected / 2400))
    assert len(trace) == pytest.approx(expected, rel=0.1)
    assert set(np.unique(trace.input)) == {100, 300, 5000, 7000}
    assert np.mean(trace.input == 5000) / np.mean(trace.input == 7000) == pytest.approx(3, rel=0.15)
    again = read_trace(folder)
    assert trace.arrival.tolist() == again.arrival.tolist()
    assert trace.output.tolist() == again.output.tolist()


def test_servegen_single_client_is_as_bursty_as_it_says(tmp_path: Path) -> None:
    folder = servegen(tmp_path / "clients")
    windows = read_client(folder / "chunk-7-trace.csv", folder / "chunk-7-dataset.json")
    assert [(w.start, w.duration, w.rate, w.kind) for w in windows] == [
        (0, 1200, 1, "weibull"), (1200, 1200, 3, "weibull")
    ]  # fmt: skip
    edges, rates = rate_over_time(windows)
    assert (edges.tolist(), rates.tolist()) == ([0, 1200, 2400], [1, 3])
    for name in ("chunk-7-trace.csv", "chunk-7-dataset.json"):
        trace = read_trace(folder / name)
        late = trace.arrival[trace.arrival > 1250]
        assert gap_cv(late) == pytest.approx(3, rel=0.25)


def test_servegen_of_a_long_time_is_thinned_and_says_so(tmp_path: Path) -> None:
    folder = servegen(tmp_path / "clients")
    write(folder, "0,900,1,Gamma,1,1\n3600,300,1,Gamma,1,1\n", "chunk-0-trace.csv")
    trace = read_trace(folder)
    assert len(trace) == pytest.approx(500_000, rel=0.02)
    assert trace.rate == pytest.approx((1200 * 3600 + 4 * 1200) / 7200, rel=1e-6)
    assert any("scaled" in note for note in trace.notes)


@pytest.mark.parametrize(("name", "text", "says"), [
    ("chunk-0-trace.csv", "0,2.0\n", r"trace\.csv:1: row is cut short"),
    ("chunk-0-trace.csv", "0,2,1,Gamma,1,1\n600,many,1,Gamma,1,1\n", r"trace\.csv:2: is 'many'"),
    ("chunk-0-trace.csv", "0,2,1,Cauchy,1,1\n", "unknown distribution 'Cauchy'"),
    ("chunk-0-trace.csv", "600,2,1,Gamma,1,1\n0,2,1,Gamma,1,1\n", "do not follow one another"),
    ("chunk-0-trace.csv", "", "has no rows"),
    ("chunk-0-dataset.json", "{", "is malformed"),
    ("chunk-0-dataset.json", "[1]", "is malformed"),
    ("chunk-0-dataset.json", '{"0": {"input_tokens": "{1: 1}", "output_tokens": "{}"}}', "no window with lengths"),
    ("chunk-0-dataset.json", '{"0": {"input_tokens": "{1: -1}", "output_tokens": "{2: 1}"}}', "no distribution"),
])  # fmt: skip
def test_broken_servegen(tmp_path: Path, name: str, text: str, says: str) -> None:
    folder = servegen(tmp_path / "clients")
    write(folder, text, name)
    with pytest.raises(InputError, match=says) as caught:
        read_trace(folder)
    assert "\n" not in str(caught.value)


def test_servegen_halves(tmp_path: Path) -> None:
    folder = servegen(tmp_path / "clients")
    (folder / "chunk-7-dataset.json").unlink()
    with pytest.raises(InputError, match="has no chunk-7-dataset.json beside it"):
        read_trace(folder)
    for path in folder.glob("chunk-*-trace.csv"):
        path.write_text("0,0,1,Gamma,1,1\n")
    write(folder, (folder / "chunk-0-dataset.json").read_text(), "chunk-7-dataset.json")
    with pytest.raises(InputError, match="every rate is zero"):
        read_trace(folder)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="folder without chunk"):
        read_trace(tmp_path / "none")


# -- odd files -----------------------------------------------------------------------------------

ROWS = ("2023-11-16 18:17:03.9799600,10,1", "2023-11-16 18:17:04,20,2", "2023-11-16 18:17:05.5,30,3")


@pytest.mark.parametrize("text", [
    AZURE + "\n".join(ROWS), AZURE + "\n".join(ROWS) + "\n", (AZURE + "\n".join(ROWS) + "\n").replace("\n", "\r\n"),
    "\ufeff" + AZURE + "\n".join(ROWS), "\n\n" + AZURE + "\n\n".join(ROWS) + "\n\n",
    AZURE + "\n".join(reversed(ROWS)),
    AZURE + "\n".join(r.replace(",", ' , ').replace(" 18:17", "T18:17") for r in ROWS),
    AZURE + "\n".join('"' + r.replace(",", '","') + '"' for r in ROWS),
    AZURE + "\n".join(r.replace(",", "+00:00,", 1) for r in ROWS),
    AZURE + "\n".join(r.replace(",", "Z,", 1) for r in ROWS),
    AZURE + "\n".join(r.replace("18:", "20:").replace(",", "+02:00,", 1) for r in ROWS),
    AZURE + "\n".join(r.replace("18:", "16:").replace(",", "-02:00,", 1) for r in ROWS),
    "NumImages," + AZURE + "\n".join("3," + r for r in ROWS),
    "TIMESTAMP,GeneratedTokens,ContextTokens\n" + "\n".join(",".join(r.split(",")[i] for i in (0, 2, 1)) for r in ROWS),
])  # fmt: skip
def test_one_trace_written_many_ways(tmp_path: Path, text: str) -> None:
    for path in (write(tmp_path, text), tmp_path / "packed"):
        if path.name == "packed":
            path.write_bytes(gzip.compress(text.encode()))
        trace = read_trace(path)
        assert trace.arrival == pytest.approx([0, 0.02004, 1.52004], abs=1e-6)
        assert (trace.input.tolist(), trace.output.tolist()) == ([10, 20, 30], [1, 2, 3])


@pytest.mark.parametrize(("raw", "says"), [
    (b"", "is empty"), (b"\n \n", "is empty"), (AZURE.encode(), "no usable requests"),
    (AZURE.encode() + b"2023-11-16 18:17:03,10,0\n", "no usable requests"),
    (AZURE.encode() + b"2023-11-16 18:17:03,nan,5\n", "no usable requests"),
    (AZURE.encode() + b"2023-11-16 18:17:03,10,5\n2023-11-16 18:1", ":3: row is cut short"),
    (AZURE.encode() + b"2023-11-16 18:17:03,10,5\n,10,5\n", ":3: TIMESTAMP: is ''"),
    (AZURE.encode() + b"2023-11-16 18:17:03,10,5\nNaT,10,5\n", ":3: TIMESTAMP: is 'NaT'"),
    (AZURE.encode() + b"2023-11-16 18:17:03,10,5\n2023-13-16 18:17:03,10,5\n", ":3: TIMESTAMP"),
    (AZURE.encode() + b"2023-11-16 18:17:03,10,\xff\n", "trace:2: is not UTF-8"),
    (AZURE.encode() + b'2023-11-16 18:17:03,"10,5\n', "CSV|cut short"),
    ((AZURE + ROWS[0]).encode("utf-16"), "not UTF-8"),
    (gzip.compress((AZURE + ROWS[0]).encode(), mtime=0)[:-9], "cannot be read or unpacked"),
    (b"Timestamp,Request tokens,Response tokens\ninf,1,1\n", ":2: Timestamp: is 'inf'"),
    (b"PK\x03\x04\x00\x00binary", "no trace known|not UTF-8"),
    (b'{"timestamp": 0, "input_length": 5, "output_length": 5, "hash_ids": 7}', ":1: is malformed"),
    (b'{"timestamp": 0, "input_length": 5, "output_length": 5, "hash_ids": [[1]]}', ":1: is malformed"),
    (b'{"timestamp": 1e999, "input_length": 5, "output_length": 5}', ":1: is malformed"),
    (b'{"timestamp": 0, "input_length": 5, "output_length": 5}\n[1]\n', ":2: is not a JSON object"),
    (b'{"timestamp": 0, "input_length": 5}\n', "no trace known"),
    (b'{"a": ' + b"[" * 100_000, "not valid JSON|no trace known"),
    (b'{"completed": 0, "total_input_tokens": 0, "total_output_tokens": 0}', "no finished request"),
    (b'{"successes": {"count": 0, "prompt_len": null, "output_len": null}}', "no finished request|malformed"),
    (b"[]", "no trace known"), (b"[1, 2]", "no trace known"),
])  # fmt: skip
def test_broken_files_are_one_clear_line(tmp_path: Path, raw: bytes, says: str) -> None:
    path = tmp_path / "trace"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=says) as caught:
        read_trace(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("rows", [
    [ROWS[0]], [ROWS[0]] * 2, [ROWS[0]] * 200, ["2023-11-16 18:17:03,50,7", "2023-11-16 18:19:03,50,7"] * 40,
    [f"2023-11-16 18:{m:02d}:00,50,7" for m in range(60)], [*ROWS[:2]],
])  # fmt: skip
def test_odd_traces_are_described_and_become_workloads(tmp_path: Path, rows: list[str]) -> None:
    from planner.workload import load_workload
    from planner.workload.writing import workload_text

    path = write(tmp_path, AZURE + "\n".join(rows))
    trace = read_trace(path)
    d = describe_trace(trace)
    numbers = [
        x for x in (d.requests_per_second, d.arrival_cv, d.local_cv, d.peak_to_mean, d.dispersion) if x is not None
    ]
    assert np.all(np.isfinite(numbers))
    workload = load_workload("w", text=workload_text(trace, d, "llama-3.1-8b"))
    assert workload.moments.mean_input == pytest.approx(trace.input.mean(), rel=0.02)
    assert workload.moments.mean_output == pytest.approx(trace.output.mean(), rel=0.05)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Piped:
        buffer = io.BytesIO(gzip.compress((AZURE + "\n".join(ROWS)).encode()))

    monkeypatch.setattr(sys, "stdin", Piped())
    assert len(read_trace("-")) == 3


# -- arrivals ------------------------------------------------------------------------------------


def test_burstiness_within_and_beyond_a_minute() -> None:
    rng = np.random.default_rng(5)
    minutes = np.repeat(np.arange(240), rng.poisson(np.where(np.arange(240) % 60 < 30, 20, 300)))
    arrival = np.sort(minutes * 60 + 60 * rng.random(len(minutes)))
    arrival -= arrival[0]
    assert local_cv(arrival) == pytest.approx(1, abs=0.02)
    assert (gap_cv(arrival) or 0) > 1.5
    assert (dispersion(arrival) or 0) > 50
    steady = np.cumsum(np.random.default_rng(1).exponential(0.5, 40_000))
    assert dispersion(steady - steady[0]) == pytest.approx(1, rel=0.2)


def test_a_coarse_clock_is_no_burst() -> None:
    arrival = np.cumsum(np.random.default_rng(8).exponential(0.3, 20_000))
    coarse = np.floor(arrival / 3) * 3
    coarse -= coarse[0]
    assert clock_tick(coarse) == pytest.approx(3)
    assert clock_tick(arrival) is None
    assert gap_cv(coarse) == pytest.approx(3, rel=0.1)
    assert local_cv(coarse) == pytest.approx(1, abs=0.03)
    assert np.all(np.diff(spread_over_ticks(coarse)) >= 0)
    groups = np.repeat(np.cumsum(np.random.default_rng(9).exponential(3.0, 3000)), 8)
    assert clock_tick(groups) is None
    assert (local_cv(groups) or 0) > 2.5


# -- size ----------------------------------------------------------------------------------------

MEASURED = """
import resource, sys
from planner.workload.traces import read_trace
from planner.workload.description import describe_trace
from planner.workload.writing import workload_text
trace = read_trace(sys.argv[1])
found = describe_trace(trace)
text = workload_text(trace, found, "llama-3.1-8b")
print(len(trace), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, found.input.p50)
"""


def test_a_million_rows(tmp_path: Path) -> None:
    n = 1_000_000
    rng = np.random.default_rng(6)
    seconds = np.cumsum(rng.exponential(0.1, n))
    stamps = (np.datetime64("2023-11-16T00:00:00", "us") + (seconds * 1e6).astype("timedelta64[us]")).astype(str)
    inputs, outputs = rng.integers(1, 2001, n), rng.integers(1, 401, n)
    rows = (f"{t[:10]} {t[11:]}0,{i},{o}" for t, i, o in zip(stamps, inputs.tolist(), outputs.tolist(), strict=True))
    path = write(tmp_path, AZURE.strip() + "\r\n" + "\r\n".join(rows), "million.csv")
    run = subprocess.run([sys.executable, "-c", MEASURED, str(path)], capture_output=True, text=True, check=True)
    count, kilobytes, median = (float(x) for x in run.stdout.split())
    assert count == n
    assert median == pytest.approx(1000, rel=0.01)
    assert kilobytes < 1_500_000
    with path.open("a", newline="") as file:
        file.write("\r\n2023-11-16 18:17:03.9799600,many,5\r\n")
    with pytest.raises(InputError, match=rf"million\.csv:{n + 2}: ContextTokens: is 'many'"):
        read_trace(path)
