"""The command that fits constants to results of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.base import app, models_with
from planner.cli.options import CalibrationOption, DatabaseOption, FormatOption, ModelsOption, QuietOption
from planner.cli.ran import (
    RanData,
    RanEngine,
    RanExpert,
    RanKv,
    RanModel,
    RanOn,
    RanPipeline,
    RanTensor,
    RanWeights,
    check_named,
    said_of,
)
from planner.cli.validating import _check, _progress
from planner.errors import InputError

if TYPE_CHECKING:
    from planner.hardware import Database
    from planner.validation.comparison import Skipped
    from planner.validation.points import MeasuredPoint


@app.command()
def calibrate(
    measurements: Annotated[
        list[Path],
        typer.Argument(
            help="Results of vllm bench serve, AIPerf, GuideLLM or inference-perf (.json), or .csv tables.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the calibration to this .toml file.", show_default=False),
    ] = None,
    gpu: RanOn = None,
    model: RanModel = None,
    engine: RanEngine = None,
    tensor_parallel: RanTensor = None,
    pipeline_parallel: RanPipeline = None,
    expert_parallel: RanExpert = None,
    data_parallel: RanData = None,
    weights: RanWeights = None,
    kv: RanKv = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", help="Only rows whose column is so, as gpu=H100*; repeatable.", show_default=False),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the calibration.")] = "own",
    hardware_db: DatabaseOption = None,
    models: ModelsOption = None,
    calibration: CalibrationOption = None,
    format_: FormatOption = None,
    quiet: QuietOption = False,
) -> None:
    """Calibrate the planner to results of your own: fit constants, and say what improved on points held out."""
    import datetime

    from planner.cli.output import emit, write_file
    from planner.report.calibration import calibration_blocks, calibration_record
    from planner.validation.calibrating import calibrate as run
    from planner.validation.calibrating import calibration_text
    from planner.validation.runs import Facts

    _check(output, "--output")
    if not name or not all(c.isalnum() or c in " -_." for c in name):
        raise InputError(f"is {name!r}", key="--name", expected="letters, digits, spaces, '-', '_' and '.'")
    degrees = {"tp": tensor_parallel, "pp": pipeline_parallel, "ep": expert_parallel, "dp": data_parallel}
    given = said_of(gpu, model, engine, degrees, weights, kv)
    facts = Facts(tuple(hardware_db or ()), tuple(calibration or ()), tuple(models_with(models)))
    with facts.loaded() as database, _progress(quiet) as progress:
        check_named(given, database)
        points, skipped = _points(measurements, given, where or (), database)
        if not points and skipped:
            reasons = "; ".join(dict.fromkeys(f"{s.id}: {s.reason}" for s in skipped[:5]))
            raise InputError(f"nothing to calibrate with: {reasons}", expected="closed loops with latencies")
        source = ", ".join(dict.fromkeys(p.name for p in measurements))
        clean = "".join(c if c.isprintable() and c not in '"\\' else "?" for c in source)
        found = run(points, database, name=name, source=clean, **({"said": progress} if progress else {}))
    from dataclasses import replace

    found = replace(found, skipped=(*skipped, *found.skipped))
    if output is not None:
        # TOML dates need no quotes; the day it was fitted
        write_file(calibration_text(found, datetime.date.today().isoformat()).encode(), output)
    record = calibration_record(found)
    emit(
        format_, None, data=record, blocks=lambda: calibration_blocks(found),
        records=lambda: [{"points": "held out", **r} for r in record["held_out"]]
        + [{"points": "fitted", **r} for r in record["fitted"]],
    )  # fmt: skip


def _points(
    paths: Sequence[Path], given: Mapping[str, str], where: Sequence[str], database: Database
) -> tuple[list[MeasuredPoint], list[Skipped]]:
    """Points of all files that a replica can be run at, and what was left out; options fill in what rows lack."""
    from planner.validation.comparison import Skipped
    from planner.validation.files import parse_where, select
    from planner.validation.points import read_point
    from planner.validation.result_files import read_results

    conditions = parse_where(where)
    tables, skipped = read_results(paths, given)
    other = next((t for t in tables if t.kind != "results"), None)
    if other is not None:
        raise InputError("is no table of served results", file=other.name, expected="closed loops")
    points: list[MeasuredPoint] = []
    for table in select(tables, conditions):
        for row in table.rows:
            try:
                point = read_point(row, table.name, database)
            except (ValueError, OverflowError, ZeroDivisionError) as error:
                point = Skipped(row["id"], table.name, f"holds numbers nothing can be computed from ({error})")
            if not isinstance(point, Skipped):
                reason = _unfit(point)
                if not reason:
                    points.append(point)
                    continue
                point = Skipped(point.id, point.file, reason)
            skipped.append(point)
    return points, skipped


def _unfit(point: MeasuredPoint) -> str:
    """Why a point says nothing about the constants of a replica, or nothing."""
    if point.prefill is not None:
        return "disaggregated: constants are fitted to single replicas"
    if point.protocol not in ("closed loop", "static batch"):
        return f"{point.protocol}: constants are fitted to closed loops"
    if point.speculation not in ("", "unknown"):
        return "ran with drafts, whose acceptance isn't known"
    if point.value("tpot") is None and point.value("ttft") is None and not point.value("tpot", "p50"):
        return "holds no latency"
    return ""
