"""The commands sensitivity, sweep and diff: formats, exit codes, wrong input in one line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from planner.workload.examples import example_path

Run = Callable[..., tuple[int, str, str]]
CHAT = example_path("chat")
FAST = ("--gpus", "b200", "--set", "speculation.enabled=false", "--set", 'serving.mode="aggregated"')
BANDWIDTH = "bandwidth efficiency of b200-sxm"
SMALL = """
model = "llama-3.1-8b"
answer = 200
[demand]
requests_per_second = 20
[context]
p50 = 1000
p95 = 4000
[slo]
tpot_p95 = "30ms"
[speculation]
enabled = false
[serving]
mode = "aggregated"
[parallelism]
tensor = [1]
"""


def test_sensitivity_formats(run: Run) -> None:
    options = ("--gpus", "b200", "--draws", 100, "-j", 1, "--no-simulate", "--format", "json")
    code, out, err = run("sensitivity", "-", *options, stdin=SMALL)
    assert (code, err) == (0, "")
    data = json.loads(out)
    assert data["schema_version"]
    assert 0 <= data["risk"]["probability"] <= 1
    assert data["risk"]["draws"] == 100
    names = {x["name"] for x in data["sensitivity"]["inputs"]}
    assert names == {"demand", "context p95", "answer length", "price of b200-sxm", "limit tpot_p95", BANDWIDTH}
    drawn = {d["name"]: d["source"] for d in data["risk"]["drawn"]}
    assert drawn["demand"].startswith("default")


def test_odds_alone(run: Run) -> None:
    options = ("--no-flips", "--no-simulate", "--draws", 100, "--confidence", 0.9, "--forecast-cv", 0.3)
    code, out, _ = run("sensitivity", CHAT, *FAST, *options)
    assert code == 0
    assert "How sure it is" in out
    assert "90%" in out
    assert "flag: coefficient of variation 0.3" in out
    assert "What flips it" not in out
    code, out, _ = run("sensitivity", CHAT, *FAST, *options, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [float(r["confidence"]) for r in rows] == [0.5, 0.8, 0.9, 0.95, 0.99]
    own = ("--set", "demand.forecast_cv=0.05", *options[:4])
    assert "workload: coefficient of variation 0.05" in run("sensitivity", CHAT, *FAST, *own)[1]


def test_sweep_formats(run: Run, tmp_path: Path) -> None:
    options = ("sweep", CHAT, *FAST, "--no-simulate", "--sweep", "demand.requests_per_second=10:30:10")
    code, out, _ = run(*options, "--plot", "cost", "--plot", "gpus")
    assert code == 0
    assert out.startswith("3 plans\n")
    assert "█" in out
    target = tmp_path / "sweep.csv"
    assert run(*options, "-o", target)[0] == 0
    rows = list(csv.DictReader(io.StringIO(target.read_text())))
    assert [r["demand.requests_per_second"] for r in rows] == ["10", "20", "30"]
    assert [int(r["gpus"]) for r in rows] == sorted(int(r["gpus"]) for r in rows)
    data = json.loads(run(*options, "--format", "json")[1])
    assert data["axes"] == {"demand.requests_per_second": ["10", "20", "30"]}
    assert data["points"][0]["plan"]["gpus"] == data["points"][0]["gpus"]
    assert "| 10 |" in run(*options, "--format", "markdown")[1]


def test_a_sweep_may_give_what_the_file_lacks(run: Run) -> None:
    text = CHAT.read_text().replace("requests_per_second = 20\n", "")
    options = ("sweep", "-", *FAST, "--no-simulate", "--sweep", "demand.requests_per_second=5,10", "--format", "csv")
    code, out, _ = run(*options, stdin=text)
    assert code == 0
    assert len(out.splitlines()) == 3


def test_a_sweep_without_any_plan(run: Run) -> None:
    code, out, err = run("sweep", CHAT, *FAST, "--sweep", "slo.tpot_p95=1us,2us")
    assert code == 3
    assert out.count("no plan") == 2
    assert err.startswith("error: no feasible plan at any of 2 points: closest is b200-sxm")


def test_diff_of_workloads_and_saved_plans(run: Run, tmp_path: Path) -> None:
    saved = tmp_path / "plan.json"
    assert run("recommend", CHAT, *FAST, "-o", saved)[0] == 0
    for a, b in ((CHAT, CHAT), (saved, saved), (saved, CHAT)):
        options = FAST if a == CHAT else ("--gpus", "b200", "--set-b", FAST[3], "--set-b", FAST[5])
        code, out, _ = run("diff", a, b, *(() if b == saved else options), "--exit-code")
        assert (code, "No difference." in out) == (0, True), out
    more = ("--set-b", "demand.requests_per_second=60")
    code, out, _ = run("diff", CHAT, CHAT, *FAST, *more, "--exit-code")
    assert code == 4
    assert "Another plan." in out
    assert "requests at peak" in out
    assert run("diff", CHAT, CHAT, *FAST, *more)[0] == 0
    code, out, _ = run("diff", CHAT, CHAT, *FAST, *more, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {"workload", "plan", "figures"} == {r["part"] for r in rows}
    data = json.loads(run("diff", CHAT, CHAT, *FAST, *more, "--format", "json")[1])
    assert data["money"]["usd_per_hour"] == pytest.approx(sum(p["usd_per_hour"] for p in data["money"]["parts"]))


@pytest.mark.parametrize(("arguments", "says"), [
    (("sweep", CHAT), "--sweep: nothing to sweep"),
    (("sweep", CHAT, "--sweep", "demand"), "is not a sweep"),
    (("sweep", CHAT, "--sweep", "demand.reqs=1,2"), "--sweep: demand.reqs: unknown key"),
    (("sweep", CHAT, "--sweep", "slo.tpot_p95=20 sceonds", "--gpus", "b200"), "unknown unit 'sceonds'"),
    (("sweep", CHAT, "--sweep", "a=1:1000000:1"), "at most 500"),
    (("sweep", CHAT, "--sweep", "engine.max_num_seqs=1:500:1", "--sweep", "slo.tpot_p95=1,2"), "1000 points"),
    (("sweep", CHAT, "--sweep", "model=llama-3.1-8b,lama-3.1-70b", "--gpus", "b200"), "lama-3.1-70b"),
    (("sweep", CHAT, "--sweep", "a=1", "--plot", "beauty"), "--plot"),
    (("sweep", "missing.toml", "--sweep", "a=1"), "missing.toml: no such file"),
    (("sensitivity", CHAT, "--confidence", "1"), "--confidence"),
    (("sensitivity", CHAT, "--confidence", "nan"), "--confidence"),
    (("sensitivity", CHAT, "--draws", "1"), "--draws"),
    (("sensitivity", CHAT, "--forecast-cv", "inf"), "--forecast-cv"),
    (("sensitivity", CHAT, "--set", "demand.forecast_cv=-1"), "demand.forecast_cv"),
    (("sensitivity", CHAT, "--gpus", "h100-smx"), "Did you mean 'h100-sxm'"),
    (("sensitivity", CHAT, "-o", "x.xyz"), "--output"),
    (("diff", "-", "-"), "both are standard input"),
    (("diff", CHAT, "missing.json"), "missing.json: no such file"),
])  # fmt: skip
def test_wrong_input_is_one_line(run: Run, arguments: tuple[object, ...], says: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_no_plan_has_no_sensitivity(run: Run) -> None:
    code, out, err = run("sensitivity", CHAT, *FAST, "--set", "slo.tpot_p95=1us")
    assert (code, out) == (3, "")
    assert "tpot_p95" in err


@pytest.mark.parametrize("text", ["{}", '{"plan": null}', "{", '{"schema_version": "1.0", "plan": {}, "workload": {}}'])
def test_diff_refuses_other_json(run: Run, tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    code, out, err = run("diff", path, path)
    assert (code, out) == (2, "")
    assert str(path) in err
    assert err.count("\n") == 1


def test_a_saved_plan_takes_no_settings(run: Run, tmp_path: Path) -> None:
    saved = tmp_path / "plan.json"
    run("recommend", CHAT, *FAST, "-o", saved)
    code, _, err = run("diff", saved, saved, "--set", "demand.requests_per_second=5")
    assert code == 2
    assert "is a saved plan" in err
