"""The intervals that ship: what their file must hold, and that less knowledge is never a narrower interval."""

from __future__ import annotations

from itertools import product

import pytest

from planner.documents import parse_toml
from planner.errors import InputError
from planner.hardware import Database, database_root
from planner.hardware.intervals import FILES, METRICS, OTHER, load_intervals, parse_intervals

GOOD = """
schema = 1
level = 0.8
date = "2026-01-01"
source = "rows"
rows = 10
groups = 2
accelerators = ["h100-sxm"]
""" + "".join(
    f'[{m}.{s}.{v}.{a}]\nvllm = {{ low = 0.9, high = 1.2, n = 4, groups = 1 }}\n'
    f"other = {{ low = 0.8, high = {1.5 if s == 'seen' else 1.8}, n = 0, groups = 0 }}\n"
    for m, s, v, a in product(METRICS, ("seen", "unseen"), ("NVIDIA", "other"), ("dense", "other"))
)  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("metric", METRICS)
def test_what_was_never_seen_is_wider(name: str, metric: str) -> None:
    found = load_intervals(database_root(), name).factors[metric]
    for vendor, architectures in found["seen"].items():
        for architecture, engines in architectures.items():
            for engine, entry in engines.items():
                assert 0 < entry["low"] <= 1 <= entry["high"]
                unseen = found["unseen"][vendor][architecture][engine]
                assert unseen["low"] <= entry["low"]
                assert unseen["high"] >= entry["high"]
            typical = engines["vllm"]
            assert engines[OTHER]["high"] / engines[OTHER]["low"] > typical["high"] / typical["low"]
        typical = architectures["dense"]["vllm"]
        assert architectures[OTHER]["vllm"]["high"] / architectures[OTHER]["vllm"]["low"] > (
            typical["high"] / typical["low"]
        )


def test_a_kind_is_looked_up_with_its_reason(database: Database) -> None:
    found = database.intervals
    vllm, generic = database.engine("vllm"), database.engine("generic")
    seen = found.of(database.accelerator("h100-sxm"), "dense", vllm).tpot
    assert "wider" not in seen.source
    chip = found.of(database.accelerator("trainium2"), "dense", vllm).tpot
    assert "no measured row of trainium2" in chip.source
    model = found.of(database.accelerator("h100-sxm"), "other", vllm).tpot
    assert "no measured model of this architecture" in model.source
    engine = found.of(database.accelerator("h100-sxm"), "dense", generic).tpot
    assert "no measured row of engine generic" in engine.source
    for wide in (chip, model, engine):
        assert wide.low <= seen.low * 1.0001 or wide.high > seen.high
        assert wide.high / wide.low > seen.high / seen.low


def test_a_calibration_has_its_own(database: Database) -> None:
    from planner.hardware.calibration import Calibration

    bare = database.uncalibrated()
    assert bare.intervals.source != bare.calibrated(Calibration(name="own")).intervals.source
    assert bare.intervals.source == bare.calibrated(Calibration()).intervals.source  # a what-if


def test_every_model_has_a_kind() -> None:
    from planner.models import load_model

    kinds = {
        "llama-3.1-8b": "dense", "gpt-oss-120b": "experts", "deepseek-r1": "latent", "deepseek-v3.2": "other",
        "qwen3-next-80b-a3b": "other",
    }  # fmt: skip
    assert {name: load_model(name).architecture_kind for name in kinds} == kinds


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("level = 0.8", "level = 8", "level"),
        ("low = 0.9", "low = 1.1", "tpot.seen.NVIDIA.dense.vllm"),
        ("high = 1.2", 'high = "wide"', "high"),
        ('accelerators = ["h100-sxm"]', "accelerators = 1", "accelerators"),
        ("other = { low = 0.8, high = 1.5, n = 0, groups = 0 }", "", "tpot.seen.NVIDIA.dense.other"),
        ("schema = 1", "schema = 1\nextra = 2", "extra"),
    ],
)
def test_a_mistake_is_said_with_its_key(before: str, after: str, says: str) -> None:
    assert parse_intervals(parse_toml(GOOD, "mine.toml")).factors["tpot"]["seen"]
    assert before in GOOD
    with pytest.raises(InputError) as caught:
        parse_intervals(parse_toml(GOOD.replace(before, after, 1), "mine.toml"))
    assert says in str(caught.value)
