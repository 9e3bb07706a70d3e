"""The calibrate command: its report, its file, its messages; and the option that takes the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]
HEADER = "id,gpu,n_gpus,model,engine,tp,isl,osl,concurrency_or_batch,ttft_ms,tpot_ms,scenario\n"
ROWS = "".join(
    f"r{c},l4,1,llama-3.1-8b,vllm,1,256,32,{c},{300 + 40 * c},{140 + c},fixed-concurrency\n" for c in (1, 2, 4, 8)
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "mine.csv"
    file.write_text(HEADER + ROWS + "odd,quantum,1,llama-3.1-8b,vllm,1,256,32,1,300,140,fixed-concurrency\n")
    return file


def test_report_file_and_option(run: Run, table: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    code, out, err = run("calibrate", table, "-o", file, "--name", "mine")
    assert (code, err) == (0, "")
    for text in (
        "4 points used, 1 left out",
        "held out",
        "Could not be identified",
        "left out odd: unknown accelerator",
    ):
        assert text in out
    assert 'name = "mine"' in file.read_text()
    plain = ("estimate", "-m", "llama-3.1-8b", "-g", "l4", "--engine", "vllm", "--batch", 1, "--context", 256)
    codes, steps = [], []
    for more in ((), ("--calibration", file)):
        code, out, _ = run(*plain, "--format", "json", *more)
        codes.append(code)
        steps.append(json.loads(out)["step"]["seconds"])
    assert codes == [0, 0]
    assert steps[1] > 1.1 * steps[0]


def test_json_is_the_same_twice(run: Run, table: Path) -> None:
    first, second = (run("calibrate", table, "--format", "json") for _ in range(2))
    assert first == second
    record = json.loads(first[1])
    assert record["points"] == 4
    assert {r["metric"] for r in record["held_out"]} == {"tpot", "ttft"}
    assert record["skipped"][0]["id"] == "odd"


def test_two_points_hold_nothing_out(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "two.csv"
    file.write_text(HEADER + "".join(ROWS.splitlines(keepends=True)[:2]))
    code, out, _ = run("calibrate", file)
    assert code == 0
    assert "Nothing could be held out" in out


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a,quantum,1,llama-3.1-8b,vllm,1,256,32,1,300,140,fixed-concurrency\n", "quantum"),
        ("a,l4,1,llama-3.1-8b,vllm,1,256,32,1,300,140,offline\n", "closed loops"),
    ],
)
def test_nothing_usable_is_bad_input(run: Run, tmp_path: Path, row: str, reason: str) -> None:
    file = tmp_path / "none.csv"
    file.write_text(HEADER + row)
    code, out, err = run("calibrate", file)
    assert (code, out) == (2, "")
    assert "nothing to calibrate with" in err
    assert reason in err


def test_bad_calibration_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("[engine.vllm]\nstride = 1\n")
    code, _, err = run("list", "gpus", "--calibration", file)
    assert code == 2
    assert "stride" in err
