"""Numbers worked by hand or by an independent script, asserted against the cost layer."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import B200, H100, H200, reference_machine

from planner.cost.attention import attention_cost
from planner.cost.collectives import all_to_all_bytes, measured_all_reduce, ranks_touched
from planner.cost.experts import distinct_experts
from planner.cost.layout import Layout
from planner.cost.linear import kv_head_fraction, linear_work
from planner.cost.memory import CacheLayout
from planner.cost.prefill import prefill_flops
from planner.cost.roofline import Ceiling, critical_batch, roofline
from planner.cost.shared_prefix import cascade_waves, group_tokens, vllm_uses_cascade
from planner.cost.speculation import Drafter, draft_model, speculative_step_seconds
from planner.cost.step import StepModel
from planner.models import Model, load_model
from planner.models.layers import (
    BlockSparseAttention,
    CompressedAttention,
    LatentAttention,
    LinearAttention,
    SlidingAttention,
    SparseLatentAttention,
)

ONE_PERCENT = 0.01
MLA = LatentAttention(128, 1536, 512, 64, 128, 128)
DSA = SparseLatentAttention(128, 1536, 512, 64, 128, 128, False, 64, 128, 2048)


def total(parts: object, name: str) -> float:
    return float(sum(np.asarray(getattr(p, name)) for p in parts))  # type: ignore[attr-defined]


def test_llama_parameters_and_cache_bytes_are_exact(llama_8b: Model, llama_70b: Model) -> None:
    assert llama_8b.total_parameters == 8_030_261_248
    assert llama_70b.total_parameters == 70_553_706_496
    assert CacheLayout(llama_8b.layers, "bf16").bytes_per_token(Layout()) == 131_072
    assert CacheLayout(llama_70b.layers, "bf16").bytes_per_token(Layout()) == 327_680


def test_streamed_weights(llama_8b: Model, llama_70b: Model) -> None:
    for model, expected in ((llama_8b, 15_009_849_344), (llama_70b, 139_006_066_688)):
        step = StepModel(model, {}, "bf16").decode(reference_machine(H100), Layout(), 1.0, [1.0])
        assert step.bytes_by("weights") == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("tokens", "ideal", "calibrated"),
    [(1, 27.969, 36.905), (64, 28.399, 37.411), (256, 34.742, 47.427), (1024, 138.97, 177.71)],
)
def test_matmul_times_on_h200(tokens: int, ideal: float, calibrated: float) -> None:
    flops, weights, activations = linear_work(tokens, 8192, 8192, 2.0)
    moved = weights + activations
    assert roofline(flops, moved, H200["bf16"], H200["bandwidth"]) * 1e6 == pytest.approx(ideal, rel=1e-3)
    ceiling = Ceiling(0.80 * H200["bf16"], 0.85 * H200["bandwidth"], 4e-6)
    assert ceiling.seconds(flops, moved) * 1e6 == pytest.approx(calibrated, rel=1e-3)


@pytest.mark.parametrize(
    ("chip", "bf16", "w4"), [(H100, 295.22, 73.806), (H200, 206.04, 51.51), (B200, 281.25, 70.312)]
)
def test_critical_batch(chip: dict[str, float], bf16: float, w4: float) -> None:
    assert critical_batch(chip["bf16"], chip["bandwidth"], 2) == pytest.approx(bf16, rel=ONE_PERCENT)
    assert critical_batch(chip["bf16"], chip["bandwidth"], 0.5) == pytest.approx(w4, rel=ONE_PERCENT)


@pytest.mark.parametrize(
    ("experts", "top_k", "tokens", "expected"),
    [(256, 8, 1, 8.0), (256, 8, 8, 57.421), (256, 8, 64, 222.44), (256, 8, 128, 251.6), (8, 2, 8, 7.1991),
     (128, 8, 32, 111.77), (896, 16, 128, 806.74)],
)  # fmt: skip
def test_distinct_experts(experts: int, top_k: int, tokens: int, expected: float) -> None:
    assert distinct_experts(experts, top_k, tokens) == pytest.approx(expected, rel=1e-3)


def test_deepseek_v3_parameters(deepseek_v3: Model) -> None:
    assert deepseek_v3.total_parameters - deepseek_v3.extra_parameters == 671_025_397_760
    assert deepseek_v3.active_parameters == 36_624_596_992


def test_latent_attention_numbers(deepseek_v3: Model) -> None:
    part = attention_cost(MLA).decode(1.0, 1, "bf16")[0]
    assert part.flops == 278_528
    assert part.flops / part.bytes == pytest.approx(241.78, rel=ONE_PERCENT)
    few = attention_cost(LatentAttention(16, 1536, 512, 64, 128, 128)).decode(1.0, 1, "bf16")[0]
    assert few.flops / few.bytes == pytest.approx(30.22, rel=ONE_PERCENT)
    assert attention_cost(MLA).decode(1.0, 1, "fp8")[0].bytes == 656
    assert CacheLayout(deepseek_v3.layers, "bf16").bytes_per_token(Layout()) == 70_272
    assert CacheLayout(deepseek_v3.layers, "fp8").bytes_per_token(Layout()) == 40_016


@pytest.mark.parametrize(("heads", "predicted", "measured"), [(128, 964.6, 943), (16, 571.24, 563)])
def test_latent_attention_on_h200(heads: int, predicted: float, measured: float) -> None:
    spec = LatentAttention(heads, 1536, 512, 64, 128, 128)
    part = attention_cost(spec).decode(32768.0, 1, "bf16")[0]
    seconds = reference_machine(H200).ceiling("latent_attention").seconds(64 * part.flops, 64 * part.bytes)
    assert seconds * 1e6 == pytest.approx(predicted, rel=ONE_PERCENT)
    assert seconds * 1e6 == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize(
    ("context", "byte_ratio", "flop_ratio"),
    [(2048, 1.4619, 0.94444), (8192, 3.8919, 3.2381), (32768, 6.659, 8.2424), (131072, 8.0984, 13.432)],
)
def test_sparse_against_dense_latent_attention(context: int, byte_ratio: float, flop_ratio: float) -> None:
    sparse = attention_cost(DSA).decode(float(context), 1, "fp8")
    dense = attention_cost(MLA).decode(float(context), 1, "bf16")
    assert total(dense, "bytes") / total(sparse, "bytes") == pytest.approx(byte_ratio, rel=ONE_PERCENT)
    assert total(dense, "flops") / total(sparse, "flops") == pytest.approx(flop_ratio, rel=ONE_PERCENT)


def test_sparse_cache_and_slope() -> None:
    assert attention_cost(DSA).stored_bytes(61.0, "fp8") == 48_068
    one, two = (attention_cost(DSA).decode(c, 1, "fp8")[0] for c in (40_000.0, 40_001.0))
    machine = reference_machine(H200).ceiling("indexer")
    slope = machine.seconds(0.0, two.bytes) - machine.seconds(0.0, one.bytes)
    assert slope == pytest.approx(3.6e-11, rel=0.15)


@pytest.mark.parametrize(("context", "read"), [(8192, 2047), (16384, 2559), (32768, 3583), (65536, 5631)])
def test_native_sparse_attention_reads(context: int, read: int) -> None:
    spec = BlockSparseAttention(64, 4, 192, 128, block=64, top_blocks=16, window=512, stride=16, compress_block=32)
    assert attention_cost(spec).tokens_read(float(context)) == read  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("context", "read", "stored"),
    [
        (32768, 80_019_000, 300_220_000),
        (131072, 201_720_000, 1_176_900_000),
        (1_048_576, 1_337_600_000, 9_359_200_000),
    ],
)
def test_compressed_attention_of_deepseek_v4_pro(context: int, read: float, stored: float) -> None:
    csa = attention_cost(CompressedAttention(128, 512, 1536, 4, 128, 0, 1, 1024, 64, 128))
    hca = attention_cost(CompressedAttention(128, 512, 1536, 128, 128))
    got = 30 * total(csa.decode(float(context), 1, "bf16"), "bytes")
    got += 31 * total(hca.decode(float(context), 1, "bf16"), "bytes")
    kept = 30 * csa.stored_bytes(float(context), "bf16") + 31 * hca.stored_bytes(float(context), "bf16")
    assert got == pytest.approx(read, rel=ONE_PERCENT)
    assert kept == pytest.approx(stored, rel=ONE_PERCENT)


def test_windowed_caches() -> None:
    gpt_oss = CacheLayout(load_model("gpt-oss-120b").layers, "bf16")
    assert gpt_oss.stored(131072.0, Layout()) == pytest.approx(4_836_556_800, rel=1e-6)
    assert gpt_oss.bytes_per_token(Layout()) * 131072 == pytest.approx(9_663_676_416, rel=1e-6)
    gemma = CacheLayout(load_model("gemma-3-27b").layers, "bf16")
    assert gemma.stored(131072.0, Layout()) == pytest.approx(11_173_625_856, rel=ONE_PERCENT)


def test_recurrent_state() -> None:
    cost = attention_cost(LinearAttention("kda", 96, 128, 128))
    assert cost.state_bytes == 6_291_456
    assert 69 * cost.decode(1.0, 1, "bf16")[0].bytes == 868_220_928
    assert 69 * cost.state_bytes / (24 * 1152) == pytest.approx(15_701, rel=1e-3)


@pytest.mark.parametrize(
    ("kv_heads", "ranks", "share"), [(8, 1, 1.0), (8, 8, 0.125), (8, 16, 0.125), (4, 8, 0.25), (1, 16, 1.0)]
)
def test_kv_heads_replicate(kv_heads: int, ranks: int, share: float) -> None:
    assert kv_head_fraction(kv_heads, ranks) == share


def test_all_reduce_of_llama_70b(llama_70b: Model) -> None:
    for batch, expected in ((1, 0.87904), (64, 1.726), (256, 4.3071)):
        seconds = 160 * measured_all_reduce(batch * 8192 * 2, 5.41e-6, 195e9)
        assert seconds * 1e3 == pytest.approx(expected, rel=ONE_PERCENT)
    machine = reference_machine(H100, all_reduce=(5.41e-6, 195e9))
    step = StepModel(llama_70b, {}, "bf16").decode(machine, Layout(tensor=8), 1.0, [4096.0])
    network = sum(float(np.asarray(o.network)) for o in step.operators)
    assert network * 1e3 == pytest.approx(0.879, rel=ONE_PERCENT)
    assert float(step.seconds) * 1e3 == pytest.approx(9.2845, rel=ONE_PERCENT)


def test_expert_exchange() -> None:
    assert ranks_touched(8, 8) == pytest.approx(5.2511, rel=ONE_PERCENT)
    dispatched, combined = all_to_all_bytes(128, 7168, 8, 8)
    assert dispatched == pytest.approx(4_817_900, rel=ONE_PERCENT)
    assert combined == pytest.approx(14_680_000, rel=ONE_PERCENT)
    assert pytest.approx(95.325, rel=ONE_PERCENT) == 128 * 7168 * 8 / 77e-6 / 1e9
    assert combined / 114e-6 / 1e9 == pytest.approx(128.77, rel=ONE_PERCENT)


def test_prefill_flops(llama_70b: Model, llama_8b: Model) -> None:
    linear, attention, head = prefill_flops(llama_70b, 8192.0)
    assert linear == 1_121_501_860_331_520
    assert attention == pytest.approx(87_972e9, rel=ONE_PERCENT)
    assert head == 2_101_346_304
    assert prefill_flops(llama_8b, 8192.0)[0] == 114_349_209_288_704
    cached_linear, cached_attention, _ = prefill_flops(llama_70b, 1024.0, 7168.0)
    seconds = (linear / 0.65 + attention / 0.55) / 8 / 989e12 + head / (8 * 3.35e12)
    cached = (cached_linear / 0.65 + cached_attention / 0.55) / 8 / 989e12 + head / (8 * 3.35e12)
    assert seconds == pytest.approx(0.23837, rel=ONE_PERCENT)
    assert cached == pytest.approx(0.032075, rel=ONE_PERCENT)


def test_llama_8b_step_against_a_published_fit(llama_8b: Model) -> None:
    step = StepModel(llama_8b, {}, "bf16").decode(reference_machine(H100), Layout(), 64.0, [2048.0])
    assert float(step.seconds) * 1e3 == pytest.approx(12.105, rel=ONE_PERCENT)
    assert float(step.seconds) * 1e3 == pytest.approx(12.377, rel=0.15)
    ideal = StepModel(llama_8b, {}, "bf16").decode(reference_machine(H100, ideal=True), Layout(), 64.0, [2048.0])
    assert float(ideal.seconds) * 1e3 == pytest.approx(9.6989, rel=ONE_PERCENT)


def test_shared_prefix_of_eight() -> None:
    tokens = group_tokens(32768, 2048, 8)
    assert tokens.read_without_cascade * 327_680 == 91_268_055_040
    assert tokens.stored * 327_680 == 16_106_127_360
    assert tokens.read_without_cascade / tokens.read_with_cascade == pytest.approx(5.6667, rel=ONE_PERCENT)


def test_vllm_cascade_heuristic() -> None:
    assert [vllm_uses_cascade(32768, b, 32, 8) for b in (8, 16, 64)] == [False, False, True]
    assert [vllm_uses_cascade(32768, b, 8, 1) for b in (8, 64)] == [False, False]
    assert cascade_waves(32768, 16, 32, 8) == (256, 249)


@pytest.mark.parametrize(
    ("batch", "ratio"),
    [
        (1, 2.576),
        (2, 2.8901),
        (4, 2.9396),
        (8, 2.6619),
        (16, 2.1129),
        (32, 1.5205),
        (64, 1.1464),
        (128, 1.0171),
    ],
)
def test_verification_reads_more_experts(deepseek_v3: Model, batch: int, ratio: float) -> None:
    formats = dict.fromkeys(("attention", "mlp", "shared_experts", "experts", "head", "router"), "fp8")
    step = StepModel(deepseek_v3, formats, "fp8")
    machine = reference_machine(H200)
    one, four = (step.decode(machine, Layout(), float(batch), [1024.0], q).bytes_by("weights") for q in (1, 4))
    assert four / one == pytest.approx(ratio, rel=ONE_PERCENT)


@pytest.mark.parametrize(
    ("batch", "eagle", "ngram"), [(1, 1.72, 1.42), (16, 1.61, 1.19), (64, 1.40, 0.87), (128, 1.27, 0.72)]
)
def test_measured_speculation_speedups(llama_8b: Model, batch: int, eagle: float, ngram: float) -> None:
    """SpecDecode-Bench, arXiv 2601.11580: Llama-3.1-8B on H100, ShareGPT."""
    machine = reference_machine(H100, step_overhead=1.2e-3, verify_overhead=1e-5)
    step, contexts = StepModel(llama_8b, {}, "bf16"), np.array([720.0])
    plain = speculative_step_seconds(step, Drafter("none", 0), machine, Layout(), float(batch), contexts)
    head = Drafter("eagle3", 3, draft_model(llama_8b, "eagle3", 32000), 0.38e-3)
    lookup = Drafter("n-gram", 5, None, verify_share=0.005875)
    for drafter, accepted, expected in ((head, 2.252, eagle), (lookup, 1.451, ngram)):
        drafted = speculative_step_seconds(step, drafter, machine, Layout(), float(batch), contexts)
        assert float(accepted * plain / drafted) == pytest.approx(expected, rel=0.20)


@pytest.mark.parametrize(
    ("batch", "eagle", "ngram"),
    [(1, 2.2276, 2.2533), (8, 2.1944, 2.1323), (64, 2.0567, 1.5943), (256, 1.5324, 1.0178)],
)
def test_speculation_speedup_by_batch(llama_8b: Model, batch: int, eagle: float, ngram: float) -> None:
    """The n-gram column at 2 %; EAGLE's drafter is priced from its layer, so at 5 %."""
    machine = reference_machine(H100, step_overhead=1.2e-3, verify_overhead=1e-5)
    step, contexts = StepModel(llama_8b, {}, "bf16"), np.array([2048.0])
    plain = speculative_step_seconds(step, Drafter("none", 0), machine, Layout(), float(batch), contexts)
    for drafter, accepted, expected, tolerance in (
        (Drafter("eagle3", 3, draft_model(llama_8b, "eagle3", 32000), 0.38e-3), 2.88, eagle, 0.05),
        (Drafter("n-gram", 5, None, verify_share=1e-3), 2.289, ngram, 0.02),
    ):
        drafted = speculative_step_seconds(step, drafter, machine, Layout(), float(batch), contexts)
        assert float(accepted * plain / drafted) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize(
    ("batch", "relative"),
    [(2, 0.98773), (4, 0.96407), (8, 0.92), (16, 0.84294), (64, 0.56098), (256, 0.23995)],
)
def test_any_batch_slows_each_request(llama_8b: Model, batch: int, relative: float) -> None:
    machine = reference_machine(H100, step_overhead=1.2e-3)
    step = StepModel(llama_8b, {}, "bf16")
    one, many = (float(step.decode(machine, Layout(), float(b), [2048.0]).seconds) for b in (1, batch))
    assert one / many == pytest.approx(relative, rel=ONE_PERCENT)


@pytest.mark.parametrize(
    ("model", "allocated"), [("gpt-oss-120b", 73_728), ("gemma-4-31b", 983_040), ("qwen3.6-27b", 65_536)]
)
def test_cache_as_vllm_allocates_it(model: str, allocated: int) -> None:
    """vLLM's logs: gpt-oss-120b 5.38 GiB for 78 384 tokens, gemma-4-31B 24.54 GiB for 26 800."""
    cache = CacheLayout(load_model(model).layers, "bf16", hybrid_manager=False)
    assert cache.allocated_bytes_per_token(Layout()) == allocated
    if model == "gpt-oss-120b":
        assert 5.38 * 2**30 / allocated == pytest.approx(78_384, rel=0.001)
    if model == "gemma-4-31b":
        assert 24.54 * 2**30 / allocated == pytest.approx(26_800, rel=0.001)


def test_sliding_window_is_flat() -> None:
    cost = attention_cost(SlidingAttention(64, 8, 64, window=128))
    assert cost.decode(1024.0, 1, "bf16") == cost.decode(32768.0, 1, "bf16")
