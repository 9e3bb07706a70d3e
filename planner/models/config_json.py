"""Any Hugging Face ``config.json`` as a :class:`Model`: families, patterns, quantisation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planner.models.attention_layers import attention_layers, full, mamba
from planner.models.families import check_family
from planner.models.feed_forward import feed_forward_layers, gated, moe
from planner.models.fields import Config, read_config
from planner.models.layers import Attention, DenseMlp, FullAttention, Layer, Mlp, MoeMlp
from planner.models.model import Model, Published
from planner.models.quantisation import checkpoint_formats

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
    check_family(c)
    layers = _layers(c)
    count = sum(layer.count for layer in layers)
    formats, kv_format, notes = checkpoint_formats(c, quant_config, count)
    outer = Config({k: v for k, v in data.items() if not isinstance(v, dict)}, file)
    tied = outer.flag("tie_word_embeddings", c.flag("tie_word_embeddings", c.model_type.startswith(TIED)))
    return Model(
        name=name or str(data.get("_name_or_path") or c.model_type),
        architecture=c.architecture or c.model_type,
        hidden=c.count("hidden"),
        vocab=c.count("vocab"),
        layers=layers,
        tied_embeddings=tied,
        max_context=_max_context(c),
        formats=formats,
        kv_format=kv_format,
        draft_layers=_draft_layers(c, layers),
        extra_parameters=_extra(c, layers),
        published=published or Published(),
        source=file,
        notes=tuple(notes),
    )


def _max_context(c: Config) -> int:
    """Tokens the positions reach, YaRN's stretch included, as engines derive it."""
    plain = c.count("max_context", 0, zero=True)
    rope = Config(c.table("rope_parameters") or c.table("rope_scaling") or {}, c.file, "rope_scaling")
    if rope.get("rope_type", rope.get("type")) != "yarn":
        return plain
    factor = rope.get("factor", 1.0)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 1 <= factor <= 1000:
        raise rope.error("factor", f"is {factor!r}", "a number from 1 to 1000")
    return max(plain, int(factor * rope.count("original_max_position_embeddings", plain, zero=True)))


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
    if c.flag("use_double_wide_mlp"):  # Gemma 4: layers that share a cache get a wider MLP
        shared = _sharing(c, n)
        wide = DenseMlp(2 * c.count("intermediate"), gated(c))
        return [*mlps[: n - shared], *([wide] * shared)]
    return mlps


def _share_cache(c: Config, attention: list[Attention | None]) -> list[Attention | None]:
    """The last ``num_kv_shared_layers`` of Gemma 4 E2B and E4B read earlier layers' caches."""
    from dataclasses import replace

    start = len(attention) - _sharing(c, len(attention))
    return [
        replace(a, shares_kv=True) if i >= start and isinstance(a, FullAttention) else a
        for i, a in enumerate(attention)
    ]


def _sharing(c: Config, layers: int) -> int:
    shared = c.count("num_kv_shared_layers", 0, zero=True)
    if shared >= layers:
        raise c.error("num_kv_shared_layers", f"is {shared}", f"fewer than the {layers} layers")
    return shared


def _merge(layers: list[Layer]) -> tuple[Layer, ...]:
    """Equal layers as one with a count, in order of first appearance."""
    counts: dict[Layer, int] = {}
    for layer in layers:
        counts[layer] = counts.get(layer, 0) + 1
    return tuple(Layer(one.attention, one.mlp, n) for one, n in counts.items())


def _nemotron_pattern(c: Config) -> list[str]:
    letters = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
    pattern = c.get("hybrid_override_pattern")
    if pattern is not None:
        key = "hybrid_override_pattern"
        if not isinstance(pattern, str) or set(pattern) - set(letters) - {"|"}:
            raise c.error(key, f"is {str(pattern)[:60]!r}", "a string of M, *, - and E")
        blocks = [letters[ch] for ch in pattern if ch in letters]
    else:
        key, blocks = "layers_block_type", _blocks(c, "layers_block_type")
    if c.count("layers", len(blocks) or None) != len(blocks):
        raise c.error(key, f"describes {len(blocks)} layers", f"as many as num_hidden_layers ({c.count('layers')})")
    return blocks


def _blocks(c: Config, key: str) -> list[str]:
    blocks = c.items(key) or []
    for block in blocks:
        if block not in ("mamba", "attention", "mlp", "moe"):
            raise c.error(key, f"holds {block!r}", "mamba, attention, mlp or moe")
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
    layers, found = c.count("layers"), []
    for i, block in enumerate((c.items("block_configs", layers) or [])[:layers]):
        if not isinstance(block, dict):
            raise c.error(f"block_configs[{i}]", "is not understood", "attention and ffn")
        whole = Config(block, c.file, f"block_configs[{i}]")
        attention, ffn = (
            Config(whole.table(name) or {}, c.file, f"block_configs[{i}].{name}") for name in ("attention", "ffn")
        )
        a = None
        if not attention.flag("no_op"):
            group = attention.count("n_heads_in_group")
            if heads % group or hidden % heads:
                raise attention.error("n_heads_in_group", f"is {group}", f"a divisor of the {heads} heads")
            a = FullAttention(heads, heads // group, hidden // heads)
        mlp = None if ffn.flag("no_op") else DenseMlp(_rounded(2 * _multiple(ffn) * hidden / 3))
        found.append(Layer(a, mlp))
    return found


def _multiple(ffn: Config) -> float:
    value = ffn.get("ffn_mult")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 100:
        raise ffn.error("ffn_mult", f"is {value!r}", "a number between 0 and 100")
    return float(value)


def _rounded(width: float, multiple: int = 256) -> int:
    return int(-(-int(width) // multiple) * multiple)


def _draft_layers(c: Config, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The multi-token-prediction module: layers shaped as the model's last full ones."""
    count = c.count("draft", 0, zero=True)
    if not count or not c.flag("use_mtp", True):
        return ()
    if c.model_type == "nemotron_h":
        blocks = _blocks(c, "mtp_layers_block_type") or ["attention", "moe"]
        return _merge(_nemotron(c, blocks))
    whole = [x for x in layers if x.mlp is not None and isinstance(x.attention, Attention)]
    pick = [x for x in whole if not type(x.attention).__name__.startswith("Linear")] or whole
    if not pick:
        return ()
    routed = [x for x in pick if isinstance(x.mlp, MoeMlp)] or pick
    last = routed[-1]
    return (Layer(last.attention, last.mlp, 1),)


def _extra(c: Config, layers: tuple[Layer, ...]) -> int:
    """Norms, biases, convolutions and per-layer embeddings: counted, never multiplied."""
    hidden = c.count("hidden")
    total = hidden
    for layer in layers:
        parts = (layer.attention is not None) + (layer.mlp is not None)
        total += layer.count * parts * hidden
        a = layer.attention
        if isinstance(a, FullAttention) and (c.flag("attention_bias") or c.model_type.startswith("qwen2")):
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
