"""The rest of the worked examples: every number of the reference script that no other test asserts.

Each test names the example it takes its numbers from; the script computes them with other code, from dimensions.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import B200, H100, H200, reference_machine

from planner.cost.acceptance import acceptance_length, alpha_from_length, positional_acceptance_length
from planner.cost.attention import attention_cost
from planner.cost.collectives import all_to_all_bytes, measured_all_reduce, ranks_touched
from planner.cost.experts import distinct_experts
from planner.cost.layout import Layout
from planner.cost.linear import kv_head_fraction
from planner.cost.machine import Machine
from planner.cost.memory import CacheLayout
from planner.cost.prefill import prefill_flops
from planner.cost.roofline import critical_batch
from planner.cost.shared_prefix import cascade_waves, group_tokens, vllm_uses_cascade
from planner.cost.speculation import Drafter, draft_model, speculative_step_seconds
from planner.cost.step import StepModel
from planner.models import Model, load_config, load_model
from planner.models.layers import LatentAttention, MoeMlp, SparseLatentAttention
from planner.serving.kv_capacity import kv_demand
from planner.serving.occupancy import occupancy

ONE_PERCENT = 0.01
ALL_REDUCE = {("H100", 8): (5.41e-6, 195e9), ("H200", 4): (4.73e-6, 192e9), ("H200", 8): (5.10e-6, 209e9)}
DSA = SparseLatentAttention(128, 1536, 512, 64, 128, 128, False, 64, 128, 2048)


def near(value: object, expected: float, rel: float = ONE_PERCENT) -> bool:
    return float(np.asarray(value).squeeze()) == pytest.approx(expected, rel=rel)


def decode(
    model: Model, machine: Machine, batch: float, context: float, queries: int = 1, ranks: int = 1, fmt: str = "bf16"
) -> float:
    formats = dict.fromkeys(("attention", "mlp", "head"), fmt)
    step = StepModel(model, formats, "bf16").decode(machine, Layout(tensor=ranks), batch, [context], queries)
    return float(np.asarray(step.seconds).squeeze())


@pytest.mark.parametrize(("ideal", "linear", "attention", "head"), [
    (True, 4.2519, 5.1283, 0.31869), (False, 5.5142, 6.2116, 0.37893),
])  # fmt: skip
def test_ex3_where_a_step_goes(llama_8b: Model, ideal: bool, linear: float, attention: float, head: float) -> None:
    machine = reference_machine(H100, ideal=ideal)
    step = StepModel(llama_8b, {}, "bf16").decode(machine, Layout(), 64.0, [2048.0])
    by_name: dict[str, float] = {}
    for operator in step.operators:
        by_name[operator.name] = by_name.get(operator.name, 0.0) + float(np.asarray(operator.seconds)) * 1e3
    matmuls = sum(v for k, v in by_name.items() if k.startswith(("attention ", "mlp ")))
    assert near(matmuls, linear)
    assert near(by_name["decode_attention"], attention)
    logits = 4 * 64 * 128_256 / machine.ceiling("matmul", "bf16").bandwidth * 1e3  # written in fp32, not in the script
    assert near(by_name["lm head"] - logits, head)


def test_ex3_single_sequence(llama_8b: Model) -> None:
    alone = decode(llama_8b, reference_machine(H100), 1.0, 2048.0) * 1e3
    assert near(alone, 6.2638)
    assert near(alone, 5.9873, 0.15)


@pytest.mark.parametrize(("chip", "fp8"), [(H100, 295.37), (H200, 206.15), (B200, 281.25)])
def test_ex4_critical_batch_in_fp8(chip: dict[str, float], fp8: float) -> None:
    assert near(critical_batch(chip["fp8"], chip["bandwidth"], 1.0), fp8)


@pytest.mark.parametrize(("experts", "top_k", "expected"), [
    (256, 8, {1: 8.0, 2: 15.75, 4: 30.531, 8: 57.421, 16: 101.96, 32: 163.31, 64: 222.44, 128: 251.6, 256: 255.92}),
    (8, 2, {1: 2.0, 2: 3.5, 4: 5.4688, 8: 7.1991}), (128, 8, {1: 8.0, 8: 51.62, 32: 111.77, 128: 127.97}),
    (896, 16, {1: 16.0, 8: 120.28, 32: 392.62, 128: 806.74, 512: 895.91}),
])  # fmt: skip
def test_ex5_distinct_experts(experts: int, top_k: int, expected: dict[int, float]) -> None:
    for tokens, touched in expected.items():
        assert near(distinct_experts(experts, top_k, tokens), touched, 1e-4)
    assert near(distinct_experts(256, 8, 94.358), 0.95 * 256, 1e-4)


def test_ex6_parts_of_deepseek_v3(deepseek_v3: Model) -> None:
    layer = deepseek_v3.layers[-1]
    assert layer.attention is not None
    assert isinstance(layer.mlp, MoeMlp)
    assert sum(p.parameters for p in layer.attention.projections(7168)) == 187_105_280
    assert layer.mlp.expert_parameters(7168) == 44_040_192


def test_ex7_absorbed_projections_and_fp8_intensity(deepseek_v3: Model) -> None:
    spec = deepseek_v3.layers[-1].attention
    assert isinstance(spec, LatentAttention)
    absorbed = next(p for p in spec.projections(7168) if p.name == "kv_b")
    assert 2 * absorbed.parameters == 33_554_432
    part = attention_cost(spec).decode(1.0, 1, "fp8")[0]
    assert near(part.flops / part.bytes, 424.59)


@pytest.mark.parametrize(("context", "index", "index_us"), [
    (8192, (134_217_728, 1_081_344), 37.942), (32768, (536_870_912, 4_325_376), 151.77),
    (131072, (2_147_483_648, 17_301_504), 607.07),
])  # fmt: skip
def test_ex8_parts_of_sparse_attention(context: int, index: tuple[int, int], index_us: float) -> None:
    indexer, core = attention_cost(DSA).decode(float(context), 1, "fp8")
    assert (indexer.flops, indexer.bytes) == index
    assert (core.flops, core.bytes) == (570_425_344, 1_343_488)
    machine = reference_machine(H200)
    assert near(machine.ceiling("indexer").seconds(128 * indexer.flops, 128 * indexer.bytes) * 1e6, index_us)
    launch = machine.ceiling("sparse_attention").latency
    assert near(machine.ceiling("sparse_attention").seconds(128 * core.flops, 128 * core.bytes) - launch, 184.57e-6)
    assert 61 * attention_cost(DSA).stored_bytes(1.0, "fp8") == 40_016 + 8_052


def test_ex10_the_other_windowed_caches() -> None:
    mimo = CacheLayout(load_model("mimo-v2-flash").layers, "bf16")
    assert near(mimo.stored(262144.0, Layout()), 6_065_356_800, 1e-6)
    gemma = CacheLayout(load_model("gemma-3-27b").layers, "bf16")
    assert gemma.bytes_per_token(Layout()) * 131072 == 66_571_993_088


def test_ex12_every_share_of_kv_heads() -> None:
    expected = {8: (1.0, 0.25, 0.125, 0.125), 4: (1.0, 0.25, 0.25, 0.25), 1: (1.0, 1.0, 1.0, 1.0)}
    for heads, shares in expected.items():
        assert tuple(kv_head_fraction(heads, ranks) for ranks in (1, 4, 8, 16)) == shares


def test_ex13_where_a_split_step_goes(llama_70b: Model) -> None:
    machine = reference_machine(H100, all_reduce=ALL_REDUCE["H100", 8])
    step = StepModel(llama_70b, {}, "bf16").decode(machine, Layout(tensor=8), 1.0, [4096.0])
    names: dict[str, float] = {}
    for o in step.operators:
        names[o.name] = names.get(o.name, 0.0) + float(np.asarray(o.seconds)) * 1e3
    assert near(sum(v for k, v in names.items() if k.startswith(("attention ", "mlp "))), 7.2923)
    assert near(names["decode_attention"], 1.0169)
    assert near(names["lm head"], 0.096262)
    assert near(names["all-reduce"], 0.87904)
    assert near(2 * measured_all_reduce(8192 * 2, 5.41e-6, 195e9) * 1e6, 10.988)
    ideal = StepModel(llama_70b, {}, "bf16").decode(
        reference_machine(H100, ideal=True), Layout(tensor=8), 1.0, [4096.0]
    )
    assert near(float(np.asarray(ideal.seconds)) * 1e3, 5.239)


def test_ex14_sixty_four_expert_ranks() -> None:
    assert near(ranks_touched(64, 8), 7.5759)
    assert near(all_to_all_bytes(128, 7168, 8, 64)[0], 6_950_900)


def test_ex15_prefill_seconds(llama_8b: Model, llama_70b: Model) -> None:
    linear, attention, head = prefill_flops(llama_8b, 8192.0)
    assert head == 1_050_673_152
    assert near(attention, 17_594e9)
    assert near(linear / (0.65 * 989e12) + attention / (0.55 * 989e12) + head / 3.35e12, 0.21054)
    one, more = prefill_flops(llama_70b, 1.0, 104_450.0), prefill_flops(llama_70b, 1.0, 0.0)
    assert near((one[1] - more[1]) / one[0], 2.0, ONE_PERCENT)  # at half that context, on average, they are equal


def test_ex17_memory_of_a_group() -> None:
    tokens = group_tokens(32768, 2048, 8)
    assert tokens.stored == tokens.read_with_cascade
    assert near(tokens.read_without_cascade / tokens.stored, 5.6667)


@pytest.mark.parametrize(("batch", "heads", "kv_heads", "cascade", "decoding", "used"), [
    (8, 32, 8, 256, 125, False), (16, 32, 8, 256, 249, False), (64, 32, 8, 256, 993, True),
    (64, 8, 1, 256, 125, False), (8, 8, 1, 256, 16, False),
])  # fmt: skip
def test_ex18_cascade_heuristic(batch: int, heads: int, kv_heads: int, cascade: int, decoding: int, used: bool) -> None:
    assert cascade_waves(32768, batch, heads, kv_heads) == (cascade, decoding)
    assert vllm_uses_cascade(32768, batch, heads, kv_heads) is used


def test_ex19_and_ex20_acceptance_lengths() -> None:
    assert near(acceptance_length(0.8, 3), 2.952)
    assert near(acceptance_length(0.7, 5), 2.9412)
    kimi = ((1, 1.83, 0.83), (2, 2.43, 0.796), (3, 2.88, 0.784), (4, 3.24, 0.781), (5, 3.46, 0.772), (8, 3.77, 0.756))
    qwen = ((1, 1.93, 0.93), (2, 2.73, 0.907), (3, 3.39, 0.891), (5, 4.41, 0.875), (8, 5.21, 0.855))
    for k, length, alpha in (*kimi, *qwen):
        assert near(alpha_from_length(length, k), alpha)
    assert near(positional_acceptance_length([0.83, 0.72, 0.66]), 2.822)
    assert near(positional_acceptance_length([0.263, 0.878, 0.924, 0.942, 0.939]), 2.097)


@pytest.mark.parametrize(("context", "batch", "eagle", "ngram"), [
    (720, 1, 1.7393, 1.4282), (720, 16, 1.6504, 1.2678), (720, 64, 1.4643, 0.90203), (720, 128, 1.1248, 0.59477),
    (2048, 32, 2.1162, 1.8821), (2048, 128, 1.7675, 1.2214), (2048, 512, 1.4935, 0.97087),
])  # fmt: skip
def test_ex21_speculation_speedups(llama_8b: Model, context: int, batch: int, eagle: float, ngram: float) -> None:
    """The draft costs are the script's constants here, so the verify step alone is under test, at 1 %."""
    machine = reference_machine(H100, step_overhead=1.2e-3, verify_overhead=1e-5)
    lengths = (2.252, 1.451) if context == 720 else (2.88, 2.289)
    plain = decode(llama_8b, machine, float(batch), float(context))
    for k, per_token, per_context, length, expected in (
        (3, 0.712e-3, 2.38e-9, lengths[0], eagle), (5, 1e-5, 0.0, lengths[1], ngram),
    ):  # fmt: skip
        verify = decode(llama_8b, machine, float(batch), float(context), k + 1)
        assert near(length * plain / (verify + k * per_token + per_context * batch * context), expected)


