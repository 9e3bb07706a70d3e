"""Steps measured on a GPU: what the counts say of each shape, and that the recorded session is possible."""

from __future__ import annotations

import statistics

import pytest

from bench import gpu_comparison as g
from bench.gpu_shapes import CONFIGS, TINY, shape_of
from planner.cost.layout import Layout
from planner.cost.prefill import prefill_flops
from planner.cost.step import StepModel
from planner.models import load_config


@pytest.mark.parametrize("name", CONFIGS)
def test_the_plain_count_is_the_planners(name: str) -> None:
    for config in (CONFIGS[name], TINY[name]):
        model, shape = load_config(config, name=name), shape_of(name, config)
        assert sum(prefill_flops(model, 4096.0)) == pytest.approx(shape.count("prefill", 1, 4096, shape.experts)[1])
        assert model.num_layers == shape.layers


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("batch", "context"), [(1, 512), (16, 8192)])
def test_a_decode_step_moves_at_least_the_plain_count(name: str, batch: int, context: int) -> None:
    step = StepModel(load_config(CONFIGS[name], name=name), {}, "bf16")
    roofs = g.Session([], {}, {"bf16 matmul": 1e15, "read": 1e12, "node of a graph": 0.0}, None).roofs()
    cost = step.decode(roofs, Layout(), float(batch), [float(context)])
    shape = shape_of(name, CONFIGS[name])
    touched = shape.experts and g.distinct_experts(shape.experts, shape.top_k, float(batch))
    moved, flops = shape.count("decode", batch, context, touched)
    activations = float(cost.bytes_by("activations"))
    caches = float(cost.bytes_by("kv")) + float(cost.bytes_by("indexer"))
    assert float(cost.bytes_by("weights")) + caches == pytest.approx(moved)
    assert activations > 0
    assert float(cost.flops) == pytest.approx(flops)


def test_no_point_is_faster_than_its_bound() -> None:
    session = g.load()
    assert session.points
    for p in session.points:
        assert p.seconds_min >= g.FLOOR * session.bound(p), p


def test_the_page_shows_every_point_and_the_errors_of_the_file() -> None:
    session = g.load()
    text = (g.DATA.parent.parent / "docs" / "gpu-steps.md").read_text(encoding="utf-8")
    for p in session.points:
        assert f"| {p.architecture} | {p.phase} | {p.batch} | {p.context} | {p.seconds * 1e3:.3f} ms |" in text
    for line in g.error_lines(g.rows_of(session)):
        assert line in text


def test_the_database_predicts_a_gpu_it_was_not_fitted_to() -> None:
    rows = g.rows_of(g.load())
    dense = [r for r in rows if r.point.architecture == "gqa" and r.point.phase == "decode"]
    assert len(dense) == 19
    assert g.summary(dense, "database")["mape"] < 0.05
    assert g.summary(rows, "database")["mape"] < g.summary(rows, "ceilings")["mape"]
    for part in ("matmul", "experts", "indexer"):
        ratios = [
            r.point.alone(part) / guess
            for r in rows
            if r.point.phase == "decode" and (guess := r.predicted["database"].get(part))
        ]
        assert statistics.median(ratios) == pytest.approx(1.0, abs=0.15), part
