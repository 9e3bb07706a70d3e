"""The first look at pools: it never promises less than they do, so that leaving it to the planner costs nothing."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from planner.documents import parse_toml
from planner.hardware import load_database
from planner.hardware.database import database_root
from planner.hardware.transfer import load_transfer
from planner.sizing import recommend
from planner.sizing.disaggregated import _sized, disaggregate
from planner.sizing.disaggregated_plan import MARGIN
from planner.sizing.pool_bounds import decode_bounds
from planner.sizing.pools import DecodePool
from planner.sizing.promising import nearest, promising
from planner.sizing.result import Plan
from planner.sizing.search import Search, search
from planner.workload import Workload, build_workload

CHAT = """
model = "llama-3.3-70b"
[demand]
{demand}
[context]
p50 = 1000
p95 = 4100
cached_fraction = 0.3
[answer]
mean = 211
cv = 0.9
[slo]
ttft_p95 = "1s"
tpot_p95 = "50ms"
[precision]
weights = ["fp8", "native"]
[hardware]
allow = ["gh200-96gb", "b200-sxm", "h100-sxm", "mi355x"]
"""
DOCUMENTS = """
model = "Qwen/Qwen3-32B"
[demand]
requests_per_second = 20
[context]
p50 = 8000
p95 = 24000
[answer]
mean = 150
[slo]
ttft_p95 = "3s"
tpot_p95 = "{tpot}"
[speculation]
enabled = false
[hardware]
allow = ["h100-sxm", "h200-sxm", "gh200-96gb", "l40s"]
[objective]
minimise = "{minimise}"
"""
EXPERTS = """
model = "openai/gpt-oss-120b"
[demand]
requests_per_second = 200
[context]
mean = 2000
cv = 0.8
[answer]
mean = 800
cv = 1.0
[reliability]
spare_replicas = 0
[speculation]
enabled = false
[hardware]
allow = ["b200-sxm", "h200-sxm", "gh200-96gb"]
"""
WORKLOADS = {
    "chat": CHAT.format(demand="requests_per_second = 37.5"),
    "a trickle": CHAT.format(demand="requests_per_second = 0.2"),
    "users": CHAT.format(demand='concurrent_users = 400\nthink_time = "10s"'),
    "documents": DOCUMENTS.format(tpot="40ms", minimise="cost"),
    "fast documents": DOCUMENTS.format(tpot="18ms", minimise="gpus"),
    "soon": DOCUMENTS.format(tpot="40ms", minimise="latency"),
    "no limits": EXPERTS,
}


def workload(text: str, mode: str = "auto") -> Workload:
    return build_workload(parse_toml(f'{text}\n[serving]\nmode = "{mode}"', "w.toml"))


@cache
def searched(name: str) -> Search:
    return search(workload(WORKLOADS[name]), load_database())


@pytest.mark.parametrize("name", WORKLOADS)
def test_no_decode_replica_exceeds_its_bound(name: str) -> None:
    found = searched(name)
    assert found.rows is not None
    rows = found.rows.take(np.arange(0, len(found.rows), 1 + len(found.rows) // 60))
    slos = [s for s in found.workload.slo if s.metric == "tpot"]
    bound = decode_bounds(rows, found.load, slos, found.constants)
    exact, possible = DecodePool(rows, found.load, slos, found.constants).highest_rate()
    reached = np.where(possible, exact, 0.0)[:, 0]
    assert reached.max() > 0
    assert np.all(reached <= bound.rate * (1 + 1e-6))
    # and says something: half of them are within a factor
    assert np.median((bound.rate / np.maximum(reached, 1e-30))[reached > 0]) < 1.6


@pytest.mark.parametrize("name", WORKLOADS)
def test_pools_never_come_out_better_than_they_promise(name: str) -> None:
    found, constants = searched(name), load_transfer(database_root())
    ranked, _ = promising(found, constants)
    assert ranked
    for promise in ranked:
        for pair in _sized(found, constants, [promise], {}):
            assert pair.objective >= promise.objective * (1 - 1e-9)
    best = disaggregate(found).found[0].objective
    # what is not worth it is not sized, all else is
    assert disaggregate(found, worth=0.5 * ranked[0].objective).found == ()
    assert disaggregate(found, worth=best).found[0].objective == best
    first, _ = promising(found, constants, best)
    assert (first[0].objective, first[0].decode) == (ranked[0].objective, ranked[0].decode)
    assert len(first) <= len(ranked)
    assert nearest(first, 0.0) == []


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_planners_choice_is_never_dearer_than_either(name: str) -> None:
    plans = {mode: plan_in(mode, name) for mode in ("auto", "aggregated", "disaggregated")}
    assert objective(plans["auto"], name) <= objective(plans["aggregated"], name) * (1 + 1e-9)
    if all(within(plans["disaggregated"], workload(WORKLOADS[name]))):
        assert objective(plans["auto"], name) <= objective(plans["disaggregated"], name) / (1 - MARGIN) * (1 + 1e-9)


def plan_in(mode: str, name: str) -> Plan:
    plan = recommend(workload(WORKLOADS[name], mode), load_database(), top=1).plan
    assert plan is not None
    return plan


def objective(plan: Plan, name: str) -> float:
    kind = searched(name).workload.objective.minimise
    return {"cost": plan.cost.usd_per_hour, "gpus": float(plan.gpus), "latency": plan.latency.e2e_s.mean}[kind]


def within(plan: Plan, asked: Workload) -> list[bool]:
    figures = {"ttft": plan.latency.ttft_s, "tpot": plan.latency.time_per_output_token_s}
    return [getattr(figures[s.metric], s.statistic) <= s.limit_s for s in asked.slo]
