"""The feed-forward block of every layer, dense or routed, from the fields of a config."""

from __future__ import annotations

from planner.models.fields import Config
from planner.models.layers import DenseMlp, Mlp, MoeMlp

UNGATED = ("relu2", "gelu_new_plain", "squared_relu")


def gated(c: Config) -> bool:
    """Whether feed-forward blocks have a gate matrix; squared ReLU ones don't (Nemotron)."""
    return str(c.get("mlp_hidden_act", c.get("hidden_act", ""))) not in UNGATED


def feed_forward_layers(c: Config, layers: int) -> list[Mlp | None]:
    """One feed-forward block per layer; InputError where the pattern of experts is not clear."""
    if not c.get("n_routed_experts") and not c.get("num_local_experts") and not c.get("num_experts"):
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
    shared = int(c.get("n_shared_experts", c.get("num_shared_experts", 0)) or 0)
    if c.model_type.startswith("llama4"):
        shared = 1  # by the model's code, not in its config
    return shared * width


def routed_layers(c: Config, layers: int) -> list[bool]:
    """Which layers are routed, from any of the ways configs say so."""
    kinds = c.items("mlp_layer_types", layers)
    if kinds is not None:
        return [kind == "sparse" for kind in kinds[:layers]]
    frequency = c.get("moe_layer_freq")
    if isinstance(frequency, list):
        listed = c.items("moe_layer_freq", layers) or []
        return [bool(flag) for flag in listed[:layers]]
    dense_first = c.count("first_k_dense_replace", 0, zero=True)
    step = c.count("interleave_moe_layer_step", c.count("decoder_sparse_step", 1))
    only = set(c.items("mlp_only_layers") or [])
    return [i >= dense_first and (i + 1) % step == 0 and i not in only for i in range(layers)]
