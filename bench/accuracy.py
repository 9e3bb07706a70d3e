"""What bench/data/accuracy.csv says: tables and a picture for docs/accuracy.md; intervals are of bench.intervals.

``python -m bench.accuracy FOLDER`` adds the ablation (bench/data/ablation.csv) from the folder of measured tables;
docs/generate.py writes the page.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

import planner.cost.experts as experts
from bench import commented_csv
from planner.errors import InputError
from planner.hardware import Database, load_database
from planner.hardware.accelerator import Scale
from planner.hardware.calibration import Calibration
from planner.hardware.loading import OPERATORS
from planner.validation.closed_loops import Offer, offer, typical
from planner.validation.points import MeasuredPoint
from planner.validation.protocols import predict, replica_of
from planner.validation.recipes import DEFAULT
from planner.validation.scores import LEVELS, regrets

DATA = Path(__file__).resolve().parent / "data"
ROWS, QUEUED, ABLATION = DATA / "accuracy.csv", DATA / "queued.csv", DATA / "ablation.csv"
PEERS = DATA / "peers.csv"
CASES = ("bare", "fitted", "held_out", "accelerator_held_out", "peer")
FORMULAE = ("genz", "roofline")
GIVEN = ("model", "accelerator", "precision", "input", "output")
TITLES = {
    "bare": "kernels alone", "fitted": "fitted on all", "held_out": "group left out",
    "accelerator_held_out": "accelerator left out", "peer": "AIConfigurator 0.12", "genz": "GenZ 0.0.16",
    "roofline": "plain roofline",
}  # fmt: skip
#: other planners that say something of part of the rows, the same of ours: title
ALSO = {"peer": "group left out, on AIConfigurator's rows", "genz": "group left out, on GenZ's rows"}
METRICS = {"tpot": "time per output token", "ttft": "time to first token"}
EVERY = 4  # points of the ablation
SHOWN = ("tpot_median", "tpot_bias", "ttft_median", "ttft_bias")


@dataclass(frozen=True)
class Row:
    """One measured figure and the predictions of it, [s]; None where there is none.

    ``given``: what a choice among configurations is made for; ``chosen``: the configuration, of ``accelerators``
    that serve ``concurrency`` requests of ``output`` tokens [1].
    """

    id: str
    table: str
    model: str
    accelerator: str
    engine: str
    odd: bool
    metric: str
    measured: float
    predicted: dict[str, float | None]
    given: tuple[str, ...]
    chosen: str
    accelerators: int
    concurrency: int
    output: float

    @property
    def group(self) -> tuple[str, str]:
        """What is left out together."""
        return self.model, self.accelerator


def read(path: Path = ROWS) -> list[Row]:
    """The rows of the table, with what other formulae say of them."""
    formulae = {r["id"]: r for r in commented_csv.rows(PEERS)}
    with path.open(encoding="utf-8", newline="") as lines:
        found = []
        for r in csv.DictReader(lines):
            theirs = {who: formulae[r["id"]][f"{who}_{r['metric']}"] for who in FORMULAE}
            figures = {case: float(x) if x else None for case, x in [*((c, r[c]) for c in CASES), *theirs.items()]}
            tensor, data, expert, pipeline, concurrency = (
                int(r[k]) for k in ("tensor", "data", "expert", "pipeline", "concurrency")
            )
            found.append(
                Row(
                    r["id"], r["table"], r["model"], r["accelerator"], r["engine"], r["odd"] == "1", r["metric"],
                    float(r["measured"]), figures, tuple(r[k] for k in GIVEN),
                    f"{r['engine']} {tensor} {data} {expert} {pipeline} {concurrency}", tensor * data * pipeline,
                    concurrency, float(r["output"]),
                )
            )  # fmt: skip
        return found


def errors(rows: Iterable[Row], case: str) -> tuple[int, float, float, float, float]:
    """Count, median, mean and 90th percentile of absolute errors, and the bias, [1]."""
    ratio = np.array([p / r.measured for r in rows if (p := r.predicted[case]) is not None])
    if not len(ratio):
        return 0, *(math.nan,) * 4
    off = np.abs(ratio - 1)
    return (len(ratio), float(np.median(off)), float(off.mean()), float(np.quantile(off, 0.9)),
            float(np.exp(np.log(ratio).mean())))  # fmt: skip


def page() -> str:
    """The page docs/accuracy.md."""
    rows = read()
    lines = [
        "# Accuracy", "",
        "Generated from `bench/data/accuracy.csv`, which `python -m bench.calibration` writes: measured serving",
        "results beside what the planner says. Every row was run as its benchmark ran it, in the simulator.", "",
        "- *kernels alone*: nothing fitted end to end; efficiencies from kernel tables, overheads as published.",
        "- *fitted on all*: with `hardware_db/calibration.toml`, which every command uses, on its own rows.",
        "  On groups left out it helps first tokens and queues most, the time per output token a little.",
        "- *group left out*: constants fitted without any row of the same model on the same accelerator.",
        "- *accelerator left out*: without any row of the accelerator.", "",
        "Constants belong to an accelerator and number format, to an engine's generation or to its kernels; none to a",
        "model or a row. Groups off by more than half in the median are in no fit and in every score; they are listed.",
        "[accuracy-limits.md](accuracy-limits.md) says what defeats it, and how that was found.",
        "", "Beside them, what others say of the same rows:", "",
        "- AIConfigurator: its own predictions, partly from kernel tables fitted on rows like these.",
        "- GenZ: a decode step of the whole batch at the middle of its output, and the prefill of one prompt, with the",
        "  datasheets' figures; models with multi-head latent attention it does not know.",
        "- *plain roofline*, as of LLM-Viewer: the same two, every operator at the datasheet's peak or bandwidth.",
        "", "The last two know of no queue, so first tokens are a lone prompt's; `bench/peers.py` says how each",
        "was asked.",
    ]  # fmt: skip
    for table, title in (("sample", "InferenceX and NVIDIA runs, dense and mixture-of-experts models"),
                         ("deepseek-r1", "DeepSeek-R1 across makers, aggregated, without drafts")):  # fmt: skip
        lines += ["", f"## {title}", "", "| figure | constants | rows | median | mean | 90th percentile | bias |",
                  "|---|---|---|---|---|---|---|"]  # fmt: skip
        for metric, name in METRICS.items():
            some = [r for r in rows if (r.table, r.metric) == (table, metric)]
            for case in TITLES:
                n, median, mean, p90, bias = errors(some, case)
                if n:
                    lines.append(_line(name, TITLES[case], n, median, mean, p90, bias))
                theirs = [r for r in some if case in ALSO and r.predicted[case] is not None]
                if theirs:
                    lines.append(_line(name, ALSO[case], *errors(theirs, "held_out")))
    lines += picks_section(rows)
    lines += queued_section()
    from bench.intervals import section
    from bench.kinds import kinds_section

    lines += ["", "![Predicted, group left out, against measured](accuracy.svg)", "", "## Intervals", "", *section()]
    lines += kinds_section()
    lines += ["", "## Groups", "", "Median error of time per output token, and of time to first token.", "",
              "| model | accelerator | engine | rows | kernels alone | fitted | left out | first token | fit |",
              "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    keys = sorted({(r.model, r.accelerator, r.engine) for r in rows})
    for key in keys:
        some = [r for r in rows if (r.model, r.accelerator, r.engine) == key]
        tpot, ttft = ([r for r in some if r.metric == m] for m in METRICS)
        figures = [errors(tpot, c)[1] for c in ("bare", "fitted", "held_out")] + [errors(ttft, "held_out")[1]]
        shown = " | ".join(f"{x:.1%}" for x in figures)
        lines.append(f"| {' | '.join(key)} | {len(tpot)} | {shown} | {'no' if some[0].odd else 'yes'} |")
    if ABLATION.is_file():
        with ABLATION.open(encoding="utf-8", newline="") as found:
            head = [f"{name}, {table} | bias" for table in ("first table", "DeepSeek-R1") for name in METRICS.values()]
            lines += ["", "## What each term buys", "",
                      f"Every {EVERY}th row of the two tables, one term taken away, with the fitted constants: median",
                      "errors and biases.", "", f"| without | {' | '.join(head)} |", "|---" * 9 + "|"]  # fmt: skip
            for r in csv.DictReader(found):
                cells = (
                    f"{float(r[k]):.1%}" if k.endswith("median") else f"{float(r[k]):.2f}" for k in r if k != "without"
                )
                lines.append(f"| {r['without']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def offers(rows: Iterable[Row], case: str) -> list[Offer]:
    """Configurations to choose among, measured and as the case predicts them."""
    both: dict[str, dict[str, Row]] = {}
    for r in rows:
        if r.predicted[case] is not None:
            both.setdefault(r.id, {})[r.metric] = r
    found = []
    for pair in (p for p in both.values() if len(p) == len(METRICS)):
        tpot, ttft = pair["tpot"], pair["ttft"]
        figures = [(tpot.measured, ttft.measured), (tpot.predicted[case] or 0.0, ttft.predicted[case] or 0.0)]
        found.append(offer(tpot.given, tpot.chosen, tpot.concurrency, tpot.output, tpot.accelerators, *figures))
    return found


def picks_section(rows: Sequence[Row]) -> list[str]:
    """Throughput lost by following each case's predictions."""
    lines = ["", "## What a pick loses", "",
             "Of all configurations of one model, accelerator, precision and length of the first table that reach so",
             "many tokens per second of a user, the one predicted to have the highest throughput per accelerator; the",
             "share of the best's measured throughput that it lacks, mean over groups (the median is 0 everywhere);",
             "in brackets the share of groups in which it is over a tenth slower for a user than was asked. Loads are",
             "powers of two: a pick one step too low loses a third, though the best one reached the level by a few per",
             "cent.", "",
             f"| constants | {' | '.join(f'{level:g} tokens/s' if level else 'any' for level in LEVELS)} |",
             "|---" * (len(LEVELS) + 1) + "|"]  # fmt: skip
    some = [r for r in rows if r.table == "sample"]
    for case, title in TITLES.items():
        found = {r.interactivity: r for r in regrets(offers(some, case))}
        cells = (f"{r.mean:.1%} ({r.missed:.0%})" if (r := found.get(level)) and r.mean is not None else ""
                 for level in LEVELS)  # fmt: skip
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def queued_section() -> list[str]:
    """Throughput of TensorRT-LLM's own tables, by table, with the constants of each case."""
    with QUEUED.open(encoding="utf-8", newline="") as found:
        rows = list(csv.DictReader(found))
    lines = ["", "## Everything queued", "",
             "Output tokens per second of TensorRT-LLM's published tables, which the fits take too. The 16 rows of",
             "Llama 70B on L40S also gave that part its all-reduce.", "",
             "| table | constants | rows | median | mean | 90th percentile | bias |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    for table in [*dict.fromkeys(r["table"] for r in rows), ""]:
        for case in ("bare", "fitted", "held_out"):
            some = [r for r in rows if not table or r["table"] == table]
            ratio = np.array([float(r[case]) / float(r["measured"]) for r in some])
            off = np.abs(ratio - 1)
            lines.append(_line(table or "all", TITLES[case], len(some), float(np.median(off)), float(off.mean()),
                               float(np.quantile(off, 0.9)), float(np.exp(np.log(ratio).mean()))))  # fmt: skip
    return lines


def _line(name: str, what: str, n: int, *figures: float) -> str:
    *shares, bias = figures
    return f"| {name} | {what} | {n} | {' | '.join(f'{x:.1%}' for x in shares)} | {bias:.2f} |"


def picture() -> str:
    """Time per output token, group left out, against measured, both in ms on logarithmic axes, as SVG."""
    rows = [r for r in read() if r.metric == "tpot"]
    low, high, size, edge = 1.5, 300.0, 460, 46

    def at(seconds: float) -> float:
        return edge + (size - 2 * edge) * math.log(seconds * 1e3 / low) / math.log(high / low)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" '
             'font-family="sans-serif" font-size="11">',
             f'<rect width="{size}" height="{size}" fill="white"/>']  # fmt: skip
    for ms in (2, 5, 10, 20, 50, 100, 200):
        x = at(ms * 1e-3)
        parts.append(f'<path d="M{x:.1f} {edge}V{size - edge}M{edge} {size - x:.1f}H{size - edge}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{size - edge + 14}" text-anchor="middle">{ms}</text>')
        parts.append(f'<text x="{edge - 6}" y="{size - x + 4:.1f}" text-anchor="end">{ms}</text>')
    a, b = at(low * 1e-3), at(high * 1e-3)
    parts.append(f'<path d="M{a:.1f} {size - a:.1f}L{b:.1f} {size - b:.1f}" stroke="#888"/>')
    for r in rows[::2]:
        p = r.predicted["held_out"]
        if p is not None:
            colour = "#c33" if r.odd else "#27c" if r.table == "sample" else "#2a5"
            parts.append(
                f'<circle cx="{at(r.measured):.1f}" cy="{size - at(p):.1f}" r="2" fill="{colour}" fill-opacity="0.45"/>'
            )
    parts.append(f'<text x="{size / 2}" y="{size - 8}" text-anchor="middle">measured, ms per output token</text>')
    parts.append(
        f'<text transform="translate(12 {size / 2}) rotate(-90)" text-anchor="middle">predicted, group left out</text>'
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def ablation(folder: Path) -> None:
    """Errors with one term taken away, on every fourth row of each table."""
    from bench.calibration import SAMPLE, clean

    every = clean(folder)
    tables = [[p for p in every if (p.file == SAMPLE) == of_sample][::EVERY] for of_sample in (True, False)]
    with ProcessPoolExecutor() as pool, ABLATION.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("without", *(f"{table}_{figure}" for table in ("sample", "deepseek_r1") for figure in SHOWN)))
        for name in VARIANTS:
            figures: list[float] = []
            for points in tables:
                ratios = [x for x in pool.map(_ratios, [(p, name) for p in points], chunksize=20) if x is not None]
                for ratio in map(np.array, zip(*ratios, strict=True)):
                    figures += [float(np.median(abs(ratio - 1))), float(np.exp(np.log(ratio).mean()))]
            writer.writerow((name, *(f"{x:.4g}" for x in figures)))


