"""Closed forms against the simulator: a few points of the grid anew, and what the committed table says of all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.closed_forms import (
    LOADS,
    TOLERANCE,
    Point,
    case_of,
    closed_forms,
    error,
    held,
    left_to_simulation,
    read,
    simulation,
    within,
)
from planner.serving.validity import simulated_only

PAGE = Path(__file__).parent.parent.parent / "docs" / "closed-forms.md"
#: points whose simulation takes a second: dense and sparse attention, one and several accelerators, drafting
CHEAP = (
    ("chat", "h100-sxm", 0.2), ("rag", "mi300x", 0.4), ("refactor", "h100-sxm", 0.2), ("long-prompts", "b200-sxm", 0.4),
    ("reasoning-glm", "b200-sxm", 0.4), ("classes", "h100-sxm", 0.2),
)  # fmt: skip
#: share of all the grid's points, flagged or not, on which a closed form is within its tolerance
AT_LEAST = {"tpot": 0.98, "itl": 0.96, "p99_occupancy": 0.92, "ttft_p95": 0.7}


@pytest.fixture(scope="module")
def points() -> list[Point]:
    return read()


@pytest.mark.parametrize(("workload", "accelerator", "load"), CHEAP)
def test_points_anew(points: list[Point], workload: str, accelerator: str, load: float) -> None:
    (row,) = (p for p in points if (p.workload, p.accelerator, p.utilisation) == (workload, accelerator, load))
    case = case_of(row)
    closed, simulated = closed_forms(case, row.rate), simulation(case, row.rate)
    assert not closed["simulated_only"]
    for name, tolerance in TOLERANCE.items():
        assert closed[name] == pytest.approx(simulated[f"{name}_simulated"], rel=tolerance), name
        # the committed row is of this code
        assert closed[name] == pytest.approx(getattr(row, name), rel=1e-3), name
        width = simulated[f"{name}_half_width"] + getattr(row, f"{name}_half_width")
        assert simulated[f"{name}_simulated"] == pytest.approx(getattr(row, f"{name}_simulated"), rel=width), name


def test_grid_is_wide_enough(points: list[Point]) -> None:
    assert len(points) >= 64
    replicas = {(p.workload, p.accelerator, p.layout, p.drafting) for p in points}
    assert len(points) == len(replicas) * len(LOADS)
    workloads = {p.workload for p in points}
    assert len(workloads) >= 8
    for name in workloads:
        assert len({p.accelerator for p in points if p.workload == name}) >= 2, name
    assert {"TP", "DP", "PP"} <= {kind for p in points for kind in re.findall("[A-Z]+", p.layout)}
    assert {"none", "n-gram", "mtp"} <= {p.drafting.split("@")[0] for p in points}


def test_simulations_are_certain_enough(points: list[Point]) -> None:
    for p in points:
        for name, tolerance in TOLERANCE.items():
            assert getattr(p, f"{name}_half_width") <= tolerance / 3, (p.workload, p.accelerator, p.utilisation, name)


def test_page_says_what_the_table_holds(points: list[Point]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    titles = {"tpot": "mean TPOT, over requests", "p99_occupancy": "p99 of sequences decoding", "ttft_p95": "p95 TTFT"}
    for name, title in titles.items():
        good, of = within(points, name), held(points, name)
        assert f"| {title} | {TOLERANCE[name]:.0%} | {len(of)} | {len(good)} ({len(good) / len(of):.0%}) |" in text
    assert text.count(" simulated only |") == sum(left_to_simulation(p, name) for p in points for name in TOLERANCE)


@pytest.mark.parametrize("name", TOLERANCE)
def test_every_point_is_within_its_tolerance_or_flagged(points: list[Point], name: str) -> None:
    beyond = [p for p in held(points, name) if abs(error(p, name)) > TOLERANCE[name]]
    assert not beyond, [(p.workload, p.accelerator, p.layout, p.utilisation, error(p, name)) for p in beyond]
    assert sum(abs(error(p, name)) <= TOLERANCE[name] for p in points) >= AT_LEAST[name] * len(points)


def test_flags_leave_the_closed_forms_enough(points: list[Point]) -> None:
    assert sum(not p.simulated_only for p in points) >= 60
    for name in TOLERANCE:
        assert len(held(points, name)) > len(points) / 2, name


def test_flags_follow_from_the_inputs(points: list[Point]) -> None:
    for p in points:
        flagged = simulated_only(p.prefill_share, p.ranks, p.arrivals, p.prompt_cv, p.in_service)
        assert p.simulated_only == ";".join(flagged)
    # where time to first token is flagged it mostly is wrong
    wrong = [p for p in points if abs(error(p, "ttft_p95")) > TOLERANCE["ttft_p95"]]
    assert len(wrong) > 0.6 * sum(left_to_simulation(p, "ttft_p95") for p in points)
