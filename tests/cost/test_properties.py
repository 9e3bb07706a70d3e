"""What must always hold of costs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from conftest import H100, H200, reference_machine
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.cost.acceptance import acceptance_length, expected_acceptance, positional_acceptance_length
from planner.cost.attention import attention_cost
from planner.cost.experts import distinct_experts
from planner.cost.layout import Layout
from planner.cost.machine import Machine
from planner.cost.memory import CacheLayout, weight_bytes_per_device
from planner.cost.roofline import roofline
from planner.cost.shared_prefix import group_tokens
from planner.cost.step import StepModel
from planner.hardware.acceptance import load_acceptance
from planner.models import load_model
from planner.models.layers import (
    BlockSparseAttention,
    CompressedAttention,
    FullAttention,
    LatentAttention,
    LinearAttention,
    SlidingAttention,
    SparseLatentAttention,
)

MODELS = ("llama-3.1-8b", "deepseek-v3.2", "gpt-oss-120b", "qwen3.5-397b-a17b", "deepseek-v4-pro", "minimax-m3",
          "kimi-k3", "glm-5.2-fp8", "nvidia-nemotron-3-ultra-550b-a55b-bf16", "gemma-4-31b")  # fmt: skip
KINDS = (
    FullAttention(32, 8, 128),
    SlidingAttention(32, 8, 128, window=1024),
    LatentAttention(128, 1536, 512, 64, 128, 128),
    SparseLatentAttention(128, 1536, 512, 64, 128, 128, False, 64, 128, 2048),
    BlockSparseAttention(64, 4, 128, block=128, top_blocks=16, window=128, index_heads=4, index_dim=128),
    BlockSparseAttention(64, 4, 192, 128, block=64, top_blocks=16, window=512, stride=16, compress_block=32),
    CompressedAttention(128, 512, 1536, 4, 128, 1024, 16, 1024, 64, 128),
    CompressedAttention(128, 512, 1536, 128, 128),
    LinearAttention("mamba2", 64, 128, 64),
)
positive = st.floats(1.0, 1e15)


@given(positive, positive, positive, positive, st.floats(0, 1e-3))
def test_never_below_either_bound(flops: float, moved: float, peak: float, bandwidth: float, latency: float) -> None:
    for exponent in (np.inf, 4.0, 2.0):
        t = float(roofline(flops, moved, peak, bandwidth, latency, exponent))
        assert t >= latency + max(flops / peak, moved / bandwidth) * (1 - 1e-9)


@given(st.integers(2, 512), st.floats(1, 4096), st.floats(1.01, 2))
def test_distinct_experts_grow_and_stay_below_all(experts: int, tokens: float, more: float) -> None:
    k = max(1, experts // 16)
    few, many = distinct_experts(experts, k, tokens), distinct_experts(experts, k, tokens * more)
    assert min(k, experts) - 1e-9 <= few <= many + 1e-9 <= experts + 2e-9


def step(model: str, batch: float, context: float, queries: int = 1, machine: Machine | None = None) -> float:
    loaded = load_model(model)
    fast = machine or reference_machine(H200)
    priced = StepModel(loaded, {}, "bf16").decode(fast, Layout(), batch, [context], queries)
    return float(np.asarray(priced.seconds).squeeze())


@pytest.mark.parametrize("model", MODELS)
@settings(max_examples=15, deadline=None)
@given(st.floats(1, 400), st.floats(64, 200_000), st.integers(1, 6))
def test_step_time_grows_with_batch_context_and_drafts(model: str, batch: float, context: float, queries: int) -> None:
    base = step(model, batch, context, queries)
    assert step(model, batch * 1.25, context, queries) > base
    assert step(model, batch, context * 1.5, queries) > base
    assert step(model, batch, context, queries + 1) > base
    assert batch * 1.25 / step(model, batch * 1.25, context) >= batch / step(model, batch, context) * (1 - 1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_more_bandwidth_is_never_slower(model: str) -> None:
    slow, fast = reference_machine(H100), reference_machine(H200)
    for batch in (1, 16, 256):
        assert step(model, batch, 8192.0, machine=fast) <= step(model, batch, 8192.0, machine=slow)


@pytest.mark.parametrize("model", MODELS)
def test_step_time_splits_without_loss(model: str) -> None:
    cost = StepModel(load_model(model), {}, "bf16").decode(reference_machine(H200), Layout(), 32.0, [4096.0])
    causes = cost.seconds_by_cause()
    assert sum(float(np.asarray(v).squeeze()) for v in causes.values()) == pytest.approx(
        float(np.asarray(cost.seconds).squeeze())
    )
    assert all(float(np.asarray(v).squeeze()) >= 0 for v in causes.values())


@pytest.mark.parametrize("spec", KINDS, ids=lambda s: type(s).__name__)
@settings(max_examples=30, deadline=None)
@given(st.floats(1, 1e6), st.floats(1.0, 3.0))
def test_attention_is_monotone_in_context(spec: object, context: float, more: float) -> None:
    cost = attention_cost(spec)  # type: ignore[arg-type]
    for fmt in ("bf16", "fp8"):
        assert cost.stored_bytes(context * more, fmt) >= cost.stored_bytes(context, fmt)
        small, large = cost.decode(context, 1, fmt), cost.decode(context * more, 1, fmt)
        for a, b in zip(small, large, strict=True):
            assert float(b.flops) >= float(a.flops) * (1 - 1e-12)
            assert float(b.bytes) >= float(a.bytes) * (1 - 1e-12)


@given(st.floats(1, 2048))
def test_sparse_below_its_top_k_is_dense(context: float) -> None:
    dense = attention_cost(LatentAttention(128, 1536, 512, 64, 128, 128)).decode(context, 1, "bf16")[0]
    sparse = attention_cost(SparseLatentAttention(128, 1536, 512, 64, 128, 128, False, 64, 128, 2048))
    core = sparse.decode(context, 1, "bf16")[-1]
    assert (core.flops, core.bytes) == (dense.flops, dense.bytes)


@given(st.integers(1, 200_000))
def test_sparse_bytes_against_dense(context: int) -> None:
    sparse = attention_cost(SparseLatentAttention(128, 1536, 512, 64, 128, 128, False, 64, 128, 2048))
    moved = sum(float(p.bytes) for p in sparse.decode(float(context), 1, "fp8"))
    assert moved < 1152 * context
    assert (moved < 656 * context) == (context > 2564)


@given(st.integers(1, 64), st.floats(0, 1e5), st.floats(1, 1e5))
def test_cascade_never_reads_more(sequences: int, prefix: float, unique: float) -> None:
    tokens = group_tokens(prefix, unique, sequences)
    assert tokens.read_with_cascade <= tokens.read_without_cascade * (1 + 1e-12)
    if sequences == 1:
        assert tokens.read_with_cascade == tokens.read_without_cascade


@given(st.floats(0, 1), st.integers(0, 20))
def test_acceptance_length_is_bounded(alpha: float, k: int) -> None:
    assert 1 - 1e-9 <= acceptance_length(alpha, k) <= k + 1 + 1e-9
    assert 1 <= positional_acceptance_length([alpha] * k) <= k + 1 + 1e-9


@pytest.mark.parametrize("method", ["n-gram", "mtp", "eagle3", "draft-model"])
@pytest.mark.parametrize(
    "task", ["chat", "code", "code-edit", "math", "rag", "summarise", "qa", "translation", "creative"]
)
def test_acceptance_data_is_bounded_and_grows(method: str, task: str) -> None:
    k = np.arange(0.0, 12.0)
    found = expected_acceptance(load_acceptance(), method, k, task)
    assert np.all(found.length >= 1)
    assert np.all(found.length <= k + 1)
    assert np.all(np.diff(found.length) >= 0)
    assert np.all(found.low <= found.length)
    assert np.all(found.length <= found.high)


@pytest.mark.parametrize("model", ["llama-3.1-70b", "deepseek-v3.2", "gpt-oss-120b", "kimi-k2.5"])
def test_parallelism_conserves_or_replicates_weights(model: str) -> None:
    loaded = load_model(model)
    whole = float(np.asarray(weight_bytes_per_device(loaded, loaded.formats, Layout())))
    assert whole == pytest.approx(loaded.weight_bytes(), rel=1e-9)
    for ranks in (2, 4, 8):
        split = float(np.asarray(weight_bytes_per_device(loaded, loaded.formats, Layout(tensor=ranks))))
        assert whole / ranks * (1 - 1e-9) <= split < whole


def test_latent_cache_is_replicated_over_tensor_ranks() -> None:
    cache = CacheLayout(load_model("deepseek-v3").layers, "bf16")
    assert cache.bytes_per_token(Layout(tensor=8)) == cache.bytes_per_token(Layout())


def test_vectorised_costs_equal_scalar_ones() -> None:
    model = StepModel(load_model("deepseek-v3.2"), {}, "bf16", 0.7)
    batches = np.array([[1.0, 7.0, 64.0, 300.0]])
    layout = Layout(tensor=np.array([[4.0], [8.0]]), data=np.array([[2.0], [1.0]]), expert=np.array([[8.0], [1.0]]))
    machine = dataclasses.replace(
        reference_machine(H200), all_reduce_latency=5e-6, all_reduce_bandwidth=2e11, all_to_all_latency=1e-5,
        all_to_all_bandwidth=2e11,
    )  # fmt: skip
    many = np.asarray(model.decode(machine, layout, batches, [1000.0, 9000.0], 3).seconds)
    for row, (t, d, e) in enumerate(((4, 2, 8), (8, 1, 1))):
        for column, batch in enumerate(batches[0]):
            one = model.decode(machine, Layout(t, 1, d, e), float(batch), [1000.0, 9000.0], 3).seconds
            assert many[row, column] == pytest.approx(float(np.asarray(one).squeeze()), rel=1e-12)
