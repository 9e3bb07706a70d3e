"""Shapes of the GPU benchmark's transformers, as their checkpoints' config.json would say, and their plain counts.

Both sides read them: torch builds random weights of them, the planner loads them as models. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LATENT = {
    "model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"], "hidden_size": 7168,
    "num_hidden_layers": 4, "num_attention_heads": 128, "num_key_value_heads": 128, "q_lora_rank": 1536,
    "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128,
    "intermediate_size": 18432, "vocab_size": 32768, "max_position_embeddings": 163840, "tie_word_embeddings": False,
    "first_k_dense_replace": 4, "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8,
    "moe_intermediate_size": 2048, "moe_layer_freq": 1,
}  # fmt: skip
#: every layer is a dense one: DeepSeek's first layers; a rank of eight has 16 heads and an eighth of the MLP
RANK = {"num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 2304, "vocab_size": 4096}
INDEXER = {
    "model_type": "deepseek_v32", "architectures": ["DeepseekV32ForCausalLM"], "index_n_heads": 64,
    "index_head_dim": 128, "index_topk": 2048,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "gqa": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 8,
        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
        "max_position_embeddings": 163840, "tie_word_embeddings": False,
    },
    "moe-128": {
        "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 2048,
        "num_hidden_layers": 8, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
        "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
        "decoder_sparse_step": 1, "mlp_only_layers": [], "vocab_size": 151936, "max_position_embeddings": 163840,
        "tie_word_embeddings": False,
    },
    "mla-128": LATENT,
    "dsa-128": LATENT | INDEXER,
    "moe-8": {
        "model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 4,
        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336, "num_local_experts": 8,
        "num_experts_per_tok": 2, "vocab_size": 32000, "max_position_embeddings": 163840, "tie_word_embeddings": False,
    },
    "mla-16": LATENT | RANK,
    "dsa-16": LATENT | INDEXER | RANK,
}  # fmt: skip
TITLES = {
    "gqa": "dense GQA, layers of Llama 3 8B", "moe-128": "MoE, layers of Qwen3 30B A3B (128 experts, top 8)",
    "mla-128": "MLA with 128 heads, dense layers of DeepSeek V3", "dsa-128": "the same with DeepSeek V3.2's indexer",
    "moe-8": "MoE, layers of Mixtral 8x7B (8 experts, top 2)", "mla-16": "MLA with 16 heads, one of 8 ranks' share",
    "dsa-16": "the same with the indexer, which every rank runs whole",
}  # fmt: skip
#: shapes for a run on a processor, which only shows that everything runs
TINY: dict[str, dict[str, Any]] = {
    name: config | {
        "hidden_size": 128, "num_hidden_layers": 2, "vocab_size": 512, "intermediate_size": 256,
        "num_attention_heads": 8, "num_key_value_heads": 8 if name[:3] in ("mla", "dsa") else 2, "head_dim": 32,
        "max_position_embeddings": 4096,
    } | (
        {"q_lora_rank": 64, "kv_lora_rank": 64, "qk_rope_head_dim": 16, "qk_nope_head_dim": 32, "v_head_dim": 32}
        if name[:3] in ("mla", "dsa") else {}
    ) | ({"index_n_heads": 16, "index_head_dim": 32, "index_topk": 64} if name[:3] == "dsa" else {})
    | ({"moe_intermediate_size": 64, "num_experts": 16} if name == "moe-128" else {})
    for name, config in CONFIGS.items()
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """The numbers of a config that both sides count with, all [elements] or [1]."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    experts: int
    top_k: int
    q_rank: int
    kv_rank: int
    rope: int
    nope: int
    value: int
    index_heads: int
    index_dim: int
    chosen: int

    @property
    def latent(self) -> bool:
        return self.kv_rank > 0

    @property
    def sparse(self) -> bool:
        return self.chosen > 0

    def matrices(self) -> dict[str, tuple[int, int, int]]:
        """Weight matrices of one layer, (copies, outputs, inputs), fused as engines fuse them; no experts."""
        h, found = self.hidden, {}
        if self.latent:
            found["down"] = (1, self.q_rank + self.kv_rank + self.rope, h)
            found["query"] = (1, self.heads * (self.nope + self.rope), self.q_rank)
            found["up"] = (self.heads, self.nope + self.value, self.kv_rank)
            found["out"] = (1, h, self.heads * self.value)
        else:
            found["qkv"] = (1, (self.heads + 2 * self.kv_heads) * self.head_dim, h)
            found["out"] = (1, h, self.heads * self.head_dim)
        if self.sparse:
            found["index_query"] = (1, self.index_heads * self.index_dim, self.q_rank)
            found["index_key"] = (1, self.index_dim + self.index_heads, h)
        if self.experts:
            found["router"] = (1, self.experts, h)
        else:
            found["gate_up"], found["ffn_out"] = (1, 2 * self.ffn, h), (1, h, self.ffn)
        return found

    def token_bytes(self) -> tuple[float, float]:
        """Cache of one token in one layer, [B]: keys and values or latent, and index."""
        cached = self.kv_rank + self.rope if self.latent else 2 * self.kv_heads * self.head_dim
        return 2.0 * cached, float(self.index_dim + 4) if self.sparse else 0.0

    def count(self, phase: str, batch: int, context: int, distinct: float) -> tuple[float, float]:
        """Fewest bytes [B] and FLOPs [FLOP] of a step or of ``batch`` prompts.

        Weights read once, experts those touched, caches read once, and of everything else nothing.
        """
        tokens = batch * (1 if phase == "decode" else context)
        dense = sum(c * o * i for c, o, i in self.matrices().values())
        one = 3 * self.ffn * self.hidden
        weights = self.layers * (dense + distinct * one) + self.vocab * self.hidden
        flops = 2.0 * tokens * self.layers * (dense + self.top_k * one) + 2.0 * batch * self.vocab * self.hidden
        cached, index = self.token_bytes()
        chosen = min(self.chosen, context) if self.sparse else context
        if phase == "decode":
            pairs, scored, read = float(chosen), float(context), chosen * cached + context * index
        else:
            scored = context * (context + 1) / 2
            pairs = chosen * (chosen + 1) / 2 + (context - chosen) * chosen
            read = 0.0
        expanded = phase != "decode" and not (self.sparse and context > self.chosen)
        if not self.latent:
            each = 4.0 * self.heads * self.head_dim
        elif expanded:
            each = 2.0 * self.heads * (self.nope + self.rope + self.value)
        else:
            each = 2.0 * self.heads * (2 * self.kv_rank + self.rope)
        flops += batch * self.layers * (each * pairs + 2.0 * self.index_heads * self.index_dim * scored)
        return 2.0 * weights + batch * self.layers * read, flops


def shape_of(name: str, config: Mapping[str, Any]) -> Shape:
    """The shape of a config of :data:`CONFIGS` or :data:`TINY`."""
    heads = config["num_attention_heads"]
    experts = config.get("num_experts", config.get("num_local_experts", 0))
    latent = config["model_type"].startswith("deepseek")
    return Shape(
        name, config["hidden_size"], config["num_hidden_layers"], heads, config["num_key_value_heads"],
        config.get("head_dim", config["hidden_size"] // heads),
        config.get("moe_intermediate_size", config["intermediate_size"]) if experts else config["intermediate_size"],
        config["vocab_size"], experts, config.get("num_experts_per_tok", 0) if experts else 0,
        *(config[k] if latent else 0 for k in (
            "q_lora_rank", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim",
        )),
        config.get("index_n_heads", 0), config.get("index_head_dim", 0), config.get("index_topk", 0),
    )  # fmt: skip