@cache
def without(name: str) -> Database:
    """The database with one term taken away."""
    base = load_database()
    engines = dict.fromkeys(base.engines, dict.fromkeys(OVERHEADS, 0.0))
    ideal = {op: {"any": Scale(20.0, 20.0, 0.05)} for op in OPERATORS}
    no_wait = {"all_reduce": {"any": Scale(latency=0.05)}}
    if name == ROOFLINE:
        return base.uncalibrated().calibrated(Calibration(engines=engines, accelerators={"any": ideal | no_wait}))
    if name == "end-to-end fit":
        return base.uncalibrated()
    if name == "engine overheads":
        return base.calibrated(Calibration(engines=engines))
    if name == "kernel efficiencies":
        return base.calibrated(Calibration(accelerators={"any": ideal}))
    if name == "all-reduce latency":
        return base.calibrated(Calibration(accelerators={"any": no_wait}))
    return base


OVERHEADS = ("step", "layer", "prefill_layer", "sequence", "request")
#: what roofline calculators have: peaks and bandwidths as on the datasheet, a step of the whole batch
ROOFLINE = "all of these: a plain roofline"
RECIPES = "recipes (tokens of a step, polls)"
#: what is taken away
VARIANTS = ("nothing", "end-to-end fit", "engine overheads", "kernel efficiencies", "all-reduce latency",
            "expert coverage", RECIPES, "the benchmark's protocol", ROOFLINE)  # fmt: skip


