"""Any Hugging Face ``config.json`` as a :class:`Model`: families, patterns, quantisation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planner.errors import InputError, nearest
from planner.models.attention_layers import attention_layers, full, mamba
from planner.models.feed_forward import feed_forward_layers, gated, moe
from planner.models.fields import Config, read_config
from planner.models.layers import Attention, DenseMlp, FullAttention, Layer, Mlp, MoeMlp
from planner.models.model import Model, Published
from planner.models.quantisation import checkpoint_formats

#: model types whose layers this loader builds; anything else is an error, never a guess
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
TIED = ("gemma", "cohere")  # families whose head is the embedding unless they say otherwise


def load_config(
    source: str | Path | Mapping[str, Any],
    *,
    quant_config: Mapping[str, Any] | None = None,
    name: str | None = None,
    file: str | None = None,
    published: Published | None = None,
) -> Model:
    """A model from a config file, a folder with one, or its parsed content.

    ``quant_config`` is the content of hf_quant_config.json, read beside the file by itself. Raises
    InputError that names file and key for anything missing, malformed or of an unknown kind.

    Source: the checkpoint's own config. Vision and audio towers are not counted.

    >>> tiny = {"model_type": "llama", "hidden_size": 512, "num_hidden_layers": 8,
    ...         "num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 1024,
    ...         "vocab_size": 512}
    >>> load_config(tiny, name="tiny").num_layers
    8
    """
    if isinstance(source, str | Path):
        data, beside = read_config(Path(source))
        file, name = file or str(source), name or Path(source).resolve().stem
        quant_config = quant_config or beside
    else:
        data, file = dict(source), file or "config"
    c = Config(data, file)
    _check_family(c)
    layers = _layers(c)
    count = sum(layer.count for layer in layers)
    formats, kv_format, notes = checkpoint_formats(c, quant_config, count)
    tied = bool(data.get("tie_word_embeddings", c.get("tie_word_embeddings",
                c.model_type.startswith(TIED))))  # fmt: skip
    return Model(
        name=name or str(data.get("_name_or_path") or c.model_type),
        architecture=c.architecture or c.model_type,
        hidden=c.count("hidden"),
        vocab=c.count("vocab"),
        layers=layers,
        tied_embeddings=tied,
        max_context=c.count("max_context", 0, zero=True),
        formats=formats,
        kv_format=kv_format,
        draft_layers=_draft_layers(c, layers),
        extra_parameters=_extra(c, layers),
        published=published or Published(),
        source=file,
        notes=tuple(notes),
    )


def _check_family(c: Config) -> None:
    kind = c.model_type or ARCHITECTURES.get(c.architecture, "")
    if not kind and c.data.get("dim") is not None and c.data.get("n_layers") is not None:
        return  # a Mistral params.json
    if kind not in FAMILIES:
        named = f"architecture {c.architecture!r}" if c.architecture else "no architecture"
        raise InputError(
            f"{named} with model_type {kind!r} is not known: its attention layout cannot be read",
            file=c.file,
            key="model_type",
            expected="a known family, or a description of its layers as a new one",
            suggestion=nearest(kind, FAMILIES) if kind else None,
        )


def _layers(c: Config) -> tuple[Layer, ...]:
    if c.model_type == "nemotron_h":
        return _merge(_nemotron(c, _nemotron_pattern(c)))
    if c.model_type == "nemotron-nas":
        return _merge(_searched(c))
    n = c.count("layers")
    attention = attention_layers(c, n)
    if c.model_type.startswith("gemma4"):
        attention = _share_cache(c, attention)
    pairs = list(zip(attention, _mlps(c, n), strict=True))
    return _merge([Layer(a, m) for a, m in pairs])


def _mlps(c: Config, n: int) -> list[Mlp | None]:
    mlps = feed_forward_layers(c, n)
    if c.get("use_double_wide_mlp") is True:  # Gemma 4: layers that share a cache get a wider MLP
        shared = c.count("num_kv_shared_layers", 0, zero=True)
        wide = DenseMlp(2 * c.count("intermediate"), gated(c))
        return [*mlps[: n - shared], *([wide] * shared)]
    return mlps


def _share_cache(c: Config, attention: list[Attention | None]) -> list[Attention | None]:
    """The last ``num_kv_shared_layers`` of Gemma 4 E2B and E4B read earlier layers' caches."""
    from dataclasses import replace

    shared = c.count("num_kv_shared_layers", 0, zero=True)
    start = len(attention) - shared
    return [
        replace(a, shares_kv=True) if i >= start and isinstance(a, FullAttention) else a
        for i, a in enumerate(attention)
    ]


