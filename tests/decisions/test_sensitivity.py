"""Flip points: planned anew on both sides, one decision before and another after, and the nearest there is."""

from __future__ import annotations

import math
import shlex

import pytest

from planner.decisions.levers import Lever, levers
from planner.decisions.replanning import Change, Question, decision, replan
from planner.decisions.sensitivity import DOWN, TOLERANCE, UP, Flip, Sensitivity, _look, _sensitivity, sensitivities
from planner.errors import NoPlanError
from planner.hardware import Database
from planner.sizing.result import Recommendation
from planner.workload import load_workload

TEXT = """
model = "llama-3.1-8b"
[demand]
requests_per_second = 12
[context]
p50 = 1500
p95 = 6000
[answer]
mean = 250
[slo]
ttft_p95 = "500ms"
tpot_p95 = "30ms"
[speculation]
task = "code-edit"
[serving]
mode = "aggregated"
[parallelism]
tensor = [1, 2]
[hardware]
allow = ["h100-sxm", "l40s"]
"""


KNOWN: dict[tuple[tuple[str, ...], str], Sensitivity] = {}


@pytest.fixture(scope="module")
def question(database: Database) -> Question:
    return Question("w", TEXT, database)


@pytest.fixture(scope="module")
def now(question: Question) -> Recommendation:
    return replan(question, top=1)


def one(question: Question, now: Recommendation, name: str) -> Sensitivity:
    found = [x for x in levers(question.workload(), now) if x.name.startswith(name)]
    assert found, name
    assert now.plan is not None
    key = (question.settings, name)
    if key not in KNOWN:
        ways = (_look(question, (found[0], way, now.plan)) for way in (DOWN, UP))
        KNOWN[key] = _sensitivity(found[0], now.plan, *ways)
    return KNOWN[key]


def again(question: Question, options: tuple[str, ...]) -> Recommendation:
    """The plan that the options of a side make, as a user would type them."""
    words = [w for o in options for w in shlex.split(o)]
    settings = [v for o, v in zip(words[::2], words[1::2], strict=True) if o == "--set"]
    prices = dict(v.split("=") for o, v in zip(words[::2], words[1::2], strict=True) if o == "--price")
    asked = Question("w", TEXT, question.database, tuple(settings), prices={k: float(v) for k, v in prices.items()})
    return replan(asked)


@pytest.mark.parametrize("name", ["limit tpot_p95", "demand", "price of l40s", "acceptance"])
def test_both_sides_of_a_flip_are_what_the_planner_says(question: Question, now: Recommendation, name: str) -> None:
    found = one(question, now, name)
    flips = [f for f in (found.flip_below, found.flip_above) if f is not None]
    counts = [f for f in (found.count_below, found.count_above) if f is not None]
    assert flips or counts
    assert now.plan is not None
    for flip in flips + counts:
        before, after = again(question, flip.before.settings).plan, again(question, flip.after.settings).plan
        assert before is not None
        assert decision(before) == decision(now.plan)
        assert before.gpus == flip.before.gpus
        if flip in flips:
            assert decision(after) != decision(now.plan)
            continue
        assert after is not None
        assert decision(after) == decision(now.plan)
        assert before.gpus == now.plan.gpus != after.gpus == flip.after.gpus
    for flip in flips + counts:
        assert abs(math.log(flip.after.value / flip.before.value)) < 1.1 * TOLERANCE
        assert flip.factor == pytest.approx(flip.after.value / found.value, rel=1e-3)


def test_the_rivals_price_flips_where_the_recommendation_says(question: Question, now: Recommendation) -> None:
    """``what_would_change`` names the price below which the rival wins; the flip found by planning is the same."""
    said = next(s for s in now.what_would_change if " wins below $" in s)
    name, usd = said.split()[0], float(said.split("$")[1].split()[0])
    flip = one(question, now, f"price of {name}").flip_below
    assert flip is not None
    assert flip.after.value - 0.005 <= usd <= flip.before.value + 0.005  # it is said in cents
    assert name in flip.after.decision


