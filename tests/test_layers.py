"""The house has floors: a lower layer never imports a higher one."""

from __future__ import annotations

import ast
from pathlib import Path

import planner

ROOT = Path(planner.__file__).resolve().parent
RANK = {
    "errors": 0, "units": 0, "documents": 0, "settings": 0, "models": 1, "hardware": 2, "workload": 2, "cost": 3, "serving": 4,
    "measuring": 4,
    "sizing": 5, "validation": 6, "decisions": 6, "report": 7, "cli": 8, "__main__": 9, "__init__": 0,
}  # fmt: skip
#: same rank, and still strangers: a chip knows no workload, a workload no chip
STRANGERS = {
    ("hardware", "workload"),
    ("workload", "hardware"),
    ("workload", "models"),
    ("models", "workload"),
}


def layer(path: Path) -> str:
    part = path.relative_to(ROOT).parts[0]
    return part.removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("planner"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {a.name for a in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("planner.")}
    return found - {"__version__"}


def test_imports_go_down_only() -> None:
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        here = layer(path)
        for there in imports(path):
            if there == here:
                continue
            if RANK[there] > RANK[here] or (RANK[there] == RANK[here] and RANK[here] > 0) or (here, there) in STRANGERS:
                wrong.append(f"{path.relative_to(ROOT)} imports {there}")
    assert wrong == []


def test_every_folder_has_a_floor() -> None:
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    assert folders <= set(RANK)


def test_modules_are_read_in_one_sitting() -> None:
    sizes = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in ROOT.rglob("*.py")}
    assert {name: n for name, n in sizes.items() if n > 400} == {}
    assert not [name for name in sizes if Path(name).stem in ("utils", "helpers", "manager", "common")]
