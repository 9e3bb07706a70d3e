"""MLPerf rows: steady states by hand and against the simulator, limits that hold, rows left out with a reason."""

from __future__ import annotations

import csv
import io
import math
from statistics import mean, median, pstdev

import numpy as np
import pytest

from planner.errors import InputError
from planner.hardware import Database, load_database
from planner.serving.engine_limits import EngineLimits
from planner.serving.requests import Requests
from planner.serving.simulator import run_replica
from planner.sizing.configuration import EstimateRequest
from planner.validation.comparison import Skipped
from planner.validation.mlperf import (
    BUDGET,
    Lengths,
    Steady,
    data_sets,
    layouts,
    lengths_of,
    mlperf,
    percentiles,
    sample,
    served_rate,
    steady,
)
from planner.validation.points import MeasuredPoint, read_point

HEAD = (
    "id,source_date,gpu,n_gpus,model,weight_precision,kv_precision,engine,tp,pp,ep,dp,isl,osl,concurrency_or_batch,scenario,"
    "output_tok_s_total,output_tok_s_per_gpu,tpot_ms,mean_osl_from_log,slo_ttft_ms_log,slo_tpot_ms_log\n"
)
# mlcommons/inference_results_v4.1@198fc467, inference_results_v5.1@965182b, mlperf_log_summary.txt and configs
ROWS = (
    HEAD
    + """\
o1,2025-09-09,NVIDIA H200-SXM-141GB,8,llama2-70b-99,fp8,fp8,"TensorRT 10.11, CUDA 12.9",1,1,1,8 replicas,,,offline (all queued),offline,34588.3,4323.538,,291.7,2000,200
o2,2025-09-09,AMD Instinct MI325X 256GB HBM3e,8,llama2-70b-99.9,fp8,,"vLLM 0.9.0.2.dev108, ROCm 6.4.1",,,,,,,offline (all queued),offline,34520.4,4315.05,,301,2000,200
o3,2024-08-28 (v4.1),NVIDIA H100-SXM-80GB,8,llama2-70b-99,fp8 (corrected),,"TensorRT 10.2.0, CUDA 12.4",2,,,,,,max batch 896 per replica (config gpu_batch_size),offline,24525,3065.613,,290.3,2000,200
o4,2025-09-09,NVIDIA H200-SXM-141GB,8,llama3.1-8b,fp8,fp8,"TensorRT 10.8, CUDA 12.8",1,1,1,8 replicas,,,offline (all queued),offline,56917,7114.663,,128,2000,100
s1,2025-09-09,NVIDIA H200-SXM-141GB,8,llama2-70b-99,fp8,fp8,"TensorRT 10.11, CUDA 12.9",1,1,1,8 replicas,,,poisson at target_qps,server,33244,4155.53,169,292.3,2000,200
s2,2025-09-09,NVIDIA H200-SXM-141GB,8,llama2-70b-99,fp8,fp8,"TensorRT 10.11, CUDA 12.9",1,1,1,8 replicas,,,poisson at target_qps,interactive,21915,2739.45,37,292.3,450,40
s3,2024-08-28 (v4.1),NVIDIA H200-SXM-141GB,8,gptj-99,fp8 (corrected),,"TensorRT 10.2.0, CUDA 12.4",,,,,,,poisson at target_qps,server,19243,2405.41,,69,,
"""
)
WRONG = (
    HEAD
    + """\
w1,2025,NVIDIA H200-SXM-141GB,8,mixtral-8x7b,fp8,,TensorRT 10.8,1,1,1,,,,offline,offline,60000,7500,,145,2000,200
w2,2025,NVIDIA H200-SXM-141GB,8,llama2-70b-99,UNSET,,vLLM v0.9.2,,,,,,,offline,offline,30000,3800,,292,2000,200
w3,2025,NVIDIA H200-SXM-141GB,8,llama2-70b-99,fp8,,vLLM,,,,,,,offline,offline,30000,3800,,,2000,200
w4,2025,CPU: INTEL(R) XEON(R) 6787P,,llama3.1-8b,INT8,,PyTorch,,,,,,,offline,offline,300,300,,128,2000,100
w5,2025,NVIDIA H200-SXM-141GB,8,llama2-70b-99,fp8,,TensorRT 10.8,,,,,,,offline,offline,,,,292,2000,200
w6,2025,NVIDIA H200-SXM-141GB,8,llama2-70b-99,fp8,,TensorRT 10.8,,,,,,,poisson,server,30000,3800,170,292,,
w7,2025,NVIDIA L4,1,llama2-70b-99,fp8,,TensorRT 10.8,,,,,,,offline,offline,30,30,,292,2000,200
w8,2025,NVIDIA H200-SXM-141GB,8,llama2-70b-99,fp16 (doubtful),,TensorRT 10.8,,,,,,,offline,offline,30000,3800,,292,2000,200
w9,2025,NVIDIA H200-SXM-141GB,1,llama3.1-8b,fp8,,TensorRT 10.8,,,,,,,1,singlestream,,200,5,128,100,100
"""
)


