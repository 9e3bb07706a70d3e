"""Sweeps: axes as typed, every combination, and each point what recommend says."""

from __future__ import annotations

import pytest

from planner.decisions.replanning import Question
from planner.decisions.sweep import MOST_POINTS, Axis, parse_axis, sweep
from planner.errors import InputError
from planner.hardware import Database
from planner.sizing import recommend
from planner.workload import load_workload

TEXT = """
model = "llama-3.1-8b"
[demand]
requests_per_second = 12
[context]
mean = 1500
[answer]
mean = 250
[slo]
tpot_p95 = "30ms"
[hardware]
allow = ["h100-sxm", "l40s"]
"""


@pytest.mark.parametrize(("text", "values"), [
    ("a=5:50:15", ("5", "20", "35", "50")),
    ("a=1:2:0.3", ("1.0", "1.3", "1.6", "1.9")),
    ("a=0.1:0.3:0.1", ("0.1", "0.2", "0.3")),
    ("a=3:1:-1", ("3", "2", "1")),
    ("a=1k:3k:1k", ("1k", "2k", "3k")),
    ("a=7:7:1", ("7",)),
    ("a= 5, 10 ,5", ("5", "10")),
    ("a=llama-3.1-8b,qwen3-8b", ("llama-3.1-8b", "qwen3-8b")),
    ('a="x,y",z', ('"x,y"', "z")),
    ("a={p50=1,p95=2},3", ("{p50=1,p95=2}", "3")),
    ("hardware.prices.h100-sxm=2:3:0.5", ("2.0", "2.5", "3.0")),
])  # fmt: skip
def test_axes(text: str, values: tuple[str, ...]) -> None:
    assert parse_axis(text).values == values


@pytest.mark.parametrize(("text", "says"), [
    ("a", "is not a sweep"), ("=1,2", "is not a sweep"), ("a=", "is not a sweep"), ("a=1,,2", "empty value"),
    ("a=1:2:0", "never gets"), ("a=2:1:1", "never gets"), ("a=1:x:1", "not a range"), ("a=1ms:2s:1ms", "mixes units"),
    ("a=0:1e9:1", "at most"), ("a=1:2:1e-9", "at most"), ("a=1:1e300:1", "at most"),
])  # fmt: skip
def test_wrong_axes_are_said(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_axis(text)


def test_one_point_is_the_recommendation(database: Database) -> None:
    found = sweep(Question("w", TEXT, database), [parse_axis("demand.requests_per_second=30")], jobs=1)
    alone = recommend(load_workload("w", ["demand.requests_per_second=30"], text=TEXT), database, top=0)
    assert len(found.points) == 1
    assert found.points[0].plan == alone.plan
    assert alone.why is not None
    assert found.points[0].binding == alone.why.binding_constraint


def test_every_combination_with_the_last_field_fastest(database: Database) -> None:
    axes = [parse_axis("slo.tpot_p95=10us,30ms"), parse_axis("demand.requests_per_second=10,40")]
    told: list[str] = []
    found = sweep(Question("w", TEXT, database), axes, simulate=False, jobs=1, progress=told.append)
    assert [tuple(p.settings.values()) for p in found.points] == [
        ("10us", "10"), ("10us", "40"), ("30ms", "10"), ("30ms", "40"),
    ]  # fmt: skip
    assert [p.feasible for p in found.points] == [False, False, True, True]
    assert "tpot_p95" in found.points[0].binding
    first, second = found.points[2].gpus, found.points[3].gpus
    assert first is not None
    assert second is not None
    assert first < second
    assert len(told) == 4


def test_a_wrong_point_names_the_sweep(database: Database) -> None:
    question = Question("w", TEXT, database)
    with pytest.raises(InputError, match=r"^--sweep: demand.requests_per_second: is -1") as caught:
        sweep(question, [parse_axis("demand.requests_per_second=5,-1")], simulate=False, jobs=1)
    assert caught.value.exit_code == 2
    with pytest.raises(InputError, match="swept twice"):
        sweep(question, [parse_axis("a=1"), parse_axis("a=2")], jobs=1)
    many = [Axis(key, tuple(str(i) for i in range(30))) for key in ("a", "b")]
    with pytest.raises(InputError, match=f"900 points to plan; expected at most {MOST_POINTS}"):
        sweep(question, many, jobs=1)
    with pytest.raises(InputError, match="nothing to sweep"):
        sweep(question, [], jobs=1)


def test_several_processes_say_the_same_and_carry_errors(database: Database) -> None:
    question = Question("w", TEXT, database, gpus=("h100-sxm",))
    axis = parse_axis("demand.requests_per_second=5:60:5")
    assert sweep(question, [axis], simulate=False, jobs=2) == sweep(question, [axis], simulate=False, jobs=1)
    with pytest.raises(InputError, match=r"^--sweep: demand.requests_per_second: is 0"):
        sweep(question, [parse_axis("demand.requests_per_second=12:0:-1")], simulate=False, jobs=2)
