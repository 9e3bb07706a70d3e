"""Differences: none from itself, money that adds up, saved plans read back or refused in words."""

from __future__ import annotations

import json

import pytest

from planner.decisions.diff import difference, money_parts, read_plan
from planner.errors import InputError
from planner.hardware import Database
from planner.sizing import recommend
from planner.sizing.result import Recommendation
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


def plan(database: Database, *settings: str, price: float | None = None) -> Recommendation:
    prices = {"h100-sxm": price} if price else None
    return recommend(
        load_workload("w", settings, text=TEXT), database, simulate=False, top=0, price_overrides=prices
    )  # fmt: skip


@pytest.fixture(scope="module")
def base(database: Database) -> Recommendation:
    return plan(database)


def test_nothing_differs_from_itself(base: Recommendation) -> None:
    read = read_plan(base.model_dump_json(), "plan.json")
    assert read is not None
    for other in (base, read):
        found = difference(base, other)
        assert found.same_plan
        assert found.workload == found.plan == found.figures == found.reasons == ()
        assert found.money is not None
        assert found.money.usd_per_hour == 0.0
        assert found.money.parts == ()


@pytest.mark.parametrize("settings", [
    ("demand.requests_per_second=60",), ('slo.tpot_p95="12ms"',), ("context.mean=4000",),
    ('hardware.allow=["h100-sxm"]', "demand.peak_to_mean=2.0"), ("reliability.spare_replicas=3",),
])  # fmt: skip
def test_money_adds_up(database: Database, base: Recommendation, settings: tuple[str, ...]) -> None:
    other = plan(database, *settings)
    assert base.plan is not None
    assert other.plan is not None
    found = difference(base, other)
    assert found.money is not None
    assert sum(p.usd_per_hour for p in found.money.parts) == pytest.approx(found.money.usd_per_hour, abs=1e-9)
    back = money_parts(other.plan, base.plan)
    assert sum(p.usd_per_hour for p in back) == pytest.approx(-found.money.usd_per_hour, abs=1e-9)
    changed = {c.field for c in found.workload}
    assert {s.partition("=")[0] for s in settings} <= changed


def test_a_price_alone_changes_money_and_not_the_plan(database: Database) -> None:
    cheap, dear = (plan(database, 'hardware.allow=["h100-sxm"]', price=p) for p in (2.0, 3.0))
    found = difference(cheap, dear)
    assert found.same_plan
    assert found.plan == ()
    assert found.money is not None
    assert [(p.cause, p.ratio) for p in found.money.parts] == [("price of an accelerator-hour", 1.5)]
    assert found.money.usd_per_hour_after == pytest.approx(1.5 * found.money.usd_per_hour_before)


def test_more_demand_is_said(database: Database, base: Recommendation) -> None:
    found = difference(base, plan(database, "demand.requests_per_second=60"), ("before", "after"))
    assert (found.a, found.b) == ("before", "after")
    assert not found.same_plan
    assert "gpus" in {c.field for c in found.plan}
    assert next(c for c in found.workload).field == "demand.requests_per_second"
    assert found.money is not None
    assert next(p for p in found.money.parts if p.cause == "requests at peak").ratio == pytest.approx(5.0)


def test_no_plan_against_a_plan(database: Database, base: Recommendation) -> None:
    none = plan(database, 'slo.tpot_p95="10us"')
    found = difference(base, none)
    assert not found.same_plan
    assert found.money is None
    assert [(c.field, c.after) for c in found.plan] == [("plan", None)]
    assert found.reasons[0].startswith("B has no plan: ")
    assert difference(none, none).same_plan


@pytest.mark.parametrize(("text", "name", "says"), [
    ("[]", "x.json", "no JSON object"),
    ("{", "x.json", "x.json:1: is not valid JSON"),
    ("{" * 5, "w.toml", "not valid JSON"),
    ('{"a":' * 20_000, "x.json", "x.json: is not valid JSON"),
    ("{}", "x.json", "holds no recommendation"),
    ('{"plan": 1, "workload": {}}', "x.json", "schema_version: is None"),
    ('{"plan": 1, "workload": {}, "schema_version": "1.0"}', "x.json", "x.json: plan: "),
])  # fmt: skip
def test_what_is_no_saved_plan_is_said(text: str, name: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        read_plan(text, name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_saved_plan_with_a_wrong_field_names_it(base: Recommendation) -> None:
    data = json.loads(base.model_dump_json())
    data["plan"]["gpus"] = "many"
    with pytest.raises(InputError, match=r"plan.json: plan.gpus: .*integer"):
        read_plan(json.dumps(data), "plan.json")
    assert read_plan(TEXT, "w.toml") is None
