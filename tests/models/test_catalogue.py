"""The catalogue: every entry loads, counts match what makers publish, structures are right."""

from __future__ import annotations

import pytest

from planner.errors import InputError
from planner.models import check_catalogue, difference_from_published, list_models, load_model
from planner.models.catalogue import ROOT
from planner.models.layers import (
    BlockSparseAttention,
    CompressedAttention,
    FullAttention,
    LatentAttention,
    LinearAttention,
    MoeMlp,
    SlidingAttention,
    SparseLatentAttention,
)

NAMES = sorted(path.stem for path in ROOT.glob("*.toml"))
NAME, VISION, TRILLION = "name rounds the count", "vision tower", "published as 1 T"
MODULE, HEAD, ROUNDED = "multi-token-prediction module", "leaves out the output head", "active count is rounded"
#: every model whose computed total differs by over 1 % from the published one, with the reason its entry gives
TOTALS = {
    NAME: (
        "deepseek-v4-pro", "deepseek-v4-pro-fp8", "deepseek-v4-pro-nvfp4", "gemma-2-9b",
        "llama-3-3-nemotron-super-49b-v1", "llama-3.2-1b-instruct", "llama-3.2-3b", "mimo-7b-base",
        "ministral-3-3b-2512", "mistral-7b-v0.3", "mistral-nemo-instruct-2407", "nvidia-nemotron-3-nano-30b-a3b-bf16",
        "nvidia-nemotron-3-nano-30b-a3b-nvfp4", "nvidia-nemotron-3.5-lightning-30b-a3b-nvfp4", "qwen2.5-14b",
        "qwen2.5-32b-instruct", "qwen2.5-7b", "qwen3-1.7b", "qwen3-14b", "qwen3-30b-a3b", "qwen3-30b-a3b-fp8",
        "qwen3-32b", "qwen3-32b-fp8", "qwen3-32b-fp8-static-pertensor", "qwen3-8b", "yi-34b",
    ),
    VISION: (
        "gemma-3-12b", "gemma-3-4b", "gemma-4-26b-a4b", "gemma-4-26b-a4b-nvfp4", "qwen3-vl-2b-instruct",
        "qwen3-vl-30b-a3b-instruct", "qwen3-vl-32b-instruct", "qwen3-vl-32b-thinking", "qwen3-vl-8b-instruct",
    ),
    TRILLION: ("kimi-k2-instruct", "kimi-k2.5", "kimi-k2.5-nvfp4", "kimi-k2.6", "kimi-k2.6-nvfp4", "kimi-k2.7-code-nvfp4"),
    MODULE: ("nvidia-nemotron-3-super-120b-a12b-fp8", "nvidia-nemotron-3-super-120b-a12b-nvfp4"),
}  # fmt: skip
#: the same of active parameters, where the figure lies outside both ways to count the input embedding
ACTIVE = {
    HEAD: ("glm-4.5", "glm-4.5-air", "glm-5", "glm-5-fp8", "glm-5-nvfp4", "glm-5.1", "glm-5.1-fp8", "glm-5.1-nvfp4"),
    ROUNDED: (
        "deepseek-v4-flash", "deepseek-v4-flash-fp8", "deepseek-v4-flash-nvfp4", "kimi-linear-48b-a3b-instruct",
        "qwen3.5-122b-a10b", "qwen3.5-122b-a10b-nvfp4",
    ),
    NAME: (
        "nvidia-nemotron-3-nano-30b-a3b-bf16", "nvidia-nemotron-3-nano-30b-a3b-nvfp4",
        "nvidia-nemotron-3.5-lightning-30b-a3b-nvfp4", "qwen3-30b-a3b", "qwen3-30b-a3b-fp8",
    ),
    VISION: ("qwen3-vl-30b-a3b-instruct",),
}  # fmt: skip


