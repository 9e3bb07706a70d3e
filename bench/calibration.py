"""Fit a calibration to published serving results: ``python -m bench.calibration FOLDER`` with the measured tables.

Writes hardware_db/calibration.toml, and bench/data/accuracy.csv: every clean aggregated row with the prediction of
constants nobody fitted end to end, of those fitted on all rows, of those fitted without the row's group (model and
accelerator), and without its accelerator; and another planner's, where it has one. bench/data/queued.csv: the same of
tables with everything queued, which the fits take too. docs/generate.py makes docs/accuracy.md of those files. Slopes
are taken with constants nobody fitted, and again where a fit ended, as times to first token don't answer evenly; every
fit without a group takes its constants from the other rows alone, and shares only the point of the slopes. Takes about
fifteen minutes on two cores.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from bench import queued
from planner.errors import InputError
from planner.hardware import Database, load_database
from planner.hardware.accelerator import ANY
from planner.hardware.calibration import Calibration
from planner.validation.calibrating import FIGURES, Calibrated, calibration_text, observations
from planner.validation.closed_loops import precision_of, typical
from planner.validation.comparison import Skipped
from planner.validation.fitting import SPREAD_SECONDS, Fit, Observation, fit
from planner.validation.knobs import Answer, Knob, answer, calibration_of, engine_overheads
from planner.validation.points import MeasuredPoint, read_point
from planner.validation.protocols import predict

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "hardware_db" / "calibration.toml"
ROWS = Path(__file__).resolve().parent / "data" / "accuracy.csv"
QUEUED = ROWS.with_name("queued.csv")
DATE = "2026-11-26"
SAMPLE, BY_ACCELERATOR = "inferencex_via_aiconfigurator_silicon_sample.csv", "inferencex_dsr1_by_accelerator.csv"
PEER = "aiconfigurator_0.12_predictions.csv"
COLUMNS = (
    "id", "table", "model", "accelerator", "engine", "weights", "precision", "input", "output", "tensor", "data",
    "expert", "pipeline", "concurrency", "odd", "metric", "measured", "bare", "fitted", "held_out",
    "accelerator_held_out", "peer",
)  # fmt: skip
#: scatter of one figure, and of a group's own deviation that no constant explains, logarithms
SPREAD = {"tpot": 0.10, "ttft": 0.30}
GROUP_SPREAD = {"tpot": 0.015, "ttft": 0.10}
#: groups whose own rows say that something else went on are in no fit: median deviation beyond this
ODD = 0.45
#: prior spread of a factor's logarithm: of an engine's kernels and of one part; of a vendor's in all formats and in one
#: as a share of that; wider for rates of arithmetic, of which kernels' tables know large square matmuls and prompts see
#: ragged ones, and for a vendor without kernel tables. Chosen among 80 settings by the error of groups left out; of the
#: last 31, which differ in a few, time per output token was within 9.0 to 10.0 %, to first token 22.7 to 26.7 %.
PRIOR, OF_VENDOR, ARITHMETIC, LOOSE = 0.06, 0.5, 3.0, {"AMD": 2.5}
#: prior spreads of overheads as a share of what users' fits start from: a request's, which tables of kernels say
#: nothing of, and the rest
REQUEST, REST = 1.5, 0.1
#: how often slopes are taken again
PASSES = 2
QUEUED_COLUMNS = (
    "id", "table", "model", "accelerator", "engine", "weights", "input", "output", "measured", "bare", "fitted",
    "held_out",
)  # fmt: skip
Pair = tuple[MeasuredPoint, Answer]


@cache
def bare() -> Database:
    """The database without a calibration."""
    return load_database().uncalibrated()


def clean(folder: Path) -> list[MeasuredPoint]:
    """Aggregated points whose row raises no doubt, without drafts."""
    found = []
    for name in (SAMPLE, BY_ACCELERATOR):
        with (folder / name).open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                trusted = row.get("parallelism_trust", "ok").startswith(("ok", "as-given"))
                if row["mode"] != "agg" or row.get("flag") or not trusted:
                    continue
                point = read_point(row, name, bare())
                if not isinstance(point, Skipped) and not point.speculation:
                    found.append(point)
    return found


def _answer(task: tuple[MeasuredPoint, Fit | None]) -> Answer | None:
    """Predictions and slopes with the constants of a fit, as seen from those nobody fitted."""
    point, found = task
    at = bare()
    if found is not None:
        engines = engine_overheads(bare(), {k.owner for k in found.values if k.overhead})
        at = bare().calibrated(calibration_of(found.values, engines))
    try:
        there = queued.answered(point, at) if queued.is_queued(point) else answer(point, at, FIGURES)
    except InputError:
        return None
    if found is None:
        return there
    return replace(there, start={figure: found.shift(slopes) for figure, slopes in there.slopes.items()})


def prior(knob: Knob) -> float:
    """Standard deviation of a knob before any row, [1] or [s]."""
    if knob.overhead:
        return (REQUEST if knob.what == "request" else REST) * SPREAD_SECONDS[knob.what]
    of_vendor = not knob.engine and not knob.vendor
    share = (OF_VENDOR if of_vendor else 1.0) * (ARITHMETIC if knob.quantity == "compute" else 1.0)
    return PRIOR * share * LOOSE.get(knob.vendor or knob.owner, 1.0)


def said_of(pair: Pair) -> list[Observation]:
    """Observations of one point with its group's own deviation."""
    point, found = pair
    if queued.is_queued(point):
        return [queued.observation(point, found)]
    metrics = [m for m in ("tpot", "ttft") if typical(point, m)]
    return [
        replace(o, offset=(*point.group, point.engine, metric), offset_spread=GROUP_SPREAD[metric])
        for o, metric in zip(observations(point, found, SPREAD), metrics, strict=True)
    ]


