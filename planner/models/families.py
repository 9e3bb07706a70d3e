"""The model families this loader knows, and the fields each must spell out: nothing is guessed."""

from __future__ import annotations

from planner.errors import InputError, nearest
from planner.models.fields import NAMES, Config

#: model types whose layers the loader builds; anything else is an error
FAMILIES = (
    "llama", "mistral", "mistral3", "ministral", "ministral3", "mixtral", "qwen2", "qwen2_moe",
    "qwen3", "qwen3_moe", "qwen3_vl", "qwen3_vl_text", "qwen3_vl_moe", "qwen3_vl_moe_text",
    "qwen2_vl", "qwen2_5_vl", "qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe",
    "qwen3_5_moe_text", "phi3", "gemma", "gemma2", "gemma3", "gemma3_text", "gemma4", "gemma4_text",
    "cohere", "gpt_oss", "deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_v4", "deepseek_ref",
    "kimi_k2", "kimi_k25", "kimi_linear", "kimi_k3", "glm4_moe", "glm_moe_dsa", "minimax_m1",
    "minimax_m2", "minimax_m3", "minimax_m3_vl", "mimo", "mimo_v2_flash", "nemotron_h",
    "nemotron-nas", "llama4", "llama4_text", "step3p7", "internvl_chat", "yi",
)  # fmt: skip
ARCHITECTURES = {"LlamaForCausalLM": "llama", "MistralForCausalLM": "mistral"}

MLA = ("deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "kimi_k25", "kimi_linear", "kimi_k3", "glm_moe_dsa")
DEEPSEEK_V4 = ("deepseek_v4", "deepseek_ref")
DELTA = ("qwen3_next", "qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text")
GEMMA4 = ("gemma4", "gemma4_text")
LLAMA4 = ("llama4", "llama4_text")
M3 = ("minimax_m3", "minimax_m3_vl")
#: expert blocks whose width has a field of its own
ROUTED = (
    *MLA, *DEEPSEEK_V4, "qwen2_moe", "qwen3_moe", "qwen3_vl_moe", "qwen3_vl_moe_text", "qwen3_next",
    "qwen3_5_moe", "qwen3_5_moe_text", "glm4_moe", "mimo_v2_flash", "step3p7",
)  # fmt: skip
#: expert blocks as wide as ``intermediate_size``
ROUTED_PLAIN = ("mixtral", "gpt_oss", "minimax_m1", "minimax_m2", *M3, *LLAMA4)
#: families that take hidden size over heads where the config has no head size
DIVIDED = (
    "llama", "mistral", "mistral3", "mixtral", "qwen2", "qwen2_moe", "qwen2_vl", "qwen2_5_vl", "phi3",
    "cohere", "mimo", "internvl_chat", "yi", "nemotron-nas", *MLA,
)  # fmt: skip
#: families with one KV head per query head where the config has no number of them
MULTI_HEAD = ("llama", "mistral", "phi3", "cohere", "internvl_chat", "yi", "nemotron-nas", "minimax_m1", *MLA)

#: what decides the layout and has no default of the family's own: families, then any one of these fields
REQUIRED: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (MLA, ("kv_lora_rank",)),
    (MLA, ("q_lora_rank",)),
    ((*MLA, *DEEPSEEK_V4), ("n_shared_experts", "num_shared_experts")),
    ((*MLA, "glm4_moe"), ("first_k_dense_replace", "mlp_layer_types")),
    (("deepseek_v32", "glm_moe_dsa"), ("index_topk",)),
    (("kimi_linear", "kimi_k3"), ("linear_attn_config",)),
    (DEEPSEEK_V4, ("compress_ratios",)),
    (DEEPSEEK_V4, ("o_lora_rank",)),
    (DEEPSEEK_V4, ("o_groups",)),
    (DELTA, ("full_attention_interval", "layer_types")),
    (DELTA[1:], ("attn_output_gate",)),
    (("qwen2_moe", "qwen3_next", "qwen3_5_moe", "qwen3_5_moe_text"), ("shared_expert_intermediate_size",)),
    (("gpt_oss", *GEMMA4, "step3p7"), ("layer_types",)),
    (("gemma2", "gemma3", "gemma3_text"), ("sliding_window",)),
    (GEMMA4, ("global_head_dim",)),
    (GEMMA4, ("hidden_size_per_layer_input",)),
    (GEMMA4, ("attention_k_eq_v",)),
    (M3, ("sparse_attention_config",)),
    (M3, ("moe_layer_freq",)),
    (M3, ("dense_intermediate_size",)),
    (("minimax_m1",), ("attn_type_list", "layer_types")),
    (("mimo_v2_flash",), ("hybrid_layer_pattern",)),
    (("mimo_v2_flash",), ("moe_layer_freq",)),
    (("mimo_v2_flash",), ("v_head_dim",)),
    (("mimo_v2_flash",), ("swa_num_key_value_heads",)),
    (("nemotron_h",), ("hybrid_override_pattern", "layers_block_type")),
    (("nemotron_h",), ("mlp_hidden_act",)),
    (("nemotron-nas",), ("block_configs",)),
    (LLAMA4, ("attention_chunk_size",)),
    (LLAMA4, ("interleave_moe_layer_step",)),
    (LLAMA4, ("intermediate_size_mlp",)),
    (("step3p7",), ("share_expert_dim",)),
    (("step3p7",), ("first_k_dense_replace",)),
    ((*ROUTED, *ROUTED_PLAIN), NAMES["experts"]),
    (ROUTED, NAMES["expert_intermediate"]),
    (tuple(f for f in FAMILIES if f not in DIVIDED), NAMES["head_dim"]),
    (tuple(f for f in FAMILIES if f not in (*MULTI_HEAD, *DEEPSEEK_V4)), NAMES["kv_heads"]),
)


#: null says something of its own there: queries are not compressed
NULLABLE = ("q_lora_rank",)


def _there(c: Config, field: str) -> bool:
    return field in c.data if field in NULLABLE else c.data.get(field) is not None


def check_family(c: Config) -> None:
    """InputError for a family nobody here knows, and for a config that leaves its layout open.

    Source: the Hugging Face configuration classes and the checkpoints in the catalogue.
    """
    kind = c.model_type or ARCHITECTURES.get(c.architecture, "")
    if not kind and c.data.get("dim") is not None and c.data.get("n_layers") is not None:
        return  # a Mistral params.json
    if not kind and not c.architecture:
        raise InputError(
            "names neither model_type nor architectures: its attention layout cannot be read",
            file=c.file, key="model_type", expected="the model_type of config.json, as \"llama\"",
        )  # fmt: skip
    if kind not in FAMILIES:
        named = f"architecture {c.architecture!r}" if c.architecture else "no architecture"
        raise InputError(
            f"{named} with model_type {kind!r} is not known: its attention layout cannot be read",
            file=c.file,
            key="model_type",
            expected="a known family, or a description of its layers as a new one",
            suggestion=nearest(kind, FAMILIES) if kind else None,
        )
    for families, fields in REQUIRED:
        if kind in families and not any(_there(c, f) for f in fields):
            raise c.error(fields[0], "is missing", f"a field that decides the layers of {kind}")