def counts(model: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for layer in load_model(model).layers:
        name = type(layer.attention).__name__
        found[name] = found.get(name, 0) + layer.count
    return found


def test_size_and_health() -> None:
    assert len(NAMES) >= 110
    assert check_catalogue() == []


def test_published_totals() -> None:
    within: list[str] = []
    outside: list[str] = []
    for name in NAMES:
        model = load_model(name)
        said = model.published.total_parameters
        if said:
            (within if abs(model.total_parameters / said - 1) <= 0.01 else outside).append(name)
    assert len(within) >= 60
    assert sorted(outside) == sorted(name for names in TOTALS.values() for name in names)


def test_published_active_counts() -> None:
    outside = []
    for name in NAMES:
        model = load_model(name)
        said = model.published.active_parameters
        if said and "active parameters" in (difference_from_published(model) or ""):
            outside.append(name)
    assert sorted(outside) == sorted(name for names in ACTIVE.values() for name in names)


@pytest.mark.parametrize(
    ("reason", "name"), [(why, n) for table in (TOTALS, ACTIVE) for why, names in table.items() for n in names]
)
def test_every_exception_says_why(reason: str, name: str) -> None:
    model = load_model(name)
    assert reason in model.published.note
    assert model.published.note in (difference_from_published(model) or "")


def test_a_difference_is_said() -> None:
    text = difference_from_published(load_model("glm-4.5-air")) or ""
    assert "computed 12.80 B active parameters, published 12 B: +6.7%" in text
    assert difference_from_published(load_model("deepseek-v3")) is None


@pytest.mark.parametrize(
    ("model", "total", "active"),
    [("qwen3-next-80b-a3b", 79.67e9, None), ("kimi-k2-instruct", 1026.4e9, None), ("glm-5", 743.9e9, None),
     ("qwen3.5-397b-a17b", 396.4e9, 16.33e9), ("qwen3-235b-a22b", 235.09e9, 21.57e9), ("gpt-oss-120b", 116.83e9, 5.13e9),
     ("llama-3.1-405b", 405.85e9, None), ("mixtral-8x7b-v0.1", 46.70e9, None), ("deepseek-v4-flash", 284e9, None)],
)  # fmt: skip
def test_parameter_counts(model: str, total: float, active: float | None) -> None:
    loaded = load_model(model)
    assert loaded.total_parameters == pytest.approx(total, rel=0.002)
    if active:
        assert loaded.active_parameters == pytest.approx(active, rel=0.002)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-oss-120b", {"SlidingAttention": 18, "FullAttention": 18}),
        ("gemma-3-27b", {"SlidingAttention": 52, "FullAttention": 10}),
        ("gemma-4-31b", {"SlidingAttention": 50, "FullAttention": 10}),
        ("qwen3.6-27b", {"LinearAttention": 48, "FullAttention": 16}),
        ("qwen3.5-397b-a17b", {"LinearAttention": 45, "FullAttention": 15}),
        ("qwen3-next-80b-a3b", {"LinearAttention": 36, "FullAttention": 12}),
        ("deepseek-v3", {"LatentAttention": 61}),
        ("deepseek-v3.2", {"SparseLatentAttention": 61}),
        ("glm-5.2", {"SparseLatentAttention": 78}),
        ("deepseek-v4-pro", {"CompressedAttention": 61}),
        ("kimi-k3", {"LinearAttention": 69, "LatentAttention": 24}),
        ("kimi-linear-48b-a3b-instruct", {"LinearAttention": 20, "LatentAttention": 7}),
        ("minimax-m3", {"BlockSparseAttention": 57, "FullAttention": 3}),
        ("mimo-v2-flash", {"SlidingAttention": 39, "FullAttention": 9}),
        ("llama-4-scout-17b-16e-instruct", {"SlidingAttention": 36, "FullAttention": 12}),
        (
            "nvidia-nemotron-3-ultra-550b-a55b-bf16",
            {"LinearAttention": 48, "FullAttention": 12, "NoneType": 48},
        ),
        ("mistral-7b-v0.3", {"FullAttention": 32}),
    ],
)
def test_attention_of_each_family(model: str, expected: dict[str, int]) -> None:
    assert counts(model) == expected


