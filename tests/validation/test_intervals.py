"""Intervals hold what they promise on groups they never saw, and the files that ship are of the rows that ship."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from bench.accuracy import Row, read
from bench.intervals import FOLDER, LEVEL, SETS, Residuals, coverage, interval, residuals, text
from planner.hardware import Database
from planner.validation.comparison import Comparison
from planner.validation.coverage import covered


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return read()


@pytest.mark.parametrize("metric", ["tpot", "ttft"])
@pytest.mark.parametrize("name", SETS)
def test_groups_left_out_are_covered_as_promised(rows: list[Row], metric: str, name: str) -> None:
    points, groups = coverage(rows, metric, SETS[name][0])
    assert 0.75 <= points <= 0.88
    assert 0.75 <= groups <= 0.88


@pytest.mark.parametrize("metric", ["tpot", "ttft"])
@pytest.mark.parametrize("name", SETS)
def test_accelerators_left_out_are_covered_too(rows: list[Row], metric: str, name: str) -> None:
    assert coverage(rows, metric, SETS[name][1], "accelerator")[0] >= 0.75


@pytest.mark.parametrize("name", SETS)
def test_the_files_are_of_these_rows(rows: list[Row], name: str) -> None:
    """``python -m bench.intervals`` writes them anew."""
    kept = re.compile(r'date = "[^"]*"')
    shipped = (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    assert kept.sub("", shipped) == kept.sub("", text(name, rows))


def made(groups: int, each: int, seed: int, spread: float = 0.2) -> Residuals:
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(groups), each)
    values = spread * rng.standard_normal(groups)[unit] + 0.1 * rng.standard_normal(groups * each)
    same = {t: np.full(len(unit), "x") for t in ("vendor", "architecture", "engine")}
    return Residuals(values, unit, np.full(len(unit), each**-0.5), same)


def test_drawn_groups_are_covered() -> None:
    """Groups with a deviation of their own: a new one's rows lie inside as often as promised, few groups or many."""
    for groups in (8, 25):
        inside = []
        for seed in range(60):
            found = made(groups + 1, 20, seed)
            low, high = interval(found.take(found.unit < groups), {})
            mine = found.values[found.unit == groups]
            inside.append(np.mean((mine >= math.log(low)) & (mine <= math.log(high))))
        assert np.mean(inside) == pytest.approx(LEVEL, abs=0.08)


def test_few_groups_give_wider_intervals_than_many() -> None:
    widths = [
        np.mean([math.log(h / lo) for lo, h in (interval(made(n, 20, s), {}) for s in range(30))]) for n in (6, 40)
    ]
    assert widths[0] > widths[1]


def test_a_kind_moves_towards_its_own_groups(rows: list[Row]) -> None:
    found = residuals(rows, "tpot", "bare")
    amd, nvidia = (interval(found, {"vendor": v}) for v in ("AMD", "NVIDIA"))
    own = np.median(found.values[found.traits["vendor"] == "AMD"])
    rest = np.median(found.values[found.traits["vendor"] == "NVIDIA"])
    assert (own > rest) == (amd[1] > nvidia[1])


def test_coverage_of_comparisons_counts_what_lies_inside(database: Database) -> None:
    factors = database.intervals.of(database.accelerator("h100-sxm"), "dense", database.engine("vllm"))

    def one(metric: str, ratio: float, **more: str) -> Comparison:
        kind = {"accelerator": "h100-sxm", "model": "llama-3.1-8b", "engine": "vllm 0.9", **more}
        return Comparison("a", "f", metric, ratio, 1.0, "s", **kind)

    compared = [
        one("tpot", factors.tpot.high * 0.99), one("tpot", factors.tpot.high * 1.01), one("ttft", factors.ttft.low),
        one("throughput", 1 / factors.tpot.high), one("throughput", 1.01 / factors.tpot.low),
        one("tpot", 1.0, model="nobody-9b"), one("speedup", 1.0), one("tpot", 1.0, statistic="p99"),
    ]  # fmt: skip
    found = {c.metric: (c.n, c.covered) for c in covered(compared, database)}
    assert found == {"tpot": (2, 0.5), "ttft": (1, 1.0), "throughput": (2, 0.5)}