@pytest.mark.parametrize(
    ("batch", "expected"), [(1, 2.2933), (8, 2.4745), (32, 2.5892), (64, 2.6198), (128, 2.5931), (256, 2.5691)]
)
def test_ex21b_speculation_at_long_context(llama_8b: Model, batch: int, expected: float) -> None:
    """With the drafter priced from its layer: it reads its own cache faster than the script's constant says."""
    machine = reference_machine(H100, step_overhead=1.2e-3, verify_overhead=1e-5)
    step, contexts = StepModel(llama_8b, {}, "bf16"), np.array([32768.0])
    plain = speculative_step_seconds(step, Drafter("none", 0), machine, Layout(), float(batch), contexts)
    head = Drafter("eagle3", 3, draft_model(llama_8b, "eagle3", 32000), 0.38e-3)
    drafted = speculative_step_seconds(step, head, machine, Layout(), float(batch), contexts)
    assert near(2.88 * plain / drafted, expected, 0.05)


@pytest.mark.parametrize(("batch", "bound"), [(1, 1.118), (4, 0.97972), (16, 1.3631), (64, 2.5123), (128, 2.8317)])
def test_ex22b_bound_on_speculation_with_experts(deepseek_v3: Model, batch: int, bound: float) -> None:
    formats = dict.fromkeys(("attention", "mlp", "shared_experts", "experts", "head", "router"), "fp8")
    step, machine = StepModel(deepseek_v3, formats, "fp8"), reference_machine(H200)
    one, four = (step.decode(machine, Layout(), float(batch), [1.0], q).bytes_by("weights") for q in (1, 4))
    assert near(2.88 / (four / one), bound)


