"""Any config.json: variants of fields, and one clear message for what is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner.errors import InputError
from planner.models import load_config, load_model
from planner.models.layers import FullAttention, MoeMlp, SlidingAttention

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
    "max_position_embeddings": 131072, "tie_word_embeddings": False,
}  # fmt: skip


def changed(**fields: Any) -> dict[str, Any]:
    return {k: v for k, v in {**LLAMA, **fields}.items() if v is not ...}


def test_a_plain_config() -> None:
    assert load_config(LLAMA).total_parameters == 8_030_261_248


def test_nesting_and_spellings() -> None:
    nested = {
        "architectures": ["X"],
        "model_type": "qwen3_vl",
        "text_config": {**LLAMA, "model_type": "qwen3_vl_text", "head_dim": 128},
    }
    assert load_config(nested).total_parameters == 8_030_261_248
    native = {
        "dim": 4096,
        "n_layers": 32,
        "n_heads": 32,
        "n_kv_heads": 8,
        "hidden_dim": 14336,
        "vocab_size": 128256,
    }
    assert load_config(native).total_parameters == 8_030_261_248
    assert load_config(changed(num_key_value_heads=...)).layers[0].attention == FullAttention(32, 32, 128)
    assert load_config(changed(head_dim=64)).layers[0].attention == FullAttention(32, 8, 64)


def test_windows() -> None:
    qwen = changed(model_type="qwen2", sliding_window=4096, use_sliding_window=False)
    assert isinstance(load_config(qwen).layers[0].attention, FullAttention)
    mistral = load_config(changed(model_type="mistral", sliding_window=4096))
    assert isinstance(mistral.layers[0].attention, SlidingAttention)
    listed = load_config(changed(model_type="gpt_oss", sliding_window=128, head_dim=128, num_local_experts=8,
                                 num_experts_per_tok=2,
                                 layer_types=["sliding_attention", "full_attention"] * 16))  # fmt: skip
    assert [x.count for x in listed.layers] == [16, 16]


@pytest.mark.parametrize("fields", [
    {"num_local_experts": 8, "num_experts_per_tok": 2},
    {"num_experts": 8, "num_experts_per_token": 2, "moe_intermediate_size": 14336},
    {"n_routed_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 14336},
])  # fmt: skip
def test_expert_spellings(fields: dict[str, Any]) -> None:
    mlp = load_config(changed(model_type="mixtral", head_dim=128, **fields)).layers[0].mlp
    assert isinstance(mlp, MoeMlp)
    assert (mlp.experts, mlp.top_k, mlp.intermediate) == (8, 2, 14336)


def test_which_layers_are_routed() -> None:
    base = {
        "model_type": "glm4_moe",
        "n_routed_experts": 16,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 1024,
        "head_dim": 128,
    }
    for fields, routed in (
        ({"first_k_dense_replace": 3}, 29), ({"moe_layer_freq": [0] * 5 + [1] * 27}, 27),
        ({"mlp_layer_types": ["dense"] * 2 + ["sparse"] * 30}, 30), ({"interleave_moe_layer_step": 2}, 16),
        ({"decoder_sparse_step": 1, "mlp_only_layers": [0, 1]}, 30),
    ):  # fmt: skip
        model = load_config(changed(**base, **{"first_k_dense_replace": 0, **fields}))
        assert sum(x.count for x in model.layers if isinstance(x.mlp, MoeMlp)) == routed


@pytest.mark.parametrize(("quantisation", "group", "fmt"), [
    ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "mlp", "fp8-block"),
    ({"quant_method": "fp8"}, "attention", "fp8"),
    ({"quant_method": "awq"}, "mlp", "int4"),
    ({"quant_method": "gptq", "modules_to_not_convert": ["model.layers.*.self_attn"]}, "attention", "bf16"),
    ({"quant_method": "compressed-tensors", "ignore": ["re:.*self_attn.*"],
      "config_groups": {"g": {"weights": {"num_bits": 4, "type": "int", "group_size": 32}}}}, "mlp", "int4-g32"),
    ({"quant_algo": "NVFP4"}, "mlp", "nvfp4"),
    ({"quant_algo": "FP8"}, "mlp", "fp8"),
])  # fmt: skip
def test_quantisation(quantisation: dict[str, Any], group: str, fmt: str) -> None:
    assert load_config(changed(quantization_config=quantisation)).format_of(group) == fmt


@pytest.mark.parametrize(("rope", "reach"), [
    ({}, 131072), ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}, 131072),
    ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 65536}, 262144),
    ({"rope_type": "yarn", "factor": 2.0}, 262144),
    ({"rope_type": "linear", "factor": 8.0}, 131072),
    ({"full_attention": {"rope_type": "default"}, "sliding_attention": {"rope_theta": 1e4}}, 131072),
])  # fmt: skip
def test_context_with_rope_variants(rope: dict[str, Any], reach: int) -> None:
    """vLLM multiplies by YaRN's factor and leaves the others; DeepSeek's 163 840 already holds it."""
    for key in ("rope_scaling", "rope_parameters"):
        assert load_config(changed(**{key: rope})).max_context == reach
    deepseek = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096}
    assert load_config(changed(max_position_embeddings=163840, rope_scaling=deepseek)).max_context == 163840


def test_formats_of_mixed_checkpoints() -> None:
    """Both ways a checkpoint lists its modules, and what the rest of an fp8 one is stored in."""
    layer = "model.language_model.layers.3."
    listed = {"quant_algo": "MIXED_PRECISION", "quant_method": "modelopt", "quantized_layers": {
        layer + "mlp.up_proj": {"quant_algo": "W4A16_NVFP4"}, layer + "self_attn.q_proj": {"quant_algo": "FP8"}}}  # fmt: skip
    four, eight = {"num_bits": 4, "type": "float", "group_size": 16}, {"num_bits": 8, "type": "float"}
    grouped = {"quant_algo": "MIXED_PRECISION", "quant_method": "modelopt", "config_groups": {
        "a": {"weights": four, "targets": [layer + "mlp.up_proj"]},
        "b": {"weights": eight, "targets": [layer + "self_attn.q_proj"]}}}  # fmt: skip
    for inline in (listed, grouped):
        assert load_config(changed(quantization_config=inline)).formats == {"mlp": "nvfp4", "attention": "fp8"}
    experts = {"quant_algo": "MIXED_PRECISION", "quant_method": "fp8", "weight_block_size": [128, 128],
               "quantized_layers": {"layers.0.ffn.experts": {"quant_algo": "NVFP4"}}}  # fmt: skip
    model = load_config(changed(quantization_config=experts))
    assert (model.format_of("experts"), model.format_of("attention")) == ("nvfp4", "fp8-block")


def test_companion_of_a_renamed_config(tmp_path: Path) -> None:
    (tmp_path / "mine_config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "mine_hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "NVFP4"}}))
    assert load_model(str(tmp_path / "mine_config.json")).format_of("mlp") == "nvfp4"
    (tmp_path / "mine_hf_quant_config.json").write_text(json.dumps({"quantization": "NVFP4"}))
    with pytest.raises(InputError, match="quantization: is 'NVFP4'"):
        load_model(str(tmp_path / "mine_config.json"))


def test_separate_quantisation_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "hf_quant_config.json").write_text(
        json.dumps(
            {
                "quantization": {
                    "quant_algo": "FP8",
                    "kv_cache_quant_algo": "FP8",
                    "exclude_modules": ["lm_head"],
                }
            }
        )
    )
    for path in (tmp_path, tmp_path / "config.json"):
        model = load_model(str(path))
        assert (model.format_of("mlp"), model.kv_format, model.format_of("head")) == ("fp8", "fp8", "bf16")


@pytest.mark.parametrize(("fields", "says"), [
    ({"hidden_size": ...}, "hidden_size: is missing"),
    ({"hidden_size": "big"}, "hidden_size: is 'big'"),
    ({"hidden_size": -4096}, "hidden_size: is -4096"),
    ({"hidden_size": 4096.5}, "hidden_size: is 4096.5"),
    ({"hidden_size": float("nan")}, "hidden_size: is nan"),
    ({"hidden_size": True}, "hidden_size: is True"),
    ({"num_attention_heads": 33}, "does not divide"),
    ({"num_key_value_heads": 7}, "num_key_value_heads: 7 does not divide"),
    ({"vocab_size": 0}, "vocab_size: is 0"),
    ({"num_hidden_layers": ...}, "num_hidden_layers: is missing"),
    ({"model_type": "mamba9"}, "model_type 'mamba9' is not known"),
    ({"model_type": ..., "architectures": ["FooForCausalLM"]}, "'FooForCausalLM'"),
    ({"model_type": "lama"}, "Did you mean 'llama'"),
    ({"layer_types": ["full_attention", "warp_attention"] * 16}, "'warp_attention' is not known"),
    ({"layer_types": ["full_attention"]}, "has 1 entries"),
    ({"layer_types": "full"}, "layer_types: is str"),
    ({"layer_types": ["sliding_attention"] * 32}, "sliding_window: is missing"),
    ({"quantization_config": {"quant_method": "magic"}}, "'magic' is not known"),
    ({"quantization_config": {"quant_algo": "FP3"}}, "'FP3' is not known"),
    ({"num_local_experts": 4, "num_experts_per_tok": 8}, "8 exceeds the 4 experts"),
    ({"num_local_experts": 4}, "num_experts_per_tok: is missing"),
    ({"kv_lora_rank": 512}, "qk_rope_head_dim: is missing"),
    ({"model_type": ..., "architectures": ...}, "names neither model_type nor architectures"),
    ({"hidden_size": 10**30}, "hidden_size: is 1e\\+30; expected at most"),
    ({"num_hidden_layers": 10**6}, "at most 2000"),
    ({"num_hidden_layers": 0}, "num_hidden_layers: is 0"),
    ({"num_hidden_layers": None}, "num_hidden_layers: is missing"),
    ({"text_config": "x"}, "text_config: is 'x'"),
    ({"text_config": {"hidden_size": "x"}}, "text_config.hidden_size: is 'x'"),
    ({"tie_word_embeddings": "yes"}, "tie_word_embeddings: is 'yes'"),
    ({"rope_scaling": "yarn"}, "rope_scaling: is 'yarn'"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": -4}}, "rope_scaling.factor: is -4"),
    ({"quantization_config": "fp8"}, "quantization_config: is 'fp8'"),
    ({"quantization_config": {"quant_method": "compressed-tensors"}}, "config_groups: describes no weights"),
    ({"quantization_config": {"quant_method": "fp8", "kv_cache_scheme": {"num_bits": 3}}}, "'3 bits'"),
    ({"quantization_config": {"quant_method": "gptq", "ignore": ["re:("]}}, "holds a pattern that is none"),
    ({"linear_attn_config": {"kda_layers": [1], "full_attn_layers": [1]}}, "do not cover"),
    ({"compress_ratios": [4, -1] * 16, "head_dim": 512, "q_lora_rank": 8, "sliding_window": 8, "index_topk": 8,
      "index_n_heads": 8, "index_head_dim": 8}, "compress_ratios: holds -1"),
])  # fmt: skip
def test_broken_configs(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        load_config(changed(**fields), file="config.json")
    assert caught.value.exit_code == 2


def test_broken_files(tmp_path: Path) -> None:
    bad = tmp_path / "config.json"
    for content, says in ((b"{", "not valid JSON"), (b"[1]", "holds no object"), (b"\xff\xfe", "not UTF-8"),
                          (b" " * 3_000_000, "is 3.0 MB")):  # fmt: skip
        bad.write_bytes(content)
        with pytest.raises(InputError, match=says):
            load_model(str(bad))
    with pytest.raises(InputError, match="no such file"):
        load_model(str(tmp_path / "nothing.json"))
    empty = tmp_path / "folder"
    empty.mkdir()
    with pytest.raises(InputError, match="has no config.json"):
        load_model(str(empty))


def test_user_entries(tmp_path: Path) -> None:
    text = 'name = "house-model"\naliases = ["hm"]\n[config]\n' + "\n".join(
        f"{k} = {json.dumps(v)}" for k, v in LLAMA.items()
    )
    (tmp_path / "house-model.toml").write_text(text)
    assert load_model("HM", overlays=[tmp_path]).total_parameters == 8_030_261_248
