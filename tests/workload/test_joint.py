"""Lengths that hang together: moments, stratified samples, and traces as demand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import InputError
from planner.workload import Workload, load_workload
from planner.workload.joint import JointLengths
from planner.workload.traces import read_trace
from planner.workload.traffic import local_cv

FIXTURES = Path(__file__).parent / "fixtures"
HEAD = 'model = "llama-3.1-8b"\n'


def correlated(n: int = 5000, slope: float = 0.8) -> JointLengths:
    rng = np.random.default_rng(12)
    z = rng.standard_normal((2, n))
    inputs = np.exp(6.5 + z[0])
    outputs = np.exp(5 + 0.9 * (slope * z[0] + np.sqrt(1 - slope**2) * z[1]))
    return JointLengths(inputs, inputs * (rng.random(n) < 0.6) * 0.7, outputs)


def trace_file(folder: Path, lengths: JointLengths) -> Path:
    path = folder / "trace.csv"
    rows = (
        f"{k * 0.25},{round(i)},{max(1, round(o))}"
        for k, (i, o) in enumerate(zip(lengths.input, lengths.output, strict=True))
    )
    path.write_text("Timestamp,Request tokens,Response tokens\n" + "\n".join(rows))
    return path


def workload(folder: Path, text: str) -> Workload:
    path = folder / "w.toml"
    path.write_text(HEAD + text)
    return load_workload(path)


@pytest.mark.parametrize("slope", [0.8, -0.8])
def test_moments_are_the_samples(tmp_path: Path, slope: float) -> None:
    trace_file(tmp_path, correlated(slope=slope))
    w = workload(tmp_path, '[demand]\ntrace = "trace.csv"\n')
    trace = read_trace(tmp_path / "trace.csv")
    i, o = trace.input, trace.output
    m = w.moments
    assert m.kv_token_steps == pytest.approx(np.mean(i * o + o * o / 2), rel=1e-12)
    assert m.resident_context == pytest.approx(np.mean(i * o + o * o / 2) / o.mean(), rel=1e-12)
    assert m.resident_second == pytest.approx(np.mean(i * i * o + i * o * o + o**3 / 3) / o.mean(), rel=1e-12)
    apart = i.mean() * o.mean() + np.mean(o * o) / 2
    assert (m.kv_token_steps > 1.2 * apart) if slope > 0 else (m.kv_token_steps < 0.8 * apart)
    position = np.random.default_rng(1).random((20, len(i)))
    resident = i + position * o
    biased = np.broadcast_to(o, resident.shape)
    contexts = w.resident_contexts(64)
    assert contexts.mean() == pytest.approx(m.resident_context, rel=1e-9)
    order = np.argsort(resident.ravel())
    reached = np.cumsum(biased.ravel()[order]) / biased.sum()
    for q in (0.25, 0.5, 0.9):
        exact = resident.ravel()[order][np.searchsorted(reached, q)]
        assert np.quantile(contexts, q) == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("n", [256, 4096])
def test_stratified_requests_keep_margins_and_dependence(n: int) -> None:
    whole = correlated()
    part = whole.stratified(n)
    assert len(part) == n
    assert part.input.mean() == pytest.approx(whole.input.mean(), rel=1e-9)
    assert part.output.mean() == pytest.approx(whole.output.mean(), rel=1e-9)
    assert part.cached.mean() == pytest.approx(whole.cached.mean(), rel=1e-9)
    assert np.mean(part.input * part.output) == pytest.approx(np.mean(whole.input * whole.output), rel=0.04)
    assert np.all((part.cached >= 0) & (part.cached <= part.input))
    for q in (0.1, 0.5, 0.9, 0.99):
        assert np.quantile(part.input, q) == pytest.approx(np.quantile(whole.input, q), rel=0.06)
        assert np.quantile(part.output, q) == pytest.approx(np.quantile(whole.output, q), rel=0.06)
    assert whole.stratified(n).input.tolist() == part.input.tolist()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 900)), min_size=1, max_size=40), st.integers(16, 300))
def test_any_sample_can_be_stratified(rows: list[tuple[int, int]], n: int) -> None:
    i, o = (np.array(x, dtype=float) for x in zip(*rows, strict=True))
    part = JointLengths(i, np.minimum(i - 1, 100), o).stratified(n)
    assert part.output.mean() == pytest.approx(o.mean())
    assert part.cached.mean() == pytest.approx(np.minimum(i - 1, 100).mean(), abs=1e-9)


def test_independent_lengths_are_as_before() -> None:
    text = "[demand]\nrequests_per_second = 8\n[context]\nmean = 1000\ncv = 1.0\n[answer]\nmean = 250\ncv = 0.8\n"
    w = load_workload("w", text=HEAD + text)
    assert w.classes[0].joint is None
    assert w.moments.kv_token_steps == pytest.approx(301_250, rel=1e-9)
    assert w.request_sample(512).input.mean() == pytest.approx(1000)


# -- a trace as demand ---------------------------------------------------------------------------


def test_a_trace_gives_rate_peak_burstiness_and_lengths(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes((FIXTURES / "azure_2023_conv.csv").read_bytes())
    w = workload(tmp_path, '[demand]\ntrace = "c.csv"\n')
    trace = read_trace(tmp_path / "c.csv")
    assert w.demand.kind == "rate"
    assert w.demand.requests_per_second == pytest.approx(159 / trace.arrival[-1])
    assert w.demand.arrival_cv == pytest.approx(local_cv(trace.arrival))
    assert w.demand.arrivals == "gamma"
    assert w.demand.trace is not None
    assert w.moments.mean_output == pytest.approx(222.575)
    assert {key for key, _, source in w.assumptions if source == "trace"} >= {
        "demand.requests_per_second", "demand.arrival_cv",
    }  # fmt: skip


def test_what_the_file_says_counts_more_than_the_trace(tmp_path: Path) -> None:
    trace_file(tmp_path, correlated())
    both = '[demand]\ntrace = "trace.csv"\nrequests_per_second = 30\narrival_cv = 2\npeak_to_mean = 1.5\narrivals = "weibull"\n'
    w = workload(tmp_path, both)
    d = w.demand
    assert (d.requests_per_second, d.arrival_cv, d.peak_to_mean, d.arrivals) == (30, 2, 1.5, "weibull")
    assert w.classes[0].joint is not None
    given_answer = workload(tmp_path, '[demand]\ntrace = "trace.csv"\n[answer]\nmean = 100\ncv = 0.5\n')
    assert given_answer.moments.mean_output == pytest.approx(100)
    assert given_answer.moments.mean_input == pytest.approx(w.moments.mean_input, rel=1e-6)
    assert given_answer.classes[0].joint is None
    given_context = workload(tmp_path, '[demand]\ntrace = "trace.csv"\n[context]\nmean = 500\ncached_fraction = 0.5\n')
    assert given_context.moments.mean_prefill == pytest.approx(250)
    assert given_context.moments.mean_output == pytest.approx(w.moments.mean_output, rel=1e-6)
    reasoning = workload(tmp_path, '[demand]\ntrace = "trace.csv"\n[reasoning]\nmean = 900\n[answer]\nmean = 100\n')
    assert reasoning.moments.mean_output == pytest.approx(1000)


def test_cached_fraction_comes_from_hashes_or_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes((FIXTURES / "mooncake_conversation.jsonl").read_bytes())
    w = workload(tmp_path, '[demand]\ntrace = "m.jsonl"\n')
    assert w.classes[0].cached_fraction == pytest.approx(0.16499, rel=1e-4)
    assert w.moments.mean_prefill == pytest.approx((1 - 0.16499) * 3630.73, rel=1e-4)
    w = workload(tmp_path, '[demand]\ntrace = "m.jsonl"\n[context]\ncached_fraction = 0.5\n')
    assert w.moments.mean_prefill == pytest.approx(3630.73 / 2)
    assert w.classes[0].joint is not None


def test_benchmark_results_as_demand(tmp_path: Path) -> None:
    for name in ("vllm_bench.json", "inference_perf_summary.json", "vllm_bench_detailed.json"):
        (tmp_path / name).write_bytes((FIXTURES / name).read_bytes())
    closed = workload(tmp_path, '[demand]\ntrace = "vllm_bench.json"\n')
    assert (closed.demand.kind, closed.demand.concurrent_users, closed.demand.think_time) == ("users", 4, 0)
    summary = workload(tmp_path, '[demand]\ntrace = "inference_perf_summary.json"\n')
    assert summary.demand.requests_per_second == pytest.approx(9.872, rel=1e-3)
    assert summary.classes[0].joint is None
    assert summary.moments.mean_output == pytest.approx(209.92, rel=1e-3)


def test_classes_beside_a_trace_take_its_rate(tmp_path: Path) -> None:
    trace_file(tmp_path, correlated())
    w = workload(tmp_path, '[demand]\ntrace = "trace.csv"\n[[requests]]\nname = "a"\ncontext = 100\nanswer = 10\n')
    assert w.demand.requests_per_second == pytest.approx(4, rel=1e-3)
    assert w.moments.mean_input == 100


def test_a_trace_without_times_needs_a_rate(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"input_lens": [5, 6], "output_lens": [2, 3]}')
    with pytest.raises(InputError, match=r"w\.toml:2: demand\.trace: .*no arrival times; expected requests_per_second"):
        workload(tmp_path, '[demand]\ntrace = "t.json"\n')
    w = workload(tmp_path, '[demand]\ntrace = "t.json"\nrequests_per_second = 3\n')
    assert w.moments.mean_input == 5.5
    (tmp_path / "bad.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,1\n")
    with pytest.raises(InputError, match=r"bad\.csv:2: TIMESTAMP"):
        workload(tmp_path, '[demand]\ntrace = "bad.csv"\n')