@pytest.mark.parametrize(("batch", "context", "speedup", "drafts"), [
    (1, 4096, 0.93662, 1), (1, 32768, 1.0208, 1), (1, 100_000, 1.187, 2), (32, 4096, 1.1895, 2),
    (32, 32768, 2.5228, 6), (32, 100_000, 3.719, 8), (128, 4096, 1.5308, 3), (128, 32768, 3.4835, 8),
    (128, 100_000, 4.4248, 8),
])  # fmt: skip
def test_ex23_drafting_with_a_small_cache(
    llama_8b: Model, batch: int, context: int, speedup: float, drafts: int
) -> None:
    machine = reference_machine(H100)
    plain, draft = (decode(llama_8b, machine, float(batch), float(c)) for c in (context, 512))
    found = [
        acceptance_length(0.85, k)
        * plain
        / (k * draft + decode(llama_8b, machine, float(batch), float(context), k + 1))
        for k in range(1, 9)
    ]
    assert near(max(found), speedup)
    assert found.index(max(found)) + 1 == drafts


def test_ex24_demand_on_the_cache() -> None:
    n = np.arange(1, 513)
    rho = 8 * 1000 * 2.101e-5
    steps = (5.886e-3 + 1.207e-3 + 2.101e-5 * n + 3.926e-8 * n * 1205.0)[None, :]
    state = occupancy(np.array([[8.0]]), 249.0, steps, np.array([[512.0]]), rho)
    assert near(rho, 0.16808)
    mean = kv_demand(state.mean, state.variance, 1205.0, 2_501_894.67, 0.0)
    assert near(mean, 24_704)
    assert near(kv_demand(state.mean, state.variance, 1205.0, 2_501_894.67, 1.0) - mean, 7557.4)


