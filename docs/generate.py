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
    ("speculate",),
    ("list",),
    ("show",),
    ("init",),
    ("schema",),
    ("check-db",),
    ("describe",),
    ("simulate",),
    ("sensitivity",),
    ("sweep",),
    ("diff",),
    ("explain",),
    ("cost",),
    ("fanout",),
    ("speed",),
    ("measure",),
    ("validate",),
    ("calibrate",),
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
    from planner.decisions.cost_result import CostReport
    from planner.decisions.diff import Difference
    from planner.decisions.explanation_result import Explanation
    from planner.decisions.fanout_result import FanOut
    from planner.decisions.sensitivity_report import SensitivityReport
    from planner.decisions.speculation_result import SpeculationDecision
    from planner.decisions.speed_result import Speed
    from planner.decisions.sweep import Sweep
    from planner.sizing.result import Estimate, Recommendation, Simulation

    lines = [
        "# Results",
        "",
        "Generated from the schema. Times are seconds, sizes bytes, rates per second.",
        "",
    ]
    seen: set[str] = set()
    for kind in (
        Recommendation, Estimate, Simulation, Explanation, SpeculationDecision, CostReport, FanOut, Speed,
        SensitivityReport, Sweep, Difference,
    ):  # fmt: skip
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


FIGURES = {
    "tpot": "mean TPOT, over requests",
    "itl": "mean time between tokens, over tokens",
    "p99_occupancy": "p99 of sequences decoding",
    "ttft_p95": "p95 TTFT",
}


def closed_forms_page() -> str:
    """The closed forms beside the simulator, from the file its benchmark wrote."""
    from bench import closed_forms as b
    from planner.serving import validity

    points = b.read()
    cases = {(p.workload, p.accelerator, p.layout, p.drafting) for p in points}
    lines = [
        "# Closed forms against the simulator", "",
        "Generated from `bench/data/closed_forms.csv`, which `python -m bench.closed_forms` writes.", "",
        f"{len(points)} points: {len(cases)} replicas under {len({p.workload for p in points})} workloads on "
        f"{len({p.accelerator for p in points})} accelerators, at 20, 40, 60 and 80 % of the rate at which their",
        "slots or prefill saturate or the tail of the cache fills its memory. Each is simulated with "
        f"{b.SEEDS} to {b.MOST_SEEDS} seeds,",
        "the first fifth of every run left out. TPOT is compared with the mean over requests, as benchmark tools print",
        "it, and with the mean over tokens. Sequences are counted over time; as they are few, the quantile is read",
        "with every whole number spread evenly over the unit around it, on both sides. The points and where they are",
        "flagged were chosen by hand: the flags' limits are set on this table and on workloads drawn at random.", "",
        "| figure | tolerance | points | within it | median error | worst | where | within, flagged points too |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, title in FIGURES.items():
        held, good = b.held(points, name), b.within(points, name)
        sizes = sorted(abs(b.error(p, name)) for p in held)
        worst = max(held, key=lambda p: abs(b.error(p, name)))
        lines.append(
            f"| {title} | {b.TOLERANCE[name]:.0%} | {len(held)} | {len(good)} ({len(good) / len(held):.0%}) "
            f"| {sizes[len(sizes) // 2]:.1%} | {b.error(worst, name):+.1%} "
            f"| {worst.workload}, {worst.accelerator} {worst.layout}, {worst.utilisation:.0%} "
            f"| {sum(abs(b.error(p, name)) <= b.TOLERANCE[name] for p in points)} of {len(points)} |"
        )
    widest = {name: max(getattr(p, f"{name}_half_width") for p in points) for name in FIGURES}
    rules = (validity.simulated_only.__doc__ or "").split("\n\n")[1:4]
    lines += [
        "", f"{sum(not p.simulated_only for p in points)} points are left to the closed forms in every figure. Of the "
        "others some are simulated only:", "", *(f"- {' '.join(rule.split())}" for rule in rules), "",
        "Half of the widest 95 % interval of a simulated figure: "
        + ", ".join(f"{FIGURES[name]} {x:.1%}" for name, x in widest.items()) + ".", "",
        "| workload | accelerator | layout | drafting | load | prefill | TPOT | simulated | error | over tokens "
        "| p99 seq. | simulated | error | p95 TTFT | simulated | error |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for p in points:
        name = f"{p.workload} | {p.accelerator} | {p.layout} | {p.drafting}"
        off = {n: "simulated only" if b.left_to_simulation(p, n) else f"{b.error(p, n):+.1%}" for n in FIGURES}
        lines.append(
            f"| {name} | {p.utilisation:.0%} | {p.prefill_share:.0%} "
            f"| {p.tpot * 1e3:.1f} ms | {p.tpot_simulated * 1e3:.1f} ms | {off['tpot']} "
            f"| {off['itl']} | {p.p99_occupancy:.1f} | {p.p99_occupancy_simulated:.1f} "
            f"| {off['p99_occupancy']} | {p.ttft_p95 * 1e3:.0f} ms | {p.ttft_p95_simulated * 1e3:.0f} ms "
            f"| {off['ttft_p95']} |"
        )
    return "\n".join(lines)


def accuracy_page() -> str:
    """Predictions beside measurements, from the file the fit wrote."""
    from bench import accuracy

    return accuracy.page()


def accuracy_picture() -> str:
    """The same as a picture."""
    from bench import accuracy

    return accuracy.picture()


def speculation_page() -> str:
    """The map of speculation beside measured speed-ups."""
    from bench import speculation_map

    return speculation_map.page()


def live_engine_page() -> str:
    """Predictions beside a live engine, from the files its benchmark kept."""
    from bench import live_engine

    return live_engine.page()


def gpu_page() -> str:
    """Steps measured on a GPU beside the planner's."""
    from bench import gpu_comparison

    return gpu_comparison.page()


PAGES = {
    "accuracy.md": accuracy_page,
    "accuracy.svg": accuracy_picture,
    "closed-forms.md": closed_forms_page,
    "gpu-steps.md": gpu_page,
    "live-engine.md": live_engine_page,
    "speculation-map.md": speculation_page,
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
