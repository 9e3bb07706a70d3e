"""What could be bought and how it could be split: accelerator x layout x precision x drafting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from planner.cost.layout import Layout
from planner.errors import InputError
from planner.hardware import Accelerator, Assumptions
from planner.models.formats import FORMATS
from planner.models.layers import (
    GROUPS,
    CompressedAttention,
    FullAttention,
    LatentAttention,
    LinearAttention,
    MoeMlp,
)
from planner.models.model import Model

#: groups a re-quantised checkpoint leaves alone
KEPT = ("head", "embedding", "router")
MAX_TENSOR = 16
MAX_DEVICES = 64


@dataclass(frozen=True)
class Precision:
    """Number formats of one candidate: what is asked for, and the format of each weight group."""

    weights: str
    kv: str
    formats: Mapping[str, str]
    drafter_formats: tuple[str, ...] = ()  # a separate draft model's own

    @property
    def kernels(self) -> tuple[str, ...]:
        """Weight formats kernels are needed for, sorted names. Source: definition."""
        return tuple(sorted({*self.formats.values(), *self.drafter_formats}))

    @property
    def label(self) -> str:
        """The weight format most bytes are in, as a plan names it. Source: definition."""
        return self.weights


def weight_formats(model: Model, choice: str) -> dict[str, str]:
    """Weight format per group for ``native`` or a re-quantisation to one format.

    Formats are names of :data:`planner.models.formats.FORMATS`; embeddings, head and router keep
    theirs. Source: common practice of quantised checkpoints (modules_to_not_convert).
    """
    native = {group: model.format_of(group) for group in GROUPS}
    if choice == "native":
        return native
    return {group: native[group] if group in KEPT else choice for group in GROUPS}


def dominant_format(model: Model, formats: Mapping[str, str]) -> str:
    """The format that holds most of the model's weights, a name. Source: counting elements."""
    elements: dict[str, float] = {}
    for layer in model.layers:
        for p in layer.projections(model.hidden):
            name = formats.get(p.group, "bf16")
            elements[name] = elements.get(name, 0.0) + layer.count * p.parameters
        if isinstance(layer.mlp, MoeMlp):
            name = formats.get("experts", "bf16")
            count = layer.mlp.experts * layer.mlp.expert_parameters(model.hidden)
            elements[name] = elements.get(name, 0.0) + layer.count * count
    return max(elements, key=lambda name: elements[name]) if elements else "bf16"


def precisions(model: Model, weights: Sequence[str], kv: Sequence[str]) -> Iterator[Precision]:
    """Every allowed pair of weight and KV format, ``native`` resolved, without repeats."""
    seen: set[tuple[tuple[tuple[str, str], ...], str]] = set()
    for choice in weights:
        formats = weight_formats(model, choice)
        for cache in kv:
            kv_format = model.kv_format if cache == "native" else cache
            key = (tuple(sorted(formats.items())), kv_format)
            if key not in seen:
                seen.add(key)
                yield Precision(dominant_format(model, formats), kv_format, formats)


def attention_heads(model: Model) -> int:
    """Query heads tensor parallelism must divide, [heads]; the greatest common need of all layers."""
    heads = [
        layer.attention.heads
        for layer in model.layers
        if isinstance(layer.attention, FullAttention | LatentAttention | CompressedAttention)
    ]
    heads += [x.attention.heads for x in model.layers if isinstance(x.attention, LinearAttention)]
    return min(heads, default=1)


def powers_of_two(limit: int) -> list[int]:
    """1, 2, 4, ... up to ``limit``.

    >>> powers_of_two(9)
    [1, 2, 4, 8]
    """
    found = [1]
    while found[-1] * 2 <= limit:
        found.append(found[-1] * 2)
    return found


def layouts(
    model: Model,
    accelerator: Accelerator,
    assumptions: Assumptions,
    *,
    tensor: Iterable[int] | None = None,
    pipeline: Iterable[int] | None = None,
    data: Iterable[int] | None = None,
    expert: Iterable[int] | None = None,
    max_devices: int = MAX_DEVICES,
) -> list[Layout]:
    """Layouts of one replica on this chip worth pricing; degrees are counts of accelerators.

    Tensor parallelism stays inside the scale-up domain and divides the heads; attention data
    parallelism with experts spread over all ranks is offered for mixtures of experts; pipeline
    stages only where more than one domain is needed. Explicit degrees restrict the choice; InputError
    for a tensor degree that does not divide the heads.

    Source: the parallelism vLLM, SGLang and TensorRT-LLM support.
    """
    heads, domain = attention_heads(model), max(1, accelerator.scale_up_domain)
    odd = [t for t in tensor or () if heads % t]
    if odd:
        raise InputError(
            f"{odd[0]} does not divide the {heads} attention heads of {model.name}", key="parallelism.tensor",
            expected="divisors of the heads",
        )  # fmt: skip
    tensors = set(tensor or [t for t in powers_of_two(min(domain, MAX_TENSOR)) if heads % t == 0])
    stages = set(pipeline or [1, 2, 4])
    wanted = None if expert is None else set(expert)
    ranks = set(data or (powers_of_two(32) if model.is_moe else [1]))
    found = []
    for t in sorted(tensors):
        for d in sorted(ranks):
            # experts spread over the ranks: across nodes only where a domain is small
            if t * d > max(domain, 2 * 8) or t * d > max_devices:
                continue
            spreads = {1} if not model.is_moe else ({t * d} if d > 1 else {1, t})
            for e in sorted(spreads if wanted is None else spreads & wanted):
                for p in sorted(stages):
                    if p > 1 and (t < min(domain, 8) or p * t * d > max_devices or d > 1):
                        continue
                    found.append(Layout(t, p, d, e, assumptions.expert_imbalance, assumptions.attention_skew))
    return found


def known_formats() -> tuple[str, ...]:
    """Names of the weight formats a workload may ask for, beside ``native``."""
    return tuple(FORMATS)
