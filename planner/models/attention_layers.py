"""The attention of every layer, from the fields of a config."""

from __future__ import annotations

from typing import Any

from planner.models.fields import Config
from planner.models.layers import (
    Attention,
    BlockSparseAttention,
    CompressedAttention,
    FullAttention,
    LatentAttention,
    LinearAttention,
    Projection,
    SlidingAttention,
    SparseLatentAttention,
)

STATE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
LLAMA4_FULL_EVERY = 4  # every fourth layer attends globally, without rotary embedding
FULL = "full_attention"
SLIDING = "sliding_attention"
LINEAR = "linear_attention"
CHUNKED = "chunked_attention"


def attention_layers(c: Config, layers: int) -> list[Attention | None]:
    """One attention per layer; InputError for a kind the fields name and nothing here knows."""
    if c.get("compress_ratios") is not None:
        return compressed_layers(c, layers)
    if c.get("linear_attn_config") is not None:
        return delta_layers(c, layers)
    if c.get("kv_lora_rank") is not None:
        return latent_layers(c, layers)
    if c.get("sparse_attention_config") is not None:
        return block_sparse_layers(c, layers)
    return [_by_kind(c, kind) for kind in layer_kinds(c, layers)]


def head_dim(c: Config) -> int:
    """Head dimension: the explicit one, else hidden over heads; InputError when not whole."""
    if c.get("head_dim") is not None or c.get("attention_head_dim") is not None:
        return c.count("head_dim")
    hidden, heads = c.count("hidden"), c.count("heads")
    if hidden % heads:
        raise c.error("num_attention_heads", f"{heads} does not divide hidden size {hidden}")
    return hidden // heads


def _kv_heads(c: Config) -> int:
    heads, kv = c.count("heads"), c.count("kv_heads", c.count("heads"))
    if heads % kv:
        raise c.error("num_key_value_heads", f"{kv} does not divide the {heads} attention heads")
    return kv


def full(c: Config) -> FullAttention:
    """Grouped-query attention of a plain layer, with Qwen's output gate where the config has it."""
    gated = c.flag("attn_output_gate", c.model_type == "qwen3_next")
    value = c.count("v_head_dim", 0, zero=True) if c.model_type.startswith("mimo_v2") else 0
    over_heads = c.flag("use_qk_norm", False) and c.get("qk_norm_type") == "per_layer"
    return FullAttention(c.count("heads"), _kv_heads(c), head_dim(c), value, gated, norm_over_heads=over_heads)


def layer_kinds(c: Config, layers: int) -> list[str]:
    """Kind of every layer: full, sliding, chunked or linear attention.

    From layer_types, hybrid_layer_pattern, attn_type_list, sliding_window_pattern,
    full_attention_interval, or the family's rule. InputError for an unknown kind.
    """
    listed = c.items("layer_types", layers)
    if listed is not None:
        return [_kind_name(c, kind) for kind in listed[:layers]]
    hybrid = c.flags("hybrid_layer_pattern", layers)
    if hybrid is not None:
        return [SLIDING if flag else FULL for flag in hybrid]
    kinds = c.flags("attn_type_list", layers)
    if kinds is not None:
        return [FULL if flag else LINEAR for flag in kinds]
    if c.get("full_attention_interval") is not None:
        every = c.count("full_attention_interval")
        return [FULL if (i + 1) % every == 0 else LINEAR for i in range(layers)]
    if c.get("attention_chunk_size") is not None and c.model_type.startswith("llama4"):
        return [FULL if (i + 1) % LLAMA4_FULL_EVERY == 0 else CHUNKED for i in range(layers)]
    if c.get("sliding_window_pattern") is not None:
        every = c.count("sliding_window_pattern")
        return [FULL if (i + 1) % every == 0 else SLIDING for i in range(layers)]
    if c.model_type.startswith("gemma2"):
        return [SLIDING if i % 2 == 0 else FULL for i in range(layers)]
    if c.model_type.startswith("gemma3") and c.get("sliding_window") is not None:
        return [FULL if (i + 1) % 6 == 0 else SLIDING for i in range(layers)]
    return [SLIDING if _windowed(c) else FULL] * layers


def _kind_name(c: Config, kind: Any) -> str:
    known = {
        FULL: FULL, "attention": FULL, "global": FULL, SLIDING: SLIDING, "sliding": SLIDING,
        "local": SLIDING, LINEAR: LINEAR, CHUNKED: CHUNKED,
    }  # fmt: skip
    if not isinstance(kind, str) or kind not in known:
        raise c.error("layer_types", f"attention kind {kind!r} is not known",
                      "full_attention, sliding_attention, chunked_attention or linear_attention")  # fmt: skip
    return known[kind]


