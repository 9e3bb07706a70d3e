"""The wheel holds the facts and works from anywhere."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=REPOSITORY, check=True, capture_output=True,
    )  # fmt: skip
    return next(out.glob("*.whl"))


def digests(folder: Path, suffix: str) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob(f"*{suffix}")}


def test_name_and_contents(wheel: Path, tmp_path: Path) -> None:
    assert wheel.name.startswith("llm_capacity_planner-")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    package = tmp_path / "planner"
    assert digests(package / "hardware_db", ".toml") == digests(REPOSITORY / "hardware_db", ".toml")
    for folder in ("models/catalogue_data", "workload/examples"):
        assert digests(package / folder, ".toml") == digests(REPOSITORY / "planner" / folder, ".toml")
        assert digests(package / folder, ".toml")
    published = digests(REPOSITORY / "planner" / "validation" / "data", ".csv")
    assert published and digests(package / "validation" / "data", ".csv") == published
    entry = (next(tmp_path.glob("*.dist-info")) / "entry_points.txt").read_text()
    assert "\nplanner = llm_capacity_planner:main" in entry
    assert "llm-capacity-planner = llm_capacity_planner:main" in entry


def test_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "planner", *arguments], cwd=elsewhere, env=environment, text=True,
            capture_output=True, check=False,
        )  # fmt: skip

    listed = run("list", "gpus", "--format", "json")
    assert listed.returncode == 0, listed.stderr
    assert len(json.loads(listed.stdout)) >= 45
    example = site / "planner" / "workload" / "examples" / "chat.toml"
    planned = run("recommend", str(example), "--format", "json")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["plan"]["gpus"] > 0
    shown = subprocess.run(
        [sys.executable, "-c", "import planner; print(planner.__file__)"], cwd=elsewhere, env=environment,
        text=True, capture_output=True, check=True,
    )  # fmt: skip
    assert str(site) in shown.stdout


@pytest.mark.parametrize("overwritten", [False, True])
def test_clash_is_said(wheel: Path, tmp_path: Path, overwritten: bool) -> None:
    """The other distribution beside ours, installed before it or after it."""
    site = tmp_path / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "llm_d_planner-0.3.3.dist-info").mkdir()
    if overwritten:
        (site / "planner" / "__init__.py").write_text("__version__ = '0.3.3'\nfrom planner.errors import Theirs\n")
        (site / "planner" / "errors.py").write_text("class Theirs(Exception): ...\n")
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    for start in (["-c", "from llm_capacity_planner import main; main()"], ["-m", "planner"]):
        for arguments in (["--version"], ["init"]):
            found = subprocess.run(
                [sys.executable, *start, *arguments], cwd=tmp_path, env=environment, text=True, capture_output=True,
                check=False,
            )  # fmt: skip
            assert found.stderr.count("\n") == 1
            assert "llm-d-planner is installed in the same environment" in found.stderr
            assert "pip uninstall llm-d-planner" in found.stderr
            assert found.returncode == (1 if overwritten else 0)
            assert bool(found.stdout) is not overwritten


def test_missing_files_of_ours_are_said(wheel: Path, tmp_path: Path) -> None:
    """What is left after the other distribution is uninstalled: shared files are gone."""
    site = tmp_path / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "planner" / "errors.py").unlink()
    found = subprocess.run(
        [sys.executable, "-c", "from llm_capacity_planner import main; main()", "init"], cwd=tmp_path, text=True,
        env={**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}, capture_output=True, check=False,
    )  # fmt: skip
    assert found.returncode == 1
    assert found.stderr.startswith("error: the installation of llm-capacity-planner is incomplete")
    assert "planner.errors" in found.stderr
