"""The fewest of an accelerator at slower steps, beside all layouts and ways to draft judged exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest

from planner.hardware import Database
from planner.hardware.intervals import Factors
from planner.sizing.fleet_range import fleet_ranges
from planner.sizing.other_layouts import fewest, needed, scaled
from planner.sizing.recommend import find, recommend
from planner.sizing.search import Search, Sized
from planner.workload import load_workload
from planner.workload.examples import example_path

TEXT = """
model = "llama-3.1-70b"
[demand]
requests_per_second = 20
[context]
mean = 6000
cv = 1.0
[answer]
mean = 300
[slo]
ttft_p95 = "{ttft}"
tpot_p95 = "40ms"
[hardware]
allow = ["{gpu}"]
[reliability]
spare_replicas = 0
"""


def exactly(found: Search, sized: Sized, factor: float) -> float:
    """Accelerators, not counting spares, of the best of all rows of the candidate's accelerator and formats."""
    assert found.rows is not None
    seat = sized.seat
    mine = [
        i for i, s in enumerate(found.rows.seats)
        if s.accelerator.name == seat.accelerator.name and s.precision == seat.precision
    ]  # fmt: skip
    rows = scaled(found.rows.take(mine), factor)
    return float(np.min(np.ceil(needed(found, rows)[0]) * rows.devices[:, 0]))


@pytest.mark.parametrize(("gpu", "ttft"), [("h200-sxm", "1.2s"), ("h200-sxm", "4s"), ("b200-sxm", "1s")])
def test_the_fewest_are_nearly_those_of_all_layouts(database: Database, gpu: str, ttft: str) -> None:
    found = find(load_workload("w", text=TEXT.format(gpu=gpu, ttft=ttft)), database)
    sized, factors = found.found[0], (1.0, 1.25, 1.6)
    got = fewest(found, [sized] * len(factors), factors)
    for (fleet, devices), factor in zip(got, factors, strict=True):
        best = exactly(found, sized, factor)
        assert math.isfinite(fleet) == math.isfinite(best)
        if math.isfinite(best):
            assert best <= math.ceil(fleet) * devices <= 1.25 * best


@pytest.mark.parametrize("ttft", ["900ms", "1.2s", "2s", "4s"])
def test_a_range_holds_the_count_and_grows_with_its_steps(database: Database, ttft: str) -> None:
    """Ends on both sides, the upper one there whenever some layout keeps the limits, and growing with the steps."""
    found = find(load_workload("w", text=TEXT.format(gpu="h200-sxm", ttft=ttft)), database)
    sized = found.found[0]
    factors = [Factors(2 - f, f, 0.8, "") for f in (1.05, 1.2, 1.4, 1.7)]
    before = sized.gpus
    for factor, found_range in zip(factors, fleet_ranges(found, [sized] * len(factors), factors), strict=True):
        best = exactly(found, sized, factor.high)
        assert found_range.low <= sized.gpus
        if found_range.high is None:
            assert not math.isfinite(best)
            assert found_range.held is not None
            assert 1.0 <= found_range.held < factor.high
        else:
            assert max(best, sized.gpus) <= found_range.high <= max(1.25 * best, math.ceil(factor.high * sized.gpus))
            assert found_range.high >= before * 0.9
            before = found_range.high


def test_where_these_replicas_fail_another_layout_ends_the_range(database: Database) -> None:
    """A limit on the first token that a longest prompt on one device just keeps: across two it keeps longer."""
    found = find(load_workload("w", text=TEXT.format(gpu="h200-sxm", ttft="1.2s")), database)
    narrow = min(found.found, key=lambda s: int(s.seat.layout.tensor))
    rate = needed(found, scaled(narrow.rows, 1.0))[1]
    assert rate[0] > 0
    for factor in (1.3, 1.6, 2.0, 3.0, 4.0):
        alone = needed(found, scaled(narrow.rows, factor))[0][0]
        if not math.isfinite(alone) and math.isfinite(exactly(found, narrow, factor)):
            wide = fleet_ranges(found, [narrow], [Factors(0.9, factor, 0.8, "")])[0]
            assert wide.high is not None
            assert wide.anew
            return
    pytest.fail("no factor at which this layout alone fails")


@pytest.mark.parametrize("name", ["chat", "rag", "refactor", "coding-agent"])
def test_ranges_of_the_examples(database: Database, name: str) -> None:
    result = recommend(load_workload(example_path(name)), database, simulate=False)
    plans = [p for p in (result.plan, *(a.plan for a in result.alternatives)) if p is not None]
    assert plans
    for plan in plans:
        found = plan.gpus_interval
        assert found is not None
        assert 0 < found.low <= plan.gpus
        if found.high is None:
            assert "limits kept by steps up to" in found.source
        else:
            assert plan.gpus <= found.high < math.inf
