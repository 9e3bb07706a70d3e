"""Intervals in results: around every figure, wider where less is known, and ranges of accelerators that hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.hardware import Database
from planner.hardware.intervals import Factors, Known
from planner.sizing import EstimateRequest, compare_on_workload, estimate, recommend
from planner.sizing.fleet_range import fleet_ranges
from planner.sizing.intervals import latency_with_intervals
from planner.sizing.recommend import find
from planner.sizing.result import Latency, Percentiles, Plan
from planner.sizing.simulation import simulate_plan
from planner.workload import load_workload

TEXT = """
model = "llama-3.1-8b"
[demand]
requests_per_second = 60
[context]
mean = 1500
cv = 0.8
[answer]
mean = 250
[slo]
ttft_p95 = "2s"
tpot_p95 = "60ms"
[speculation]
enabled = false
[hardware]
allow = ["h100-sxm"]
[reliability]
spare_replicas = 0
"""


def planned(database: Database, *settings: str, simulate: bool = False) -> Plan:
    plan = recommend(load_workload("w", settings, text=TEXT), database, simulate=simulate).plan
    assert plan is not None
    return plan


def around(plan: Plan) -> None:
    latency = plan.latency
    for curve in (latency.ttft_s, latency.time_per_output_token_s, latency.e2e_s):
        for value, found in ((curve.mean, curve.mean_interval), (curve.p95, curve.p95_interval)):
            assert found is not None
            assert found.high is not None
            assert 0 < found.low <= value <= found.high
    assert plan.gpus_interval is not None
    assert plan.gpus_interval.low <= plan.gpus
    assert plan.gpus_interval.high is None or plan.gpus_interval.high >= plan.gpus
    most = plan.throughput.max_requests_per_second_interval
    assert most is not None
    assert most.high is not None
    assert most.low <= plan.throughput.max_requests_per_second <= most.high


@pytest.mark.parametrize("simulate", [False, True])
def test_a_plan_carries_them(database: Database, simulate: bool) -> None:
    plan = planned(database, simulate=simulate)
    around(plan)
    if plan.simulated is not None and plan.simulated.ttft_p95_band_s is not None:
        found, band = plan.latency.ttft_s.p95_interval, plan.simulated.ttft_p95_band_s
        assert found is not None
        assert found.high is not None
        assert found.low <= band[0] <= band[1] <= found.high


def test_rivals_and_comparisons_carry_them(database: Database) -> None:
    workload = load_workload("w", text=TEXT.replace('"h100-sxm"', '"h100-sxm", "h200-sxm", "mi300x"'))
    rivals = recommend(workload, database, simulate=False).alternatives
    listed = compare_on_workload(workload, database).accelerators
    plans = [a.plan for a in (*rivals, *listed) if a.plan is not None]
    assert len(plans) == 5
    for plan in plans:
        around(plan)


def test_a_simulation_carries_them(database: Database) -> None:
    found, _ = simulate_plan(load_workload("w", text=TEXT), database, requests=400)
    around(found.plan.model_copy(update={"latency": found.latency}))


def test_sizing_again_follows_the_steps(database: Database) -> None:
    """Without limits on latency a replica with steps twice as long serves half as much."""
    text = "\n".join(line for line in TEXT.split("\n") if not line.startswith(("[slo]", "ttft", "tpot")))
    found = find(load_workload("w", text=text), database)
    sized = found.found[0]
    same, wide = fleet_ranges(found, [sized, sized], [Factors(1.0, 1.0, 0.8, ""), Factors(0.5, 2.0, 0.8, "")])
    assert (same.low, same.high) == (sized.gpus, sized.gpus)
    assert same.slowest == same.fastest == pytest.approx(1.0)
    assert wide.slowest == pytest.approx(0.5, rel=0.02)
    assert wide.fastest == pytest.approx(2.0, rel=0.02)
    assert wide.high is not None
    assert sized.gpus * 2 - 2 <= wide.high <= sized.gpus * 2 + 1


def test_longer_steps_never_need_fewer(database: Database) -> None:
    found = find(load_workload("w", text=TEXT), database)
    sized = found.found[0]
    factors = [Factors(2 - f, f, 0.8, "") for f in (1.0, 1.1, 1.3, 1.6, 1.95)]
    ranges = fleet_ranges(found, [sized] * len(factors), factors)
    highs = [r.high or 10**9 for r in ranges]
    assert highs == sorted(highs)
    assert [r.low for r in ranges] == sorted((r.low for r in ranges), reverse=True)


def test_a_limit_no_longer_step_can_keep_is_said(database: Database) -> None:
    found = find(load_workload("w", ['slo.tpot_p95="9ms"'], text=TEXT), database)
    if not found.found:
        pytest.skip("not even one sequence keeps this limit with these constants")
    assert fleet_ranges(found, found.found[:1], [Factors(0.9, 5.0, 0.8, "")])[0].high is None


def test_an_enlarged_fleet_stays_larger(database: Database) -> None:
    """What the simulator added to the closed forms' replicas is kept in proportion at both ends."""
    from planner.sizing.confirm import resized

    found = find(load_workload("w", ["demand.requests_per_second=400"], text=TEXT), database)
    sized = found.found[0]
    larger = resized(found, sized, 2 * (sized.replicas - sized.spares))
    factors = [Factors(0.8, 1.4, 0.8, "")] * 2
    one, two = fleet_ranges(found, [replace(sized), larger], factors)
    assert one.high is not None
    assert two.high is not None
    assert two.high == pytest.approx(2 * one.high, abs=2)


