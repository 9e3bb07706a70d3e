"""Example workloads, shipped and run in the tests; ``planner init`` starts from them."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
KINDS = ("chat", "rag", "coding-agent", "reasoning", "batch")


def example_path(name: str) -> Path:
    """Path of one shipped example by name."""
    return FOLDER / f"{name}.toml"


def example_text(name: str) -> str:
    """Text of one shipped example by name."""
    return example_path(name).read_text(encoding="utf-8")


def examples() -> list[str]:
    """Names of all shipped examples, in order."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))
