"""The feed-forward block of every layer, dense or routed, from the fields of a config."""

from __future__ import annotations

from planner.models.families import ROUTED, ROUTED_PLAIN
from planner.models.fields import Config
from planner.models.layers import DenseMlp, Mlp, MoeMlp

UNGATED = ("relu2", "gelu_new_plain", "squared_relu")


def gated(c: Config) -> bool:
    """Whether feed-forward blocks have a gate matrix; squared ReLU ones don't (Nemotron)."""
    name = c.get("mlp_hidden_act", c.get("hidden_act", ""))
    if not isinstance(name, str):
        raise c.error("hidden_act", f"is {name!r}", "the name of a function, as silu")
    return name not in UNGATED


def feed_forward_layers(c: Config, layers: int) -> list[Mlp | None]:
    """One feed-forward block per layer; InputError where the pattern of experts is not clear."""
    beside = c.flag("enable_moe_block")  # Gemma 4 says by it whether there are experts at all
    if not beside and not c.count("experts", 0, zero=c.model_type not in (*ROUTED, *ROUTED_PLAIN)):
        return [DenseMlp(c.count("intermediate"), gated(c))] * layers
    routed, dense = moe(c), None
    found: list[Mlp | None] = []
    for is_routed in routed_layers(c, layers):
        if is_routed:
            found.append(routed)
        else:
            dense = dense or DenseMlp(_dense_width(c), gated(c))
            found.append(dense)
    return found


def _dense_width(c: Config) -> int:
    for key in ("intermediate_size_mlp", "dense_intermediate_size"):
        if c.get(key) is not None:
            return c.count(key)
    return c.count("intermediate")


def moe(c: Config) -> MoeMlp:
    """The routed block: experts, top-k, expert width, shared expert, latent width."""
    for kinds, key in (
        ("gemma4", "enable_moe_block"), ("gemma4", "moe_intermediate_size"), ("nemotron_h", "moe_intermediate_size"),
        ("nemotron_h", "moe_shared_expert_intermediate_size"),
    ):  # fmt: skip
        if c.model_type.startswith(kinds) and c.get(key) is None:
            raise c.error(key, "is missing", "a value: the config has experts")
    named = c.get("moe_intermediate_size", c.get("expert_intermediate_size"))
    width = c.count("intermediate" if named is None else "expert_intermediate")
    latent = c.count("moe_latent_size", c.count("routed_expert_hidden_size", 0, zero=True), zero=True)
    experts, top_k = c.count("experts"), c.count("top_k")
    if top_k > experts:
        raise c.error("num_experts_per_tok", f"{top_k} exceeds the {experts} experts")
    beside = None
    if c.flag("enable_moe_block"):  # Gemma 4 runs its dense block beside the experts
        beside = DenseMlp(c.count("intermediate"), gated(c))
    return MoeMlp(experts, top_k, width, _shared_width(c, width), gated(c), latent, None, beside)


def _shared_width(c: Config, width: int) -> int:
    for key in (
        "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size",
        "share_expert_dim", "shared_intermediate_size",
    ):  # fmt: skip
        if c.get(key) is not None:
            return c.count(key, zero=True)
    shared = c.count("n_shared_experts", c.count("num_shared_experts", 0, zero=True), zero=True)
    if c.model_type.startswith("llama4"):
        shared = 1  # by the model's code, not in its config
    return shared * width


def routed_layers(c: Config, layers: int) -> list[bool]:
    """Which layers are routed, from any of the ways configs say so."""
    kinds = c.items("mlp_layer_types", layers)
    if kinds is not None:
        for kind in kinds[:layers]:
            if kind not in ("sparse", "dense"):
                raise c.error("mlp_layer_types", f"holds {kind!r}", "sparse or dense for every layer")
        return [kind == "sparse" for kind in kinds[:layers]]
    if isinstance(c.get("moe_layer_freq"), list):
        return c.flags("moe_layer_freq", layers) or []
    dense_first = c.count("first_k_dense_replace", 0, zero=True)
    step = c.count("interleave_moe_layer_step", c.count("decoder_sparse_step", 1))
    only = c.items("mlp_only_layers") or []
    return [i >= dense_first and (i + 1) % step == 0 and i not in only for i in range(layers)]
