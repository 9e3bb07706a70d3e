"""The validate command: its JSON, its rows, its messages."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., tuple[int, str, str]]
TABLE = """\
id,gpu,n_gpus,model,weight_precision,engine,tp,isl,osl,length_kind,concurrency_or_batch,ttft_ms,tpot_ms,flag
a,H100-SXM-80GB,1,Llama-3.1-8B,bf16,vllm,1,1024,256,range ratio 0.8,4,60,9,
b,H100-SXM-80GB,2,Llama-3.1-8B,bf16,vllm,2,1024,256,range ratio 0.8,4,50,6,
c,H100-SXM-80GB,2,Llama-3.1-8B,bf16,vllm,2,1024,256,range ratio 0.8,16,80,7,TTFT odd
d,Quantum 9,2,Llama-3.1-8B,bf16,vllm,2,1024,256,range ratio 0.8,16,80,7,
"""
SCORE = {
    "metric",
    "statistic",
    "rows",
    "n",
    "median_ape",
    "mean_ape",
    "p90_ape",
    "bias",
    "median_ratio",
    "rank_correlation",
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "mine.csv"
    file.write_text(TABLE)
    return file


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_keys(run: Run, table: Path) -> None:
    first, second = (run("validate", "--measurements", table, "--format", "json") for _ in range(2))
    assert first == second
    code, out, err = first
    assert (code, err) == (0, "")
    data = strict(out)
    assert list(data) == [
        "schema_version",
        "overall",
        "groups",
        "worst",
        "intervals",
        "regret",
        "skipped",
        "files",
        "rows",
        "metrics",
        "where",
    ]
    assert all(set(e) == SCORE for e in data["overall"])
    assert [(e["metric"], e["rows"], e["n"]) for e in data["overall"]] == [
        ("tpot", "clean", 2), ("ttft", "clean", 2), ("tpot", "flagged", 1), ("ttft", "flagged", 1),
    ]  # fmt: skip
    assert all(set(e) == SCORE | {"by", *e["by"]} for e in data["groups"])
    assert {e["by"][0] for e in data["groups"]} == {
        "accelerator",
        "model",
        "engine",
        "precision",
        "load",
        "kind",
        "file",
    }
    assert data["skipped"] == [
        {"reason": "unknown accelerator 'Quantum 9'", "n": 1, "files": ["mine.csv"], "examples": ["d"]}
    ]
    assert data["rows"] == {"read": 4, "compared": 6, "skipped": 1}
    assert data["files"] == [{"file": "mine.csv", "kind": "results", "rows": 4, "compared": 6, "skipped": 1}]
    assert [(e["metric"], e["n"], e["level"]) for e in data["intervals"]] == [("tpot", 2, 0.8), ("ttft", 2, 0.8)]
    assert all(set(e) == {"metric", "n", "covered", "level"} for e in data["intervals"])
    assert all(set(r) == {"interactivity", "groups", "median", "mean", "missed"} for r in data["regret"])
    assert [r["interactivity"] for r in data["regret"]] == [0.0, 20.0, 50.0, 100.0]


def test_predictions_have_every_row(run: Run, table: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    assert run("validate", table, "--predictions", file, "-o", tmp_path / "r.md", "-q")[0] == 0
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert {r["id"] for r in rows} == set("abcd")
    assert next(r["skipped"] for r in rows if r["id"] == "d").startswith("unknown accelerator")
    for r in rows[:6]:
        assert float(r["ratio"]) == pytest.approx(float(r["predicted"]) / float(r["measured"]))
        assert r["rows"] == ("flagged" if r["id"] == "c" else "clean")
    assert (tmp_path / "r.md").read_text().startswith("## Predictions beside measurements")


@pytest.mark.parametrize("format_", ["table", "csv", "markdown"])
def test_formats(run: Run, table: Path, format_: str) -> None:
    code, out, _ = run("validate", table, "--format", format_, "--by", "model+engine,load")
    assert code == 0
    if format_ == "csv":
        rows = list(csv.DictReader(io.StringIO(out)))
        assert {"metric", "n", "median_ape", "mean_ape", "p90_ape", "bias", "model", "engine", "load"} <= set(rows[0])
    else:
        assert "time per output token" in out and "unknown accelerator 'Quantum 9'" in out
        assert "By model and engine" in out and "By load" in out and "By kind" not in out


def test_filters(run: Run, table: Path) -> None:
    data = strict(run("validate", table, "--where", "flag=", "--where", "tp=1", "--metric", "tpot", "-f", "json")[1])
    assert [(e["metric"], e["n"]) for e in data["overall"]] == [("tpot", 1)]
    assert data["rows"] == {"read": 1, "compared": 1, "skipped": 0} and data["where"] == ["flag=", "tp=1"]


def test_several_tables_as_arguments_and_options(run: Run, table: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text(TABLE)
    data = strict(run("validate", "--measurements", table, other, "-f", "json")[1])
    assert [f["file"] for f in data["files"]] == ["other.csv", "mine.csv"]
    assert data["rows"]["read"] == 8


def test_own_facts(run: Run, table: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow.toml"
    slow.write_text('name = "slow"\n[engine.vllm]\nstep = 0.05\n')
    one, two = (
        strict(run("validate", table, "-f", "json", *more)[1])["overall"][0] for more in ([], ["--calibration", slow])
    )
    assert two["bias"] > one["bias"] + 1


@pytest.mark.parametrize(("asked", "says"), [
    (["nowhere.csv"], "no such file or folder"),
    (["--where", "tpp=1"], "Did you mean 'tp'?"),
    (["--where", "tp"], "expected COLUMN=VALUE"),
    (["--by", "chip"], "--by: is 'chip'"),
    (["--metric", "itl"], "--metric: is 'itl'"),
    (["--calibration", "nowhere.toml"], "nowhere.toml: no such file or folder"),
    (["--predictions", "nowhere/x.csv"], "--predictions: no such folder"),
    (["-o", "x.odd"], "no format for"),
])  # fmt: skip
def test_wrong_input_is_one_line(run: Run, table: Path, asked: list[str], says: str) -> None:
    code, out, err = run("validate", table, *asked)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err


def test_a_table_of_nothing_known(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("colour,taste\nred,sweet\n")
    code, out, err = run("validate", file, "--predictions", tmp_path / "out.csv")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "results (gpu, model, isl, osl" in err and "kernel times (" in err
    assert not (tmp_path / "out.csv").exists()
