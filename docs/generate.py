"""Writes the reference pages from the code: ``python docs/generate.py [--check]``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

COMMANDS = (
    (),
    ("recommend",),
    ("compare", "gpus"),
    ("estimate",),
    ("list",),
    ("show",),
    ("init",),
    ("schema",),
    ("check-db",),
    ("describe",),
    ("simulate",),
)


def cli_page() -> str:
    """Help of every command, as it prints."""
    lines = ["# Commands", "", "Generated from `--help`.", ""]
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    for command in COMMANDS:
        text = subprocess.run(
            [sys.executable, "-m", "planner", *command, "--help"], capture_output=True, text=True, check=True,
            env=environment, cwd=DOCS.parent,
        ).stdout.rstrip()  # fmt: skip
        lines += [f"## planner {' '.join(command)}".rstrip(), "", "```text", text, "```", ""]
    return "\n".join(lines)


def workload_page() -> str:
    """Every field of a workload file, from its schema."""
    from planner.workload.schema import WorkloadFile

    schema = WorkloadFile.model_json_schema()
    tables = schema["$defs"]
    lines = ["# The workload file", "", "Generated from the schema. Unknown keys are errors.", ""]
    lines += _fields("workload", schema)
    for name in sorted(tables):
        if "properties" in tables[name]:
            lines += _fields(name, tables[name])
    return "\n".join(lines)


def _fields(name: str, schema: dict[str, Any]) -> list[str]:
    lines = [f"## {name}", "", schema.get("description", "").split("\n")[0], ""]
    lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    required = set(schema.get("required", []))
    for key, field in schema["properties"].items():
        default = "required" if key in required else _default(field.get("default"))
        lines.append(f"| `{key}` | {_type(field)} | {default} | {field.get('description', '')} |")
    return [*lines, ""]


def _default(value: Any) -> str:
    if value is None or isinstance(value, dict):
        return ""
    return f"`{value}`".lower() if isinstance(value, bool) else f"`{value}`"


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return field["$ref"].split("/")[-1]
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(f) for f in field["anyOf"] if f.get("type") != "null"))
    if "enum" in field:
        return ", ".join(f"`{v}`" for v in field["enum"])
    if field.get("type") == "array":
        inner = field.get("items") or {"anyOf": field["prefixItems"]}
        return f"list of {_type(inner)}"
    if "const" in field:
        return f"`{field['const']}`"
    return str(field.get("type", "any"))


def result_page() -> str:
    """Every field of a recommendation, from its schema."""
    from planner.sizing.result import Estimate, Recommendation, Simulation

    lines = [
        "# Results",
        "",
        "Generated from the schema. Times are seconds, sizes bytes, rates per second.",
        "",
    ]
    seen: set[str] = set()
    for kind in (Recommendation, Estimate, Simulation):
        schema = kind.model_json_schema(mode="serialization")
        lines += _fields(kind.__name__, schema)
        for name in sorted(schema["$defs"]):
            if name not in seen and "properties" in schema["$defs"][name]:
                seen.add(name)
                lines += _fields(name, schema["$defs"][name])
    return "\n".join(lines)


def equation_pages() -> dict[str, str]:
    """One page per formula of the cost and serving layers, from its docstring."""
    import ast

    pages: dict[str, str] = {}
    index = ["# Equations", "", "One page per formula, from its docstring; the number in it is run as a test.", ""]
    for layer in ("cost", "serving"):
        for path in sorted((DOCS.parent / "planner" / layer).rglob("*.py")):
            module = ".".join(path.relative_to(DOCS.parent).with_suffix("").parts)
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
                    continue
                text = ast.get_docstring(node) or ""
                if ">>>" not in text:
                    continue
                signature = f"{node.name}({ast.unparse(node.args)})"
                page = [
                    f"# {node.name}",
                    "",
                    f"`{module}`",
                    "",
                    "```python",
                    signature,
                    "```",
                    "",
                    "```text",
                    text,
                    "```",
                    "",
                ]
                pages[f"equations/{node.name}.md"] = "\n".join(page)
                index.append(f"- [{node.name}]({node.name}.md): {text.split(chr(10))[0]}")
    pages["equations/index.md"] = "\n".join(index)
    return pages


PAGES = {
    "reference/cli.md": cli_page,
    "reference/workload.md": workload_page,
    "reference/result.md": result_page,
}


def main() -> int:
    """Write the pages, or say which are stale."""
    stale = []
    pages = {name: build() for name, build in PAGES.items()} | equation_pages()
    for name, page in pages.items():
        path = DOCS / name
        text = page.rstrip() + "\n"
        if "--check" in sys.argv:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if stale:
        print("stale, run docs/generate.py: " + ", ".join(stale), file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
