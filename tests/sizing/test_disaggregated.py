"""Pools of prefill and decode replicas: what they must obey, when they win, and against the simulator."""

from __future__ import annotations

import doctest
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from planner.documents import parse_toml
from planner.errors import InputError
from planner.hardware import load_database
from planner.hardware.database import database_root
from planner.hardware.transfer import load_transfer
from planner.sizing.confirm import confirm_best
from planner.sizing.disaggregated import Pair, Pairs, disaggregate, resized_pair
from planner.sizing.disaggregated_plan import build_disaggregation, consider_disaggregation
from planner.sizing.disaggregated_simulation import confirm_disaggregated, representative
from planner.sizing.plan import build_plan
from planner.sizing.pools import DecodePool
from planner.sizing.replica import ReplicaModel
from planner.sizing.search import Search, search
from planner.workload import build_workload

BIG = '"h100-sxm", "h200-sxm", "b200-sxm"'
#: long documents read once and answered at a steady pace
DOCUMENTS = {
    "model": "llama-3.1-70b", "demand": "requests_per_second = 20", "context": "p50 = 8000\np95 = 24000",
    "answer": "mean = 300\ncv = 0.8", "slo": 'ttft_p95 = "3s"\ntpot_p95 = "30ms"',
}  # fmt: skip
#: short prompts that a cache has already read
FOLLOW_UPS = {
    "model": "Qwen/Qwen3-32B", "demand": "requests_per_second = 30",
    "context": "p50 = 2000\np95 = 6000\ncached_fraction = 0.85", "answer": "mean = 400\ncv = 0.8",
    "slo": 'ttft_p95 = "1s"\ntpot_p95 = "40ms"',
}  # fmt: skip
#: many accelerators near each other: orders by what pools promise are not orders of the rows
CHAT = {
    "model": "llama-3.3-70b", "demand": "requests_per_second = 37.5", "context": "p50 = 1000\np95 = 4100\ncached_fraction = 0.3",
    "answer": "mean = 211\ncv = 0.9", "slo": 'ttft_p95 = "1s"\ntpot_p95 = "50ms"',
    "hardware": 'allow = ["gh200-96gb", "b200-sxm", "mi355x"]', "precision": 'weights = ["fp8", "native"]',
    "speculation": 'task = "chat"',
}  # fmt: skip


def text(tables: dict[str, str], **changed: str) -> str:
    tables = {"hardware": f"allow = [{BIG}]", "speculation": "enabled = false", **tables, **changed}
    body = "".join(f"[{name}]\n{value}\n" for name, value in tables.items() if name != "model")
    return f'model = "{tables["model"]}"\n{body}'


@cache
def searched(workload: str) -> Search:
    return search(build_workload(parse_toml(workload, "w.toml")), load_database().uncalibrated())


@cache
def paired(workload: str) -> Pairs:
    return disaggregate(searched(workload))


def serving(pair: Pair) -> tuple[int, int]:
    return pair.prefill.replicas - pair.prefill.spares, pair.decode.replicas - pair.decode.spares


def value(matrix: object) -> float:
    return float(np.asarray(matrix).squeeze())


@pytest.mark.parametrize("tables", [DOCUMENTS, FOLLOW_UPS], ids=["documents", "follow-ups"])
def test_prompts_no_longer_disturb_decoding(tables: dict[str, str]) -> None:
    found = searched(text(tables))
    for sized in found.found[:6]:
        rate = sized.served.rate
        both = ReplicaModel(sized.rows, found.load, found.workload.slo, found.constants).serve(rate)
        alone = DecodePool(sized.rows, found.load, found.workload.slo, found.constants).serve(rate)
        assert value(alone.prefill_utilisation) < 1e-9
        assert value(alone.mean_batch) < value(both.mean_batch)
        for statistic in ("mean", "p95", "p99"):
            assert value(alone.tpot.statistic(statistic)) < value(both.tpot.statistic(statistic))
        # at the same batch, too: steps carry nothing but decodes
        pool = DecodePool(sized.rows, found.load, found.workload.slo, found.constants)
        low, high = 0.0, 3.0
        for _ in range(30):
            middle = (low + high) / 2
            below = value(pool.serve(rate * middle).mean_batch) < value(both.mean_batch)
            low, high = (middle, high) if below else (low, middle)
        fuller = pool.serve(rate * low)
        assert value(fuller.mean_batch) == pytest.approx(value(both.mean_batch), rel=1e-3)
        assert value(fuller.rate) > value(rate)
        assert value(fuller.tpot.p95) <= value(both.tpot.p95)


