"""Which number format a checkpoint keeps each group of weights in, from its quantisation config."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from typing import Any

from planner.errors import InputError
from planner.models.fields import Config
from planner.models.formats import ALIASES

#: module names that stand for a group, in the spellings exclusion lists use
MODULES = {
    "attention": ("self_attn.q_proj", "self_attn.q_b_proj", "self_attn.o_proj", "attn.wq_b",
                  "linear_attn.in_proj_qkv", "linear_attn.out_proj", "mixer.in_proj", "mixer.q_proj"),
    "indexer": ("self_attn.indexer.wq_b", "attn.indexer.wq_b"),
    "mlp": ("mlp.gate_proj", "mlp.up_proj", "mixer.up_proj"),
    "shared_experts": ("mlp.shared_experts.gate_proj", "mlp.shared_expert.gate_proj",
                       "mixer.shared_experts.up_proj", "ffn.shared_experts.w1"),
    "experts": ("mlp.experts.0.gate_proj", "mixer.experts.0.up_proj", "ffn.experts.0.w1",
                "block_sparse_moe.experts.0.w1"),
    "head": ("lm_head",),
}  # fmt: skip
PREFIXES = ("model.", "model.language_model.", "backbone.", "language_model.model.", "")
QUANTISED = ("attention", "indexer", "mlp", "shared_experts", "experts")
ALGORITHMS = {
    "NVFP4": "nvfp4", "W4A16_NVFP4": "nvfp4", "W4A8_NVFP4_FP8": "nvfp4", "FP8": "fp8",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8", "FP8_PB_WO": "fp8-block", "FP8_PB_REAL": "fp8-block",
    "MXFP8": "fp8", "MXFP4": "mxfp4", "W4A16_MXFP4": "mxfp4", "W4A8_MXFP4_FP8": "mxfp4",
    "W4A16": "int4", "W4A16_AWQ": "int4", "W4A8_AWQ": "int4", "W8A16": "int8",
    "W8A8_SQ_PER_CHANNEL": "int8", "INT8_SQ": "int8",
}  # fmt: skip


def checkpoint_formats(
    c: Config, quant: Mapping[str, Any] | None, layers: int
) -> tuple[dict[str, str], str, list[str]]:
    """Weight format per group, KV format, and notes, from ``quantization_config`` or its own file.

    InputError for a method or algorithm that is not known.
    """
    inline = c.table("quantization_config") or {}
    separate = (quant or {}).get("quantization") or {}
    if not isinstance(separate, dict):
        raise InputError(f"is {separate!r}", file="hf_quant_config.json", key="quantization", expected="an object")
    method = str(inline.get("quant_method") or "")
    algorithm = str(separate.get("quant_algo") or inline.get("quant_algo") or "")
    kv = _kv_format(c, inline, separate)
    formats: dict[str, str] = {}
    if algorithm == "MIXED_PRECISION":
        return _mixed(c, inline, separate)
    if algorithm:
        if algorithm not in ALGORITHMS:
            raise InputError(
                f"quantisation algorithm {algorithm!r} is not known", file=c.file,
                key="quantization_config.quant_algo", expected="one of " + ", ".join(ALGORITHMS),
            )  # fmt: skip
        formats = dict.fromkeys(QUANTISED, ALGORITHMS[algorithm])
    elif method:
        formats = _by_method(c, method, inline)
    ignored = [
        *_listed(inline.get("modules_to_not_convert")), *_listed(inline.get("ignore")),
        *_listed(separate.get("exclude_modules")),
    ]  # fmt: skip
    try:
        kept = {g for g in formats if _excluded(c, g, ignored, layers)}
    except re.error as error:
        raise c.error("quantization_config.ignore", f"holds a pattern that is none: {error}") from None
    formats = {g: f for g, f in formats.items() if g not in kept}
    if str(c.get("expert_dtype", "")) == "fp4":
        formats["experts"] = "mxfp4"
    return formats, kv, []


def _listed(value: Any) -> list[str]:
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def _kv_format(c: Config, inline: Mapping[str, Any], separate: Mapping[str, Any]) -> str:
    scheme = separate.get("kv_cache_quant_algo") or inline.get("kv_cache_quant_algo")
    scheme = scheme or inline.get("kv_cache_scheme")
    if isinstance(scheme, dict):
        scheme = f"{scheme.get('num_bits')} bits"
    if not scheme:
        return "bf16"
    if not isinstance(scheme, str) or "8" not in scheme:
        raise c.error("quantization_config.kv_cache_scheme", f"is {scheme!r}", "a cache in fp8, or none")
    return "fp8"


def _by_method(c: Config, method: str, inline: Mapping[str, Any]) -> dict[str, str]:
    if method == "fp8":
        return dict.fromkeys(QUANTISED, "fp8-block" if inline.get("weight_block_size") else "fp8")
    if method == "mxfp4":
        return {"experts": "mxfp4"}
    if method == "compressed-tensors":
        return dict.fromkeys(QUANTISED, _compressed(c, inline))
    if method in ALIASES:
        return dict.fromkeys(QUANTISED, ALIASES[method])
    if method == "modelopt":
        return dict.fromkeys(QUANTISED, _compressed(c, inline))
    raise InputError(
        f"quantisation method {method!r} is not known", file=c.file,
        key="quantization_config.quant_method",
        expected="fp8, mxfp4, compressed-tensors, modelopt, awq or gptq",
    )  # fmt: skip


def _compressed(c: Config, inline: Mapping[str, Any]) -> str:
    """Format of compressed-tensors weights: bits, float or integer, and the group they share."""
    groups = inline.get("config_groups")
    listed = list(groups.values()) if isinstance(groups, dict) else []
    weights = next((g.get("weights") for g in listed if isinstance(g, dict)), None)
    return _weights(c, weights)


def _weights(c: Config, weights: Any) -> str:
    if not isinstance(weights, dict):
        raise c.error("quantization_config.config_groups", "describes no weights", "groups with weights")
    bits, kind = weights.get("num_bits"), weights.get("type")
    group = weights.get("group_size")
    if bits == 4 and kind == "float":
        return "nvfp4" if group == 16 else "mxfp4"
    if bits == 4:
        return "int4-g32" if group == 32 else "int4"
    if bits == 8:
        return "fp8" if kind == "float" else "int8"
    raise InputError(
        f"weights of {bits} bits ({kind}) are not known", file=c.file,
        key="quantization_config.config_groups",
    )  # fmt: skip


def _excluded(c: Config, group: str, ignored: list[str], layers: int) -> bool:
    """Whether the exclusion list names this group's modules in a layer in the middle of the model."""
    middle = max(0, layers // 2 - 1)
    modules = MODULES[group]
    if group == "experts" and c.get("enable_moe_block") is True:
        modules = ("experts.0.gate_proj",)  # Gemma 4 keeps them beside its dense block, not inside
    for module in modules:
        for layer in (middle, middle + 1):
            for prefix in PREFIXES:
                name = module if group == "head" else f"{prefix}layers.{layer}.{module}"
                if any(_matches(pattern, name) for pattern in ignored):
                    return True
    return False


def _matches(pattern: str, name: str) -> bool:
    if pattern.startswith("re:"):
        return re.match(pattern[3:], name) is not None
    if any(ch in pattern for ch in "*?["):
        return fnmatch(name, pattern) or fnmatch(name, pattern + ".*")
    return name == pattern or name.startswith(pattern + ".")


def _mixed(c: Config, inline: Mapping[str, Any], separate: Mapping[str, Any]) -> tuple[dict[str, str], str, list[str]]:
    """Formats from a per-module list: the first module that stands for each group decides."""
    found: dict[str, str] = {}
    for module, name in _modules(c, inline, separate):
        group = _group_of(module)
        if name and group:
            found.setdefault(group, name)
    notes = []
    if not found:
        found["experts"] = "nvfp4"
        notes = ["mixed precision without a module list: experts taken as nvfp4, the rest as stored"]
    if inline.get("quant_method") == "fp8":  # the rest of the checkpoint is fp8
        rest = "fp8-block" if inline.get("weight_block_size") else "fp8"
        for group in ("attention", "indexer", "mlp", "shared_experts"):
            found.setdefault(group, rest)
    return found, _kv_format(c, inline, separate), notes


def _modules(c: Config, inline: Mapping[str, Any], separate: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Modules and the format each is stored in, from quantized_layers or the targets of config_groups."""
    listed = separate.get("quantized_layers") or inline.get("quantized_layers")
    if isinstance(listed, dict):
        for module, entry in listed.items():
            if isinstance(entry, dict):
                yield module, ALGORITHMS.get(str(entry.get("quant_algo")), "")
        return
    groups = inline.get("config_groups")
    for entry in groups.values() if isinstance(groups, dict) else ():
        if isinstance(entry, dict):
            for module in _listed(entry.get("targets")):
                yield module, _weights(c, entry.get("weights"))


def _group_of(module: str) -> str:
    if "shared_expert" in module:
        return "shared_experts"
    if "experts" in module:
        return "experts"
    if "indexer" in module:
        return "indexer"
    if "attn" in module or "mixer" in module:
        return "attention"
    return "mlp" if "mlp" in module else ""
