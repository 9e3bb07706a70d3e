"""The shipped examples, each with a plan a practitioner would accept."""

from __future__ import annotations

import json

import pytest

from planner.hardware import Database
from planner.sizing import Recommendation, recommend
from planner.sizing.result import DisaggregatedPool, Plan
from planner.workload import load_workload
from planner.workload.examples import example_path, examples

FEASIBLE = [name for name in examples() if name != "infeasible"]


@pytest.fixture(scope="module")
def plans(database: Database) -> dict[str, Recommendation]:
    return {name: recommend(load_workload(example_path(name)), database) for name in examples()}


@pytest.mark.parametrize("name", FEASIBLE)
def test_every_limit_holds(plans: dict[str, Recommendation], name: str) -> None:
    result = plans[name]
    plan = result.plan
    assert plan is not None
    curves = {
        "ttft": plan.latency.ttft_s,
        "tpot": plan.latency.time_per_output_token_s,
        "e2e": plan.latency.e2e_s,
    }
    for key, limit in result.workload.get("slo", {}).items():
        metric, statistic = key.split("_")
        assert getattr(curves[metric], statistic) <= limit * 1.001, key


@pytest.mark.parametrize("name", FEASIBLE)
def test_figures_agree_with_each_other(plans: dict[str, Recommendation], name: str) -> None:
    result = plans[name]
    plan, why = result.plan, result.why
    assert plan is not None
    assert why is not None
    pools: list[Plan | DisaggregatedPool] = [plan]
    if plan.serving == "disaggregated":
        assert plan.disaggregation is not None
        pools = [plan.disaggregation.prefill, plan.disaggregation.decode]
    assert plan.gpus == sum(pool.replicas * pool.gpus_per_replica for pool in pools)
    assert plan.gpus_per_replica == plan.tensor_parallel * plan.pipeline_parallel * plan.data_parallel
    assert plan.cost.usd_per_hour == pytest.approx(plan.gpus * plan.cost.price_per_gpu_hour)
    assert plan.throughput.max_requests_per_second >= plan.throughput.requests_per_second * (1 - 1e-9)
    for curve in (plan.latency.ttft_s, plan.latency.time_per_output_token_s, plan.latency.e2e_s):
        assert curve.p50 <= curve.p95 <= curve.p99
    memory = plan.memory
    held = memory.weights + memory.kv_capacity + memory.activations + memory.graphs + memory.collectives + memory.draft
    assert held == pytest.approx(memory.usable)
    assert memory.kv <= memory.kv_capacity
    seconds = why.seconds_per_step
    assert sum(o.seconds for o in why.operators) == pytest.approx(
        seconds.compute + seconds.memory + seconds.network + seconds.overhead
    )


def test_peak_demand_is_served(plans: dict[str, Recommendation]) -> None:
    chat = plans["chat"].plan
    assert chat is not None
    assert chat.throughput.requests_per_second == pytest.approx(20 * 1.5)


def test_chat_on_llama_70b(plans: dict[str, Recommendation]) -> None:
    plan = plans["chat"].plan
    assert plan is not None
    assert plan.weight_dtype == "fp8"
    assert 4 <= plan.gpus <= 32
    assert 0.5 <= plan.cost.usd_per_million_output_tokens <= 10


def test_rag_prefill_is_mostly_cached(plans: dict[str, Recommendation]) -> None:
    why = plans["rag"].why
    assert why is not None
    assert 0.7 < why.prefill_saved_by_cache <= 0.86
    assert why.decode_saved_by_cache == 0


def test_coding_agent_shares_and_speculates(plans: dict[str, Recommendation]) -> None:
    plan = plans["coding-agent"].plan
    assert plan is not None
    assert plan.expert_parallel > 1
    assert plan.speculation.method == "mtp"
    sharing = plan.sharing
    assert sharing is not None
    assert sharing.kv_tokens_stored < sharing.kv_tokens_without_sharing
    assert sharing.tokens_read_per_step == pytest.approx(sharing.kv_tokens_without_sharing)
    assert sharing.tokens_read_with_cascade == pytest.approx(sharing.kv_tokens_stored)
    assert 0.3 < sharing.useful_work < 0.76


def test_reasoning_fits_several_accelerators(plans: dict[str, Recommendation]) -> None:
    plan = plans["reasoning"].plan
    assert plan is not None
    assert plan.gpus_per_replica >= 4
    assert plan.latency.e2e_s.mean > 60


def test_refactoring_speculates_by_lookup(plans: dict[str, Recommendation]) -> None:
    plan = plans["refactor"].plan
    assert plan is not None
    assert plan.speculation.method == "n-gram"
    assert plan.speculation.speedup > 1.5


def test_batch_has_no_spares_and_no_speculation(plans: dict[str, Recommendation]) -> None:
    plan = plans["batch"].plan
    assert plan is not None
    assert plan.spare_replicas == 0
    assert not plan.speculation.enabled
    assert plan.mean_batch > 100


def test_infeasible_names_the_nearest_miss(plans: dict[str, Recommendation]) -> None:
    result = plans["infeasible"]
    assert result.plan is None
    assert result.nearest_miss is not None
    assert result.nearest_miss.constraint == "tpot_p95"
    assert result.nearest_miss.got > result.nearest_miss.wanted == 0.0005


def test_same_input_same_bytes(database: Database, plans: dict[str, Recommendation]) -> None:
    again = recommend(load_workload(example_path("rag")), database)
    assert json.dumps(again.model_dump()) == json.dumps(plans["rag"].model_dump())


def test_json_contract(plans: dict[str, Recommendation]) -> None:
    data = plans["chat"].model_dump()
    for key in ("schema_version", "workload", "plan", "why", "alternatives", "assumptions", "warnings"):
        assert key in data
    for key in ("accelerator", "gpus", "replicas", "gpus_per_replica", "tensor_parallel", "pipeline_parallel",
                "expert_parallel", "data_parallel", "weight_dtype", "kv_dtype", "max_batch", "mean_batch",
                "speculation", "cost", "latency", "throughput", "memory", "power_w"):  # fmt: skip
        assert key in data["plan"]
    first = data["plan"]["latency"]["ttft_s"]
    assert set(first) == {"mean", "p50", "p95", "p99", "mean_interval", "p95_interval"}
    for interval in (first["mean_interval"], first["p95_interval"], data["plan"]["gpus_interval"]):
        assert set(interval) == {"level", "low", "high", "source"}
    assert set(data["why"]["bytes_per_step"]) == {"weights", "kv", "indexer", "state", "activations"}
    assert set(data["why"]["seconds_per_step"]) == {"compute", "memory", "network", "overhead"}
