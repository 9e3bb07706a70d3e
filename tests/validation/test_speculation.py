"""Published speed-ups of speculation: excerpts of the tables, predicted as the whole of them would be."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from planner.cost.acceptance import continued_length, measured_length
from planner.cost.layout import Layout
from planner.cost.machine import Machine, machine
from planner.cost.speculation import Drafter, draft_model, eager_step_seconds, speculative_step_seconds
from planner.cost.step import StepModel
from planner.hardware import Database
from planner.hardware.acceptance import Curve, load_speculation
from planner.models import Model
from planner.validation.comparison import Comparison, Skipped
from planner.validation.points import MeasuredPoint, read_point
from planner.validation.speculation import (
    compare_acceptance,
    compare_paired,
    compare_speedups,
    is_acceptance_table,
    is_speculation_table,
)
from planner.validation.speculation_loop import draft_tokens, random_token_length

# Rows of tables 1, 3 and 5 of EAGLE-3 (arXiv 2503.01840), of NVIDIA/TensorRT-LLM tech blog 1, of Tencent/AngelSlim's
# benchmarks and of GloriaXimingLu/inferencex-profiling@0cebeed7.
SPEEDUPS = """\
id,source,gpu,n_gpus,target_model,weight_precision,engine,method,draft_tokens,dataset_or_isl_osl,temperature,batch_or_concurrency,speedup,acceptance_length_tau,acceptance_rate,notes
t3-e3-b2,arXiv 2503.01840 Table 3,H100,1,Llama-3.1-8B-Instruct,BF16/FP16,SGLang v0.4.4,EAGLE-3,3,MT-bench,0,2,1.81,,,
t3-e-b48,arXiv 2503.01840 Table 3,H100,1,Llama-3.1-8B-Instruct,BF16/FP16,SGLang v0.4.4,EAGLE,3,MT-bench,0,48,0.88,,,
t5-e-b2,arXiv 2503.01840 Table 5,"A100 per one note, RTX 3090 per another (DISPUTED)",1,Llama-3.1-8B-Instruct,BF16/FP16,vLLM,EAGLE,2,MT-bench,0,2,1.30,,,
t5-e-b56,arXiv 2503.01840 Table 5,"A100 per one note, RTX 3090 per another (DISPUTED)",1,Llama-3.1-8B-Instruct,BF16/FP16,vLLM,EAGLE,2,MT-bench,0,56,0.71,,,
t1-v13b-e3,arXiv 2503.01840 Table 1,not stated (1xA100-class for 8B/13B),,Vicuna-13B,FP16,HF-style reference,EAGLE-3,tree (depth 8),MT-bench,0,1,5.58,6.65,,
t1-l8b-e2,arXiv 2503.01840 Table 1,not stated (1xA100-class for 8B/13B),,Llama-3.1-8B-Instruct,FP16,HF-style reference,EAGLE-2,tree (depth 6),Alpaca,0,1,3.28,4.12,,
t1-v13b-medusa,arXiv 2503.01840 Table 1,not stated (1xA100-class for 8B/13B),,Vicuna-13B,FP16,HF-style reference,Medusa,,Alpaca,0,1,2.08,2.45,,
t1-v13b-pld,arXiv 2503.01840 Table 1,not stated (1xA100-class for 8B/13B),,Vicuna-13B,FP16,HF-style reference,PLD (prompt lookup),,CNN/DM,0,1,2.42,2.50,,
trt-k3,NVIDIA/TensorRT-LLM blog1,B200,8,DeepSeek-R1,NVFP4,TensorRT-LLM,MTP,3,1K/2K,,1,2.28,2.82,,
angelslim,Tencent/AngelSlim,not recorded,1,Qwen3-30B-A3B,BF16,vLLM,EAGLE-3,2,MT-bench/HumanEval/GSM8K/Alpaca mean,,1,1.365,2.04,,
gptoss-c8,GloriaXimingLu/inferencex-profiling,H200,1,gpt-oss-120b,MXFP4,vLLM 0.22,EAGLE-3,7,8k/1k RANDOM tokens,,8,0.914,,0.19,
"""
# Rows that hold too little, or are malformed.
POOR = """\
id,source,gpu,n_gpus,target_model,weight_precision,engine,method,draft_tokens,dataset_or_isl_osl,temperature,batch_or_concurrency,speedup,acceptance_length_tau,acceptance_rate,notes
magicdec,MagicDec arXiv 2408.11049v3 abstract,A100,8,Llama-3.1-8B,BF16,MagicDec,sparse-KV draft,,moderate to long sequences,,32-256,1.84,,,up to; abstract v3
gptfast,SafeAILab/EAGLE README,A100,1,Llama-2-13B?,FP16,gpt-fast,EAGLE,tree,MT-bench,0,1,2.154,,,
highqps,vLLM blog 2024-10-17,H100,4,Llama-3-70B,FP16,vLLM,draft model,,ShareGPT,,high QPS,0.714,,,
no-gpus,made up,H100,,Llama-3.1-8B,FP16,vLLM,EAGLE-3,3,MT-bench,,1,1.5,,,
no-model,made up,H100,1,Nobody-9B,FP16,vLLM,EAGLE-3,3,MT-bench,,1,1.5,,,
no-method,made up,H100,1,Llama-3.1-8B,FP16,vLLM,telepathy,3,MT-bench,,1,1.5,,,
no-engine,made up,H100,1,Llama-3.1-8B,FP16,in-house,EAGLE-3,3,MT-bench,,1,1.5,,,
no-drafts,made up,H100,1,Llama-3.1-8B,FP16,vLLM,EAGLE-3,,MT-bench,,1,1.5,,,
acceptance-only,NVIDIA/TensorRT-LLM blog7,B200,8,Llama-4-Scout,FP8,TensorRT-LLM TP8,n-gram (prompt lookup),5,"Magpie multi-turn, turn 1",,1,,1.37,,
not-a-number,made up,H100,1,Llama-3.1-8B,FP16,vLLM,EAGLE-3,3,MT-bench,,1,fast,,,
"""
# SemiAnalysisAI/InferenceX golden_al_distribution@843c6254.
GOLDEN = """\
id,source,model,method,thinking,num_draft_tokens,acceptance_length
g1,SemiAnalysisAI/InferenceX golden_al_distribution/glm5.2_mtp.yaml@843c6254 (Actions run 28058352479),glm-5.2-fp8,vLLM MTP,thinking_on,1,1.84
g2,SemiAnalysisAI/InferenceX golden_al_distribution/glm5.2_mtp.yaml@843c6254 (Actions run 28058352479),glm-5.2-fp8,vLLM MTP,thinking_on,2,2.5
g3,SemiAnalysisAI/InferenceX golden_al_distribution/glm5.2_mtp.yaml@843c6254 (Actions run 28058352479),glm-5.2-fp8,vLLM MTP,thinking_on,3,2.99
g8,SemiAnalysisAI/InferenceX golden_al_distribution/glm5.2_mtp.yaml@843c6254 (Actions run 28058352479),glm-5.2-fp8,vLLM MTP,thinking_on,8,4.06
new,nobody,brand-new-model,vLLM MTP,thinking_on,3,3.00
bad,nobody,brand-new-model,vLLM MTP,thinking_on,,3.00
"""
# InferenceX dashboard rows of DeepSeek-R1-0528: medians; with MTP and without.
PAIRS = """\
id,source_date,gpu,n_gpus,model,weight_precision,engine,tp,ep,dp_attention,isl,osl,concurrency_or_batch,mode,speculation,tpot_p50_ms,notes
b200-none,2026-01-29,B200-SXM-180GB,8,deepseek-ai/DeepSeek-R1-0528,fp8,trt,8,1,False,1024,1024,4,agg,none,10.3358,"random lengths, range ratio 0.8"
b200-none-old,2025-01-29,B200-SXM-180GB,8,deepseek-ai/DeepSeek-R1-0528,fp8,trt,8,1,False,1024,1024,4,agg,none,99.0,"random lengths, range ratio 0.8"
b200-mtp,2026-02-05,B200-SXM-180GB,8,deepseek-ai/DeepSeek-R1-0528,fp8,trt,8,1,False,1024,1024,4,agg,mtp,5.6687,"random lengths, range ratio 0.8"
h200-none,2025-12-12,H200-SXM-141GB,8,deepseek-ai/DeepSeek-R1-0528,fp8,trt,8,8,False,8192,1024,4,agg,none,15.0438,"random lengths, range ratio 0.8"
h200-mtp,2026-01-14,H200-SXM-141GB,8,deepseek-ai/DeepSeek-R1-0528,fp8,trt,8,8,False,8192,1024,4,agg,mtp,9.3401,"random lengths, range ratio 0.8"
alone-mtp,2026-01-14,H200-SXM-141GB,8,deepseek-ai/DeepSeek-R1-0528,fp8,trt,8,8,False,8192,1024,64,agg,mtp,9.3401,"random lengths, range ratio 0.8"
vllm-none,2026-01-14,H200-SXM-141GB,8,deepseek-ai/DeepSeek-R1-0528,fp8,vllm,8,8,False,8192,1024,4,agg,none,9.3401,"random lengths, range ratio 0.8"
vllm-mtp,2026-01-14,H200-SXM-141GB,8,deepseek-ai/DeepSeek-R1-0528,fp8,vllm,8,8,False,8192,1024,4,agg,mtp,9.3401,"random lengths, range ratio 0.8"
"""


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def points(text: str, database: Database) -> list[MeasuredPoint]:
    found = [read_point(row, "excerpt", database) for row in read(text)]
    assert not any(isinstance(p, Skipped) for p in found)
    return [p for p in found if isinstance(p, MeasuredPoint)]


def sign_right(found: Sequence[Comparison]) -> float:
    return float(np.mean([(c.measured > 1) == (c.predicted > 1) for c in found]))


@pytest.fixture(scope="module")
def h100(database: Database) -> Machine:
    return machine(database.accelerator("h100-sxm"), database.engine("generic"), ["bf16"], "bf16")


@pytest.fixture(scope="module")
def speedups(database: Database) -> dict[str, Comparison]:
    found, skipped = compare_speedups(read(SPEEDUPS), "excerpt", database)
    assert skipped == []
    return {c.id: c for c in found}


def test_tables_are_told_apart() -> None:
    speed, golden, pairs = (set(read(text)[0]) for text in (SPEEDUPS, GOLDEN, PAIRS))
    assert [is_speculation_table(c) for c in (speed, golden, pairs)] == [True, False, False]
    assert [is_acceptance_table(c) for c in (speed, golden, pairs)] == [False, True, False]


def test_speedups_are_near_what_was_measured(speedups: dict[str, Comparison]) -> None:
    assert all(c.metric == "speedup" and c.unit == "1" for c in speedups.values())
    assert np.median([c.error for c in speedups.values()]) <= 0.08
    assert max(c.error for c in speedups.values()) <= 0.25
    assert sign_right(list(speedups.values())) == 1.0


def test_what_was_assumed_is_said(speedups: dict[str, Comparison]) -> None:
    assert "rtx-3090" in speedups["t5-e-b56"].extrapolates and "disputed" in speedups["t5-e-b56"].extrapolates
    assert speedups["t5-e-b56"].accelerator == "rtx-3090" and "before V1" in speedups["t5-e-b56"].extrapolates
    assert speedups["t1-v13b-e3"].accelerator == "a100-sxm-80gb" and "not stated" in speedups["t1-v13b-e3"].extrapolates
    assert "not recorded" in speedups["angelslim"].extrapolates
    assert "issue 20780" in speedups["t3-e3-b2"].extrapolates
    assert speedups["trt-k3"].extrapolates == ""


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("magicdec", "up to"), ("gptfast", "leaves the model open"), ("highqps", "batch not recorded"),
        ("no-gpus", "how many accelerators"), ("no-model", "unknown model"), ("no-method", "none we price"),
        ("no-engine", "nothing known"), ("no-drafts", "draft tokens not recorded"),
        ("acceptance-only", "no speed-up"), ("not-a-number", "no speed-up"),
    ],
)  # fmt: skip
def test_poor_rows_are_skipped_and_say_why(name: str, reason: str, database: Database) -> None:
    found, skipped = compare_speedups([r for r in read(POOR) if r["id"] == name], "excerpt", database)
    assert found == []
    assert reason in skipped[0].reason


def test_nothing_at_all() -> None:
    assert compare_acceptance([], "empty", None) == ([], [])  # type: ignore[arg-type]


def test_lookups_say_so_and_held_out_ones_mean_something(database: Database) -> None:
    found, skipped = compare_acceptance(read(GOLDEN), "excerpt", database)
    assert [(s.id, s.reason) for s in skipped] == [("bad", "acceptance length or draft tokens not recorded")]
    own = [c for c in found if c.kind.startswith("acceptance") and c.id != "new"]
    assert all(c.extrapolates == "taken from this table" and c.error < 0.005 for c in own)
    held = {c.id: c for c in found if c.kind.startswith("held out")}
    assert all(c.error <= 0.15 for c in held.values())
    assert held["g8"].extrapolates == "from 1 to 3 drafts of the same curve"
    assert held["g2"].extrapolates == held["new"].extrapolates == "from other models of the method"


def test_pairs(database: Database) -> None:
    found, skipped = compare_paired(points(PAIRS, database), database)
    assert {c.id: round(c.measured, 2) for c in found} == {"b200-mtp": 1.82, "h200-mtp": 1.61}
    assert max(c.error for c in found) <= 0.25
    assert sign_right(found) == 1.0
    reasons = {s.id: s.reason for s in skipped}
    assert "no row without MTP" in reasons["alone-mtp"]
    assert "drafts is not recorded" in reasons["vllm-mtp"]


def test_drafts_of_recipes(database: Database) -> None:
    point = points(PAIRS, database)[2]
    wide = read_point({**point.labels, "dp_attention": "True"}, "excerpt", database)
    sglang = read_point({**point.labels, "engine": "sglang"}, "excerpt", database)
    amd = read_point({**point.labels, "engine": "sglang", "gpu": "MI355X"}, "excerpt", database)
    drafts = [draft_tokens(p, database) for p in (point, wide, sglang, amd) if isinstance(p, MeasuredPoint)]
    assert drafts == [3, 1, 2, 3]


def test_long_answers_repeat_themselves(database: Database) -> None:
    point = points(PAIRS, database)[2]
    long = read_point({**point.labels, "osl": "8192"}, "excerpt", database)
    raw = read_point({**point.labels, "engine": "dynamo-sglang", "mode": "agg"}, "excerpt", database)
    assert isinstance(long, MeasuredPoint) and isinstance(raw, MeasuredPoint)
    assert random_token_length(point, 3) == pytest.approx(2.50)  # InferenceX pull request 649
    assert 2.9 < random_token_length(long, 3) < 3.3
    assert random_token_length(raw, 3) == pytest.approx(3.55)


def test_lengths_beyond_the_measured() -> None:
    curve = Curve((3.0, 5.0), (2.5, 3.0), "measured", "made up")
    known = [measured_length(curve, k) for k in range(1, 12)]
    assert known[2] == 2.5 and known[3] == pytest.approx(2.75)
    assert all(a < b < k + 2 for k, (a, b) in enumerate(pairwise(known), start=1))
    assert continued_length([1.84, 2.50, 2.99], 2) == 2.50


def test_eager_steps_take_the_host_as_long_as_it_is_slower(llama_8b: Model, h100: Machine) -> None:
    step = StepModel(llama_8b, {}, "bf16")
    contexts = np.array([400.0])
    fast, slow = (float(np.squeeze(eager_step_seconds(step, h100, Layout(), 1.0, contexts, s))) for s in (1e-6, 1e-3))
    assert slow == pytest.approx(32e-3)
    assert fast == pytest.approx(float(np.squeeze(step.decode(h100, Layout(), 1.0, contexts).seconds)), rel=0.15)


def test_trees_cost_their_nodes_and_eager_passes_their_launches(llama_8b: Model, h100: Machine) -> None:
    step = StepModel(llama_8b, {}, "bf16")
    contexts = np.array([400.0])
    small = draft_model(llama_8b, "eagle3", 32_000)
    full = draft_model(llama_8b, "eagle")
    assert small is not None and full is not None
    assert (small.vocab, full.vocab) == (32_000, llama_8b.vocab)

    def seconds(drafter: Drafter, batch: float = 64.0) -> float:
        return float(np.squeeze(speculative_step_seconds(step, drafter, h100, Layout(), batch, contexts)))

    chain, tree = Drafter("eagle3", 5, small), Drafter("eagle3", 5, small, nodes=61)
    assert seconds(tree) > 2 * seconds(chain)  # 64 trees are bound by compute
    assert seconds(tree, 1.0) < 1.3 * seconds(chain, 1.0)  # one is not
    floor = Drafter("eagle3", 5, small, pass_floor=2e-3)
    assert seconds(floor, 1.0) > seconds(chain, 1.0) + 4e-3
    assert seconds(Drafter("eagle", 5, full), 1.0) > seconds(chain, 1.0)  # its head covers the vocabulary


def test_entries_name_sources_and_known_things() -> None:
    data = load_speculation()
    assert all(m.curve.source for m in data.measured)
    assert all(i.source and i.name for i in data.implementations.values())
    for (_, implementation), shape in data.shapes.items():
        assert implementation == "*" or implementation in data.implementations
        assert shape.source and shape.nodes >= 1 and shape.host >= 0
    assert data.find("deepseek-r1", "mtp", "no such task") is None
