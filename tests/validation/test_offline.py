"""Benchmarks with everything queued: TensorRT-LLM's tables and static batches, predicted as they were run."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from statistics import median

import pytest

from planner.hardware import Database, load_database
from planner.validation import offline as module
from planner.validation.comparison import Comparison, Skipped
from planner.validation.offline import (
    REQUESTS,
    Batching,
    as_run,
    batching,
    estimated_sequences,
    offline,
    prompt_seconds,
    request_for,
    setup_of,
    simulated_rate,
    step_of,
    tuned_limits,
    waves_seconds,
)
from planner.validation.points import MeasuredPoint, read_point

HEAD = (
    "id,source,gpu,n_gpus,model,weight_precision,kv_precision,engine,tp,pp,ep,dp,isl,osl,concurrency_or_batch,scenario,"
    "output_tok_s_total,output_tok_s_per_gpu,total_tok_s,ttft_ms,notes\n"
)
# NVIDIA/TensorRT-LLM@258c7540 docs/source/performance/perf-overview.md (v0.17), @03e27c7d (v1.2),
# WhiteD2125/TensorRT-LLM@6ad7cf1b (v0.9.0)
QUEUED = (
    HEAD
    + """\
q1,docs,H200-SXM-141GB,1,Llama-3.1-70B,fp8,fp8,TensorRT-LLM 0.17,1,1,1,,1000,1000,max,offline-max-throughput,2823.45,2823.45,,,
q2,docs,H200-SXM-141GB,2,Llama-3.1-70B,fp8,fp8,TensorRT-LLM 0.17,2,1,1,,2048,128,max,offline-max-throughput,809,404.5,,,
q3,docs,H100-SXM-80GB,2,Llama-3.1-70B,fp8,fp8,TensorRT-LLM 0.17,2,1,1,,128,2048,max,offline-max-throughput,6169.58,3084.79,,,
q4,docs,A100-SXM4-80GB,1,Llama-3.1-8B,fp16,fp16,TensorRT-LLM 0.17,1,1,1,,1000,1000,max,offline-max-throughput,,3276,,,
q5,docs,B200-SXM-180GB,1,Llama-3.3-70B,nvfp4,auto (checkpoint scheme),TensorRT-LLM 1.2,1,1,1,1,1024,1024,max,offline-max-throughput,6841,6841,,,
"""
)
STATIC = (
    HEAD
    + """\
s1,docs,H200-SXM-141GB,1,Llama-2-70B,fp8,fp8,TensorRT-LLM 0.9.0,1,1,1,,128,2048,96,static-batch,2026,2026,,,
s2,docs,A100-SXM4-80GB,1,Llama-2-7B,fp16,fp16,TensorRT-LLM 0.9.0,1,1,1,,128,128,64,static-batch,3405,3405,,,
s3,docs,H100-SXM-80GB,1,GPT-J-6B,fp8,fp8,TensorRT-LLM 0.9.0,1,1,1,,128,1,1,batch1-first-token-latency,,,,7.0,
"""
)
# lm-sys/lm-sys.github.io blog/2025-05-05-large-scale-ep.md@2db4e404
ONE_PHASE = (
    HEAD
    + """\
p1,blog,H100-SXM-80GB,32,DeepSeek-V3,FP8,BF16,SGLang,,1,32,32,2048,prefill,"16,384 tokens per device",prefill-only,,,218172,,
p2,blog,H100-SXM-80GB,72,DeepSeek-V3/R1,FP8,BF16,SGLang,,1,72,72,2000,decode,256 per GPU,decode-only,200538,2785.25,,,
p3,blog,H100-SXM-80GB,72,DeepSeek-V3,FP8,BF16,SGLang,,1,72,72,4000,decode,128 per GPU,decode-only,156357,2171,,,SIMULATED MTP
"""
)
WRONG = (
    HEAD
    + """\