def _ratios(task: tuple[MeasuredPoint, str]) -> tuple[float, ...] | None:
    """Predicted over measured of both figures, [1]."""
    point, name = task
    database, genuine = without(name), experts.distinct_experts
    statistics = {m: typical(point, m) for m in METRICS}
    measured = {m: point.value(m, statistic) or math.nan for m, statistic in statistics.items()}
    if name == RECIPES:
        point = replace(point, recipe=DEFAULT)
    try:
        if name == "expert coverage":
            experts.distinct_experts = _every_expert  # type: ignore[assignment]
        if name in ("the benchmark's protocol", ROOFLINE):
            step, first = whole_batch(point, database)
            return step / measured["tpot"], first / measured["ttft"]
        found = predict(point, database)
        return tuple(found.value(m, statistics[m]) / x for m, x in measured.items())
    except InputError:
        return None
    finally:
        experts.distinct_experts = genuine


def whole_batch(point: MeasuredPoint, database: Database) -> tuple[float, float]:
    """A step of all requests at the middle of their output; that and the prefill of one prompt, [s]."""
    replica = replica_of(point, point.workers, database, point.concurrency)
    c, middle = point.concurrency, point.input_tokens + point.output_tokens / 2
    totals = [c * middle, *(c * min(middle, x) for x in replica.step_time.limits)]
    step = float(replica.step_time.decode(c, totals, [float(c)] * len(totals))[0])
    prefill = float(replica.step_time.prefill(c, [(int(point.input_tokens), 0)]))
    return step, replica.request_overhead_s + step + prefill


def _every_expert(count: int, _: int, tokens: object, independence: float = 1.0) -> object:
    return count * np.ones_like(np.asarray(tokens, dtype=float))


if __name__ == "__main__":
    ablation(Path(sys.argv[1]))
