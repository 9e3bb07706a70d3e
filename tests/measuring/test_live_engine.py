"""The planner beside the live engine whose results are kept: calibrated on some loads, it predicts others."""

from __future__ import annotations

import numpy as np
import pytest

from bench import live_engine


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return live_engine.predicted()


def errors(rows: list[dict[str, str]], metric: str, points: str, column: str) -> np.ndarray:
    return np.abs([live_engine.error(r, column) for r in rows if (r["metric"], r["points"]) == (metric, points)])


@pytest.mark.parametrize("metric", ["tpot", "ttft", "throughput"])
def test_loads_never_seen_are_predicted_at_least_twice_as_well_after_calibrating(
    rows: list[dict[str, str]], metric: str
) -> None:
    before, after = (errors(rows, metric, "held out", column) for column in ("before", "after"))
    assert len(after) == len(live_engine.HELD_OUT)
    assert after.mean() < 0.5 * before.mean()
    assert after.mean() < 0.10


def test_the_page_shows_what_the_commands_say_today(rows: list[dict[str, str]]) -> None:
    assert live_engine.read_predicted() == rows, "run: python bench/live_engine.py predict"


def test_throughput_rises_with_streams_as_measured(rows: list[dict[str, str]]) -> None:
    told = [float(r["after"]) for r in rows if r["metric"] == "throughput"]
    assert told == sorted(told)
