"""A norm over all heads at once: an all-reduce of its own where heads are split, and nothing where they aren't."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import H100, reference_machine

from planner.cost.layout import Layout
from planner.cost.step import StepModel
from planner.models import load_model
from planner.models.layers import FullAttention
from planner.models.model import Model

LATENCY, BANDWIDTH = 5e-6, 1e11


def seconds(model: Model, tensor: int) -> float:
    machine = reference_machine(H100, all_reduce=(LATENCY, BANDWIDTH))
    step = StepModel(model, {**model.formats, "experts": "bf16", "attention": "bf16"}, "bf16")
    return float(np.asarray(step.decode(machine, Layout(tensor=tensor), 8.0, [1000.0]).seconds).squeeze())


def without(model: Model) -> Model:
    def plain(attention: object) -> object:
        return replace(attention, norm_over_heads=False) if isinstance(attention, FullAttention) else attention

    return replace(model, layers=tuple(replace(x, attention=plain(x.attention)) for x in model.layers))


def test_minimax_pays_one_more_all_reduce_a_layer() -> None:
    model = load_model("minimax-m2.5-nvfp4")
    layers = sum(layer.count for layer in model.layers)
    assert seconds(model, 4) - seconds(without(model), 4) == pytest.approx(
        layers * (LATENCY + 8 * 8 / BANDWIDTH), rel=1e-6
    )
    assert seconds(model, 1) == seconds(without(model), 1)


@pytest.mark.parametrize("name", ["qwen3-32b", "llama-3.1-70b", "minimax-m3"])
def test_norms_of_single_heads_pay_nothing(name: str) -> None:
    attentions = [layer.attention for layer in load_model(name).layers]
    assert not any(getattr(a, "norm_over_heads", False) for a in attentions)
