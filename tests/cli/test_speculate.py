"""``planner speculate``: at a plan, at a configuration, with acceptance of one's own."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from planner.decisions.speculation_result import SpeculationDecision
from planner.report.blocks import Sheet
from planner.report.render import plain, terminal
from planner.report.speculation import map_blocks, speculation_blocks
from planner.workload.examples import example_path

Run = Callable[..., tuple[int, str, str]]
CHAT = str(example_path("chat"))
AT = ["speculate", "-m", "llama-3.1-8b", "-g", "h100-sxm", "--batch", 16, "--context", 2048]


@pytest.fixture
def decision(run: Run) -> SpeculationDecision:
    return SpeculationDecision.model_validate(json.loads(run(*AT, "--format", "json")[1]))


def test_at_a_plan(run: Run) -> None:
    code, out, err = run("speculate", CHAT, "--gpus", "h100-sxm", "--no-simulate", "--format", "json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    _, out, _ = run("recommend", CHAT, "--gpus", "h100-sxm", "--no-simulate", "--format", "json")
    plan = json.loads(out)["plan"]
    assert found["configuration"]["accelerator"] == plan["accelerator"]
    assert found["batch"] == pytest.approx(max(1.0, plan["mean_batch"]))
    # the same step and acceptance as the plan's own figures, which are interpolated between batches
    gains = {f"{m['method']}@{k}": gain for m in found["methods"] for k, gain in m["by_draft_tokens"].items()}
    for label, gain in plan["speculation"]["considered"].items():
        assert gains[label] == pytest.approx(gain, rel=0.02)
    flips, planned = found["flip_batches"], plan["speculation"]["flip_batches"]
    assert [f["pays_beyond"] for f in flips] == [f["pays_beyond"] for f in planned]
    assert [f["at"] for f in flips] == pytest.approx([f["at"] for f in planned], rel=0.05)


def test_the_recommendation_says_where_it_turns(run: Run) -> None:
    _, out, _ = run("recommend", CHAT, "--gpus", "h100-sxm", "--no-simulate")
    assert "; it pays " in out


def test_no_plan_is_three(run: Run) -> None:
    code, out, err = run("speculate", example_path("infeasible"), "--no-simulate")
    assert (code, out) == (3, "")
    assert "no feasible plan" in err and err.count("\n") == 1


def test_formats(run: Run, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run(*AT, "--format", "csv")[1])))
    assert {"context", "batch", "speedup", "speedup_low", "speedup_high", "method", "draft_tokens", "fits"} == set(
        rows[0]
    )
    assert len(rows) == len({(r["context"], r["batch"]) for r in rows}) == 13 * 9
    file = tmp_path / "map.md"
    assert run(*AT, "--output", file)[0] == 0
    assert "| Context | 1 | 2 | 4 |" in file.read_text() and "up to" in file.read_text()


def test_the_map_keeps_to_the_terminal(decision: SpeculationDecision, monkeypatch: pytest.MonkeyPatch) -> None:
    assert decision.map is not None
    for width in (60, 80, 120):
        sheets = [b for b in map_blocks(decision.map, width) if isinstance(b, Sheet)]
        assert max(len(line) for line in plain(sheets).splitlines()) <= width
        assert sheets[0].columns[1] == "1"
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = terminal(speculation_blocks(decision, 80), width=80)
    assert "\x1b[" in coloured
    assert "\x1b" not in plain(speculation_blocks(decision, 80))
    sheet = next(b for b in map_blocks(decision.map) if isinstance(b, Sheet))
    assert {t for row in sheet.tones for t in row} >= {"gain-1", "note", ""}


def test_own_acceptance_of_another_model_is_pointed_out(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "acceptance.toml"
    text = '[[curve]]\nmethod = "eagle3"\nmodel = "lama-3.1-8b"\nacceptance = [0.9]\n'
    file.write_text(text)
    (warning,) = json.loads(run(*AT, "--acceptance", file, "--format", "json")[1])["warnings"]
    assert "eagle3 for lama-3.1-8b" in warning
    file.write_text(text.replace("lama-3.1-8b", "nobody") + text.replace("lama", "llama"))
    assert json.loads(run(*AT, "--acceptance", file, "--format", "json")[1])["warnings"] == []


def test_own_acceptance(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[[curve]]\nmethod = "suffix"\nsource = "our engine"\nacceptance_per_position = [0.9, 0.85, 0.8]\n')
    found = json.loads(run(*AT, "--acceptance", file, "--format", "json")[1])
    assert (found["method"], found["acceptance_length"]) == ("suffix", pytest.approx(3.55))
    assert "our engine" in found["methods"][0]["source"]
    plan = json.loads(
        run("recommend", CHAT, "--gpus", "h100-sxm", "--no-simulate", "--acceptance", file, "--format", "json")[1]
    )["plan"]
    assert plan["speculation"]["method"] == "suffix"


@pytest.mark.parametrize(("arguments", "says"), [
    (["speculate"], "a workload, or --model and --gpu"),
    (["speculate", "-m", "llama-3.1-8b"], "--gpu"),
    (["speculate", "-m", "llama-3.1-8b", "-g", "h100-sxm"], "--batch"),
    (["speculate", CHAT, "--batch", 4], "--batch"),
    (["speculate", CHAT, "--tensor-parallel", 4], "--tensor-parallel"),
    (["speculate", CHAT, "--task", "code"], "--task"),
    ([*AT, "--set", "speculation.task=code"], "--set"),
    ([*AT, "--task", "coding"], "Did you mean"),
    ([*AT, "--methods", "eagle4"], "Did you mean"),
    ([*AT, "--draft-domain", "none"], "in-domain or generic"),
    ([*AT, "--methods", "mtp"], "no multi-token-prediction module"),
    ([*AT, "--methods", "suffix"], "no acceptance known for 'suffix'"),
    ([*AT, "--methods", "draft-model"], "no draft model named"),
    ([*AT, "--draft-model", "lama-3.2-1b"], "unknown model"),
    ([*AT, "--acceptance", "nowhere.toml"], "nowhere.toml"),
    (["recommend", CHAT, "--acceptance", "nowhere.toml"], "nowhere.toml"),
    (["speculate", CHAT, "--set", "speculation.acceptance_per_position=[0.5, 0.6]"], "rises with the position"),
    (["speculate", CHAT, "--set", "speculation.draft_domain=generik"], "generic"),
])  # fmt: skip
def test_bad_input_is_two_and_one_line(run: Run, arguments: list[object], says: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert says in err and err.count("\n") == 1 and "Traceback" not in err