def _merge(layers: list[Layer]) -> tuple[Layer, ...]:
    """Equal layers as one with a count, in order of first appearance."""
    counts: dict[Layer, int] = {}
    for layer in layers:
        counts[layer] = counts.get(layer, 0) + 1
    return tuple(Layer(one.attention, one.mlp, n) for one, n in counts.items())


def _nemotron_pattern(c: Config) -> list[str]:
    letters = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
    pattern = c.get("hybrid_override_pattern")
    if isinstance(pattern, str):
        unknown = set(pattern) - set(letters) - {"|"}
        if unknown:
            raise c.error("hybrid_override_pattern", f"holds {sorted(unknown)}", "M, *, - and E")
        return [letters[ch] for ch in pattern if ch in letters]
    blocks = c.items("layers_block_type")
    if blocks is None:
        raise c.error("hybrid_override_pattern", "is missing", "a pattern or layers_block_type")
    for block in blocks:
        if block not in letters.values():
            raise c.error("layers_block_type", f"holds {block!r}", "mamba, attention, mlp or moe")
    return blocks


def _nemotron(c: Config, blocks: list[str]) -> list[Layer]:
    """Nemotron-H: each block is one thing; attention and feed-forward are layers of their own."""
    found = []
    for block in blocks:
        if block == "mamba":
            found.append(Layer(mamba(c), None))
        elif block == "attention":
            found.append(Layer(full(c), None))
        elif block == "moe":
            found.append(Layer(None, moe(c)))
        else:
            found.append(Layer(None, DenseMlp(c.count("intermediate"), gated(c))))
    return found


def _searched(c: Config) -> list[Layer]:
    """Nemotron NAS: every block has its own KV heads and width, or leaves one part out."""
    heads, hidden = c.count("heads"), c.count("hidden")
    found = []
    for i, block in enumerate(c.items("block_configs", c.count("layers")) or []):
        try:
            attention, ffn = block["attention"], block["ffn"]
            kv = attention["n_heads_in_group"]
            a = None if attention["no_op"] else FullAttention(heads, heads // kv, hidden // heads)
            width = 0 if ffn["no_op"] else _rounded(2 * ffn["ffn_mult"] * hidden / 3)
        except (KeyError, TypeError, ZeroDivisionError):
            raise c.error(f"block_configs[{i}]", "is not understood", "attention and ffn") from None
        found.append(Layer(a, DenseMlp(width) if width else None))
    return found


def _rounded(width: float, multiple: int = 256) -> int:
    return int(-(-int(width) // multiple) * multiple)


def _draft_layers(c: Config, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The multi-token-prediction module: layers shaped as the model's last full ones."""
    count = c.count("draft", 0, zero=True)
    if not count or c.get("use_mtp") is False:
        return ()
    if c.model_type == "nemotron_h":
        blocks = c.items("mtp_layers_block_type") or ["attention", "moe"]
        return _merge(_nemotron(c, blocks))
    whole = [x for x in layers if x.mlp is not None and isinstance(x.attention, Attention)]
    pick = [x for x in whole if not type(x.attention).__name__.startswith("Linear")] or whole
    if not pick:
        return ()
    routed = [x for x in pick if isinstance(x.mlp, MoeMlp)] or pick
    last = routed[-1]
    return (Layer(last.attention, last.mlp, 1),) * 1


def _extra(c: Config, layers: tuple[Layer, ...]) -> int:
    """Norms, biases, convolutions and per-layer embeddings: counted, never multiplied."""
    hidden = c.count("hidden")
    total = hidden
    for layer in layers:
        parts = (layer.attention is not None) + (layer.mlp is not None)
        total += layer.count * parts * hidden
        a = layer.attention
        if isinstance(a, FullAttention) and (c.get("attention_bias") is True or c.model_type.startswith("qwen2")):
            total += layer.count * (a.heads + 2 * a.kv_heads) * a.head_dim
        conv = getattr(a, "conv", 0) * getattr(a, "conv_channels", 0)
        total += layer.count * conv
        if c.model_type == "gpt_oss" and isinstance(layer.mlp, MoeMlp):
            total += layer.count * layer.mlp.experts * (2 * layer.mlp.intermediate + hidden)
    per_layer = c.count("hidden_size_per_layer_input", 0, zero=True)
    if per_layer:
        n = sum(layer.count for layer in layers)
        total += n * per_layer * (c.count("vocab_size_per_layer_input", c.count("vocab")) + 3 * hidden)
    return total
