"""The fanout command: every format, own values, and wrong options."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

import pytest

from planner.decisions.fanout_result import FanOut
from planner.report.fanout import bars
from planner.workload.examples import example_path

Run = Callable[..., tuple[int, str, str]]
AGENT = ("fanout", example_path("coding-agent"), "--gpus", "b200-sxm", "--no-simulate", "--most", 6)


def test_json_csv_markdown_and_table_agree(run: Run) -> None:
    code, out, _ = run(*AGENT, "--format", "json")
    assert code == 0
    result = FanOut.model_validate(json.loads(out))
    assert [r.fan_out for r in result.rows] == [1, 2, 3, 4, 5, 6]
    rows = list(csv.DictReader(io.StringIO(run(*AGENT, "--format", "csv")[1])))
    assert [float(r["usd_per_task"]) for r in rows] == [r.usd_per_task for r in result.rows]
    table = run(*AGENT)[1]
    assert result.statement in table
    assert "| K |" in run(*AGENT, "--format", "markdown")[1]
    assert "subagents.next_turn_quality" in table
    assert run(*AGENT, "--format", "json")[1] == out


def test_the_value_of_a_task_decides(run: Run) -> None:
    def pays(*more: object) -> int:
        return int(json.loads(run(*AGENT, "--format", "json", *more)[1])["fan_out_that_pays"])

    worthless, little, much = pays("--value", 0.0001), pays("--value", 0.05), pays("--value", 10)
    assert worthless == 0
    assert 1 <= little < much == 3
    assert pays("--set", "subagents.value=10.0") == much
    assert pays("--value", 10, "--set", "subagents.value=0.05") == much


def test_the_value_of_waiting_decides_how_many_turns_ahead(run: Run) -> None:
    def turns(*more: object) -> int:
        return int(json.loads(run(*AGENT, "--format", "json", *more)[1])["next_turns"]["turns_that_pay"])

    assert turns() == 1
    assert turns("--set", "subagents.waiting_hour_value=50.0") == 4
    assert turns("--set", "subagents.waiting_hour_value=0.001") == 0
    assert turns("--set", "subagents.next_turn_quality=0.2") == 0


def test_bars_are_to_scale() -> None:
    assert bars([1.0, 2.0, None, -1.0], 1) == ["▇" * 12, "▇" * 24 + " <", "", ""]


def test_a_workload_without_subagents_forks_its_whole_prompt(run: Run) -> None:
    code, out, _ = run(
        "fanout", example_path("chat"), "--gpus", "h200-sxm", "--no-simulate", "--most", 4, "--format", "json"
    )
    assert code == 0
    result = FanOut.model_validate(json.loads(out))
    assert result.plan.sharing is None
    assert any(a.key == "subagents.shared_prefix" for a in result.assumptions)
    assert result.rows[3].kv_bytes_stored < result.rows[3].kv_bytes_without_sharing


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--value", "-1"), "--value"),
        (("--value", "nan"), "--value"),
        (("--most", "0"), "--most"),
        (("--most", "65"), "--most"),
        (("--set", "subagents.value=-1.0"), "subagents.value"),
        (("--set", "subagents.next_turn_quality=1.5"), "next_turn_quality"),
        (("--gpus", "nothing"), "--gpus"),
    ],
)
def test_wrong_options(run: Run, options: tuple[str, ...], says: str) -> None:
    code, out, err = run(*AGENT, *options)
    assert code == 2
    assert out == ""
    assert says in err
    assert "Traceback" not in err


def test_no_plan(run: Run) -> None:
    code, _, err = run("fanout", example_path("infeasible"))
    assert code == 3
    assert "no feasible plan" in err
