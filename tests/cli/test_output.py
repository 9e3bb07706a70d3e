"""Where results go: formats of every command, files, devices, terminals, closed streams."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from planner.workload.examples import example_path

Run = Callable[..., tuple[int, str, str]]
CHAT = str(example_path("chat"))
COMMANDS = {
    "recommend": ["recommend", CHAT, "--gpus", "h100-sxm"],
    "compare": ["compare", "gpus"],
    "compare-workload": ["compare", "gpus", "--workload", CHAT, "--gpus", "h100-sxm,l4"],
    "estimate": ["estimate", "-m", "llama-3.1-8b", "-g", "h100", "--batch", "4", "--context", "100"],
    "speculate": ["speculate", "-m", "llama-3.1-8b", "-g", "h100", "--batch", "4", "--context", "100"],
    "list-gpus": ["list", "gpus"],
    "list-prices": ["list", "prices", "--gpus", "groq-lpu-v1"],  # nobody rents it: a head and no rows
    "show-gpu": ["show", "gpu", "h100"],
    "show-model": ["show", "model", "deepseek-v3"],
    "init": ["init", "rag"],
    "schema": ["schema"],
    "check-db": ["check-db"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_every_format(run: Run, command: str) -> None:
    arguments = COMMANDS[command]
    texts = {}
    for name in ("table", "json", "csv", "markdown"):
        code, texts[name], err = run(*arguments, "--format", name)
        assert (code, err) == (0, "")
        assert "\x1b" not in texts[name]
    json.loads(texts["json"])
    head, *rows = csv.reader(io.StringIO(texts["csv"]))
    assert head
    assert all(len(row) == len(head) for row in rows)


def planner(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "planner", *arguments], text=True, capture_output=True, check=False, **options
    )  # type: ignore[call-overload, no-any-return]


def test_files_are_replaced_whole_and_keep_mode_and_links(run: Run, tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    assert run("show", "gpu", "h100", "-o", link)[0] == 0
    assert link.is_symlink()
    assert json.loads(real.read_text())["name"] == "h100-sxm"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    fresh = tmp_path / "fresh.JSON"
    assert run("show", "gpu", "h100", "-o", fresh)[0] == 0
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o666 & ~umask
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fresh.JSON", "link.json", "real.json"]


def test_pipes_are_written_to_not_replaced(run: Run, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as reader:
        assert run("show", "gpu", "h100", "-o", pipe, "--format", "json")[0] == 0
        assert json.loads(reader.communicate()[0])["name"] == "h100-sxm"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_output_that_cannot_be_written_is_two(run: Run, tmp_path: Path) -> None:
    loop = tmp_path / "loop.json"
    loop.symlink_to(loop)
    (tmp_path / "folder.json").mkdir()
    for target in (tmp_path / "folder.json", tmp_path / "no" / "x.json", loop, tmp_path / ("x" * 300 + ".json")):
        code, out, err = run("show", "gpu", "h100", "-o", target)
        assert (code, out) == (2, "")
        assert "--output" in err
        assert err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["list", "gpus"], ["--version"], ["--help"]])
def test_full_disk_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        found = subprocess.run(
            [sys.executable, "-m", "planner", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert found.returncode == 1
    assert found.stderr.count("\n") == 1
    assert "No space left" in found.stderr


def test_a_reader_that_leaves_does_not_change_the_exit_code() -> None:
    for arguments, code in ((["list", "prices"], 0), (["recommend", str(example_path("infeasible"))], 3)):
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as gone:
            found = subprocess.run(
                [sys.executable, "-m", "planner", *arguments],
                stdout=gone,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert found.returncode == code
        assert "Broken" not in found.stderr
        assert "Traceback" not in found.stderr


def test_closed_standard_streams_are_said() -> None:
    for redirection, says in ((">&-", "standard output is closed"), ("<&-", "standard input is closed")):
        found = subprocess.run(
            ["sh", "-c", f'"{sys.executable}" -m planner recommend - {redirection}'], text=True,
            capture_output=True, check=False, input=Path(CHAT).read_text() if redirection == ">&-" else None,
        )  # fmt: skip
        assert found.stderr.count("\n") == 1
        assert says in found.stderr


def test_colour_only_on_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planner.cli.output.sys.stdout", Terminal())
    for variable, coloured in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", variable)
        monkeypatch.setenv("TERM", "xterm-256color")
        sys.stdout.seek(0)
        sys.stdout.truncate()
        run("show", "model", "llama-3.1-8b")
        assert ("\x1b[" in sys.stdout.getvalue()) is coloured  # type: ignore[attr-defined]


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_letters_a_terminal_cannot_show() -> None:
    found = planner("show", "gpu", "l4", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert found.returncode == 0
    assert found.stderr == ""


def test_completion_is_offered() -> None:
    environment = {**os.environ, "_PLANNER_COMPLETE": "complete_bash", "COMP_WORDS": "planner rec", "COMP_CWORD": "1"}
    assert planner(env=environment).stdout.split() == ["recommend"]
    # the shell is told from the process that asks, so a shell has to
    asked = ["bash", "-c", f"{shlex.quote(sys.executable)} -m planner --show-completion bash; exit $?"]
    shown = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "_PLANNER_COMPLETE" in shown.stdout