def _windowed(c: Config) -> bool:
    """Whether every layer of a plain model is windowed: set, switched on, and below the context."""
    if c.get("sliding_window") is None or not c.flag("use_sliding_window", True):
        return False
    return c.model_type == "mistral" and c.count("sliding_window", zero=True) < c.count("max_context", 1 << 30)


def _by_kind(c: Config, kind: str) -> Attention:
    if kind == LINEAR:
        return lightning(c) if c.get("attn_type_list") is not None else gated_delta(c)
    plain = full(c)
    if kind == FULL:
        return _global(c, plain)
    if kind == CHUNKED:
        return SlidingAttention(
            plain.heads, plain.kv_heads, plain.head_dim, window=c.count("attention_chunk_size"),
            chunked=True,
        )  # fmt: skip
    window = c.count("sliding_window")
    heads = c.count("swa_num_attention_heads", plain.heads)
    kv = c.count("swa_num_key_value_heads", plain.kv_heads)
    dim = c.count("swa_head_dim", plain.head_dim)
    value = c.count("swa_v_head_dim", plain.value_dim, zero=True)
    return SlidingAttention(heads, kv, dim, value, plain.output_gate, window=window)


def _global(c: Config, plain: FullAttention) -> FullAttention:
    """The full layers of Gemma 4 have their own head size, KV heads, and may reuse K as V."""
    if c.get("global_head_dim") is None:
        return plain
    return FullAttention(
        plain.heads,
        c.count("num_global_key_value_heads", plain.kv_heads),
        c.count("global_head_dim"),
        k_is_v=c.flag("attention_k_eq_v"),
    )


def _latent(c: Config) -> dict[str, int]:
    return {
        "heads": c.count("heads"),
        "q_rank": c.count("q_lora_rank", 0, zero=True),
        "kv_rank": c.count("kv_lora_rank"),
        "rope_dim": c.count("qk_rope_head_dim"),
        "nope_dim": c.count("qk_nope_head_dim"),
        "value_dim": c.count("v_head_dim"),
    }


def latent_layers(c: Config, layers: int) -> list[Attention | None]:
    """MLA in every layer, sparse where the config has an indexer, its owner where layers share one."""
    dims = _latent(c)
    gate = c.flag("mla_use_output_gate")
    if c.get("index_topk") is None:
        return [LatentAttention(**dims, output_gate=gate)] * layers
    kinds = c.items("indexer_types", layers)
    if kinds is None:
        if c.count("index_topk_freq", 1) > 1:
            raise c.error("indexer_types", "is missing", "one per layer: index_topk_freq says that layers share one")
        kinds = ["full"] * layers
    for kind in kinds:
        if kind not in ("full", "shared"):
            raise c.error("indexer_types", f"{kind!r} is not known", "full or shared")
    return [
        SparseLatentAttention(
            **dims,
            output_gate=gate,
            index_heads=c.count("index_n_heads"),
            index_dim=c.count("index_head_dim"),
            top_k=c.count("index_topk"),
            owns_indexer=kind == "full",
        )
        for kind in kinds[:layers]
    ]


def delta_layers(c: Config, layers: int) -> list[Attention | None]:
    """Kimi Linear and K3: KDA layers and MLA layers, both lists counted from one."""
    inner = Config(c.table("linear_attn_config") or {}, c.file, "linear_attn_config")
    kda = _layer_numbers(inner, "kda_layers")
    dense = _layer_numbers(inner, "full_attn_layers") or set(range(1, layers + 1)) - kda
    if not kda.isdisjoint(dense) or kda | dense != set(range(1, layers + 1)):
        raise c.error("linear_attn_config", "kda_layers and full_attn_layers do not cover the layers once")
    heads, dim = inner.count("num_heads"), inner.count("head_dim")
    hidden, width = c.count("hidden"), inner.count("num_heads") * inner.count("head_dim")
    matrices = [
        Projection("q", hidden, width), Projection("k", hidden, width),
        Projection("v", hidden, width), Projection("beta", hidden, heads),
        Projection("decay_a", hidden, dim, "none"), Projection("decay_b", dim, width),
        *( [Projection("gate", hidden, width)] if inner.flag("use_full_rank_gate")
           else [Projection("gate_a", hidden, dim, "none"), Projection("gate_b", dim, width)] ),
        Projection("o", width, hidden, "row"),
    ]  # fmt: skip
    linear = LinearAttention(
        "kda", heads, dim, dim, 4, inner.count("short_conv_kernel_size", 4), 3 * width,
        tuple(matrices),
    )  # fmt: skip
    latent = LatentAttention(**_latent(c), output_gate=c.flag("mla_use_output_gate"))
    return [linear if i in kda else latent for i in range(1, layers + 1)]


