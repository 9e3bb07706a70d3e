"""Disaggregated benchmarks: excerpts of the tables predicted as they were run, and what a closed loop always keeps."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from planner.errors import InputError
from planner.hardware import Database, database_root, load_database
from planner.validation.comparison import Skipped
from planner.validation.disaggregation import (
    compare_disaggregated,
    decode_slots,
    pool_constants,
    predict_disaggregated,
)
from planner.validation.points import MeasuredPoint, Workers, read_point
from planner.validation.two_pools import DecodeWorkers, PooledRun, PrefillWorkers, run_pools

# Rows of SemiAnalysisAI's InferenceX dashboard test data, DeepSeek-R1-0528, without the columns nothing here reads.
COLUMNS = (
    "id,source_date,gpu,n_gpus,weight_precision,engine,tp,ep,dp_attention,isl,osl,concurrency_or_batch,speculation,"
    "prefill_tp,prefill_ep,prefill_workers,prefill_gpus,decode_tp,decode_ep,decode_workers,decode_gpus,"
    "ttft_ms,ttft_p50_ms,ttft_p99_ms,tpot_ms,tpot_p50_ms,tpot_p99_ms"
)
RECORDED = """\
slots,2026-02-07,GB300-NVL72,36,fp8,dynamo-trt,8,8,False,1024,8192,36,none,4,4,1,4,8,8,4,32,10433.1226,4416.2691,74521.7517,11.2632,11.2911,11.373
node,2026-02-07,B200-SXM-180GB,16,fp8,dynamo-sglang,8,8,False,8192,1024,4,none,8,8,1,8,8,8,1,8,564.388,441.025,1423.2414,10.2145,10.2572,10.2919
wide,2026-02-09,GB300-NVL72,72,fp8,dynamo-sglang,32,32,True,8192,1024,1024,none,8,8,5,40,32,32,1,32,3832.7567,3125.6308,16247.2212,18.4709,18.5145,18.943
three,2026-02-05,GB200-NVL72,32,fp8,dynamo-trt,8,8,False,8192,1024,18,none,8,8,1,8,8,8,3,24,4672.6702,4140.9223,11237.1966,9.8201,9.7866,10.057
nine,2026-03-23,H200-SXM-141GB,80,fp8,dynamo-trt,8,8,False,1024,1024,576,none,8,8,1,8,8,8,9,72,1658.5355,389.9675,15672.6671,31.0384,31.2118,32.8148
early,2025-12-09,GB200-NVL72,20,fp8,dynamo-sglang,1,1,True,1024,1024,2,none,1,1,1,4,1,1,4,16,,196.1127,299.1283,,9.9239,10.1521
wide-early,2025-12-19,GB200-NVL72,72,fp8,dynamo-sglang,1,1,True,8192,1024,6144,none,1,1,5,40,1,1,1,32,,77774.72,112495.3,,25.6947,26.2333
mtp,2026-02-07,GB300-NVL72,36,fp8,dynamo-trt,8,8,False,8192,1024,24,mtp,4,4,1,4,8,8,4,32,2735.107,2624.159,6450.8171,5.5413,5.831,6.7851
whole,2025-12-01,GB200-NVL72,144,fp8,dynamo-sglang,72,1,False,1024,1024,8192,none,72,1,0,72,72,1,0,72,11042.5594,7279.8882,43282.5493,39.4675,40.4462,45.6845
"""
# Rows of the same project's page tests, with pools in a sentence, and one nobody can read pools from.
DESCRIBED = """\
id,gpu,n_gpus,weight_precision,engine,tp,ep,isl,osl,concurrency_or_batch,scenario,ttft_ms,tpot_ms,notes
named,GB300,22,FP4,Dynamo + TensorRT-LLM 0.8.1,see notes,see notes,8192,1024,15,disaggregated,544.935,7.6833,"2 prefill + 20 decode GPUs (1xEP2 prefill, 5xTP4EP4 decode); spec=none"
ranks,GB300,64,FP4,Dynamo + SGLang 0.5.8,see notes,see notes,1024,1024,2048,disaggregated,1241.031,15.2581,"16 prefill + 48 decode GPUs (4xEP4 prefill, 1xEP48 decode, attention DP); spec=none"
short,MI355X,24,FP8,SGLang + MoRI disaggregated 1P(8 GPU TP8EP8)+2D(16 GPU),8,8,1024,8192,64,disaggregated,727.12,20.286,no spec; date 2026-02-06
silent,MI355X,24,FP8,SGLang + MoRI,8,8,1024,8192,64,disaggregated,727.12,20.286,no spec; 24 GPUs
"""
# A row of ai-dynamo/aiconfigurator's silicon sample (InferenceX configuration 375); its speculation isn't recorded.
LISTED = """\
id,gpu,n_gpus,model,weight_precision,engine,isl,osl,concurrency_or_batch,scenario,mode,ttft_ms,tpot_ms,notes,flag
cfg375,GB200-NVL72,40,deepseek-ai/DeepSeek-V3,fp8,trtllm,1024,8192,2048,fixed-concurrency-disagg,disagg,1877.155,24.497,"disagg prefill(workers,tp,pp,dp,moe_tp,moe_ep)=1,1,1,8,1,8 decode=1,1,1,32,1,32; range ratio 0.8",spec_method not recorded
"""


def rows(text: str, **more: str) -> list[MeasuredPoint | Skipped]:
    database = load_database()
    return [read_point({**row, **more}, "table", database) for row in csv.DictReader(io.StringIO(text))]


@pytest.fixture(scope="module")
def recorded() -> dict[str, MeasuredPoint | Skipped]:
    found = rows(
        COLUMNS + "\n" + RECORDED, model="deepseek-ai/DeepSeek-R1-0528", mode="disagg", notes="range ratio 0.8"
    )
    return {one.id: one for one in found}


@pytest.fixture(scope="module")
def points(recorded: dict[str, MeasuredPoint | Skipped]) -> dict[str, MeasuredPoint]:
    return {name: one for name, one in recorded.items() if isinstance(one, MeasuredPoint)}


@pytest.fixture(scope="module")
def database() -> Database:
    return load_database()


def test_pools_are_read_from_columns(recorded: dict[str, MeasuredPoint | Skipped]) -> None:
    expected = {
        "slots": (Workers(4, 8, 1, 8), Workers(1, 4, 1, 4)),
        "wide": (Workers(1, 1, 32, 32), Workers(5, 1, 8, 8)),
        "early": (Workers(4, 4, 1, 1), Workers(1, 4, 1, 1)),
        "wide-early": (Workers(1, 1, 32, 32), Workers(5, 1, 8, 8)),
    }
    for name, pools in expected.items():
        point = recorded[name]
        assert isinstance(point, MeasuredPoint)
        assert (point.workers, point.prefill) == pools
    assert recorded["whole"] == Skipped("whole", "table", "disaggregated, and the pools' workers are not recorded")


def test_pools_are_read_from_sentences() -> None:
    found = {one.id: one for one in rows(DESCRIBED, model="DeepSeek-R1-0528", length_kind="range ratio 0.8")}
    expected = {
        "named": (Workers(5, 4, 1, 4), Workers(1, 1, 2, 2)),
        "ranks": (Workers(1, 1, 48, 48), Workers(4, 1, 4, 4)),
        "short": (Workers(2, 8, 1, 8), Workers(1, 8, 1, 8)),
    }
    for name, pools in expected.items():
        point = found[name]
        assert isinstance(point, MeasuredPoint)
        assert (point.workers, point.prefill) == pools
    assert isinstance(found["silent"], Skipped)
    (listed,) = rows(LISTED)
    assert isinstance(listed, MeasuredPoint)
    assert (listed.workers, listed.prefill) == (Workers(1, 1, 32, 32), Workers(1, 1, 8, 8))


def test_excerpt_is_predicted(points: dict[str, MeasuredPoint], database: Database) -> None:
    found, skipped = compare_disaggregated(list(points.values()), database)
    assert skipped == []
    tpot = [c for c in found if c.metric == "tpot" and c.statistic != "p99"]
    ttft = [c for c in found if c.metric == "ttft" and c.statistic != "p99"]
    assert len(tpot) == len(ttft) == len(points)
    assert len(found) == 4 * len(points)
    assert float(np.median([c.error for c in tpot])) < 0.2
    assert float(np.median([c.error for c in ttft])) < 0.4
    assert {c.statistic for c in found if c.id == "early"} == {"p50", "p99"}
    assert {c.kind for c in found if c.id == "mtp"} == {"disaggregated, mtp"}


def test_unknown_speculation_is_said_and_other_kinds_are_skipped(database: Database) -> None:
    (listed,) = rows(LISTED)
    assert isinstance(listed, MeasuredPoint)
    found, skipped = compare_disaggregated([listed], database)
    assert skipped == []
    assert {c.extrapolates for c in found} == {"speculation not recorded, predicted without"}
    _, skipped = compare_disaggregated([replace(listed, speculation="eagle3")], database)
    assert [s.reason for s in skipped] == ["speculation 'eagle3' is none we can run in two pools"]
    aggregated = replace(listed, prefill=None)
    assert compare_disaggregated([aggregated], database) == ([], [])
    with pytest.raises(InputError):
        predict_disaggregated(aggregated, database)


def test_what_does_not_fit_is_skipped(points: dict[str, MeasuredPoint], database: Database) -> None:
    tight = replace(points["node"], workers=Workers(1, 2, 1, 2))
    found, skipped = compare_disaggregated([tight], database)
    assert found == []
    assert "does not fit" in skipped[0].reason


@pytest.mark.parametrize(
    ("streams", "workers", "slots"),
    # ctx1_gen4_tep8_batch8_eplb0_mtp0_36, ctx1_gen4_tep8_batch1_eplb0_mtp3_8, ctx7_gen1_dep8_batch256_eplb0_mtp0_2151,
    # ctx1_gen4_tep8_batch16_eplb0_mtp0_84, ctx3_gen2_dep8_batch768_eplb0_mtp0_12288 of NVIDIA/srt-slurm
    [
        (36, Workers(4, 8), 8),
        (8, Workers(4, 8), 1),
        (2151, Workers(1, 1, 8, 8), 2048),
        (84, Workers(4, 8), 16),
        (12288, Workers(2, 1, 8, 8), 6144),
    ],
)
def test_slots_are_those_of_the_recipes(
    points: dict[str, MeasuredPoint], streams: int, workers: Workers, slots: int
) -> None:
    assert decode_slots(replace(points["slots"], concurrency=streams, workers=workers)) == slots


def test_fp4_recipes_without_drafts_serve_a_list_of_concurrencies(points: dict[str, MeasuredPoint]) -> None:
    # InferenceX, GB200: 2.8, 10 and 16.0 sequences on each of four workers at these, by Little's law
    fp4 = replace(points["slots"], labels={**points["slots"].labels, "weight_precision": "fp4"})
    assert [decode_slots(replace(fp4, concurrency=c)) for c in (12, 44, 76)] == [16, 16, 16]
    assert decode_slots(replace(fp4, concurrency=12, speculation="mtp")) == 2


def test_more_prefill_workers_never_slow_first_tokens(points: dict[str, MeasuredPoint], database: Database) -> None:
    point = points["wide"]
    waits = [
        predict_disaggregated(replace(point, prefill=Workers(count, 1, 8, 8)), database).ttft.mean
        for count in (1, 2, 3, 5, 8)
    ]
    assert all(a >= b for a, b in pairwise(waits))
    assert waits[0] > 3 * waits[-1]


def loop(
    streams: int, each: float = 1.0, prefill: int = 2, decode: int = 3, slots: int = 4, count: int = 400
) -> tuple[PooledRun, Sequence[float]]:
    rng = np.random.default_rng(1)
    steps = rng.integers(80, 101, count).astype(float).tolist()
    table = np.linspace(0.01, 0.02, slots + 1)
    run = run_pools(
        PrefillWorkers(prefill, 2, (0.0, 0.05, 0.08)), DecodeWorkers(decode, slots, table, 2.0), steps=steps,
        work=rng.uniform(0.8, 1.2, count).tolist(), streams=streams, each=each, before_s=0.01, between_s=0.02,
    )  # fmt: skip
    return run, steps


@pytest.mark.parametrize("streams", [1, 7, 12, 40])
def test_every_stream_has_one_request_in_the_system(streams: int) -> None:
    run, _ = loop(streams)
    assert np.all(run.sent < run.first)
    assert np.all(run.first <= run.end + 1e-12)
    assert np.count_nonzero(run.sent == 0.0) == streams
    # a request is sent when another ends, and never else
    assert sorted(run.sent[streams:]) == pytest.approx(sorted(run.end)[: len(run.sent) - streams])
    moments = np.unique(run.sent)
    ended = np.searchsorted(np.sort(run.end), moments, side="right")
    assert set(np.searchsorted(run.sent, moments, side="right") - ended) == {streams}


def test_slots_hold() -> None:
    run, steps = loop(40, decode=1, slots=4, prefill=4)
    rate = len(steps) / run.end.max()
    assert rate <= 4 / (90 * 0.02) * 1.05  # four sequences of some 90 steps of at most 20 ms
    alone, _ = loop(1)
    assert np.median(alone.first) > 0


def test_many_streams_as_a_few_that_stand_for_several() -> None:
    one, _ = loop(64, slots=64, decode=1, count=640)
    four, _ = loop(16, each=4.0, slots=64, decode=1, count=160)
    spans = [float(np.mean(run.end - run.sent)) for run in (one, four)]
    assert spans[1] == pytest.approx(spans[0], rel=0.05)


def test_constants_name_units_and_kinds(tmp_path: Path) -> None:
    constants = pool_constants(database_root())
    assert {"sglang", "trtllm", "any"} <= set(constants)
    wrong = '[sglang]\nprefill = { value = 1.0, unit = "s", kind = "fitted", source = "x", date = "2026-11-25" }\n'
    (tmp_path / "disaggregation.toml").write_text(wrong)
    with pytest.raises(InputError):
        pool_constants(tmp_path)