@pytest.mark.parametrize(("batch", "ranks", "queries", "fmt", "per_second"), [
    (64, 4, 1, "bf16", 41.825), (16, 4, 1, "bf16", 64.45), (4, 4, 1, "bf16", 74.529), (1, 4, 1, "bf16", 77.561),
    (64, 8, 1, "bf16", 68.865), (16, 8, 1, "bf16", 99.807), (1, 8, 1, "bf16", 116.11), (64, 4, 4, "bf16", 82.959),
    (32, 8, 4, "bf16", 173.48), (16, 8, 4, "bf16", 213.97), (64, 4, 1, "fp8", 50.973), (64, 8, 4, "fp8", 129.87),
])  # fmt: skip
def test_ex28_levers_of_a_fast_tier(
    llama_70b: Model, batch: int, ranks: int, queries: int, fmt: str, per_second: float
) -> None:
    machine = reference_machine(H200, all_reduce=ALL_REDUCE["H200", ranks], step_overhead=1.2e-3, verify_overhead=1e-5)
    seconds = decode(llama_70b, machine, float(batch), 8192.0, queries, ranks, fmt)
    if queries > 1:
        seconds = (seconds + 3 * 0.6e-3 + 2.38e-9 * batch * 8192) / 2.88
    assert near(1 / seconds, per_second)