def test_bandwidth_changes_the_plans_accelerator_alone(question: Question, now: Recommendation) -> None:
    assert now.plan is not None
    chip = now.plan.accelerator
    slow = replan(question, Change(bandwidth=((chip, 0.5),)), top=1)
    fast = replan(question, Change(bandwidth=((chip, 1.0),)), top=1)
    assert fast == now
    assert slow != now
    other = [a.plan for a in now.alternatives if a.plan is not None]
    if other and slow.plan is not None and slow.plan.accelerator == other[0].accelerator:
        assert slow.plan.cost.usd_per_hour == other[0].cost.usd_per_hour


def test_elasticities_of_price_and_demand_are_one(database: Database) -> None:
    """Before replicas are rounded up cost is in proportion to both, while the plan stays the same."""
    fixed = ('hardware.allow=["h100-sxm"]', "speculation.enabled=false", "parallelism.tensor=[1]")
    question = Question("w", TEXT, database, fixed)
    now = replan(question, top=1)
    for name in ("price of h100-sxm", "demand"):
        found = one(question, now, name)
        assert found.elasticity == pytest.approx(1.0, rel=1e-3)
        assert found.flip_below is found.flip_above is None


def test_no_plan_has_no_sensitivity(database: Database) -> None:
    with pytest.raises(NoPlanError, match="no feasible plan: "):
        sensitivities(Question("w", TEXT.replace('"30ms"', '"10us"'), database), jobs=1)


def names(text: str, *settings: str, database: Database) -> dict[str, Lever]:
    question = Question("w", text, database, settings)
    return {x.name: x for x in levers(question.workload(), replan(question, top=1))}


def test_inputs_that_are_moved(database: Database) -> None:
    found = names(TEXT, 'slo.ttft_p50="400ms"', database=database)
    assert {"demand", "context p95", "answer mean", "acceptance", "limit ttft_p95", "limit ttft_p50"} <= set(found)
    # a percentile stays above the one below it, a limit above that of a lower percentile
    assert not found["context p95"].allows(0.25)
    assert found["context p95"].allows(0.26)
    assert not found["limit ttft_p95"].allows(0.79)
    assert not found["limit ttft_p50"].allows(1.26)
    assert found["context p95"].change(1.5).settings == ("context.p95=9000.0",)
    classes = (
        TEXT.replace("[context]\np50 = 1500\np95 = 6000\n[answer]\nmean = 250\n", "")
        + """
[[requests]]
name = "a"
context = { mean = 500 }
answer = { values = [50, 100] }
[[requests]]
name = "b"
context = { mean = 2000 }
answer = 100
"""
    )
    both = names(classes, database=database)
    assert both["context mean of every class"].change(2.0).settings == (
        "requests[0].context.mean=1000.0", "requests[1].context.mean=4000.0",
    )  # fmt: skip
    assert not any(name.startswith("answer") for name in both)


def test_the_factor_on_acceptance_is_a_factor_on_drafts(database: Database) -> None:
    texts = ("", "speculation.acceptance_factor=0.5", "speculation.acceptance_factor=0.0")
    lengths = []
    for setting in texts:
        workload = load_workload("w", [s for s in ("speculation.enabled=true", setting) if s], text=TEXT)
        from planner.sizing.recommend import find

        found = find(workload, database)
        assert found.rows is not None
        lengths.append({o.label: o.acceptance for o in found.rows.options})
    for label, whole in lengths[0].items():
        assert lengths[1][label] == pytest.approx(1 + (whole - 1) / 2)
        assert lengths[2][label] == 1.0


def test_a_flip_is_plain_data(question: Question, now: Recommendation) -> None:
    flip = one(question, now, "limit tpot_p95").flip_below
    if flip is not None:
        assert Flip.model_validate(flip.model_dump(mode="json")) == flip
