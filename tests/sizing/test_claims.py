"""Eleven things people say about serving, each true in one regime: both regimes, computed."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import H100, H200, reference_machine

from planner.cost.attention import attention_cost
from planner.cost.layout import Layout
from planner.cost.prefill import prefill_flops
from planner.cost.roofline import critical_batch
from planner.cost.shared_prefix import group_tokens
from planner.cost.speculation import Drafter, draft_model, speculative_step_seconds
from planner.cost.step import StepModel
from planner.hardware import Database
from planner.models import Model, load_model
from planner.models.layers import LatentAttention, SparseLatentAttention
from planner.serving.fanout import draws_that_pay, expected_maximum, useful_work
from planner.sizing import EstimateRequest, estimate, recommend
from planner.sizing.explain import compute_bound_batch, kv_exceeds_weights_context
from planner.workload import load_workload
from planner.workload.examples import example_path
from planner.workload.lengths import Lognormal


def llama_step(model: Model, batch: float, context: float, **kwargs: float) -> StepModel:
    return StepModel(model, {}, "bf16").decode(reference_machine(H100), Layout(), batch, [context], **kwargs)  # type: ignore[return-value,arg-type]


def test_weights_dominate_memory_traffic_so_batching_is_free(llama_8b: Model) -> None:
    short = llama_step(llama_8b, 8, 500)
    assert short.bytes_by("weights") > 10 * short.bytes_by("kv")  # type: ignore[attr-defined]
    assert llama_step(llama_8b, 8, 500).seconds < 1.05 * llama_step(llama_8b, 1, 500).seconds  # type: ignore[attr-defined]
    long = llama_step(llama_8b, 64, 32_000)
    assert long.bytes_by("kv") > 10 * long.bytes_by("weights")  # type: ignore[attr-defined]
    assert long.seconds > 10 * llama_step(llama_8b, 1, 32_000).seconds  # type: ignore[attr-defined]


def test_kv_cache_is_per_user_and_cannot_be_batched(llama_8b: Model) -> None:
    machine, step = reference_machine(H100), StepModel(llama_8b, {}, "bf16")
    one, many = (step.decode(machine, Layout(), float(b), [4000.0]) for b in (1, 64))
    assert many.bytes_by("kv") == 64 * one.bytes_by("kv")
    assert many.bytes_by("weights") == one.bytes_by("weights")
    crossings = [kv_exceeds_weights_context(step, machine, Layout(), b) for b in (1.0, 16.0, 256.0)]
    assert crossings == sorted(crossings, reverse=True)  # type: ignore[type-var]
    assert crossings[1] == pytest.approx(15.0e9 / 131_072 / 16, rel=0.25)


def test_sparse_attention_fixes_that() -> None:
    dense = attention_cost(LatentAttention(128, 1536, 512, 64, 128, 128))
    sparse = attention_cost(SparseLatentAttention(128, 1536, 512, 64, 128, 128, False, 64, 128, 2048))
    machine = reference_machine(H200)

    def seconds(cost: object, batch: int, context: float) -> float:
        parts = cost.decode(context, 1, "bf16")  # type: ignore[attr-defined]
        # an indexer launch and its top-k cost 65 us beyond dense attention (vLLM on H200, lower end)
        fixed = 65e-6 if len(parts) > 1 else 0.0
        return fixed + sum(float(machine.ceiling(p.operator).seconds(batch * p.flops, batch * p.bytes)) for p in parts)

    assert seconds(sparse, 128, 131_072) < seconds(dense, 128, 131_072) / 3
    assert seconds(sparse, 1, 4_096) > seconds(dense, 1, 4_096)
    wins = [b for b in (1, 2, 4, 8, 16, 32, 64) if seconds(sparse, b, 32_768) < seconds(dense, b, 32_768)]
    assert wins == [b for b in (1, 2, 4, 8, 16, 32, 64) if b >= wins[0]]


def test_subagents_share_their_prompt_so_it_can_be_batched(database: Database) -> None:
    tokens = group_tokens(9000, 3000, 4)
    assert tokens.stored < tokens.read_without_cascade
    text = example_path("coding-agent").read_text()
    chips = ["b200-sxm"]
    plain = recommend(load_workload("w", text=text), database, gpus=chips).plan
    ideal = recommend(load_workload("w", ['subagents.cascade="ideal"'], text=text), database, gpus=chips).plan
    assert plain is not None
    assert ideal is not None
    assert plain.sharing is not None
    assert ideal.sharing is not None
    assert plain.sharing.kv_tokens_stored == ideal.sharing.kv_tokens_stored
    assert plain.sharing.tokens_read_per_step > ideal.sharing.tokens_read_per_step
    assert ideal.cost.usd_per_hour <= plain.cost.usd_per_hour


def test_input_caching_fixes_it(database: Database) -> None:
    model = load_model("qwen3-32b")
    whole, cached = prefill_flops(model, 8000.0), prefill_flops(model, 1200.0, 6800.0)
    assert cached[0] + cached[1] < 0.2 * (whole[0] + whole[1])
    why = recommend(load_workload(example_path("rag")), database).why
    assert why is not None
    assert why.prefill_saved_by_cache > 0.7
    cold, warm = (
        estimate(
            EstimateRequest("qwen3-32b", "h100-sxm", 2, input_tokens=8000, output_tokens=300, concurrency=1,
                            cached_tokens=c), database,
        ).latency
        for c in (0, 6800)
    )  # fmt: skip
    assert cold is not None
    assert warm is not None
    assert warm.ttft_s.mean < 0.5 * cold.ttft_s.mean
    decode = cold.time_per_output_token_s.mean
    assert warm.time_per_output_token_s.mean == pytest.approx(decode, rel=0.1)


def test_reasoning_chains_are_long_and_diverge() -> None:
    text = 'model = "llama-3.1-8b"\n[demand]\nrequests_per_second = 1\n[context]\nmean = 1300\n[reasoning]\nmean = 1500\ncv = {}\n'
    narrow, wide = (load_workload("w", text=text.format(cv)).moments for cv in (0.05, 1.5))
    assert narrow.resident_context == pytest.approx(1300 + 750, rel=0.01)
    # length bias: half the output times (1 + cv^2)
    assert wide.resident_context == pytest.approx(1300 + 750 * 3.25, rel=0.01)
    # past the fork nothing is shared: the shared part shrinks as the chains grow
    shares = [
        group_tokens(9000, own, 4).stored / group_tokens(9000, own, 4).read_without_cascade
        for own in (100, 3000, 30_000)
    ]
    assert shares == sorted(shares)
    assert shares[-1] > 0.8


def test_k_subagents_only_if_there_are_k_independent_avenues() -> None:
    assert useful_work(8, 0.3, 0.0) > 0.94
    assert useful_work(8, 0.3, 0.7) < 0.48
    assert useful_work(8, 0.3, 0.0, avenues=2) == useful_work(2, 0.3, 0.0)
    assert draws_that_pay(0.3, 0.0, None, 0.05, 1.0) > draws_that_pay(0.3, 0.7, None, 0.05, 1.0)
    lengths = Lognormal(6.774, 0.97)
    assert expected_maximum(lengths.quantile, 8) > 3 * lengths.mean * 0.99


def test_it_is_memory_bound_only_at_low_batch(llama_8b: Model) -> None:
    machine, step = reference_machine(H100), StepModel(llama_8b, {}, "bf16")
    crossover = compute_bound_batch(step, machine, Layout())
    ideal = critical_batch(H100["bf16"] * 0.80, H100["bandwidth"] * 0.85, 2)
    assert crossover == pytest.approx(ideal, rel=0.15)
    low = step.decode(machine, Layout(), 8.0, [500.0]).seconds_by_cause()
    high = step.decode(machine, Layout(), 1024.0, [10.0]).seconds_by_cause()
    assert low["memory"] > 10 * low["compute"]
    assert high["compute"] > high["memory"]
    # attention stays memory-bound at any batch
    attention = step.decode(machine, Layout(), 1024.0, [4000.0]).operators[0]
    assert attention.name == "decode_attention"
    assert attention.split()[0] == 0
    # an MoE crosses later, in proportion to experts over top-k
    moe = compute_bound_batch(StepModel(load_model("qwen3-30b-a3b"), {}, "bf16"), machine, Layout())
    assert moe is not None
    assert crossover is not None
    assert moe > 4 * crossover


@pytest.mark.parametrize("model", ["llama-3.1-8b", "deepseek-v3", "gpt-oss-20b"])
def test_any_batch_above_one_slows_each_request(model: str) -> None:
    step, machine = StepModel(load_model(model), {}, "bf16"), reference_machine(H200)
    batches = np.arange(1.0, 129.0)[None, :]
    seconds = np.asarray(step.decode(machine, Layout(), batches, [2000.0]).seconds)[0]
    assert np.all(np.diff(seconds) > 0)
    # nearly free for a dense model at first, never for an MoE
    early = seconds[3] / seconds[0]
    assert early < 1.06 if model == "llama-3.1-8b" else early > 1.3


def test_two_and_a_half_times_is_speculative_decoding(llama_8b: Model, deepseek_v3: Model) -> None:
    machine = reference_machine(H100, step_overhead=1.2e-3, verify_overhead=1e-5)

    def speedup(model: Model, batch: float, context: float, accepted: float, k: int) -> float:
        step, contexts = StepModel(model, {}, "bf16"), np.array([context])
        plain, drafted = (
            speculative_step_seconds(step, Drafter("n-gram", n, verify_share=0.006), machine, Layout(), batch, contexts)
            for n in (0, k)
        )
        return float(np.squeeze(accepted * plain / drafted))

    assert speedup(llama_8b, 1, 2048, 2.29, 5) > 2
    assert speedup(llama_8b, 128, 720, 1.45, 5) < 1
    # long context: the cache is read once for all drafts, so a drafter's gain grows with batch
    head = Drafter("eagle3", 3, draft_model(llama_8b, "eagle3", 32_000), 0.38e-3)
    step = StepModel(llama_8b, {}, "bf16")
    rising = [
        float(
            2.88
            * np.squeeze(speculative_step_seconds(step, Drafter("none", 0), machine, Layout(), b, np.array([32_768.0])))
            / np.squeeze(speculative_step_seconds(step, head, machine, Layout(), b, np.array([32_768.0])))
        )
        for b in (1.0, 8.0, 32.0, 64.0)
    ]
    assert rising == sorted(rising)
    # an MoE verifies more experts than it decodes with: worst at small batches, best at large ones
    gains = {b: speedup(deepseek_v3, b, 1024, 2.88, 3) for b in (4, 64)}
    assert gains[64] > 1.5 * gains[4]


def test_fast_mode_is_just_a_small_batch(llama_70b: Model) -> None:
    machine = reference_machine(H200, all_reduce=(4.73e-6, 192e9), step_overhead=1.2e-3, verify_overhead=1e-5)
    wide = reference_machine(H200, all_reduce=(5.10e-6, 209e9), step_overhead=1.2e-3, verify_overhead=1e-5)
    step, contexts = StepModel(llama_70b, {}, "bf16"), np.array([8192.0])

    def lever(batch: float, ranks: int, k: int = 0, accepted: float = 1.0) -> tuple[float, float]:
        drafter = Drafter("eagle3", k, None, verify_share=0.0) if k else Drafter("none", 0)
        priced = machine if ranks == 4 else wide
        t = float(np.squeeze(speculative_step_seconds(step, drafter, priced, Layout(tensor=ranks), batch, contexts)))
        t = (t + 0.6e-3 * k) / accepted
        return 1 / t, ranks * t / batch

    base_speed, base_cost = lever(64, 4)
    assert base_speed == pytest.approx(41.825, rel=0.03)
    for batch, ranks, k, accepted, speed, cost in (
        (16, 4, 0, 1.0, 1.5409, 2.5958), (1, 4, 0, 1.0, 1.8544, 34.512), (64, 8, 0, 1.0, 1.6465, 1.2147),
        (64, 4, 3, 2.88, 1.9835, 0.50417), (16, 8, 3, 2.88, 5.1157, 1.5638),
    ):  # fmt: skip
        got_speed, got_cost = lever(batch, ranks, k, accepted)
        assert got_speed / base_speed == pytest.approx(speed, rel=0.05)
        assert got_cost / base_cost == pytest.approx(cost, rel=0.05)
    # a batch of one alone never reaches 2.5 times, at 34 times the cost; speculation with more ranks does
    assert lever(1, 4)[0] < 2 * base_speed
    assert lever(16, 8, 3, 2.88)[0] > 2.5 * base_speed
