"""Decisions at a plan of two pools: the same plan as is recommended, its money and its step; others say so."""

from __future__ import annotations

import pytest

from planner.decisions.cost_split import split_of
from planner.decisions.cost_terms import Carbon, cost_terms
from planner.decisions.explanation import explain
from planner.decisions.planned import planned
from planner.errors import NoPlanError
from planner.hardware import Database
from planner.sizing import recommend
from planner.workload import Workload, load_workload
from planner.workload.examples import example_path

POOLS = 'serving.mode="disaggregated"'
GPUS = ["h200-sxm"]


def asked(name: str = "rag", *settings: str) -> Workload:
    return load_workload(example_path(name), [POOLS, *settings])


@pytest.mark.parametrize(("name", "simulate"), [("rag", False), ("rag", True), ("reasoning", False)])
def test_cost_is_that_of_the_recommended_pools(name: str, simulate: bool, database: Database) -> None:
    workload = asked(name)
    plan = recommend(workload, database, gpus=GPUS, simulate=simulate).plan
    found = cost_terms(workload, database, gpus=GPUS, simulate=simulate, carbon=Carbon(100, "test"))
    assert plan is not None and plan.disaggregation is not None
    pools = plan.disaggregation
    assert found.plan == plan
    assert found.usd_per_hour == plan.cost.usd_per_hour == pytest.approx(pools.usd_per_hour)
    assert found.usd_per_request == pytest.approx(found.usd_per_hour / 3600 / found.mean_requests_per_second)
    assert sum(part.share for part in found.split) == pytest.approx(1)
    prefill = pools.prefill.replicas * pools.prefill.gpus_per_replica
    assert found.split[2].share == pytest.approx(1 - prefill / plan.gpus)
    assert found.energy is not None and found.energy.kg_co2_per_month is not None
    assert found.energy.kwh_per_month == pytest.approx(
        found.energy.watts_per_gpu * plan.gpus * found.energy.pue / 1000 * 730
    )
    assert "prefill pool" in next(a.value for a in found.assumptions if a.key == "split")
    assert not any("both prefill and decode" in w for w in found.warnings)


@pytest.mark.parametrize("simulate", [False, True])
def test_no_pool_works_longer_than_it_is_paid_for(simulate: bool, database: Database) -> None:
    workload = asked()
    base = planned(workload, database, gpus=GPUS, simulate=simulate, pools=True)
    assert base.pair is not None
    split, rate = split_of(base, workload), base.plan.throughput.requests_per_second
    for pool, seconds in (
        (base.pair.prefill, split.input_seconds + split.cached_seconds), (base.pair.decode, split.output_seconds),
    ):  # fmt: skip
        serving = (pool.replicas - pool.spares) * float(pool.seat.layout.devices)
        assert 0.2 * serving / max(pool.replicas - pool.spares, 1) < seconds * rate <= serving * (1 + 1e-9)
    assert split.cached_seconds < split.input_seconds


def test_explained_is_the_decode_pools_step(database: Database) -> None:
    workload = asked()
    found = explain(workload, database, gpus=GPUS, simulate=False)
    plan = recommend(workload, database, gpus=GPUS, simulate=False).plan
    assert plan is not None and plan.disaggregation is not None
    pools = plan.disaggregation
    assert found.plan == plan
    assert f"{pools.prefill.replicas} prefill replica" in found.statement
    assert f"{pools.decode.replicas} decode replica" in found.statement
    assert "a decode step" in found.statement and found.warnings == ()
    share = pools.prefill.replicas * pools.prefill.gpus_per_replica / plan.gpus
    assert found.caching.prefill_share == pytest.approx(share)
    saved = share * found.caching.prefill_saved / (1 - found.caching.prefill_saved)
    assert found.caching.replica_time_saved == pytest.approx(saved / (1 + saved))
    assert "both pools' time" in next(c.statement for c in found.claims if c.number == 5)
    assert "pool" in found.why.binding_constraint


def test_pools_that_nobody_asked_for_are_priced_where_they_are_better(database: Database) -> None:
    """What ``recommend`` prefers of its own accord is what ``cost`` prices, and others say that they don't."""
    workload = load_workload(example_path("reasoning-glm"))
    plan = recommend(workload, database, simulate=False).plan
    assert plan is not None
    if plan.serving != "disaggregated":
        pytest.skip("constants fitted anew prefer replicas that do both")
    assert cost_terms(workload, database, simulate=False).plan == plan
    beside = planned(workload, database, simulate=False)
    assert beside.pair is None and beside.plan.serving != "disaggregated"
    assert f"prefers two pools of {plan.gpus} x {plan.accelerator}" in beside.notes[0]
    assert beside.plan.cost.usd_per_hour > plan.cost.usd_per_hour


def test_replicas_that_do_both_say_nothing_of_pools(database: Database) -> None:
    workload = load_workload(example_path("rag"), ['serving.mode="aggregated"'])
    for pools in (False, True):
        base = planned(workload, database, gpus=GPUS, simulate=False, pools=pools)
        assert base.pair is None and base.notes == ()


def test_no_pools_keep_the_limits(database: Database) -> None:
    with pytest.raises(NoPlanError, match="no feasible plan"):
        cost_terms(asked("rag", 'slo.tpot_p95="1ms"'), database, gpus=GPUS, simulate=False)
