"""The measure command: its file, its formats, its messages. Sizes are tiny; nothing is waited for."""

from __future__ import annotations

import csv
import importlib
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from planner.measuring import Stopwatch, session
from planner.measuring.cpu import Sizes
from planner.workload.examples import example_path

Run = Callable[..., tuple[int, str, str]]
TINY = Sizes(2**16, 16, 32, (1, 4), ((2, 8), (1, 4)), 4, 2, 8)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "sizes_for", lambda host, quick: TINY)
    monkeypatch.setattr(session, "stopwatch_for", lambda quick: Stopwatch(0.0, 3, 3, shortest=0.0))


@pytest.fixture
def noisy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock some of whose readings are late: repetitions differ whatever runs."""
    now = iter(range(10**9))
    clock = lambda: (n := next(now)) + 0.5 * (n % 5)  # noqa: E731
    monkeypatch.setattr(session, "stopwatch_for", lambda quick: Stopwatch(0.0, 9, 9, shortest=0.0, clock=clock))


@pytest.fixture
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that takes a millisecond between readings."""
    now = iter(range(10**9))
    clock = lambda: 1e-3 * next(now)  # noqa: E731
    monkeypatch.setattr(session, "stopwatch_for", lambda quick: Stopwatch(0.0, 9, 9, shortest=0.0, clock=clock))


def test_a_file_that_plans(run: Run, tmp_path: Path, calm: None) -> None:
    file = tmp_path / "here.toml"
    code, out, err = run("measure", "--device", "cpu", "--name", "here", "-o", file)
    assert (code, out) == (0, "")
    assert err == f"here is in {file}; plan with --hardware-db {file} --gpus here\n"
    code, out, _ = run("show", "gpu", "here", "--hardware-db", file, "--format", "json")
    assert code == 0
    facts = json.loads(out)["facts"]
    assert facts["memory.bandwidth"]["kind"] == "measured"
    code, out, err = run("estimate", "-m", "llama-3.2-1b-instruct", "-g", "here", "--hardware-db", file, "--batch", 1,
                         "--context", 10, "--format", "json")  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["step"]["seconds"] > 0
    code, out, err = run(
        "recommend", example_path("chat"), "--hardware-db", file, "--gpus", "here", "--price", "here=0.1",
        "--format", "json",
    )  # fmt: skip
    assert code == 3, err  # far too slow at these sizes, and that is what it says
    assert json.loads(out)["nearest_miss"]["statement"]


def test_toml_on_standard_output(run: Run, calm: None) -> None:
    code, out, err = run("measure", "--device", "cpu", "--quick")
    assert (code, err) == (0, "")
    assert out.startswith("# Written by planner measure.")
    assert re.search(r'\nname = "[a-z0-9.-]+-\d+t"\n', out)


@pytest.mark.parametrize("format_", ["json", "csv", "table", "markdown"])
def test_formats(run: Run, format_: str, calm: None) -> None:
    code, out, _ = run("measure", "--device", "cpu", "--name", "here", "--format", format_)
    assert code == 0
    assert "memory reads, dot product" in out
    if format_ == "json":
        found = json.loads(out)
        assert list(found) == ["name", "date", "host", "figures", "left_out"]
        assert found["host"]["threads"] >= 1
        assert {f["unit"] for f in found["figures"]} == {"B/s", "FLOP/s", "s"}
    if format_ == "csv":
        rows = list(csv.DictReader(io.StringIO(out)))
        assert all(float(r["best"]) > 0 and r["repetitions"] == "9" for r in rows)


def test_suffix_sets_the_format(run: Run, tmp_path: Path, calm: None) -> None:
    file = tmp_path / "x.json"
    assert run("measure", "--device", "cpu", "-o", file, "--quiet")[0] == 0
    assert json.loads(file.read_text())["figures"]


def test_noise_is_warned_of(run: Run, tmp_path: Path, noisy: None) -> None:
    file = tmp_path / "x.toml"
    code, out, err = run("measure", "--device", "cpu", "-o", file, "--quiet")
    assert (code, out) == (0, "")
    assert re.fullmatch(
        r"warning: this machine is noisy: repetitions of .* spread \d+% \(90th less 10th percentile over the median\) "
        r"and \d+ of \d+ figures more than 10%; end other programs and measure again\n",
        err,
    )
    assert "noisy: repetitions of " in file.read_text()


@pytest.mark.parametrize(("options", "says"), [
    (("--device", "gpu"), "error: --device: is 'gpu'; expected auto, cpu, cuda"),
    (("--device", "cudaa"), "error: --device: is 'cudaa'; expected auto, cpu, cuda. Did you mean 'cuda'?"),
    (("--name", "../x"), "error: --name: is '../x'; expected letters, digits, dots and dashes, as h100-sxm"),
    (("--threads", "0"), "'--threads'"),
    (("-o", "x.xml"), "error: --output: no format for 'x.xml'; expected --format, or a name ending in .toml, .json"),
    (("-o", "nowhere/x.toml"), "error: nowhere: --output: no such folder"),
    (("-o", "there.toml"), "error: there.toml: exists already; expected --force to replace it"),
    (("--format", "yaml"), "'yaml'"),
    (("--quik",), "--quick"),
])  # fmt: skip
def test_wrong_options_are_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.toml").write_text("mine")
    code, out, err = run("measure", *options)
    assert code == 2, err
    assert says in err
    assert err.count("\n") == 1
    assert out == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there.toml"]
    assert (tmp_path / "there.toml").read_text() == "mine"


def test_force_replaces(run: Run, tmp_path: Path, calm: None) -> None:
    file = tmp_path / "there.toml"
    file.write_text("mine")
    assert run("measure", "--device", "cpu", "-o", file, "--force", "-q")[0] == 0
    assert file.read_text().startswith("# Written by planner measure.")


def test_a_gpu_without_torch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    code, out, err = run("measure", "--device", "cuda")
    assert (code, out) == (2, "")
    assert err == (
        "error: --device: a GPU is measured with torch, which is not installed; expected "
        "pip install 'llm-capacity-planner[gpu]', which brings torch; or --device cpu\n"
    )


def test_the_command_line_starts_without_the_benchmarks() -> None:
    import subprocess

    code = (
        "import sys, planner.cli.app; print([m for m in sys.modules if m.startswith(('planner.measuring', 'numpy'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert importlib.util.find_spec("planner.measuring")


def test_progress_is_for_terminals(monkeypatch: pytest.MonkeyPatch, calm: None) -> None:
    from planner.cli import measuring

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with measuring._progress(quiet=False) as said:
        assert said is not None
        said("fp32 matmul", 3, 17)
    assert "fp32 matmul" in terminal.getvalue()
    assert "3 of 17" in terminal.getvalue()
    with measuring._progress(quiet=True) as said:
        assert said is None