@pytest.mark.parametrize("tables", [DOCUMENTS, FOLLOW_UPS], ids=["documents", "follow-ups"])
def test_candidates_keep_every_limit_and_add_up(tables: dict[str, str]) -> None:
    found, pairs = searched(text(tables)), paired(text(tables)).found
    assert pairs
    assert [round(p.objective, 6) for p in pairs] == sorted(round(p.objective, 6) for p in pairs)
    for pair in pairs:
        prefill, decode = serving(pair)
        wanted = found.workload.peak_requests_per_second * found.load.fan_out
        assert value(pair.prefill.served.rate) * prefill == pytest.approx(wanted)
        assert value(pair.decode.served.rate) * decode == pytest.approx(wanted)
        for pool in (pair.prefill, pair.decode):
            assert all(value(v) <= 1 + 1e-6 for v in pool.served.violations.values())
            assert pool.spares >= 1
        chips = {s.seat.accelerator.name for s in (pair.prefill, pair.decode)}
        assert len(chips) == 1
        assert pair.prefill.seat.precision.kv == pair.decode.seat.precision.kv
        each = [s.replicas * int(s.seat.layout.devices) for s in (pair.prefill, pair.decode)]
        assert pair.gpus == sum(each)
        assert pair.usd_per_hour == pytest.approx(pair.objective)
        # a token more of input is paid at the network's rate at least
        assert value(pair.prefill.served.ttft.p50) > float(np.median(pair.transfer.seconds))


