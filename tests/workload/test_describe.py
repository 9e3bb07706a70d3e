"""From a trace to a workload file, and from that file to a plan."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from planner.cli.app import app
from planner.workload import load_workload
from planner.workload.description import describe_trace, fit
from planner.workload.traces import read_trace

FIXTURES = Path(__file__).parent / "fixtures"
TRACES = ("azure_2023_code.csv", "azure_2023_conv.csv", "mooncake_conversation.jsonl")
OTHERS = (
    "vllm_bench_detailed.json", "vllm_bench.json", "guidellm.json", "guidellm.csv", "aiperf_profile_export.jsonl",
    "aiperf_profile_export.json", "aiperf_profile_export.csv", "inference_perf_summary.json",
)  # fmt: skip


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("reference", [False, True], ids=["histograms", "reference"])
@pytest.mark.parametrize("name", [*TRACES, *OTHERS])
def test_described_traces_can_be_planned_for(tmp_path: Path, name: str, reference: bool) -> None:
    trace, file = FIXTURES / name, tmp_path / "w.toml"
    text = run("describe", str(trace), "-w", str(file), *(["--reference"] if reference else []))
    assert "Input tokens from" in text
    assert "p99" in text
    plan = json.loads(run("recommend", str(file), "--format", "json"))["plan"]
    assert plan["gpus"] >= 1
    read = read_trace(trace)
    moments = load_workload(file).moments
    assert moments.mean_input == pytest.approx(read.input.mean(), rel=0.01)
    assert moments.mean_output == pytest.approx(read.output.mean(), rel=0.02)
    cached = 0 if read.cached is None else read.cached.mean()
    assert moments.mean_prefill == pytest.approx(read.input.mean() - cached, rel=0.01)


def test_figures_of_the_azure_code_excerpt() -> None:
    record = json.loads(run("describe", str(FIXTURES / "azure_2023_code.csv"), "--format", "json"))
    assert record["requests"] == 160
    assert (record["input"]["p50"], record["output"]["p50"]) == (1724, 13)
    assert record["arrival_cv"] == pytest.approx(9.305, rel=1e-3)
    assert record["prefix_reuse"] is None
    assert {f["name"] for f in record["input"]["fits"]} == {"lognormal", "gamma"}
    assert all(0 < f["distance"] < 1 for f in record["input"]["fits"])


def test_figures_of_the_mooncake_excerpt() -> None:
    text = run("describe", str(FIXTURES / "mooncake_conversation.jsonl"))
    assert "16.5% of input tokens (15.5% of blocks)" in text
    assert "stamped every 3 s" in text


def mooncake(folder: Path) -> Path:
    """A thousand requests: short prompts with long answers, long ones with short answers, half of both cached."""
    rng = np.random.default_rng(4)
    rows = []
    for k in range(1000):
        long = k % 2 == 1
        tokens = int(rng.integers(8000, 12_000) if long else rng.integers(600, 1500))
        output = int(rng.integers(20, 60) if long else rng.integers(300, 900))
        first = 0 if k % 4 > 1 else 10_000 + 100 * k
        rows.append({
            "timestamp": int(k * 500), "input_length": tokens, "output_length": output,
            "hash_ids": [first + b for b in range(-(-tokens // 512))],
        })  # fmt: skip
    path = folder / "m.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in rows))
    return path


def test_correlation_and_reuse_survive_in_the_file(tmp_path: Path) -> None:
    path, file = mooncake(tmp_path), tmp_path / "w.toml"
    run("describe", str(path), "-w", str(file))
    trace, w = read_trace(path), load_workload(file)
    assert len(w.classes) > 4
    assert any("mostly cached" in c.name for c in w.classes)
    assert sum(c.share for c in w.classes) == pytest.approx(1)
    i, o = trace.input, trace.output
    together, apart = np.mean(i * o + o * o / 2), i.mean() * o.mean() + np.mean(o * o) / 2
    assert apart > 1.5 * together
    assert w.moments.kv_token_steps == pytest.approx(together, rel=0.02)
    sample = w.request_sample(4096)
    new = sample.input - sample.cached
    assert trace.cached is not None
    exact = np.mean((i - trace.cached) ** 2)
    assert np.average(new**2, weights=sample.weights) == pytest.approx(exact, rel=0.1)


def test_log_types_become_classes(tmp_path: Path) -> None:
    rows = [
        f"{k / 2},GPT-4,{100 + k % 50 if k % 4 else 9000 + k % 90},{k % 7 + 1},0,"
        + ("Conversation log" if k % 4 else "API log")
        for k in range(400)
    ]
    path, file = tmp_path / "b.csv", tmp_path / "w.toml"
    path.write_text("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n" + "\n".join(rows))
    run("describe", str(path), "-w", str(file))
    names = {c.name.split(",")[0]: c.context.mean for c in load_workload(file).classes}
    assert set(names) == {"API log", "Conversation log"}
    assert names["API log"] > 9000


def test_a_served_clients_folder(tmp_path: Path) -> None:
    folder, file = tmp_path / "clients", tmp_path / "w.toml"
    folder.mkdir()
    (folder / "chunk-1-trace.csv").write_text("0,2.0,1.5,Gamma,0.4,1.1\n600,4.0,1.5,Gamma,0.4,0.6\n")
    (folder / "chunk-1-dataset.json").write_text(
        '{"0": {"input_tokens": "{500: 0.5, 900: 0.5}", "output_tokens": "{40: 0.5, 80: 0.5}"}}'
    )
    text = run("describe", str(folder), "-w", str(file))
    assert "servegen" in text
    w = load_workload(file)
    assert w.demand.requests_per_second == pytest.approx(3)
    assert w.demand.peak_to_mean == pytest.approx(4 / 3, rel=1e-3)
    assert w.demand.arrival_cv == pytest.approx(1.5, rel=0.1)
    run("describe", str(folder), "-w", str(file), "--reference", "--force")
    assert load_workload(file).demand.requests_per_second == pytest.approx(3)
    run("recommend", str(file))


def test_the_reference_is_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "traces").mkdir()
    (tmp_path / "plans").mkdir()
    path = tmp_path / "traces" / 'odd "name".csv'
    path.write_bytes((FIXTURES / "azure_2023_conv.csv").read_bytes())
    file = tmp_path / "plans" / "w.toml"
    run("describe", str(path), "-w", str(file), "--reference")
    assert r"../traces/odd \"name\".csv" in file.read_text()
    assert load_workload(file).moments.mean_output == pytest.approx(222.575)


def test_wrong_use() -> None:
    result = CliRunner().invoke(app, ["describe", str(FIXTURES / TRACES[0]), "--reference"])
    assert result.exit_code != 0


def test_a_fit_says_how_far_it_is() -> None:
    rng = np.random.default_rng(2)
    good = fit(rng.lognormal(6, 1, 20_000))[0]
    assert (good.name, good.distance < 0.02, abs(good.p99_error) < 0.06) == ("lognormal", True, True)
    narrow = fit(rng.normal(1000, 5, 20_000))
    assert all(f.distance < 0.05 for f in narrow)
    assert all(f.distance > 0.3 for f in fit(np.repeat([10.0, 9000.0], 500)))


def test_description_of_a_closed_loop() -> None:
    d = describe_trace(read_trace(FIXTURES / "guidellm.csv"))
    assert d.concurrency == 2
    assert d.arrival_cv is None