def test_ex29_limits_of_a_single_sequence(llama_70b: Model, deepseek_v3: Model) -> None:
    step = StepModel(llama_70b, {}, "bf16").decode(reference_machine(H100), Layout(), 1.0, [1.0])
    assert near(8 * 3.35e12 / step.bytes_by("weights"), 192.8)
    assert near(8 * 4.8e12 / deepseek_v3.active_parameters, 1048.5)
    assert near(21e15 / llama_70b.active_parameters, 302_150)


def test_ex30_the_batches_between(llama_8b: Model) -> None:
    machine = reference_machine(H100, step_overhead=1.2e-3)
    one = decode(llama_8b, machine, 1.0, 2048.0)
    for batch, relative in ((32, 0.72198), (128, 0.38796)):
        assert near(one / decode(llama_8b, machine, float(batch), 2048.0), relative)


def test_cache_of_the_eight_layer_model() -> None:
    """vLLM 0.32 on a CPU, 2 GiB, fp32: "CPU KV cache size: 262,144 tokens, maximum concurrency 128.00x"."""
    config = {"model_type": "llama", "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8,
              "num_key_value_heads": 2, "intermediate_size": 1024, "vocab_size": 512}  # fmt: skip
    per_token = CacheLayout(load_config(config).layers, "fp32").bytes_per_token(Layout())
    assert per_token == 8192
    assert 2 * 2**30 / per_token == 262_144
    assert 2 * 2**30 / per_token / 2048 == 128


def test_cache_both_ways() -> None:
    """As the formula has it and as vLLM allocates it without a hybrid manager; both are always known."""
    expected = {  # model: naive bytes of a token, of a token once windows are full, as allocated
        "gpt-oss-120b": (73_728, 36_864, 73_728), "gemma-4-31b": (901_120, 81_920, 983_040),
        "qwen3.6-27b": (65_536, 65_536, 65_536), "gemma-4-26b-a4b": (225_280, 20_480, 245_760),
    }  # fmt: skip
    for name, (naive, long, allocated) in expected.items():
        layers = load_model(name).layers
        cache, paged = CacheLayout(layers, "bf16"), CacheLayout(layers, "bf16", hybrid_manager=False)
        assert cache.bytes_per_token(Layout()) == naive
        assert cache.bytes_per_token(Layout(), long_context=True) == long
        assert paged.allocated_bytes_per_token(Layout()) == allocated
    gemma = CacheLayout(load_model("gemma-4-26b-a4b").layers, "bf16")
    # ollama reports 3.00 GB held at 128 k tokens: window and global layers, its own padding included
    assert near(gemma.stored(131072.0, Layout()), 3.00e9, 0.05)
    holding = sum(layer.count for layer in load_model("qwen3.6-27b").layers if "Full" in type(layer.attention).__name__)
    assert holding == 16
    assert math.isclose(gemma.stored(131072.0, Layout()) / 131072, 22_080)