def test_rows_of_a_pool_may_be_taken_in_any_order() -> None:
    found = searched(text(DOCUMENTS))
    assert found.rows is not None
    rows = found.rows.take([0, len(found.rows) // 2, len(found.rows) - 1])
    pool = DecodePool(rows, found.load, found.workload.slo, found.constants)
    limit = pool.limit
    for order in ([2, 0, 1], [1, 1, 0], [0, 1, 2], [2]):
        part = pool.take(np.array(order))
        assert part.rows.seats == tuple(rows.seats[i] for i in order)
        assert part.limit == pytest.approx(limit[order])


def test_both_pools_are_of_one_accelerator_with_many_to_choose_from() -> None:
    pairs = paired(text(CHAT)).found
    assert len({p.decode.seat.accelerator.name for p in pairs}) > 1
    for pair in pairs:
        assert pair.prefill.seat.accelerator is pair.decode.seat.accelerator
        assert pair.objective == pytest.approx(pair.usd_per_hour)


def test_fewer_replicas_would_break_a_limit() -> None:
    found, pair = searched(text(DOCUMENTS)), paired(text(DOCUMENTS)).found[0]
    prefill, decode = serving(pair)
    for smaller, pool in (
        (resized_pair(found, pair, prefill - 1, decode), "prefill"),
        (resized_pair(found, pair, prefill, decode - 1), "decode"),
    ):
        assert max(value(v) for v in getattr(smaller, pool).served.violations.values()) > 1


def test_a_faster_network_is_never_worse() -> None:
    found = searched(text(DOCUMENTS))
    shipped = load_transfer(database_root())
    costs, waits = [], []
    for efficiency in (0.02, 0.1, 0.3, 0.64, 1.0):
        pairs = disaggregate(found, replace(shipped, efficiency=efficiency)).found
        costs.append(pairs[0].objective if pairs else np.inf)
        fixed = paired(text(DOCUMENTS)).found[0]
        other = replace(fixed, transfer=replace(fixed.transfer, bandwidth=fixed.transfer.bandwidth * efficiency / 0.64))
        waits.append(value(resized_pair(found, other, *serving(fixed)).prefill.served.ttft.p95))
    assert costs == sorted(costs, reverse=True)
    assert waits == sorted(waits, reverse=True)
    assert waits[0] > 1.2 * waits[-1]
    slower = disaggregate(found, replace(shipped, latency_s=2.9)).found
    assert not slower or slower[0].objective > costs[-2]


def test_bytes_sent_are_those_stored() -> None:
    pair = paired(text(DOCUMENTS)).found[0]
    load = searched(text(DOCUMENTS)).load
    # 80 layers x 8 heads x 128 x 2 (keys and values) x 2 bytes
    assert pair.transfer.bytes / (load.new + load.cached) == pytest.approx(np.full(len(load.new), 327_680.0))
    chip = pair.decode.seat.accelerator
    assert pair.transfer.link == pytest.approx(0.64 * chip.scale_out_bandwidth)
    ranks = min(int(p.seat.layout.tensor) for p in (pair.prefill, pair.decode))
    assert pair.transfer.bandwidth == pytest.approx(ranks * pair.transfer.link)


def test_fleets_inside_one_domain_use_its_links() -> None:
    rack = text(
        DOCUMENTS, hardware='allow = ["gb200-nvl72"]\nprices = { gb200-nvl72 = 10.0 }', demand="requests_per_second = 2"
    )
    pair = paired(rack).found[0]
    chip = pair.decode.seat.accelerator
    assert pair.gpus <= chip.scale_up_domain
    assert pair.transfer.link == pytest.approx(0.64 * chip.scale_up_bandwidth)


def test_documents_are_cheaper_apart() -> None:
    found, confirmed = confirm_best(searched(text(DOCUMENTS)))
    assert confirmed.holds
    aggregated = build_plan(found, found.found[0])
    choice = consider_disaggregation(found, aggregated)
    plan = choice.plan
    assert plan is not None and plan.serving == "disaggregated"
    found_apart = plan.disaggregation
    assert found_apart is not None and found_apart.latency_source == "simulated"
    assert found_apart.against_aggregated == pytest.approx(plan.cost.usd_per_hour / aggregated.cost.usd_per_hour)
    assert found_apart.against_aggregated < 0.8
    assert plan.latency.ttft_s.p95 <= 3.0 and plan.latency.time_per_output_token_s.p95 <= 0.030
    # what it buys: token times without the tail that prompts cause
    apart = plan.latency.time_per_output_token_s
    mixed = confirmed.measured.latency().time_per_output_token_s
    assert apart.p99 / apart.p50 < 1.25 < mixed.p99 / mixed.p50
    assert plan.gpus == found_apart.gpus
    assert plan.cost.usd_per_hour == pytest.approx(found_apart.usd_per_hour)
    assert choice.found.found[0].objective == pytest.approx(plan.cost.usd_per_hour)
    assert choice.why is not None and "pool" in choice.why.binding_constraint


def test_short_cached_prompts_are_cheaper_together() -> None:
    found, _ = confirm_best(searched(text(FOLLOW_UPS)))
    choice = consider_disaggregation(found, build_plan(found, found.found[0]))
    assert choice.plan is not None and choice.plan.serving == "aggregated"
    assert choice.found is found
    apart = build_disaggregation(found, paired(text(FOLLOW_UPS)).found[0])
    assert apart.against_aggregated is not None and apart.against_aggregated > 1.2
    assert apart.latency_source == "closed form"
    assert "would cost" in apart.statement


AGREEMENT = {
    "documents": text(DOCUMENTS),
    "follow-ups": text(FOLLOW_UPS),
    "reports": text(
        DOCUMENTS, model="Qwen/Qwen3-32B", context="p50 = 6000\np95 = 20000", answer="mean = 1500\ncv = 1.0",
        slo='ttft_p95 = "2s"\ntpot_p95 = "25ms"',
    ),
    "mixture of experts": text(
        DOCUMENTS, model="deepseek-ai/DeepSeek-V3.2", context="p50 = 4000\np95 = 12000",
        slo='ttft_p95 = "4s"\ntpot_p95 = "50ms"',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", AGREEMENT)
def test_closed_forms_agree_with_the_simulator(name: str) -> None:
    found = searched(AGREEMENT[name])
    confirmed = confirm_disaggregated(found, paired(AGREEMENT[name]).found[0])
    pair, simulated = confirmed.pair, confirmed.latency
    assert confirmed.verdict == "stable"
    assert not confirmed.broken
    assert value(pair.prefill.served.ttft.p95) == pytest.approx(simulated.ttft_s.p95, rel=0.25)
    assert value(pair.prefill.served.ttft.mean) == pytest.approx(simulated.ttft_s.mean, rel=0.2)
    tokens = simulated.time_per_output_token_s
    assert value(pair.decode.served.tpot.mean) == pytest.approx(tokens.mean, rel=0.05)
    assert value(pair.decode.served.tpot.p95) == pytest.approx(tokens.p95, rel=0.1)
    assert value(pair.e2e.mean) == pytest.approx(simulated.e2e_s.mean, rel=0.1)
    assert confirmed.utilisation[0] == pytest.approx(value(pair.prefill.served.prefill_utilisation), abs=0.1)


def test_the_simulation_enlarges_the_pool_at_fault() -> None:
    found, pair = searched(text(DOCUMENTS)), paired(text(DOCUMENTS)).found[0]
    prefill, decode = serving(pair)
    small = resized_pair(found, pair, prefill - 2, decode)
    confirmed = confirm_disaggregated(found, small)
    assert not confirmed.broken
    grown = serving(confirmed.pair)
    assert grown[0] > prefill - 2 and grown[1] == decode
    assert confirmed.notes[0].startswith(f"simulation broke a limit with {prefill - 2} prefill")
    assert confirm_disaggregated(found, small) == confirmed  # the same seed, the same answer


def test_small_pools_stand_for_large_ones_in_proportion() -> None:
    for prefill in range(1, 40, 3):
        for decode in range(1, 40, 4):
            p, d = representative(prefill, decode)
            assert p <= max(prefill, 8) and d <= max(decode, 8)
            assert np.log(p / d) == pytest.approx(np.log(prefill / decode), abs=0.06)


def test_a_trickle_needs_one_replica_of_each() -> None:
    trickle = text(FOLLOW_UPS, demand="requests_per_second = 0.01", reliability="spare_replicas = 0")
    pair = paired(trickle).found[0]
    assert serving(pair) == (1, 1)
    assert pair.gpus == int(pair.prefill.seat.layout.devices) + int(pair.decode.seat.layout.devices)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"slo": 'tpot_p95 = "1ms"'}, "only decodes keeps tpot_p95"),
        ({"slo": 'ttft_p95 = "25ms"\ntpot_p95 = "30ms"'}, "only prefills"),
        ({"hardware": f"allow = [{BIG}]\nmax_gpus = 8"}, "8 allowed"),
        ({"slo": 'ttft_p95 = "3s"\ntpot_p95 = "30ms"\ne2e_p95 = "3.1s"'}, "e2e"),
        ({"hardware": 'allow = ["rtx-5090"]\nprices = { rtx-5090 = 0.5 }', "model": "llama-3.1-8b"}, "no network bandwidth known"),
        ({"hardware": 'allow = ["l4"]'}, "l4"),
    ],
)  # fmt: skip
def test_what_is_impossible_says_why(changed: dict[str, str], reason: str) -> None:
    pairs = paired(text(DOCUMENTS, **changed))
    assert pairs.found == ()
    assert any(reason in f"{name}: {why}" for name, why in pairs.rejected.items()), pairs.rejected


