"""Errors, ranks and regrets, by hand and beside SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from planner.errors import InputError
from planner.validation.closed_loops import Offer
from planner.validation.comparison import Comparison, Skipped
from planner.validation.runs import Compared
from planner.validation.scores import (
    load_band,
    parse_by,
    parse_metrics,
    rank_correlation,
    regrets,
    scores,
    skipped_by_reason,
    worst,
)


def one(ratio: float, metric: str = "tpot", rows: str = "clean", **fields: str) -> Compared:
    given = {"accelerator": "h100-sxm", "model": "m", "engine": "vllm 0.9", "load": "8", "kind": "aggregated"} | fields
    return Compared(Comparison("a", "f.csv", metric, 2.0, 2.0 * ratio, "s", **given), rows)  # type: ignore[arg-type]


def test_a_score_by_hand() -> None:
    (s,) = scores([one(0.9), one(1.1), one(1.4)])
    assert (s.n, s.metric, s.statistic, s.rows) == (3, "tpot", "mean", "clean")
    assert s.median_ape == pytest.approx(0.1) and s.mean_ape == pytest.approx(0.2)
    assert s.p90_ape == pytest.approx(0.1 + 0.8 * 0.3)
    assert s.bias == pytest.approx(0.4 / 3) and s.median_ratio == pytest.approx(1.1)
    assert s.rank_correlation is None  # the measured figures are all the same


def test_clean_rows_come_first_and_nothing_is_mixed() -> None:
    found = scores([
        one(1, rows="flagged"), one(1, "kernel"), one(1), one(1, statistic="p99"), one(1, statistic="p50"),
        one(1, "acceptance_length", rows="known"), one(1, "ttft"),
    ])  # fmt: skip
    assert [(s.rows, s.metric, s.statistic, s.n) for s in found] == [
        ("clean", "tpot", "mean", 2), ("clean", "tpot", "p99", 1), ("clean", "ttft", "mean", 1),
        ("clean", "kernel", "mean", 1), ("flagged", "tpot", "mean", 1), ("known", "acceptance_length", "mean", 1),
    ]  # fmt: skip


def test_groups() -> None:
    some = [one(1), one(2, accelerator="b200-sxm"), one(3, accelerator=""), one(4, precision="fp8 (gemm=fp8)")]
    by = {s.group["accelerator"]: s for s in scores(some, ["accelerator"])}
    assert {k: s.n for k, s in by.items()} == {"b200-sxm": 1, "h100-sxm": 2}
    assert [s.group for s in scores(some, ["precision"])] == [{"precision": "fp8"}]
    crossed = scores(some, ["engine", "load", "accelerator"])
    assert crossed[0].group == {"engine": "vllm", "load": "4-15", "accelerator": "b200-sxm"}
    assert sum(s.n for s in scores(some, ["file"])) == len(some)


def test_worst_cells_need_members() -> None:
    many = [one(1.5, model="bad")] * 5 + [one(1.1, model="good")] * 5 + [one(9, model="few")] * 4
    many += [one(9, model="flagged", rows="flagged")] * 9
    assert [s.group["model"] for s in worst(many)] == ["bad", "good"]


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0.1, 10)), min_size=3, max_size=30))
def test_rank_correlation_is_spearmans(pairs: list[tuple[int, float]]) -> None:
    x, y = (np.array(v, dtype=float) for v in zip(*pairs, strict=True))
    ours = rank_correlation(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert ours is None
    else:
        assert ours == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)


def test_load_bands() -> None:
    assert [load_band(x) for x in ("1", "3", "4", "255", "256", "4096", "1e5", "0.5", "batch 64")] == [
        "1-3", "1-3", "4-15", "64-255", "256-1023", "4096+", "4096+", "0", "64-255",
    ]  # fmt: skip


def test_names_are_checked() -> None:
    assert parse_by(" model , model+engine,") == [("model",), ("model", "engine")]
    for wrong, says in (("modle", "'model'"), (",", "names nothing")):
        with pytest.raises(InputError, match=says):
            parse_by(wrong)
    assert parse_metrics([]) == ("tpot", "ttft", "throughput", "speedup", "kernel", "acceptance_length")
    with pytest.raises(InputError, match="'tpot'"):
        parse_metrics(["tpt"])


def offer(
    setting: str, measured: float, predicted: float, fast: float | None, guessed: float | None, choice: str = "c"
) -> Offer:
    return Offer((choice,), setting, measured, predicted, fast, guessed)


def test_regret_by_hand() -> None:
    """At any and at 20: we pick b, which loses a fifth to a. At 50: only a reaches it and b is thought to, which misses it.

    At 100: b is the only one thought to reach it and nothing does: no group.
    """
    found = {r.interactivity: r for r in regrets([offer("a", 100, 90, 60, 55), offer("b", 80, 120, 40, 110)])}
    for level in (0.0, 20.0):
        assert found[level].median == found[level].mean == pytest.approx(0.2) and found[level].missed == 0
    assert found[50.0].median is None and found[50.0].missed == 1 and found[50.0].groups == 1
    assert 100.0 not in found and None not in found


def test_a_pick_just_below_the_level_counts() -> None:
    (_, r, *_) = regrets([offer("a", 100, 90, 21, 22), offer("b", 150, 120, 18.5, 22)])
    assert r.interactivity == 20
    assert r.median == 0.0 and r.missed == 0.0  # faster in throughput, within a tenth of the level


def test_nothing_thought_to_reach_what_two_do() -> None:
    any_speed, r = regrets([offer("a", 100, 90, 30, 10), offer("b", 150, 120, 30, 10)])
    assert (any_speed.missed, any_speed.mean) == (0, 0)
    assert (r.groups, r.missed, r.mean) == (1, 1.0, None)


def test_queued_groups_and_repeated_runs() -> None:
    some = [offer("a", 100, 90, None, None), offer("a", 300, 90, None, None), offer("b", 160, 200, None, None)]
    (r,) = regrets([*some, offer("alone", 1, 1, None, None, "other")])
    assert (r.interactivity, r.groups, r.missed) == (None, 1, 0.0)
    assert r.median == pytest.approx(1 - 160 / 200)
    assert regrets([]) == []


def test_reasons_are_counted() -> None:
    some = [Skipped(str(i), "f", "why") for i in range(9)] + [Skipped("x", "g", "other")]
    assert skipped_by_reason(some) == [("why", 9, ["f"], list("01234")), ("other", 1, ["g"], ["x"])]
