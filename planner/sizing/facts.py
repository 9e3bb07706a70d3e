"""Facts of one model and one accelerator as records, for ``show``."""

from __future__ import annotations

from typing import Any

from planner.cost.layout import Layout
from planner.cost.memory import CacheLayout
from planner.hardware import Accelerator
from planner.models import Model, difference_from_published
from planner.models.formats import KV_FORMATS


def model_facts(model: Model) -> dict[str, Any]:
    """Everything the planner knows of a model: parameters [1], [B], KV bytes per token [B].

    ``kv_bytes_per_token`` per format: by the formula while windows fill, once they are full, and as an
    engine without a hybrid cache manager allocates it. Source: the config and the attention classes.
    """
    whole = Layout()
    kv: dict[str, dict[str, float]] = {}
    for fmt in KV_FORMATS:
        cache = CacheLayout(model.layers, fmt)
        paged = CacheLayout(model.layers, fmt, hybrid_manager=False)
        kv[fmt] = {
            "formula": cache.bytes_per_token(whole),
            "long_context": cache.bytes_per_token(whole, long_context=True),
            "allocated_without_hybrid_manager": paged.allocated_bytes_per_token(whole),
        }
    cache = CacheLayout(model.layers, model.kv_format)
    return {
        "name": model.name,
        "hf_id": model.hf_id,
        "architecture": model.architecture,
        "total_parameters": model.total_parameters,
        "active_parameters": model.active_parameters,
        "published_total_parameters": model.published.total_parameters,
        "difference_from_published": difference_from_published(model),
        "layers": model.num_layers,
        "hidden_size": model.hidden,
        "vocab_size": model.vocab,
        "max_context": model.max_context,
        "tied_embeddings": model.tied_embeddings,
        "weight_bytes": model.weight_bytes(),
        "weight_formats": dict(model.formats) or {"all": "bf16"},
        "kv_format": model.kv_format,
        "kv_bytes_per_token": kv,
        "kv_layers": sum(
            layer.count
            for layer in model.layers
            if layer.attention is not None and not type(layer.attention).__name__.startswith("Linear")
        ),
        "state_bytes_per_sequence": float(cache.state(whole)),
        "draft_layers": sum(layer.count for layer in model.draft_layers),
        "attention": [
            {
                "count": layer.count,
                "attention": type(layer.attention).__name__ if layer.attention else None,
                "feed_forward": type(layer.mlp).__name__ if layer.mlp else None,
            }
            for layer in model.layers
        ],
        "source": model.source,
    }


def accelerator_facts(chip: Accelerator) -> dict[str, Any]:
    """Every fact of an accelerator in SI with kind and source, and its efficiencies. Source: in it."""
    return {
        "name": chip.name,
        "vendor": chip.vendor,
        "architecture": chip.architecture,
        "released": chip.released,
        "status": chip.status,
        "aliases": list(chip.aliases),
        "facts": {
            path: {"value": f.value, "kind": f.kind, "source": f.source, "note": f.note}
            for path, f in sorted(chip.facts.items())
        },
        "achieved": {
            f"{operator}/{fmt}/{engine}": {
                "compute": e.compute or None,
                "memory": e.memory or None,
                "latency_s": e.latency_s if e.latency_s >= 0 else None,
                "half_tokens": e.half_tokens or None,
                "residual": e.residual,
                "kind": e.kind,
                "source": e.source,
            }
            for operator, formats in sorted(chip.achieved.items())
            for fmt, engines in sorted(formats.items())
            for engine, e in sorted(engines.items())
        },
        "all_reduce": {
            f"{engine}/{ranks}": {"latency_s": a.latency_s, "bandwidth": a.bandwidth, "residual": a.residual}
            for engine, sizes in sorted(chip.all_reduces.items())
            for ranks, a in sorted(sizes.items())
        },
        "sources": [{"key": k, "citation": c, "retrieved": r} for k, c, r in chip.sources],
    }
