"""The planner beside a session on a GPU: predictions of every point, and the page docs/gpu-steps.md."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bench import commented_csv
from bench.gpu_shapes import CONFIGS, TITLES, shape_of
from planner.cost.experts import distinct_experts
from planner.cost.layout import Layout
from planner.cost.machine import OPERATORS, Machine, machine
from planner.cost.prefill import PrefillModel
from planner.cost.roofline import Ceiling
from planner.cost.step import StepModel
from planner.documents import parse_toml
from planner.hardware import load_database
from planner.hardware.loading import parse_accelerator
from planner.models import load_config

DATA = Path(__file__).resolve().parent / "data"
FILES = ("gpu_steps.csv", "gpu_steps_ceilings.csv", "gpu_steps.json", "gpu_steps_entry.toml")
KNOWN = {"H100 80GB HBM3": "h100-sxm", "H100 SXM": "h100-sxm", "H200": "h200-sxm"}
FLOOR = 0.9  # of the bound, below which no measured point may lie
NAMES = {
    "database": "the database's constants, no host overhead",
    "ceilings": "the session's ceilings alone",
    "entry": "what `planner measure` wrote",
}
PARTS = {
    "attention": "attention", "matmul": "weight matmuls", "experts": "experts",
    "indexer": "indexer with its choice of tokens",
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One row of the file: [s], [B], [FLOP]; None where a part wasn't timed."""

    architecture: str
    phase: str
    batch: int
    context: int
    seconds: float
    seconds_min: float
    spread: float
    repetitions: int
    bytes: float
    flops: float
    distinct_experts: float | None
    attention_seconds: float | None
    matmul_seconds: float | None
    experts_seconds: float | None
    indexer_seconds: float | None
    choice_seconds: float | None
    attention_kernel: str
    experts_kernel: str
    graph: int

    def alone(self, part: str) -> float:
        """Seconds of one of :data:`PARTS` timed alone, [s]; 0 where it wasn't."""
        seconds: float = getattr(self, f"{part}_seconds") or 0.0
        return seconds + (self.choice_seconds or 0.0) if part == "indexer" else seconds

    @property
    def rest(self) -> float:
        """What no part timed alone accounts for, [s]; negative where they took longer alone."""
        return self.seconds - sum(self.alone(part) for part in PARTS)


def read(folder: Path = DATA) -> list[Point]:
    """The points of a session; those that raised are left out."""
    convert = {"int": int, "float": float, "str": str, "float | None": lambda v: float(v) if v else None}
    kinds = {f.name: convert[str(f.type)] for f in fields(Point)}
    kept = commented_csv.rows(folder / FILES[0])
    return [Point(**{k: kind(row[k]) for k, kind in kinds.items()}) for row in kept if not row["error"]]


@dataclass(frozen=True)
class Session:
    """A session's points and what it was measured on."""

    points: list[Point]
    notes: Mapping[str, Any]
    best: Mapping[str, float]
    entry: str | None

    @property
    def chip(self) -> str | None:
        """The accelerator of the database that was measured."""
        name = self.notes.get("name", "")
        return next((chip for words, chip in KNOWN.items() if words in name), None)

    @property
    def configs(self) -> Mapping[str, Any]:
        """The shapes measured: tiny ones on a processor."""
        found: Mapping[str, Any] = self.notes.get("configs") or CONFIGS
        return found

    @property
    def bandwidth(self) -> float:
        """The fastest read or copy, [B/s]."""
        return max(v for k, v in self.best.items() if k.startswith(("read", "copy")))

    @cached_property
    def machines(self) -> dict[str, Machine]:
        """Machines by the names of :data:`NAMES`, as far as the session has what they need."""
        found = {}
        database = load_database().uncalibrated()
        engine = database.engine("generic")
        if self.chip:
            found["database"] = bare(machine(database.accelerator(self.chip), engine, ["bf16"], "bf16"))
        found["ceilings"] = self.roofs(self.best["node of a graph"])
        if self.entry:
            chip = parse_accelerator(parse_toml(self.entry, FILES[3]), database.defaults)
            found["entry"] = bare(machine(chip, engine, ["bf16"], "bf16"))
        return found

    def roofs(self, latency: float = 0.0) -> Machine:
        """The session's fastest read and matmul for every operator."""
        roof = Ceiling(self.best["bf16 matmul"], self.bandwidth, latency)
        index = replace(roof, peak=self.best.get("fp8 matmul", roof.peak))
        names = ["matmul/bf16", "experts/bf16", "recurrent", *OPERATORS]
        return Machine({n: index if n == "indexer" else roof for n in names}, expert_activations={"bf16": 1.0})

    def bound(self, point: Point) -> float:
        """Fewest bytes at the fastest read or FLOPs at the fastest matmul, [s]: nothing may be faster."""
        return max(point.bytes / self.bandwidth, point.flops / self.best["bf16 matmul"])


