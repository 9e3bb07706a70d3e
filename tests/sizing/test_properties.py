"""What must always hold of plans."""

from __future__ import annotations

import pytest

from planner.errors import InputError
from planner.hardware import Database
from planner.sizing import Plan, Recommendation, recommend
from planner.workload import load_workload

BASE = """
model = "llama-3.1-8b"
[demand]
requests_per_second = 20
[context]
mean = 2000
[answer]
mean = 400
[slo]
ttft_p95 = "1s"
tpot_p95 = "30ms"
[hardware]
allow = ["h100-sxm", "l40s", "h200-sxm"]
"""


def run(database: Database, *overrides: str, text: str = BASE, **options: object) -> Recommendation:
    return recommend(load_workload("w.toml", overrides, text=text), database, **options)  # type: ignore[arg-type]


def plan(database: Database, *overrides: str, **options: object) -> Plan:
    found = run(database, *overrides, **options).plan
    assert found is not None
    return found


def test_replicas_grow_with_demand(database: Database) -> None:
    costs = [plan(database, f"demand.requests_per_second={r}").cost.usd_per_hour for r in (5, 20, 80, 320)]
    assert costs == sorted(costs)


def test_tighter_limits_never_cost_less(database: Database) -> None:
    costs = [plan(database, f'slo.tpot_p95="{t}ms"').cost.usd_per_hour for t in (60, 30, 15, 9)]
    assert costs == sorted(costs)


def test_price_scales_cost(database: Database) -> None:
    one = plan(database, 'hardware.allow=["h100-sxm"]', price_overrides={"h100-sxm": 2.0})
    two = plan(database, 'hardware.allow=["h100-sxm"]', price_overrides={"h100-sxm": 4.0})
    assert two.gpus == one.gpus
    assert two.cost.usd_per_hour == pytest.approx(2 * one.cost.usd_per_hour)
    assert "user" in one.cost.price_source


def test_users_and_rate_agree(database: Database) -> None:
    only = ("reliability.spare_replicas=0", 'serving.mode="aggregated"')
    by_rate = plan(database, *only)
    cycle = by_rate.latency.e2e_s.mean + 10
    users = BASE.replace("requests_per_second = 20", f'concurrent_users = {20 * cycle}\nthink_time = "10s"')
    by_users = plan(database, *only, text=users)
    assert by_users.gpus == by_rate.gpus
    assert by_users.throughput.requests_per_second == pytest.approx(20, rel=0.05)


def test_users_do_not_all_come_at_once(database: Database) -> None:
    """The simulated loop starts as it goes on: a burst of everybody's prompts would break limits nobody has."""
    only = ("reliability.spare_replicas=0", 'serving.mode="aggregated"', 'hardware.allow=["h200-sxm"]')
    users = BASE.replace("requests_per_second = 20", 'concurrent_users = 360\nthink_time = "10s"')
    found = plan(database, *only, text=users)
    assert found.simulated is not None and found.simulated.closed_form is not None
    closed = found.simulated.closed_form
    assert found.latency.time_per_output_token_s.mean == pytest.approx(closed.time_per_output_token_s.mean, rel=0.05)
    assert found.latency.e2e_s.mean == pytest.approx(closed.e2e_s.mean, rel=0.05)
    assert found.latency.ttft_s.p95 < 2 * closed.ttft_s.p95


def test_tokens_per_day_and_rate_agree(database: Database) -> None:
    daily = BASE.replace("requests_per_second = 20", f"tokens_per_day = {20.0 * 400 * 86400}")
    assert plan(database, text=daily).gpus == plan(database).gpus


def test_objectives(database: Database) -> None:
    cheapest = plan(database)
    fewest = plan(database, 'objective.minimise="gpus"')
    fastest = plan(database, 'objective.minimise="latency"')
    thriftiest = plan(database, 'objective.minimise="energy"')
    assert fewest.gpus <= min(cheapest.gpus, fastest.gpus)
    assert fastest.latency.e2e_s.mean <= cheapest.latency.e2e_s.mean
    assert thriftiest.power_w <= min(cheapest.power_w, fewest.power_w, fastest.power_w)


def test_spares_and_headroom(database: Database) -> None:
    none = plan(database, "reliability.spare_replicas=0")
    three = plan(database, "reliability.spare_replicas=3")
    assert three.spare_replicas == 3
    assert three.replicas >= none.replicas
    ample = plan(database, "reliability.spare_replicas=0", "reliability.headroom=1.0")
    assert ample.cost.usd_per_hour >= none.cost.usd_per_hour


def test_speculation_can_be_forbidden_and_forced(database: Database) -> None:
    off = plan(database, "speculation.enabled=false")
    assert not off.speculation.enabled
    assert off.speculation.considered == {}
    forced = plan(database, "speculation.enabled=true", 'speculation.methods=["n-gram"]')
    assert forced.speculation.method == "n-gram"


def test_measured_acceptance_is_used(database: Database) -> None:
    found = plan(
        database,
        "speculation.enabled=true",
        'speculation.methods=["eagle3"]',
        "speculation.acceptance_length=2.5",
    )
    assert found.speculation.acceptance_length == pytest.approx(min(2.5, found.speculation.draft_tokens + 1))


def test_several_classes_and_their_limits(database: Database) -> None:
    text = """
model = "llama-3.1-8b"
[demand]
requests_per_second = 20
[hardware]
allow = ["h100-sxm"]
[[requests]]
name = "short"
share = 3
context = 500
answer = 100
[requests.slo]
ttft_p95 = "300ms"
[[requests]]
name = "long"
context = 20000
answer = 1000
"""
    found = plan(database, text=text)
    assert found.throughput.requests_per_second == pytest.approx(20)
    assert found.throughput.output_tokens_per_second == pytest.approx(20 * (0.75 * 100 + 0.25 * 1000), rel=1e-6)


def test_fleet_limit_can_leave_no_plan(database: Database) -> None:
    assert run(database, "demand.requests_per_second=5000", "hardware.max_gpus=4").plan is None


def test_unknown_names_are_input_errors(database: Database) -> None:
    with pytest.raises(InputError, match="h100-sxm"):
        run(database, gpus=["h100-smx"])
    with pytest.raises(InputError, match="llama-3.1-8b"):
        run(database, 'model="llama-3.1-8bb"')
    with pytest.raises(InputError, match="multi-token-prediction"):
        run(database, 'speculation.methods=["mtp"]')
    with pytest.raises(InputError, match="Lambda"):
        run(database, 'hardware.providers=["Lamda"]')


def test_vectorised_search_prices_what_it_says(database: Database) -> None:
    statistics: dict[str, float] = {}
    run(database, statistics=statistics)
    assert statistics["points"] > 1000