@pytest.fixture(scope="module")
def database() -> Database:
    return load_database().uncalibrated()


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def h200(database: Database, lengths: Lengths | None = None, slots: int = 2048) -> Steady:
    request = EstimateRequest("llama-2-70b", "h200-sxm", weights="fp8", kv="fp8", engine="trtllm")
    return steady(request, lengths or Lengths(222.0, 0.85, 290.0, 0.75, 1024.0), slots, database)


def test_rows_are_predicted(database: Database) -> None:
    compared, skipped = mlperf(rows(ROWS), "t.csv", database)
    assert not skipped and [c.id for c in compared] == ["o1", "o2", "o3", "o4", "s1", "s2", "s3"]
    assert [c.kind for c in compared] == ["offline"] * 4 + ["server", "interactive", "server"]
    assert median(c.error for c in compared) < 0.2
    assert all(0.5 < c.ratio < 2 for c in compared)


def test_a_layout_nobody_recorded_is_said(database: Database) -> None:
    compared, _ = mlperf(rows(ROWS), "t.csv", database)
    said = {c.id: c.extrapolates for c in compared}
    assert said["o1"] == "" and "parallelism not recorded" in said["o2"]
    loads = {c.id: c.load for c in compared}
    assert (loads["o1"], loads["s2"], loads["s3"]) == ("queued", "poisson, p99 within 450/40 ms", "poisson, 20 s")


def test_tighter_limits_serve_less_and_none_more_than_offline(database: Database) -> None:
    compared, _ = mlperf(rows(ROWS), "t.csv", database)
    rate = {c.id: c.predicted for c in compared}
    assert rate["s2"] < rate["s1"] < rate["o1"] * 1.01


def test_every_row_that_is_left_out_says_why(database: Database) -> None:
    compared, skipped = mlperf([*rows(WRONG), {}], "t.csv", database)
    assert compared == []
    said = {s.id: s.reason for s in skipped}
    for name, word in {
        "w1": "prompt length of mixtral-8x7b", "w2": "weight format", "w3": "output length", "w4": "CPU",
        "w5": "no measured", "w6": "latency limits", "w7": "fit", "w8": "weight format", "w9": "throughput",
        "?": "output length",
    }.items():  # fmt: skip
        assert word in said[name], said[name]


def test_every_length_has_a_source_and_a_date(database: Database) -> None:
    import tomli

    text = (database.root / "benchmarks.toml").read_text(encoding="utf-8")
    tables = [t for t in tomli.loads(text).values() if isinstance(t, dict)]
    entries = [e for t in tables for e in t.values() if isinstance(e, dict)]
    assert len(entries) > 12
    for entry in entries:
        assert (
            entry["source"] and entry["date"] and entry["unit"] and entry["kind"] in ("published", "derived", "assumed")
        )
    # 5 463 976 prompt tokens of 24 576 samples
    assert data_sets(database)["llama2-70b"]["input_mean"] == pytest.approx(5463976 / 24576, rel=1e-4)


def test_lengths_of_a_set_nobody_knows(database: Database) -> None:
    assert lengths_of("gpt-oss-120b", 100.0, database) is None
    known = lengths_of("llama3.1-8b", 128.0, database)
    assert known is not None and known.output_cv == 0 and known.output == 128
    beams = lengths_of("gptj", 69.0, database)
    assert beams is not None and (beams.beams, beams.latency) == (4, 20.0)


def test_residents_are_the_longer_ones() -> None:
    rng = np.random.default_rng(1)
    lengths = Lengths(200.0, 0.8, 300.0, 0.7, 1e9)
    outputs = np.array(sample(300.0, 0.7, 1e9, 200_000, rng), dtype=float)
    # a resident is met in proportion to its length, anywhere along it
    context = 200 + float((outputs * outputs / 2).sum() / outputs.sum())
    assert lengths.resident() == pytest.approx(context, rel=0.02)


def test_samples_keep_mean_spread_and_bound() -> None:
    drawn = sample(292.0, 0.75, 1024.0, 20_000, np.random.default_rng(0))
    assert mean(drawn) == pytest.approx(292, rel=0.01) and min(drawn) >= 1 and max(drawn) < 1.1 * 1024
    assert 0.6 < pstdev(drawn) / mean(drawn) < 0.75
    assert sample(128.0, 0.0, 129.0, 3, np.random.default_rng(0)) == [128, 128, 128]


