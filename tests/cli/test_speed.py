"""The speed command: every format, both ways to name a target, and wrong options."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

import pytest

from planner.decisions.speed_result import Speed
from planner.workload.examples import example_path

Run = Callable[..., tuple[int, str, str]]
REFACTOR = ("speed", example_path("refactor"), "--gpus", "h100-sxm,h200-sxm", "--no-simulate")


def test_json_csv_markdown_and_table_agree(run: Run) -> None:
    code, out, _ = run(*REFACTOR, "--target", "1.5x", "--format", "json")
    assert code == 0
    result = Speed.model_validate(json.loads(out))
    assert result.target_multiple == 1.5
    rows = list(csv.DictReader(io.StringIO(run(*REFACTOR, "--target", "1.5", "--format", "csv")[1])))
    assert [float(r["cost_multiple"]) for r in rows] == [1.0, *(t.cost_multiple for t in result.tiers)]
    table = run(*REFACTOR, "--target", "1.5x")[1]
    assert result.statement in table
    assert "Each lever alone" in table
    assert "| Levers |" in run(*REFACTOR, "--format", "markdown")[1]


def test_a_speed_of_its_own(run: Run) -> None:
    found = json.loads(run(*REFACTOR, "--tokens-per-second", "300", "--format", "json")[1])
    assert found["target_tokens_per_second"] == pytest.approx(300)
    assert found["target_multiple"] == pytest.approx(300 / found["base"]["tokens_per_second_per_user"])


def test_what_nothing_reaches(run: Run) -> None:
    code, out, _ = run(*REFACTOR, "--target", "500x", "--format", "json")
    assert code == 0
    found = json.loads(out)
    assert found["tiers"] == []
    assert found["statement"].startswith("No lever reaches")
    assert found["hypotheses"][-1].startswith("Supported: none")


def test_a_base_with_drafts(run: Run) -> None:
    found = json.loads(run(*REFACTOR, "--drafting-base", "--format", "json")[1])
    assert found["base"]["speculation"] != "none"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--target", "fast"), "--target"),
        (("--target", "1x"), "--target"),
        (("--target", "inf"), "--target"),
        (("--target", "2x", "--tokens-per-second", "90"), "one of them"),
        (("--tokens-per-second", "0"), "--tokens-per-second"),
        (("--tokens-per-second", "1"), "already makes"),
        (("--price-multiple", "nan"), "--price-multiple"),
        (("--gpus", "nothing"), "--gpus"),
    ],
)
def test_wrong_options(run: Run, options: tuple[str, ...], says: str) -> None:
    code, out, err = run(*REFACTOR, *options)
    assert code == 2
    assert out == ""
    assert says in err


def test_no_plan(run: Run) -> None:
    code, _, err = run("speed", example_path("infeasible"))
    assert code == 3
    assert "no feasible plan" in err