def odd_groups(pairs: Sequence[Pair]) -> set[tuple[str, ...]]:
    """(model, accelerator, engine) whose median time per output token is off beyond reason."""
    off: dict[tuple[str, ...], list[float]] = {}
    for point, found in pairs:
        if queued.is_queued(point):
            continue
        off.setdefault((*point.group, point.engine), []).append(said_of((point, found))[0].residual)
    return {group for group, values in off.items() if abs(float(np.median(values))) > ODD}


def fitted(pairs: Sequence[Pair]) -> tuple[Fit, Calibration]:
    """Constants from the points of ordinary groups."""
    odd = odd_groups(pairs)
    kept = [pair for pair in pairs if (*pair[0].group, pair[0].engine) not in odd]
    engines = engine_overheads(bare(), {p.engine for p, _ in kept})
    floors = {Knob(e, key, ANY, "seconds"): -value for e, table in engines.items() for key, value in table.items()}
    found = fit([o for pair in kept for o in said_of(pair)], floors, prior)
    return found, calibration_of(found.values, engines, "serving", "published serving results, see docs/accuracy.md")


def _figures(task: tuple[MeasuredPoint, Calibration]) -> dict[str, float]:
    point, calibration = task
    after = bare().calibrated(calibration)
    if queued.is_queued(point):
        return {"throughput": queued.predict(point, after).throughput}
    found = predict(point, after)
    return {m: found.value(m, s) for m, s in reversed(FIGURES) if point.value(m, s)}


def left_out(
    pool: ProcessPoolExecutor, pairs: Sequence[Pair], key: Callable[[MeasuredPoint], object]
) -> list[dict[str, float]]:
    """Predictions of every point with constants from the points of other keys."""
    without = {k: fitted([pair for pair in pairs if key(pair[0]) != k])[1] for k in {key(p) for p, _ in pairs}}
    return list(pool.map(_figures, [(p, without[key(p)]) for p, _ in pairs], chunksize=20))


def answers(pool: ProcessPoolExecutor, points: Sequence[MeasuredPoint], found: Fit | None) -> list[Pair]:
    """Points with their predictions and slopes at the constants of a fit, or at those nobody fitted."""
    tasks = [(p, found) for p in points]
    said = pool.map(_answer, tasks, chunksize=10)
    return [(p, a) for p, a in zip(points, said, strict=True) if a is not None]


def main(folder: Path) -> None:
    """Fit, write the calibration, and the table of errors."""
    with (folder / PEER).open(encoding="utf-8", newline="") as lines:
        peer = {row["id"]: row for row in csv.DictReader(lines)}
    points = clean(folder) + queued.points(folder, bare())
    with ProcessPoolExecutor() as pool:
        plain = answers(pool, points, None)
        print(f"{len(plain)} of {len(points)} points predicted; odd groups: {sorted(odd_groups(plain))}", flush=True)
        pairs = plain
        for _ in range(PASSES):
            pairs = answers(pool, [p for p, _ in plain], fitted(pairs)[0])
        found, calibration = fitted(pairs)
        all_rows = list(pool.map(_figures, [(p, calibration) for p, _ in pairs], chunksize=20))
        groups = left_out(pool, pairs, lambda p: p.group)
        accelerators = left_out(pool, pairs, lambda p: p.accelerator)
    engines = engine_overheads(bare(), {p.engine for p, _ in pairs})
    done = Calibrated(calibration, found, engines, len(pairs), (), (), (), (), (), ())
    text = calibration_text(done, DATE).replace("results of one's own, on top of those that ship", "published results")
    TARGET.write_text(text, encoding="utf-8")
    told = list(zip(plain, all_rows, groups, accelerators, strict=True))
    write_served([t for t in told if not queued.is_queued(t[0][0])], odd_groups(pairs), peer)
    with QUEUED.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(QUEUED_COLUMNS)
        for (p, a), one, two, _ in (t for t in told if queued.is_queued(t[0][0])):
            figures = (p.value(*queued.FIGURE), a.prediction.throughput, one["throughput"], two["throughput"])
            writer.writerow((
                p.id, p.file.removesuffix(".csv"), p.model, p.accelerator, p.engine, p.weights, f"{p.input_tokens:g}",
                f"{p.output_tokens:g}", *(f"{x:.5g}" for x in figures),
            ))  # fmt: skip


Figures = dict[str, float]


def write_served(
    told: Sequence[tuple[Pair, Figures, Figures, Figures]], odd: set[tuple[str, ...]], peer: dict[str, dict[str, str]]
) -> None:
    """The table of served points: fitted on all, without the group, without the accelerator."""
    with ROWS.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for (p, a), *fits in told:
            for metric in ("tpot", "ttft"):
                statistic = typical(p, metric)
                if not statistic:
                    continue
                theirs = peer.get(p.id, {}).get(f"predicted_{metric}_ms", "")
                figures = (
                    p.value(metric, statistic), a.prediction.value(metric, statistic), *(f[metric] for f in fits)
                )  # fmt: skip
                writer.writerow((
                    p.id, "sample" if p.file == SAMPLE else "deepseek-r1", p.model, p.accelerator, p.engine, p.weights,
                    precision_of(p), f"{p.input_tokens:g}", f"{p.output_tokens:g}", p.workers.tensor, p.workers.data,
                    p.workers.expert, p.pipeline, p.concurrency, int((*p.group, p.engine) in odd), metric,
                    *(f"{x:.5g}" for x in figures), f"{float(theirs) * 1e-3:.5g}" if theirs else "",
                ))  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]))