def test_the_steady_state_equals_a_queue_that_never_empties(database: Database) -> None:
    state = h200(database, slots=256)
    lengths, rng, count = state.lengths, np.random.default_rng(3), 2500
    inputs = sample(lengths.input, lengths.input_cv, 4 * lengths.input, count, rng)
    outputs = sample(lengths.output, lengths.output_cv, lengths.most, count, rng)
    limits = EngineLimits(BUDGET, 256, int(state.tokens), 32, max_chunk_tokens=BUDGET)
    run = run_replica(Requests([0.0] * count, inputs, outputs, [0] * count), state.step, limits)
    ends = np.array([r.completion_s for r in run.records])
    early, late = (float(np.quantile(ends, q)) for q in (0.25, 0.75))
    made = sum(r.output_tokens for r in run.records if early < r.completion_s <= late)
    assert state.rate(256) == pytest.approx(made / (late - early), rel=0.04)


def test_more_sequences_make_more_tokens_and_slower_ones(database: Database) -> None:
    state = h200(database)
    rates = [state.rate(n) for n in (1, 10, 100, 500, state.most)]
    assert rates == sorted(rates)
    steps = [state.seconds(n) for n in (1, 10, 100, 500, state.most)]
    assert steps == sorted(steps)


def test_beams_cost_and_one_of_them_counts(database: Database) -> None:
    request = EstimateRequest("gpt-j-6b", "h100-sxm", weights="fp8", kv="fp8", engine="trtllm")
    one = steady(request, Lengths(781.0, 0.5, 69.0, 0.3, 128.0), 2048, database)
    four = steady(request, Lengths(781.0, 0.5, 69.0, 0.3, 128.0, beams=4), 2048, database)
    assert four.rate(four.most) < one.rate(one.most)
    assert four.most < one.most


@pytest.mark.parametrize(("first", "token"), [(2.0, 0.2), (0.45, 0.04)])
def test_the_served_rate_keeps_its_limits(first: float, token: float, database: Database) -> None:
    state = h200(database)
    rate = served_rate(state, first, token)
    low, high = 0.5, float(state.most)
    for _ in range(40):  # the sequences of that rate
        middle = (low + high) / 2
        low, high = (middle, high) if state.rate(middle) <= rate else (low, middle)
    draws = [percentiles(state, low, seed) for seed in range(5, 9)]  # a 99th percentile differs by a tenth of itself
    seen_first, seen_token = (sum(d[k] for d in draws) / len(draws) for k in (0, 1))
    assert seen_first < first * 1.1 and seen_token < token * 1.12
    assert served_rate(state, first, token / 2) < rate


def test_a_model_that_does_not_fit_is_an_error(database: Database) -> None:
    request = EstimateRequest("llama-2-70b", "h100-sxm", weights="bf16", kv="bf16", engine="trtllm")
    with pytest.raises(InputError, match="does not fit"):
        steady(request, Lengths(222.0, 0.8, 290.0, 0.8, 1024.0), 2048, database)


def labelled(database: Database, **labels: str) -> MeasuredPoint:
    row = {**rows(ROWS)[1], "isl": "222", "osl": "292", "model": "llama2-70b", **labels}
    read = read_point(row, "t.csv", database)
    assert not isinstance(read, Skipped)
    return read


def test_layouts_are_those_recorded_or_all_that_divide(database: Database) -> None:
    recorded = layouts(labelled(database, tp="8", pp="1", ep="8"), 64, True)
    assert [(w.tensor, w.data, w.expert, p) for w, p in recorded] == [(8, 1, 8, 1), (1, 8, 8, 1)]
    free = layouts(labelled(database, n_gpus="4"), 64, False)
    assert {(w.tensor, p) for w, p in free} == {(1, 1), (1, 2), (2, 1), (2, 2), (4, 1)}
    earlier = layouts(labelled(database, n_gpus="4", source_date="2024-08-28"), 64, False)
    assert {p for _, p in earlier} == {1}
    assert {w.tensor for w, _ in layouts(labelled(database, n_gpus="3"), 64, False)} == {1}
    assert (1, 8, 8) in {(w.tensor, w.data, w.expert) for w, _ in layouts(labelled(database, n_gpus="8"), 128, True)}


def test_infinite_limits_are_those_of_the_cache(database: Database) -> None:
    state = h200(database)
    assert served_rate(state, math.inf, math.inf) == pytest.approx(state.rate(state.most), rel=0.05)


def test_a_card_of_two_is_two_accelerators(database: Database) -> None:
    row = {
        **rows(ROWS)[3],
        "gpu": "[MAXSUM] MS-Intel Arc Pro B60 Dual 48G Turbo",
        "weight_precision": "UINT4",
        "tp": "",
    }
    row |= {"n_gpus": "4", "engine": "vLLM 0.9.0", "output_tok_s_per_gpu": "1618.092"}
    compared, _ = mlperf([row], "t.csv", database)
    assert compared[0].accelerator == "arc-pro-b60" and compared[0].measured == pytest.approx(809.046)
