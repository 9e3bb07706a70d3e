"""What others say of the served benchmarks is of the rows that ship, and asked as the script says."""

from __future__ import annotations

import pytest

from bench.accuracy import ALSO, FORMULAE, METRICS, PEERS, ROOFLINE, Row, errors, offers, read, whole_batch, without
from bench.commented_csv import rows as commented
from bench.kinds import KINDS
from bench.peers import NO_LATENT, genz_fields, genz_system
from planner.errors import InputError
from planner.hardware import Database, load_database
from planner.models import load_model
from planner.validation.points import MeasuredPoint, Workers
from planner.validation.scores import regrets


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [r for r in read() if r.table == "sample"]


@pytest.fixture(scope="module")
def plain() -> Database:
    return without(ROOFLINE)


def test_every_row_is_said_something_of_or_why_not() -> None:
    for row in commented(PEERS):
        assert float(row["roofline_tpot"]) > 0 and float(row["roofline_ttft"]) > 0
        assert bool(row["genz_reason"]) != bool(row["genz_tpot"])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("peer", [*ALSO, *FORMULAE])
def test_groups_left_out_are_nearer_than_any_peer(rows: list[Row], metric: str, peer: str) -> None:
    theirs = [r for r in rows if r.metric == metric and r.predicted[peer] is not None]
    ours, other = errors(theirs, "held_out"), errors(theirs, peer)
    assert ours[0] == other[0] > 1000
    assert ours[1] < other[1] and ours[2] < other[2]


def test_a_plain_roofline_is_weights_over_bandwidth(plain: Database) -> None:
    """Llama 3.1 8B on an H100 reads 15.0 GB of weights and 0.13 GB of cache at 3.35 TB/s, and has no overheads."""
    point = MeasuredPoint("x", "x", "h100-sxm", "llama-3.1-8b", "vllm", "", "native", "native", Workers(1, 1),
                          1000, 20, "closed loop", (), concurrency=1)  # fmt: skip
    model, chip = load_model("llama-3.1-8b"), load_database().accelerator("h100-sxm")
    read_bytes = 2 * model.active_parameters + 131072 * 1010
    step, first = whole_batch(point, plain)
    assert 1 <= step * chip.bandwidth / read_bytes < 1.02
    assert first > step


def test_genz_is_asked_about_the_model_in_its_own_words() -> None:
    assert genz_fields(load_model("qwen3-235b-a22b"))["expert_top_k"] == 8
    assert genz_fields(load_model("llama-3.1-70b"))["intermediate_size"] == 28672
    with pytest.raises(InputError, match=NO_LATENT):
        genz_fields(load_model("deepseek-r1"))


def test_genz_gets_peaks_that_come_out_as_the_datasheets() -> None:
    """It takes half the time for fp8, which has twice the peak, and a quarter for fp4; a Hopper runs weights in four bits at the rate of bf16."""
    hopper = load_database().accelerator("h100-sxm")
    bf16, fp8, fp4 = (genz_system(hopper, f)["Flops"] for f in ("bf16", "fp8", "mxfp4"))
    assert bf16 == pytest.approx(989.4, abs=1)
    assert fp8 == pytest.approx(bf16, rel=0.01)
    assert 4 * fp4 == pytest.approx(bf16, rel=0.01)


def test_a_pick_with_groups_left_out_loses_little(rows: list[Row]) -> None:
    """Of the configurations of a group, the best by our figures has within 2 % of the throughput of the best."""
    (any_speed, *_) = regrets(offers(rows, "held_out"))
    assert any_speed.groups == 99 and any_speed.median == 0
    assert any_speed.mean is not None and any_speed.mean < 0.02


def test_limits_of_the_accuracy_are_those_of_the_data() -> None:
    """What docs/accuracy-limits.md says in figures that ship."""
    rows = {(r["file"].removesuffix(".csv"), r["kind"], r["metric"], r["statistic"]): r for r in commented(KINDS)}
    interactive = float(rows["mlperf_v5.1_llm", "interactive", "throughput", "mean"]["median"])
    assert interactive > 0.2 > float(rows["mlperf_v5.1_llm", "server", "throughput", "mean"]["median"])
    ttft = rows["inferencex_dsr1_by_accelerator", "aggregated", "ttft", "p99"]
    assert float(ttft["bias"]) < 0.6
    mi300x = [r for r in read() if (r.accelerator, r.metric) == ("mi300x", "tpot") and r.chosen.endswith(" 4")]
    assert min(r.measured for r in mi300x) < 0.015 and max(r.measured for r in mi300x) > 0.026
