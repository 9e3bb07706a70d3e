"""Real configs with a key dropped, emptied or retyped: one clear error or a sound model, never a guess."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.cost.attention import attention_cost
from planner.cost.layout import Layout
from planner.cost.memory import CacheLayout
from planner.errors import InputError
from planner.models import Model, load_config
from planner.models.catalogue import ROOT
from planner.models.families import REQUIRED

CONFIGS: dict[str, dict[str, Any]] = {
    path.stem: tomli.loads(path.read_text(encoding="utf-8"))["config"] for path in sorted(ROOT.glob("*.toml"))
}
#: quantisation as checkpoints carry it, for the configs to be broken with
QUANTISED: tuple[dict[str, Any], ...] = (
    {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head"]},
    {"quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["re:.*self_attn.*"],
     "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 32}}}},
    {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "kv_cache_scheme": {"num_bits": 8},
     "quantized_layers": {"model.layers.0.mlp.up_proj": {"quant_algo": "NVFP4"}}},
    {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "config_groups": {
        "group_0": {"targets": ["model.layers.0.mlp.up_proj"], "weights": {"num_bits": 8, "type": "float"}}}},
)  # fmt: skip
DROPPED = object()
VALUES: tuple[Any, ...] = (
    DROPPED, None, "x", "", -1, 0, 1, 3, 1.5, math.nan, math.inf, 10**30, 10**9, True, False, [], {}, [1], ["x"],
    {"a": 1}, [None] * 200, [-1] * 200, [{}] * 200, ["full_attention"] * 200, "bfloat16",
)  # fmt: skip
#: families whose fields have defaults of their own class: dropping one is no guess
DEFAULTED = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules")


def keys(table: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in table.items():
        found.append((*path, key))
        if isinstance(value, dict):
            found += keys(value, (*path, key))
    return found


def put(table: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(table)
    inner = changed
    for part in path[:-1]:
        inner = inner[part]
    if value is DROPPED:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return changed


def sound(model: Model) -> None:
    """Whatever loaded can be counted and priced."""
    assert model.active_parameters > 0
    assert model.total_parameters > 0
    assert model.layers
    cache = CacheLayout(model.layers, "bf16", hybrid_manager=False)
    assert math.isfinite(float(cache.allocated(1000.0, Layout())))
    assert math.isfinite(float(cache.state(Layout())))
    for layer in model.layers:
        if layer.attention is not None:
            cost = attention_cost(layer.attention)
            for part in (*cost.decode(1000.0, 1, "fp8"), *cost.prefill(10.0, 10.0, "bf16")):
                assert part.flops >= 0
                assert part.bytes >= 0


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_a_broken_config_is_one_error_or_a_sound_model(data: st.DataObject) -> None:
    config = dict(CONFIGS[data.draw(st.sampled_from(sorted(CONFIGS)))])
    if data.draw(st.booleans()):
        config["quantization_config"] = data.draw(st.sampled_from(QUANTISED))
    if data.draw(st.booleans()):  # as multimodal checkpoints nest it
        config = {"architectures": config.pop("architectures"), "text_config": config}
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(keys(config)))
        config = put(config, path, data.draw(st.sampled_from(VALUES)))
    try:
        model = load_config(config, file="config.json")
    except InputError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 1200
        assert str(error).startswith("config.json")
        return
    sound(model)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_what_decides_the_layers_is_never_guessed(name: str) -> None:
    config, kind = CONFIGS[name], CONFIGS[name].get("model_type")
    for families, fields in REQUIRED:
        present = [f for f in fields if f in config]
        if kind in families and len(present) == 1:
            with pytest.raises(InputError, match="is missing"):
                load_config(put(config, (present[0],), DROPPED))


@pytest.mark.parametrize("name", ["deepseek-v3", "glm-5.2", "qwen3-235b-a22b", "gpt-oss-120b", "kimi-k2.5",
                                  "qwen3-next-80b-a3b", "mimo-v2-flash", "minimax-m3", "deepseek-v4-pro"])  # fmt: skip
def test_no_field_can_vanish_unnoticed(name: str) -> None:
    """Dropping any one field is an error or leaves every layer as it was."""
    whole = load_config(CONFIGS[name])
    for key in CONFIGS[name]:
        if key in DEFAULTED or key == "tie_word_embeddings":
            continue
        try:
            model = load_config(put(CONFIGS[name], (key,), DROPPED))
        except InputError:
            continue
        assert model.layers == whole.layers, key