def _layer_numbers(c: Config, key: str) -> set[int]:
    listed = c.items(key) or []
    for entry in listed:
        if isinstance(entry, bool) or not isinstance(entry, int):
            raise c.error(key, f"holds {entry!r}", "numbers of layers, counted from one")
    return set(listed)


def gated_delta(c: Config) -> LinearAttention:
    """Gated DeltaNet of Qwen3-Next and Qwen3.5: key and value heads differ in number."""
    keys = c.count("linear_num_key_heads") * c.count("linear_key_head_dim")
    heads, dim = c.count("linear_num_value_heads"), c.count("linear_value_head_dim")
    hidden, values = c.count("hidden"), heads * dim
    matrices = (
        Projection("qkvz", hidden, 2 * keys + 2 * values), Projection("ba", hidden, 2 * heads),
        Projection("o", values, hidden, "row"),
    )  # fmt: skip
    return LinearAttention(
        "gated-deltanet", heads, c.count("linear_key_head_dim"), dim, _state_bytes(c, "mamba_ssm_dtype"),
        c.count("linear_conv_kernel_dim"), 2 * keys + values, matrices,
    )  # fmt: skip


def lightning(c: Config) -> LinearAttention:
    """Lightning attention of MiniMax-M1: plain linear attention with an output gate."""
    heads, dim, hidden = c.count("heads"), head_dim(c), c.count("hidden")
    matrices = (
        Projection("qkv", hidden, 3 * heads * dim), Projection("gate", hidden, heads * dim),
        Projection("o", heads * dim, hidden, "row"),
    )  # fmt: skip
    return LinearAttention("lightning", heads, dim, dim, 4, matrices=matrices)


def mamba(c: Config) -> LinearAttention:
    """Mamba-2 of Nemotron-H: state heads x head_dim x state size, B and C shared by groups."""
    heads, dim = c.count("mamba_num_heads"), c.count("mamba_head_dim")
    state, groups = c.count("ssm_state_size"), c.count("n_groups")
    hidden, inner = c.count("hidden"), heads * dim
    channels = inner + 2 * groups * state
    matrices = (
        Projection("in", hidden, inner + channels + heads), Projection("out", inner, hidden, "row"),
    )  # fmt: skip
    return LinearAttention(
        "mamba2", heads, state, dim, _state_bytes(c, "mamba_ssm_cache_dtype"),
        c.count("conv_kernel", 4), channels, matrices,
    )  # fmt: skip


def _state_bytes(c: Config, key: str) -> int:
    name = str(c.get(key, "float32"))
    if name not in STATE_BYTES:
        raise c.error(key, f"is {name!r}", "one of " + ", ".join(STATE_BYTES))
    return STATE_BYTES[name]


def compressed_layers(c: Config, layers: int) -> list[Attention | None]:
    """DeepSeek V4: one ratio per layer; 4 is indexed (CSA), 128 dense (HCA), 0 the window alone."""
    ratios = c.items("compress_ratios", layers) or []
    found: list[Attention | None] = []
    for ratio in ratios[:layers]:
        if not isinstance(ratio, int) or ratio < 0:
            raise c.error("compress_ratios", f"holds {ratio!r}", "whole numbers, zero or more")
        indexed = 0 < ratio < 128
        found.append(
            CompressedAttention(
                c.count("heads"), c.count("head_dim"), c.count("q_lora_rank"), ratio,
                c.count("sliding_window"), c.count("o_lora_rank", 0, zero=True),
                c.count("o_groups", 1),
                c.count("index_topk") if indexed else 0,
                c.count("index_n_heads") if indexed else 0,
                c.count("index_head_dim") if indexed else 0,
            )
        )  # fmt: skip
    return found


def block_sparse_layers(c: Config, layers: int) -> list[Attention | None]:
    """MiniMax-M3: blocks chosen by an indexer in the layers its list marks."""
    inner, plain = Config(c.table("sparse_attention_config") or {}, c.file, "sparse_attention_config"), full(c)
    marks = inner.flags("sparse_attention_freq", layers) or [True] * layers
    block = inner.count("sparse_block_size")
    sparse = BlockSparseAttention(
        plain.heads, plain.kv_heads, plain.head_dim, block=block,
        top_blocks=inner.count("sparse_topk_blocks"),
        window=block * inner.count("sparse_local_block", 0, zero=True),
        index_heads=inner.count("sparse_num_index_heads"), index_dim=inner.count("sparse_index_dim"),
    )  # fmt: skip
    return [sparse if mark else plain for mark in marks[:layers]]