def test_details_of_families() -> None:
    glm = load_model("glm-5.2")
    owners = sum(
        x.count for x in glm.layers if isinstance(x.attention, SparseLatentAttention) and x.attention.owns_indexer
    )
    assert owners == 21
    pro = [x.attention for x in load_model("deepseek-v4-pro").layers if isinstance(x.attention, CompressedAttention)]
    assert {a.ratio for a in pro} == {4, 128}
    assert all((a.top_k == 1024) == (a.ratio == 4) for a in pro)
    m3 = [x.attention for x in load_model("minimax-m3").layers if isinstance(x.attention, BlockSparseAttention)]
    assert (m3[0].block, m3[0].top_blocks) == (128, 16)
    gemma = [x.attention for x in load_model("gemma-4-31b").layers if type(x.attention) is FullAttention]
    assert (gemma[0].head_dim, gemma[0].kv_heads, gemma[0].k_is_v) == (512, 4, True)
    mimo = [x.attention for x in load_model("mimo-v2-flash").layers if isinstance(x.attention, SlidingAttention)]
    assert (mimo[0].kv_heads, mimo[0].head_dim, mimo[0].value_dim, mimo[0].window) == (8, 192, 128, 128)
    kimi = [x.mlp for x in load_model("kimi-k3").layers if isinstance(x.mlp, MoeMlp)]
    assert (kimi[0].experts, kimi[0].top_k, kimi[0].latent) == (896, 16, 3584)
    state = [x.attention for x in load_model("kimi-k3").layers if isinstance(x.attention, LinearAttention)]
    assert state[0].heads * state[0].key_dim * state[0].value_dim * 4 == 6_291_456
    lite = [x.attention for x in load_model("deepseek-v2-lite").layers if isinstance(x.attention, LatentAttention)]
    assert lite[0].q_rank == 0
    assert load_model("gemma-4-e2b").layers[-1].attention.shares_kv  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("model", "group", "fmt"),
    [("deepseek-r1", "experts", "fp8-block"), ("gpt-oss-20b", "experts", "mxfp4"), ("gpt-oss-20b", "attention", "bf16"),
     ("kimi-k2.5", "experts", "int4-g32"), ("kimi-k2.5", "attention", "bf16"), ("kimi-k3", "experts", "mxfp4"),
     ("deepseek-v3.2-nvfp4", "experts", "nvfp4"), ("deepseek-v3.2-nvfp4", "attention", "bf16"),
     ("glm-5.2-nvfp4", "shared_experts", "bf16"), ("deepseek-v4-pro", "experts", "mxfp4"),
     ("gemma-4-26b-a4b-nvfp4", "experts", "nvfp4"), ("gemma-4-26b-a4b-nvfp4", "mlp", "bf16"),
     ("deepseek-v4-flash-nvfp4", "attention", "fp8-block"),
     ("llama-3.1-70b-instruct-fp8", "mlp", "fp8"), ("qwen3.6-35b-a3b-nvfp4", "experts", "nvfp4")],
)  # fmt: skip
def test_stored_formats(model: str, group: str, fmt: str) -> None:
    assert load_model(model).format_of(group) == fmt


@pytest.mark.parametrize(
    "name", ["deepseek-ai/DeepSeek-V3.2", "DEEPSEEK-V3.2", "deepseek-v3.2-exp", "meta-llama/Llama-3.1-8B-Instruct",
             "meta-llama/Meta-Llama-3.1-8B", "llama-3.3-70b", "openai/gpt-oss-120b", "GLM-4.6"],
)  # fmt: skip
def test_names_people_type(name: str) -> None:
    assert load_model(name).num_layers > 0


def test_unknown_names_suggest() -> None:
    with pytest.raises(InputError, match="Did you mean 'qwen3-32b'"):
        load_model("qwen3-32")


def test_list_is_sorted_and_complete() -> None:
    names = [m.name for m in list_models()]
    assert names == sorted(names)
    assert names == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_has_sane_figures(name: str) -> None:
    model = load_model(name)
    assert 0 < model.active_parameters <= model.total_parameters * 1.01
    assert model.hidden > 0
    assert model.source
    assert model.hf_id


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("moonshotai/Kimi-K2-Thinking", "kimi-k2.5"), ("MiniMaxAI/MiniMax-M2", "minimax-m2.5"),
        ("MiniMaxAI/MiniMax-M2.1", "minimax-m2.5"), ("Qwen/QwQ-32B", "qwen2.5-32b-instruct"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "llama-3.3-70b-instruct"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", "qwen2.5-14b"), ("google/gemma-4-31b-it", "gemma-4-31b"),
    ],
)  # fmt: skip
def test_checkpoints_of_one_shape_go_by_their_names(alias: str, name: str) -> None:
    assert load_model(alias).name == name


@pytest.mark.parametrize(
    ("alias", "name", "billions"),
    [
        ("Llama-2-7B", "llama-2-7b-hf", 6.74), ("llama-13b", "llama-2-13b", 13.02), ("llama2-70b", "llama-2-70b", 68.98),
        ("LLaMA-70B", "llama-2-70b", 68.98), ("gptj", "gpt-j-6b", 6.05), ("tiiuae/falcon-180B", "falcon-180b", 178.6),
        ("llama3.1-405b", "llama-3.1-405b", 405.9),
    ],
)  # fmt: skip
def test_models_of_older_benchmarks_go_by_the_names_benchmarks_print(alias: str, name: str, billions: float) -> None:
    model = load_model(alias)
    assert model.name == name
    assert model.total_parameters / 1e9 == pytest.approx(billions, rel=2e-3)


def test_blocks_of_two_matrices() -> None:
    for name, width in (("gpt-j-6b", 16384), ("falcon-180b", 4 * 14848)):
        (layer,) = load_model(name).layers
        assert layer.mlp is not None and not isinstance(layer.mlp, MoeMlp)
        assert (layer.mlp.intermediate, layer.mlp.gated) == (width, False)