def test_limits_end_to_end_hold_over_both_pools() -> None:
    limited = text(DOCUMENTS, slo='ttft_p95 = "3s"\ntpot_p95 = "30ms"\ne2e_p95 = "12s"')
    free, tight = paired(text(DOCUMENTS)).found[0], paired(limited).found[0]
    assert value(free.e2e.p95) > 12.0
    assert value(tight.e2e.p95) <= 12.0
    assert tight.objective > free.objective


def test_users_wait_for_both_pools() -> None:
    users = text(DOCUMENTS, demand='concurrent_users = 200\nthink_time = "20s"')
    found, pair = searched(users), paired(users).found[0]
    cycle = value(pair.e2e.mean) + 20.0
    assert pair.rate == pytest.approx(200 / cycle, rel=0.02)
    assert confirm_disaggregated(found, pair).verdict == "stable"


@pytest.mark.parametrize("minimise", ["gpus", "energy", "latency"])
def test_other_objectives(minimise: str) -> None:
    workload = text(DOCUMENTS, objective=f'minimise = "{minimise}"')
    best = paired(workload).found[0]
    expected = {
        "gpus": best.gpus,
        "energy": best.gpus * (best.decode.seat.accelerator.tdp_w or 0.0),
        "latency": value(best.e2e.mean),
    }[minimise]
    assert best.objective == pytest.approx(expected)


def test_the_workload_may_ask_for_either() -> None:
    together = searched(text(DOCUMENTS, serving='mode = "aggregated"'))
    plan = build_plan(together, together.found[0])
    assert consider_disaggregation(together, plan).plan is plan
    apart = searched(text(FOLLOW_UPS, serving='mode = "disaggregated"'))
    forced = consider_disaggregation(apart, build_plan(apart, apart.found[0])).plan
    assert forced is not None and forced.serving == "disaggregated"
    impossible = searched(text(DOCUMENTS, serving='mode = "disaggregated"', slo='tpot_p95 = "1ms"'))
    choice = consider_disaggregation(impossible, None)
    assert choice.plan is None
    assert any("tpot_p95" in note for note in choice.notes)
    with pytest.raises(InputError, match=r"serving.mode.*did you mean 'disaggregated'|Did you mean 'disaggregated'"):
        build_workload(parse_toml(text(DOCUMENTS, serving='mode = "disagregated"'), "w.toml"))


def test_fan_out_counts_every_sequence() -> None:
    agents = text(DOCUMENTS, subagents="fan_out = 4\nshared_prefix = 2000", demand="requests_per_second = 2")
    found, pair = searched(agents), paired(agents).found[0]
    assert pair.rate == pytest.approx(8.0)
    plan = consider_disaggregation(found, build_plan(found, found.found[0])).plan
    assert plan is not None and plan.sharing is not None
    assert plan.throughput.requests_per_second == pytest.approx(2.0)


def test_the_guide_is_true() -> None:
    guide = Path(__file__).resolve().parents[2] / "docs" / "guides" / "disaggregation.md"
    failed, tried = doctest.testfile(str(guide), module_relative=False)
    assert tried >= 9
    assert failed == 0
