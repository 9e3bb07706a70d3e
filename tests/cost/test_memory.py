"""What an accelerator holds: scales of number formats, replication over ranks, the largest context that fits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.cost.layout import Layout
from planner.cost.memory import CacheLayout, largest_context, weight_bytes_per_device
from planner.models import load_model
from planner.models.formats import FORMATS
from planner.models.layers import MoeMlp

MODELS = ("llama-3.1-70b", "gpt-oss-120b", "deepseek-v3.2", "qwen3.6-27b", "kimi-k3", "deepseek-v4-pro", "minimax-m3",
          "gemma-4-31b", "nvidia-nemotron-3-super-120b-a12b-nvfp4")  # fmt: skip


@pytest.mark.parametrize(("fmt", "bits"), [
    ("fp32", 32), ("bf16", 16), ("fp8", 8), ("fp8-block", 8 + 32 / 128**2), ("int8", 8), ("int4", 4 + 16 / 128),
    ("int4-g32", 4.5), ("mxfp4", 4.25), ("nvfp4", 4.5),
])  # fmt: skip
def test_scales_are_counted(fmt: str, bits: float) -> None:
    assert FORMATS[fmt].bytes_per_element == bits / 8
    model = load_model("llama-3.1-70b")
    formats = dict.fromkeys(("attention", "mlp"), fmt)
    matmuls = model.total_parameters - 2 * model.embedding_parameters - model.extra_parameters
    assert model.weight_bytes(formats) == pytest.approx(
        matmuls * bits / 8 + 2 * (2 * model.embedding_parameters + model.extra_parameters), rel=1e-12
    )


def test_checkpoints_with_mixed_formats() -> None:
    """gpt-oss keeps attention and embeddings in bf16 and its experts in mxfp4."""
    model = load_model("gpt-oss-120b")
    experts = sum(x.count * x.mlp.experts * x.mlp.expert_parameters(model.hidden) for x in model.layers
                  if isinstance(x.mlp, MoeMlp))  # fmt: skip
    assert model.weight_bytes() == pytest.approx(experts * 4.25 / 8 + (model.total_parameters - experts) * 2, rel=1e-12)


def device(name: str, layout: Layout) -> float:
    model = load_model(name)
    return float(np.asarray(weight_bytes_per_device(model, model.formats, layout)))


def test_attention_data_parallelism_copies_all_but_the_experts() -> None:
    model = load_model("deepseek-v3")
    experts = 58 * 256 * 44_040_192 * FORMATS["fp8-block"].bytes_per_element
    whole = device("deepseek-v3", Layout())
    split = device("deepseek-v3", Layout(tensor=1, data=8, expert=8))
    norms = 2.0 * model.extra_parameters * (1 - 1 / 8)
    assert split == pytest.approx(whole - experts * 7 / 8 - norms, rel=1e-9)
    assert device("deepseek-v3", Layout(tensor=8)) < split < whole / 6


@pytest.mark.parametrize("ranks", [2, 8, 16])
def test_a_latent_is_on_every_rank_and_kv_heads_are_not(ranks: int) -> None:
    for name in ("deepseek-v3", "deepseek-v3.2", "kimi-k2.5", "deepseek-v4-pro"):
        cache = CacheLayout(load_model(name).layers, "bf16")
        assert float(np.asarray(cache.stored(4096.0, Layout(tensor=ranks)))) == pytest.approx(
            float(np.asarray(cache.stored(4096.0, Layout())))
        )
    grouped = CacheLayout(load_model("llama-3.1-70b").layers, "bf16")
    assert grouped.bytes_per_token(Layout(tensor=ranks)) == 327_680 / min(ranks, 8)
    state = CacheLayout(load_model("qwen3.6-27b").layers, "bf16")
    assert float(state.state(Layout(tensor=ranks))) == pytest.approx(float(state.state(Layout())) / ranks)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 10**6), st.floats(1e6, 5e11), st.sampled_from(["bf16", "fp8"]), st.booleans())
def test_the_largest_context_is_the_last_that_fits(
    name: str, limit: int, budget: float, fmt: str, hybrid: bool
) -> None:
    cache, layout = CacheLayout(load_model(name).layers, fmt, hybrid), Layout(tensor=4)
    found = largest_context(cache, layout, budget, limit)
    room = budget - float(np.asarray(cache.state(layout)))
    assert 0 <= found <= limit
    if found:
        assert float(np.asarray(cache.allocated(float(found), layout))) <= room
    if found < limit:
        assert float(np.asarray(cache.allocated(found + 1.0, layout))) > room


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=25, deadline=None)
@given(st.floats(1, 1e6), st.floats(1, 2), st.integers(1, 16))
def test_an_engine_never_allocates_less_than_is_stored(name: str, context: float, more: float, ranks: int) -> None:
    layers, layout = load_model(name).layers, Layout(tensor=ranks)
    for hybrid in (True, False):
        cache = CacheLayout(layers, "bf16", hybrid)
        stored, allocated = (float(np.asarray(f(context, layout))) for f in (cache.stored, cache.allocated))
        assert allocated >= stored * (1 - 1e-12)
        assert float(np.asarray(cache.allocated(context * more, layout))) >= allocated * (1 - 1e-12)
