"""Draws: repeatable, without spread what was planned, and more replicas never hurt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.decisions.monte_carlo import limits_kept, replicas_needed, risk, scaled, tightened
from planner.decisions.prediction_interval import PredictionInterval, step_time_interval
from planner.hardware import Database
from planner.sizing.plan import build_plan
from planner.sizing.recommend import find
from planner.sizing.replica import ReplicaModel
from planner.sizing.result import Plan
from planner.sizing.search import Search, Sized
from planner.workload import load_workload

TEXT = """
model = "llama-3.1-8b"
[demand]
requests_per_second = 60
[context]
mean = 1500
cv = 1.0
[answer]
mean = 250
[slo]
ttft_p95 = "500ms"
tpot_p95 = "30ms"
[hardware]
allow = ["h100-sxm"]
[serving]
mode = "aggregated"
"""
USERS = TEXT.replace("requests_per_second = 60", 'concurrent_users = 600\nthink_time = "5s"')
EXACT = PredictionInterval(1.0, 1.0, 0.8, "nothing is uncertain")
Case = tuple[Search, Sized, Plan]


def sized(database: Database, text: str = TEXT, *overrides: str) -> Case:
    found = find(load_workload("w", overrides, text=text), database)
    return found, found.found[0], build_plan(found, found.found[0])


@pytest.fixture(scope="module")
def case(database: Database) -> Case:
    return sized(database)


@pytest.mark.parametrize("text", [TEXT, USERS], ids=["rate", "users"])
def test_without_spread_the_plan_is_certain(database: Database, text: str) -> None:
    """Nothing drawn: as many replicas as planned where a latency or the cache sets them, never more."""
    found, best, plan = sized(database, text)
    odds = risk(found, best, plan, draws=100, forecast_cv=0.0, step_time=EXACT, acceptance=EXACT)
    assert odds.probability == 1.0
    assert {c.probability for c in odds.limits} == {1.0}
    fleets = {c.gpus for c in odds.confidence}
    assert len(fleets) == 1
    assert fleets <= set(range(1, plan.gpus + 1))
    assert odds.unattainable == 0.0
    # a limit that sets the fleet leaves nothing to spare
    short, _, _ = sized(database, text, 'slo.tpot_p95="9ms"', "speculation.enabled=false")
    tight = risk(
        short, short.found[0], build_plan(short, short.found[0]), draws=100, forecast_cv=0.0, step_time=EXACT,
    )  # fmt: skip
    assert {c.gpus for c in tight.confidence} == {short.found[0].gpus}


def test_same_seed_same_draws(case: Case) -> None:
    first, again, other = (risk(*case, draws=100, seed=s) for s in (7, 7, 8))
    assert first == again
    assert first != other


def test_more_replicas_are_never_less_likely_to_do(case: Case) -> None:
    """Counted anew at each fleet, not read off the draws' own needs; and both ways to count agree."""
    found, best, plan = case
    generator = np.random.default_rng(1)
    steps = step_time_interval(found, best).draw(200, generator)
    demand = np.exp(0.3 * generator.standard_normal(200))
    model = ReplicaModel(scaled(best.rows, steps, np.ones(200)), found.load, found.workload.slo, found.constants)
    needed = replicas_needed(found, model, demand)
    last = np.zeros(200, dtype=bool)
    for serving in range(1, 16):
        kept = np.all(list(limits_kept(found, best, model, demand, serving).values()), axis=0)
        assert not np.any(last & ~kept)
        # a draw within the rate's tolerance of a whole number may go either way
        assert np.mean(kept == (needed <= serving)) > 0.98
        last = kept
    assert last.mean() > 0.9
    assert plan.gpus == best.gpus


def test_more_confidence_needs_no_fewer_gpus_and_more_spread_no_less(case: Case) -> None:
    fleets = []
    for cv in (0.0, 0.2, 0.6):
        odds = risk(*case, draws=200, forecast_cv=cv, confidences=(0.9,))
        gpus = [c.gpus for c in odds.confidence if c.gpus is not None]
        assert gpus == sorted(gpus)
        assert [c.confidence for c in odds.confidence] == [0.5, 0.8, 0.9, 0.95, 0.99]
        fleets.append(next(c.gpus for c in odds.confidence if c.confidence == 0.95) or 10**9)
    assert fleets == sorted(fleets)
    assert fleets[0] < fleets[-1]


def test_slower_steps_need_more_and_longer_ones_than_a_limit_no_number(case: Case) -> None:
    found, best, _ = case
    floor = float(best.served.tpot.p95[0, 0])
    steps = np.array([0.5, 1.0, 1.3, 100 * 0.030 / floor])
    model = ReplicaModel(scaled(best.rows, steps, np.ones(4)), found.load, found.workload.slo, found.constants)
    needed = replicas_needed(found, model, np.ones(4))
    assert list(needed) == sorted(needed)
    assert needed[1] <= best.replicas - best.spares
    assert np.isinf(needed[-1])


def test_time_scales_out(case: Case) -> None:
    """Steps twice as long at half the rate under limits twice as long: the same replica, slowed down."""
    found, best, _ = case
    from dataclasses import replace

    slos = tuple(replace(s, limit_s=2 * s.limit_s) for s in found.workload.slo)
    still = replace(best.rows, request_overhead=0 * best.rows.request_overhead)
    fast = ReplicaModel(still, found.load, found.workload.slo, found.constants).highest_rate()[0]
    slow = ReplicaModel(scaled(still, np.array([2.0]), np.ones(1)), found.load, slos, found.constants).highest_rate()[0]
    assert float(slow[0, 0]) == pytest.approx(float(fast[0, 0]) / 2, rel=1e-3)


@settings(max_examples=20, deadline=None)
@given(low=st.floats(0.3, 0.99), high=st.floats(1.01, 3.0), level=st.floats(0.5, 0.99))
def test_draws_lie_in_the_interval_as_often_as_it_says(low: float, high: float, level: float) -> None:
    drawn = PredictionInterval(low, high, level, "").draw(20_000, np.random.default_rng(0))
    assert np.mean((drawn > low) & (drawn < high)) == pytest.approx(level, abs=0.015)


def test_limits_the_simulation_broke_are_tightened(database: Database) -> None:
    from planner.sizing import recommend

    found = find(load_workload("w", ['slo.ttft_p95="300ms"', "demand.arrival_cv=4.0"], text=TEXT), database)
    simulated = recommend(found.workload, database).plan
    assert simulated is not None
    assert simulated.simulated is not None
    own = found.workload.slo
    assert all(a.limit_s <= b.limit_s for a, b in zip(tightened(own, simulated), own, strict=True))
    closed = build_plan(found, found.found[0])
    assert tightened(own, closed) == own
    ratio = simulated.simulated.closed_form.ttft_s.p95 / simulated.latency.ttft_s.p95
    ttft = next(s for s in tightened(own, simulated) if s.metric == "ttft")
    assert ttft.limit_s == pytest.approx(0.3 * min(1.0, ratio))