def test_pools_have_a_range_too(database: Database) -> None:
    plan = planned(database, 'serving.mode="disaggregated"')
    assert plan.serving == "disaggregated"
    around(plan)


def test_estimates_carry_them(database: Database) -> None:
    bare = estimate(EstimateRequest("llama-3.1-8b", "h100-sxm", engine="vllm", batch=32, context=2000), database).step
    assert bare is not None
    time, rate = bare.time_per_output_token_s_interval, bare.output_tokens_per_second_interval
    assert time is not None
    assert rate is not None
    assert time.high is not None
    assert rate.high is not None
    assert rate.low == pytest.approx(32 / time.high)
    assert rate.high == pytest.approx(32 / time.low)
    for load, given in (({"concurrency": 16.0}, False), ({"rate": 1.0}, True)):
        asked = EstimateRequest(
            "llama-3.1-8b", "h100-sxm", engine="vllm", input_tokens=1000, output_tokens=200, **load
        )  # fmt: skip
        served = estimate(asked, database)
        assert served.latency is not None
        assert served.latency.ttft_s.mean_interval is not None
        assert served.throughput is not None
        assert (served.throughput.output_tokens_per_second_interval is None) == given
        assert served.throughput.max_requests_per_second_interval is not None


def test_an_accelerator_nobody_measured_is_wider(database: Database) -> None:
    def width(gpu: str) -> float:
        step = estimate(EstimateRequest("llama-3.1-8b", gpu, engine="vllm", batch=32, context=2000), database).step
        assert step is not None
        found = step.time_per_output_token_s_interval
        assert found is not None
        assert found.high is not None
        return found.high / found.low

    assert width("trainium2") > width("h100-sxm")
    assert width("l40s") > width("h100-sxm")


def test_end_to_end_is_first_token_and_the_rest() -> None:
    one = Percentiles(mean=1.0, p50=1.0, p95=2.0, p99=3.0)
    latency = Latency(
        ttft_s=one, time_per_output_token_s=one, e2e_s=Percentiles(mean=11.0, p50=9.0, p95=22.0, p99=30.0)
    )
    known = Known(tpot=Factors(0.9, 1.5, 0.8, "steps"), ttft=Factors(0.5, 4.0, 0.8, "first"))
    found = latency_with_intervals(latency, known, band=(0.4, 9.0))
    e2e, first = found.e2e_s, found.ttft_s
    assert e2e.mean_interval is not None
    assert (e2e.mean_interval.low, e2e.mean_interval.high) == (0.5 + 9.0, 4.0 + 15.0)
    assert first.p95_interval is not None
    assert (first.p95_interval.low, first.p95_interval.high) == (0.4, 9.0)