w1,-,H200-SXM-141GB,1,Llama-9-70B,fp8,fp8,TensorRT-LLM 1.0,1,1,1,,128,128,max,offline-max-throughput,1,1,,,
w2,-,Quantum 9,1,Llama-3.1-8B,fp8,fp8,TensorRT-LLM 1.0,1,1,1,,128,128,max,offline-max-throughput,1,1,,,
w3,-,L40S,1,Llama-3.1-70B,fp16,fp16,TensorRT-LLM 1.0,1,1,1,,128,128,max,offline-max-throughput,1,1,,,
w4,-,H200-SXM-141GB,1,Llama-3.1-8B,fp8,fp8,TensorRT-LLM 1.0,1,1,1,,,128,max,offline-max-throughput,1,1,,,
w5,-,H200-SXM-141GB,1,Llama-3.1-8B,fp8,fp8,TensorRT-LLM 1.0,1,1,1,,128,128,max,offline-max-throughput,,,,,
w6,-,H200-SXM-141GB,8,DeepSeek-R1,fp8,fp8,TensorRT-LLM 1.0,8,1,1,,1024,2048,1,min-latency,,19,,,MTP3
w7,-,H200-SXM-141GB,8,Llama-2-70B,fp8,fp8,TensorRT-LLM 0.7,,1,,,128,128,960,static-batch,,3803,,,TP inside the 8 not printed
w8,-,H200-SXM-141GB,1,Llama-2-70B,fp8,fp8,TensorRT-LLM 0.7 without XQA,1,1,,,128,2048,,max-throughput,,1227,,,
w9,-,H200-SXM-141GB,1,Llama-3.1-8B,fp8,fp8,vllm,1,1,,,128,128,poisson,server,,10,,,
w10,-,H100-SXM-80GB,32,DeepSeek-V3,FP8,BF16,SGLang,,1,32,32,n/a,prefill,"16,384 tokens per device",prefill-only,,,218172,,
w11,-,H100-SXM-80GB,,DeepSeek-V3,FP8,BF16,SGLang,,1,32,32,2048,prefill,many,prefill-only,,,218172,,
w12,-,H200-SXM-141GB,1,Llama-3.1-8B,fp8,fp8,TensorRT-LLM 1.0,7,1,1,,128,128,max,offline-max-throughput,,1,,,
"""
)


@pytest.fixture(scope="module")
def database() -> Database:
    return load_database().uncalibrated()


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def point(text: str, name: str, database: Database) -> MeasuredPoint:
    read = read_point(next(r for r in rows(text) if r["id"] == name), "t.csv", database)
    assert not isinstance(read, Skipped)
    return read


def test_queued_tables_are_predicted(database: Database) -> None:
    compared, skipped = offline(rows(QUEUED), "t.csv", database)
    assert not skipped and [c.id for c in compared] == ["q1", "q2", "q3", "q4", "q5"]
    assert median(c.error for c in compared) < 0.12
    assert all(0.7 < c.ratio < 1.4 for c in compared)


def test_a_comparison_says_what_it_is_of(database: Database) -> None:
    compared, _ = offline(rows(QUEUED), "t.csv", database)
    first, last = compared[0], compared[-1]
    assert (first.kind, first.metric, first.unit, first.load) == ("offline", "throughput", "tokens/s", "queued")
    assert first.extrapolates == "" and last.extrapolates == ""  # the database has its generation
    assert first.configuration == "t.csv h200-sxm llama-3.1-70b fp8 0.17 1000/1000"


def test_rows_that_differ_in_parallelism_alone_share_a_configuration(database: Database) -> None:
    one = rows(QUEUED)[0]
    two = {**one, "id": "other", "tp": "4", "n_gpus": "4", "output_tok_s_per_gpu": "2227.8", "output_tok_s_total": ""}
    compared, _ = offline([one, two], "t.csv", database)
    assert compared[0].configuration == compared[1].configuration != ""


def test_static_batches_and_first_tokens(database: Database) -> None:
    compared, skipped = offline(rows(STATIC), "t.csv", database)
    assert not skipped
    metrics = {c.id: (c.metric, c.kind, c.load) for c in compared}
    assert metrics["s1"] == ("throughput", "static batch", "batch 96")
    assert metrics["s3"] == ("ttft", "static batch", "batch 1")
    assert all(0.5 < c.ratio < 2 for c in compared)  # engines of early 2024 are slower than their kernels


def test_prefill_and_decode_alone(database: Database) -> None:
    compared, skipped = offline(rows(ONE_PHASE), "t.csv", database)
    kinds = {c.id: (c.kind, round(c.measured), c.extrapolates) for c in compared}
    over = "experts spread over several nodes"
    assert kinds == {"p1": ("prefill", 6818, over), "p2": ("decode", 2785, over)}
    assert all(c.predicted > 500 for c in compared)
    assert [(s.id, "simulated speculation" in s.reason) for s in skipped] == [("p3", True)]


def test_every_row_that_is_left_out_says_why(database: Database) -> None:
    compared, skipped = offline(rows(WRONG), "t.csv", database)
    assert compared == []
    said = {s.id: s.reason for s in skipped}
    assert set(said) == {f"w{i}" for i in range(1, 13)}
    for name, word in {
        "w1": "Llama-9-70B", "w2": "Quantum 9", "w3": "does not fit", "w4": "length", "w5": "no measured",
        "w6": "speculative", "w7": "not printed", "w8": "attention kernel", "w9": "server", "w10": "n/a",
        "w11": "not recorded", "w12": "does not divide",
    }.items():  # fmt: skip
        assert word in said[name], said[name]


def test_an_empty_row_is_left_out(database: Database) -> None:
    compared, skipped = offline([{}], "t.csv", database)
    assert compared == [] and len(skipped) == 1


@pytest.mark.parametrize(
    ("sequences", "inputs", "outputs", "stages", "expected"),
    [
        (100, 128, 2048, 1, (128, 2048)),  # 32s below 256 sequences
        (10, 128, 128, 1, (64, 2048)),  # never fewer than 64, nor tokens than 2048
        (1500, 1000, 1000, 1, (1536, 3072)),  # 256s above 1024
        (9000, 128, 128, 1, (4096, 8192)),
        (9000, 128, 128, 2, (2048, 4096)),  # each stage runs a part
        (3000, 5000, 500, 1, (3072, 32768)),
    ],
)
def test_limits_are_tuned_as_trtllm_bench_does(
    sequences: float, inputs: float, outputs: float, stages: int, expected: tuple[int, int]
) -> None:
    assert tuned_limits(sequences, inputs, outputs, stages) == expected


def test_the_estimate_of_sequences_is_by_hand(database: Database) -> None:
    p = point(QUEUED, "q1", database)
    setup = setup_of(request_for(p, p.workers), database)
    token = 2 * 80 * 8 * 128  # fp8
    room = setup.chip.memory_bytes - setup.model.total_parameters
    guessed = estimated_sequences(setup, 1000, 1000)
    assert guessed == pytest.approx(0.95 * room / (token * 2000))
    latent = replace(p, model="deepseek-r1")
    assert estimated_sequences(setup_of(request_for(latent, p.workers), database), 1000, 1000) is None


def test_the_whole_output_is_reserved(database: Database) -> None:
    p = point(QUEUED, "q1", database)
    setup = setup_of(request_for(p, p.workers), database)
    bounds = batching(p, setup)
    held = bounds.sequences * 2000 * 2 * 80 * 8 * 128
    free = setup.chip.memory_bytes - 70.5e9
    assert 0.8 * free < held < 0.96 * free
    assert bounds.requests == REQUESTS[1000, 1000]


@pytest.mark.parametrize("name", ["q1", "q2", "q3", "q5"])
def test_waves_equal_the_simulator(name: str, database: Database) -> None:
    p = as_run(point(QUEUED, name, database), database)
    setup = setup_of(request_for(p, p.workers), database)
    bounds = batching(p, setup)
    bounds = Batching(bounds.sequences, bounds.budget, min(bounds.requests, 2 * bounds.sequences))
    inputs, outputs = round(p.input_tokens), round(p.output_tokens)
    step = step_of(setup, bounds.sequences, bounds.budget, inputs + outputs)
    closed = bounds.requests * outputs / waves_seconds(step, bounds, inputs, outputs)
    assert closed == pytest.approx(simulated_rate(step, bounds, inputs, outputs), rel=0.03)


def test_a_last_wave_that_is_not_full_costs(database: Database) -> None:
    p = point(QUEUED, "q1", database)
    step = step_of(setup_of(request_for(p, p.workers), database), 200, 2048, 2000)
    full = waves_seconds(step, Batching(200, 2048, 400), 1000, 1000)
    more = waves_seconds(step, Batching(200, 2048, 401), 1000, 1000)
    assert full < more < 1.5 * full


def test_a_prompt_longer_than_a_step_is_cut(database: Database) -> None:
    p = point(QUEUED, "q1", database)
    step = step_of(setup_of(request_for(p, p.workers), database), 8, 2048, 20000)
    whole = prompt_seconds(step, 8, 20000, 2048)
    assert whole > 9 * prompt_seconds(step, 8, 2000, 2048) > 0


def test_commands_say_more_than_columns(database: Database) -> None:
    row = {**rows(QUEUED)[0], "model": "Qwen3-235B-A22B", "gpu": "B200-SXM-180GB", "n_gpus": "8", "tp": "8"}
    row |= {"weight_precision": "nvfp4", "notes": "MoE: command passes --ep and enable_attention_dp"}
    read = read_point(row, "t.csv", database)
    assert isinstance(read, MeasuredPoint)
    assert (as_run(read, database).workers.tensor, as_run(read, database).workers.data) == (1, 8)
    checkpoint = replace(read, labels={"kv_precision": "auto (checkpoint scheme)"})
    assert as_run(checkpoint, database).kv == "fp8"
    hopper = replace(read, accelerator="h200-sxm", labels={"kv_precision": "fp8 on Blackwell, auto on Hopper"})
    assert (
        as_run(hopper, database).kv == "native"
        and as_run(replace(hopper, accelerator="b200-sxm"), database).kv == "fp8"
    )


def test_long_prompts_with_attention_ranks_are_simulated(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []

    def noted(*arguments: object) -> float:
        called.append(1)
        return 1.0

    monkeypatch.setattr(module, "simulated_rate", noted)
    row = {
        **rows(QUEUED)[4],
        "model": "Qwen3-235B-A22B",
        "n_gpus": "4",
        "tp": "1",
        "dp": "4",
        "ep": "4",
        "isl": "32768",
    }
    compared, _ = offline([row], "t.csv", database)
    assert called == [1] and isinstance(compared[0], Comparison)