def load(folder: Path = DATA) -> Session:
    """A session's folder, as ``measure`` or ``keep`` left it."""
    entry = folder / FILES[3]
    best = {row["figure"]: float(row["best"]) for row in commented_csv.rows(folder / FILES[1])}
    notes = json.loads((folder / FILES[2]).read_text(encoding="utf-8"))
    return Session(read(folder), notes, best, entry.read_text(encoding="utf-8") if entry.exists() else None)


def bare(built: Machine) -> Machine:
    """Without host overheads: a graph is replayed, no engine runs."""
    return replace(built, **{f.name: 0.0 for f in fields(Machine) if f.name.endswith("_overhead")})


# -- predictions ---------------------------------------------------------------------------------


def part_of(operator: str) -> str:
    """Which of :data:`PARTS` an operator of the planner's step belongs to; "" for none."""
    if operator.endswith("attention"):
        return "attention"
    if operator in ("experts", "indexer"):
        return operator
    return "" if operator in ("embedding", "step overhead", "all-reduce", "all-to-all") else "matmul"


def predict(on: Machine, point: Point, config: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of a point, [s]: ``step`` and those of its parts.

    A prompt's LM head, which the planner leaves out of prefill, is added: these models have few layers.
    """
    step = StepModel(load_config(config, name=point.architecture), {}, "bf16")
    layout, contexts = Layout(), [float(point.context)]
    cost = step.decode(on, layout, float(point.batch), contexts)
    if point.phase == "decode":
        found: dict[str, float] = {}
        for operator in cost.operators:
            part = part_of(operator.name)
            found[part] = found.get(part, 0.0) + float(operator.seconds)
        return found | {"step": float(cost.seconds)}
    tokens = float(point.batch * point.context)
    head = next(float(o.seconds) for o in cost.operators if o.name == "lm head")
    prefill = PrefillModel(step, on, layout, tokens)
    whole = float(np.ravel(prefill.chunk_seconds(np.array([tokens])))[0])
    # a machine without a half length has the same rate at every one
    attention = point.batch * float(np.ravel(prefill.attention_seconds(np.array(contexts), np.array([0.0])))[0])
    return {"step": whole + attention + head}


@dataclass(frozen=True)
class Row:
    """A point, its bound [s] and predictions by machine."""

    point: Point
    bound: float
    predicted: dict[str, dict[str, float]]

    def error(self, name: str) -> float:
        """Predicted over measured, less one."""
        return self.predicted[name]["step"] / self.point.seconds - 1

    def error_besides_attention(self, name: str) -> float:
        """That of a decode step with the attention kernel's measured time in place of the predicted one."""
        found = self.predicted[name]
        return (found["step"] - found["attention"] + self.point.alone("attention")) / self.point.seconds - 1


def rows_of(session: Session) -> list[Row]:
    """Every point predicted on every machine."""
    return [
        Row(
            p,
            session.bound(p),
            {n: predict(m, p, session.configs[p.architecture]) for n, m in session.machines.items()},
        )
        for p in session.points
    ]


def summary(rows: Sequence[Row], name: str) -> dict[str, float]:
    """Mean and median absolute error, bias, worst, and the lowest measured time over its bound."""
    errors = [r.error(name) for r in rows]
    sizes = [abs(e) for e in errors]
    return {
        "mape": statistics.fmean(sizes), "median": statistics.median(sizes), "bias": statistics.fmean(errors),
        "worst": max(errors, key=abs), "lowest": min(r.point.seconds_min / r.bound for r in rows),
    }  # fmt: skip


def groups_of(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by architecture and phase, in the shapes' order."""
    found: dict[tuple[str, str], list[Row]] = {}
    for name in CONFIGS:
        for phase in ("decode", "prefill"):
            some = [r for r in rows if r.point.architecture == name and r.point.phase == phase]
            if some:
                found[name, phase] = some
    return found


# -- what it says --------------------------------------------------------------------------------


def error_lines(rows: Sequence[Row]) -> list[str]:
    """Errors by architecture and phase, all machines."""
    names = list(rows[0].predicted)
    lines = [
        "| model | phase | points | measured over bound, least | " + " | ".join(names) + " |",
        "|---|---|---|---|" + "---|" * len(names),
    ]
    groups: dict[tuple[str, str], Sequence[Row]] = {**groups_of(rows)}
    groups["all", ""] = rows
    for (name, phase), some in groups.items():
        found = {n: summary(some, n) for n in names}
        cells = [f"{s['mape']:.0%} ({s['bias']:+.0%})" for s in found.values()]
        lowest = found[names[0]]["lowest"]
        lines.append(f"| {name} | {phase} | {len(some)} | {lowest:.2f} | {' | '.join(cells)} |")
    return lines


def part_lines(rows: Sequence[Row], name: str) -> list[str]:
    """Decode's parts, timed alone, beside the planner's: median of measured over predicted."""
    lines = [
        "| model | " + " | ".join(PARTS.values()) + " | everything else | error, attention as measured |",
        "|---|" + "---|" * (len(PARTS) + 2),
    ]
    for (model, phase), some in groups_of(rows).items():
        if phase != "decode":
            continue
        cells = []
        for part in PARTS:
            ratios = [r.point.alone(part) / guess for r in some if (guess := r.predicted[name].get(part))]
            cells.append(f"{statistics.median(ratios):.2f}" if ratios else "")
        cells.append(f"{statistics.median(r.point.rest / r.point.seconds for r in some):.0%} of the step")
        errors = [r.error_besides_attention(name) for r in some]
        cells.append(f"{statistics.fmean(map(abs, errors)):.0%} ({statistics.fmean(errors):+.0%})")
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return lines


def coverage_lines(rows: Sequence[Row], configs: Mapping[str, Any]) -> list[str]:
    """Distinct experts a decode step touches, counted and by the formula."""
    lines = [
        "| model | tokens | distinct experts | formula | experts alone | predicted |",
        "|---|---|---|---|---|---|",
    ]
    seen: set[tuple[str, int]] = set()
    for r in rows:
        p = r.point
        if not p.distinct_experts or p.phase != "decode" or (p.architecture, p.batch) in seen:
            continue
        seen.add((p.architecture, p.batch))
        shape = shape_of(p.architecture, configs[p.architecture])
        formula = distinct_experts(shape.experts, shape.top_k, float(p.batch))
        guesses = next(iter(r.predicted.values()))
        lines.append(
            f"| {p.architecture} | {p.batch} | {p.distinct_experts:.1f} | {formula:.1f} "
            f"| {(p.experts_seconds or 0) * 1e3:.3f} ms | {guesses['experts'] * 1e3:.3f} ms |"
        )
    return lines


def sparse_lines(rows: Sequence[Row]) -> list[str]:
    """A sparse step's time over the dense one's, measured and predicted."""
    names = list(rows[0].predicted)
    by = {(r.point.architecture, r.point.phase, r.point.batch, r.point.context): r for r in rows}
    lines = [
        "| heads | phase | batch | context | measured | " + " | ".join(names) + " |",
        "|---|---|---|---|---|" + "---|" * len(names),
    ]
    for (name, phase, batch, context), sparse in by.items():
        dense = by.get((name.replace("dsa", "mla"), phase, batch, context))
        if not name.startswith("dsa") or dense is None or context <= 512:
            continue
        cells = [f"{sparse.predicted[n]['step'] / dense.predicted[n]['step']:.2f}" for n in names]
        ratio = sparse.point.seconds / dense.point.seconds
        lines.append(f"| {name[4:]} | {phase} | {batch} | {context} | {ratio:.2f} | {' | '.join(cells)} |")
    return lines


def point_lines(rows: Sequence[Row]) -> list[str]:
    """Every point."""
    names = list(rows[0].predicted)
    lines = [
        "| model | phase | batch | context | measured | spread | bound | "
        + " | ".join(names) + " | attention | experts |",
        "|---|---|---|---|---|---|---|" + "---|" * (len(names) + 2),
    ]  # fmt: skip
    for r in rows:
        p = r.point
        cells = [f"{r.predicted[n]['step'] * 1e3:.3f} ({r.error(n):+.0%})" for n in names]
        lines.append(
            f"| {p.architecture} | {p.phase} | {p.batch} | {p.context} | {p.seconds * 1e3:.3f} ms | {p.spread:.0%} "
            f"| {r.bound * 1e3:.3f} | {' | '.join(cells)} | {p.attention_kernel} | {p.experts_kernel} |"
        )
    return lines


def page(folder: Path = DATA) -> str:
    """docs/gpu-steps.md."""
    session = load(folder)
    rows = sorted(rows_of(session), key=lambda r: (list(CONFIGS).index(r.point.architecture), r.point.phase))
    notes, names = session.notes, list(rows[0].predicted)
    software = f"torch {notes['torch']}, CUDA {notes.get('cuda', 'none')}, Triton {notes.get('triton', 'none')}"
    lines = [
        "# Steps measured on a GPU", "",
        "Generated from `bench/data/gpu_steps.csv`, which `python -m bench.gpu_steps measure` and `keep` write.", "",
        f"{len(rows)} points on one {notes.get('name', notes['device'])}, {notes['date']}, {software}. Random weights",
        "in bf16, a static cache in bf16, projections fused as engines fuse them, the LM head once. Decode steps are",
        "replayed from a CUDA graph, prompts are launched; the median of the repetitions is kept, the last-level cache",
        "is overwritten before each. No engine runs: no scheduler, no sampling. Attention takes the fastest of torch's",
        "and Triton kernels at each point, experts of a Triton kernel and `torch._grouped_mm`; all are plain, and",
        "each was checked against torch's operator first. Routing is even. Index keys are fp8 as in DeepSeek V3.2,",
        "chosen with `torch.topk`; prompts no longer than the tokens chosen skip the indexer. Nothing was fitted to",
        "this page.", "",
        "| model | shape | layers |", "|---|---|---|",
        *(f"| {n} | {TITLES[n]} | {c['num_hidden_layers']} |" for n, c in CONFIGS.items()), "",
        "## Ceilings of the session", "", "| figure | best | method |", "|---|---|---|",
    ]  # fmt: skip
    for row in commented_csv.rows(folder / FILES[1]):
        best = float(row["best"])
        shown = f"{best * 1e6:.2f} us" if row["unit"] == "s" else f"{best / 1e12:.3g} T{row['unit']}"
        lines.append(f"| {row['figure']} | {shown} | {row['method']} |")
    lines += [
        "", "## Errors", "",
        "Mean absolute error of the step's time, and bias. No model is calibrated here: "
        + "; ".join(f"{n}: {NAMES[n]}" for n in names) + ".", "", *error_lines(rows), "",
        f"The bound is the fewest bytes at the fastest read or the FLOPs at the fastest matmul; below {FLOOR} of it",
        "nothing may lie.", "",
        "## Parts alone", "",
        f"Parts of decode steps timed alone, over the planner's ({NAMES[names[0]]}): medians of the points.",
        "Everything else is norms, rotary embedding, routing and what separate timing hides. The last column is the",
        "error of the step with the attention kernel's own time in place of the planner's, which are those of engines'",
        "kernels: the Triton kernel for MLA is no FlashMLA.", "",
        *part_lines(rows, names[0]), "",
        "## Experts touched", "", *coverage_lines(rows, session.configs), "",
        "## Sparse beside dense", "", "The step with an indexer over the one without.", "", *sparse_lines(rows), "",
        "## Points", "", "Times in ms.", "", *point_lines(rows), "",
    ]  # fmt: skip
    if notes["errors"]:
        lines += ["## What did not run", "", *(f"- {' '.join(e.split())[:160]}" for e in notes["errors"]), ""]
    return "\n".join(lines)


def keep(folder: Path) -> None:
    """A session's files to bench/data, with how they were obtained."""
    notes = json.loads((folder / FILES[2]).read_text(encoding="utf-8"))
    said = [
        f"{notes['date']}, python -m bench.gpu_steps measure on one {notes.get('name', notes['device'])}; torch "
        f"{notes['torch']}, CUDA {notes.get('cuda')}, Triton {notes.get('triton')}",
        f"seconds: median of {notes['repetitions']} replays of a graph (prompts: fewer, launched); bytes and flops: "
        "plain counts of bench/gpu_shapes.py; parts alone, all layers together",
    ]
    for name in FILES[:2]:
        text = (folder / name).read_text(encoding="utf-8")
        (DATA / name).write_text("".join(f"# {line}\n" for line in said) + text, encoding="utf-8")
    kept = {k: v for k, v in notes.items() if k not in ("configs", "finished")}
    (DATA / FILES[2]).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if (folder / FILES[3]).exists():
        shutil.copyfile(folder / FILES[3], DATA / FILES[3])


def compare(folder: Path | None) -> int:
    """Print errors; 1 when a point lies below the floor."""
    session = load(folder or DATA)
    rows = rows_of(session)
    print("\n".join([*error_lines(rows), "", *part_lines(rows, next(iter(rows[0].predicted)))]))
    low = [r for r in rows if r.point.seconds_min < FLOOR * r.bound]
    for r in low:
        print(f"faster than its bound: {r.point}")
    return int(bool(low))
