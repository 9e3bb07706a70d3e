"""The explain command: golden output, every format, one screen."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable

import pytest
from explain_goldens import EXAMPLES, GOLDEN, printed

from planner.decisions.explanation_result import Explanation
from planner.report.explanation import explanation_blocks
from planner.report.render import terminal
from planner.workload.examples import example_path

Run = Callable[..., tuple[int, str, str]]
CHAT = ("explain", example_path("chat"), "--no-simulate")


def test_all_shipped_examples_are_golden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [])
    shipped = {p.stem for p in example_path("chat").parent.glob("*.toml")}
    assert shipped == set(EXAMPLES)
    assert printed() == GOLDEN.read_text(encoding="utf-8"), "python tests/explain_goldens.py writes it anew"


def test_formats_agree(run: Run) -> None:
    code, out, _ = run(*CHAT, "--format", "json")
    assert code == 0
    result = Explanation.model_validate(json.loads(out))
    assert len(result.claims) == 11
    rows = list(csv.DictReader(io.StringIO(run(*CHAT, "--format", "csv")[1])))
    assert [float(r["batch"]) for r in rows] == [p.batch for p in result.curve]
    assert run(*CHAT, "--full", "--format", "json")[1] == out
    text = run(*CHAT)[1]
    assert result.statement in text
    full = run(*CHAT, "--full")[1]
    assert all(c.claim in full for c in result.claims)
    assert "| A step goes to |" in run(*CHAT, "--format", "markdown")[1]


@pytest.mark.parametrize("example", ["chat", "coding-agent", "reasoning-glm"])
def test_one_screen(run: Run, example: str) -> None:
    out = run("explain", example_path(example), "--no-simulate", "--format", "json")[1]
    drawn = terminal(explanation_blocks(Explanation.model_validate(json.loads(out)), False), width=100)
    assert len(drawn.splitlines()) <= 50


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("explain", "nowhere.toml"), 2, "nowhere.toml"),
        ((*CHAT, "--gpus", "nothing"), 2, "--gpus"),
        ((*CHAT, "--set", "demand.requests_per_minute=1"), 2, "requests_per_minute"),
        (("explain", example_path("infeasible")), 3, "no feasible plan"),
    ],
)
def test_what_cannot_be_explained(run: Run, arguments: tuple[str, ...], code: int, says: str) -> None:
    got, out, err = run(*arguments)
    assert got == code
    assert out == ""
    assert says in err
