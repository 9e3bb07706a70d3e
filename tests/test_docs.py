"""The documentation runs, and the generated pages are fresh."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
BLOCK = re.compile(r"```console\n(.*?)```", re.S)


def blocks() -> list[tuple[str, str]]:
    return [(page.name, block) for page in PAGES for block in BLOCK.findall(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("page", "block"), blocks())
def test_console_blocks_run(page: str, block: str) -> None:
    first, *expected = block.strip().split("\n")
    assert first.startswith("$ planner "), page
    command, _, comment = first[2:].partition("  # exit ")
    found = subprocess.run(
        [sys.executable, "-m", *shlex.split(command)], cwd=REPOSITORY, text=True, capture_output=True, check=False
    )
    assert found.returncode == int(comment or 0), found.stderr
    position = 0
    for line in expected:
        at = found.stdout.find(line, position)
        assert at >= 0, f"{page}: {line!r} not in the output after the line before"
        position = at


def test_generated_pages_are_fresh() -> None:
    found = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=REPOSITORY, text=True, capture_output=True, check=False
    )
    assert found.returncode == 0, found.stderr


def test_every_command_is_in_the_reference_and_the_readme() -> None:
    reference = (REPOSITORY / "docs" / "reference" / "cli.md").read_text()
    readme = (REPOSITORY / "README.md").read_text()
    for command in ("recommend", "compare gpus", "estimate", "list", "show", "init", "schema", "check-db", "describe"):
        assert f"## planner {command}" in reference
        assert f"planner {command.split()[0]}" in readme


def test_links_lead_somewhere() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_figures_in_the_readme_are_true() -> None:
    from planner.hardware import load_database
    from planner.models import list_models

    text = (REPOSITORY / "README.md").read_text()
    database = load_database()
    assert f"{len(database.accelerators)} accelerators" in text
    assert f"{len(database.prices.rows)} dated prices" in text
    assert f"{len(list_models())} public models" in text


def test_every_script_and_file_of_the_benchmarks_is_there() -> None:
    """bench/README.md names no script or file that is gone, and every file of data."""
    text = (REPOSITORY / "bench" / "README.md").read_text(encoding="utf-8")
    for module in re.findall(r"python -m bench\.(\w+)", text):
        assert (REPOSITORY / "bench" / f"{module}.py").is_file(), module
    for name in re.findall(r"`(data/[\w*.]+|hardware_db/[\w./]+)`", text):
        base = REPOSITORY if name.startswith("hardware_db") else REPOSITORY / "bench"
        assert list(base.glob(name)), name
    known = re.findall(r"data/([\w*.]+)", text)
    for path in (REPOSITORY / "bench" / "data").iterdir():
        assert any(path.match(pattern) for pattern in known), path.name
