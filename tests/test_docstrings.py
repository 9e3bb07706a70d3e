"""Public things say what they do; formulae say their units and where they are from."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import planner

ROOT = Path(planner.__file__).resolve().parent
UNIT = re.compile(r"\[[^\]]+\]|\bshape\b|\bUnits\b|\bunits\b")
SOURCE = re.compile(r"\bSource\b|arXiv|\bsource there\b|see the class|: the class")
FORMULAE = ("cost", "serving")


def public(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef, bool]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node, True
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node, False
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and not item.name.startswith("_"):
                    yield f"{node.name}.{item.name}", item, True


FILES = sorted(ROOT.rglob("*.py"))


def test_everything_public_is_documented() -> None:
    bare = [
        f"{p.relative_to(ROOT)}: {name}" for p in FILES for name, node, _ in public(p) if not ast.get_docstring(node)
    ]
    modules = [
        str(p.relative_to(ROOT)) for p in FILES if not ast.get_docstring(ast.parse(p.read_text(encoding="utf-8")))
    ]
    assert bare + modules == []


def returns_a_quantity(node: ast.FunctionDef) -> bool:
    given = ast.unparse(node.returns) if node.returns else ""
    return not re.fullmatch(
        r"None|bool|str|type|.*Layout|.*Machine|Model \| None|list\[.*\]|Load|Vector", given.strip("'")
    )


def test_formulae_give_units_and_a_source() -> None:
    missing = []
    for folder in FORMULAE:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for name, node, is_function in public(path):
                if not is_function or not isinstance(node, ast.FunctionDef) or not returns_a_quantity(node):
                    continue
                text = ast.get_docstring(node) or ""
                if not UNIT.search(text):
                    missing.append(f"{path.relative_to(ROOT)}: {name} names no units")
                if not SOURCE.search(text):
                    missing.append(f"{path.relative_to(ROOT)}: {name} names no source")
    assert missing == []


def test_no_machine_or_registry_in_the_tree() -> None:
    repository = ROOT.parent
    words = ["/" + "work/", "/" + "tmp/", "pypi" + ".org", "methods" + ".md"]
    found = []
    for folder in ("planner", "hardware_db", "docs", "tests"):
        for path in (repository / folder).rglob("*"):
            if path.suffix in (".py", ".toml", ".md") and path != Path(__file__).resolve():
                text = path.read_text(encoding="utf-8")
                found += [f"{path.name}: {w}" for w in words if w in text]
    assert found == []
