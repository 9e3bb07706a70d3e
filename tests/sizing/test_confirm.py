"""The simulator's say in a recommendation: figures replaced, fleets enlarged, bands that widen near saturation."""

from __future__ import annotations

import pytest

from planner.hardware import Database
from planner.sizing import recommend
from planner.sizing.result import Recommendation
from planner.sizing.simulation import simulate_plan
from planner.workload import load_workload

TEXT = """
model = "llama-3.1-8b"
[demand]
requests_per_second = 40
[context]
mean = 1500
cv = 1.0
[answer]
mean = 250
[slo]
ttft_p95 = "500ms"
tpot_p95 = "30ms"
[speculation]
enabled = false
[hardware]
allow = ["h100-sxm"]
[reliability]
spare_replicas = 0
"""


def run(database: Database, *overrides: str, text: str = TEXT, simulate: bool = True) -> Recommendation:
    return recommend(load_workload("w", overrides, text=text), database, simulate=simulate)


def test_the_plan_carries_simulated_figures(database: Database) -> None:
    confirmed, closed = run(database), run(database, simulate=False)
    assert confirmed.plan is not None
    assert closed.plan is not None
    assert (confirmed.plan.latency_source, closed.plan.latency_source) == ("simulated", "closed form")
    assert closed.plan.simulated is None
    simulated = confirmed.plan.simulated
    assert simulated is not None
    assert confirmed.plan.verdict == "stable"
    assert confirmed.plan.gpus >= closed.plan.gpus
    if confirmed.plan.gpus == closed.plan.gpus:
        assert simulated.closed_form == closed.plan.latency
    # the simulation is of the same operating point: means agree
    ours, theirs = simulated.closed_form.time_per_output_token_s, confirmed.plan.latency.time_per_output_token_s
    assert ours.mean == pytest.approx(theirs.mean, rel=0.06)


def test_same_input_same_answer(database: Database) -> None:
    assert run(database) == run(database)


def test_every_limit_holds_in_the_simulation(database: Database) -> None:
    for limit in ("250ms", "400ms", "1s"):
        plan = run(database, f'slo.ttft_p95="{limit}"').plan
        assert plan is not None
        assert plan.latency.ttft_s.p95 <= float(limit.rstrip("ms")) / (1000 if "ms" in limit else 1)
        assert plan.latency.time_per_output_token_s.p95 <= 0.030


def test_bursts_the_closed_forms_underrate_enlarge_the_fleet(database: Database) -> None:
    """Gaps of cv 6 pile prompts up; whatever the closed forms said, the plan's own simulation keeps the limits."""
    calm, bursty = run(database), run(database, "demand.arrival_cv=6.0")
    assert calm.plan is not None
    assert bursty.plan is not None
    assert bursty.plan.gpus > calm.plan.gpus
    assert bursty.plan.latency.ttft_s.p95 <= 0.5


def test_the_band_widens_towards_saturation(database: Database) -> None:
    """p95 TTFT under steps 15 % shorter and longer: narrow with room, wide at the edge, and a way out is named."""
    widths, said = [], []
    for headroom in (2.0, 0.0):
        found = run(database, f"reliability.headroom={headroom}", 'slo.ttft_p95="3s"', 'slo.tpot_p95="80ms"')
        assert found.plan is not None
        assert found.plan.simulated is not None
        band = found.plan.simulated.ttft_p95_band_s
        assert band is not None
        low, high = band
        assert low <= found.plan.latency.ttft_s.p95 * 1.1
        widths.append(high / low)
        said.append(any("longer than predicted" in w for w in found.warnings))
    assert 1.1 < widths[0] < widths[1]
    assert said[0] is False


def test_closed_loop_users_are_simulated_as_such(database: Database) -> None:
    users = TEXT.replace("requests_per_second = 40", 'concurrent_users = 300\nthink_time = "5s"')
    plan = run(database, text=users).plan
    assert plan is not None
    assert plan.simulated is not None
    # interactive response-time law: X = N / (R + Z)
    rate = 300 / (plan.latency.e2e_s.mean + 5)
    assert plan.throughput.requests_per_second == pytest.approx(rate, rel=0.1)


def test_classes_have_their_own_percentiles(database: Database) -> None:
    text = (
        TEXT.replace("[context]\nmean = 1500\ncv = 1.0\n[answer]\nmean = 250\n", "")
        + """
[[requests]]
name = "short"
share = 3
context = { mean = 500 }
answer = { mean = 100 }
[[requests]]
name = "long"
share = 1
context = { mean = 6000 }
answer = { mean = 400 }
"""
    )
    result, records = simulate_plan(load_workload("w", (), text=text), database, requests=3000)
    assert {c.request_class for c in result.classes} == {"short", "long"}
    ttft = {c.request_class: c.latency.ttft_s.p95 for c in result.classes}
    assert ttft["long"] > ttft["short"]
    assert {r.request_class for r in records} == {"short", "long"}


def test_several_replicas_wait_less_than_one(database: Database) -> None:
    workload = load_workload("w", (), text=TEXT)
    one, _ = simulate_plan(workload, database, requests=4000)
    all_of_them, records = simulate_plan(workload, database, requests=4000, replicas=0)
    assert all_of_them.pools[0].replicas > 1
    assert len({r.replica for r in records}) == all_of_them.pools[0].replicas
    assert all_of_them.latency.ttft_s.p95 <= one.latency.ttft_s.p95 * 1.05


def test_an_overload_is_called_one(database: Database) -> None:
    workload = load_workload("w", (), text=TEXT)
    result, _ = simulate_plan(workload, database, requests=6000, rate=200.0)
    assert result.verdict == "overloaded"
    assert result.requests_per_second < 200
