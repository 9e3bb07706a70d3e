"""The command that holds the planner against measurements."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from planner.cli.base import app, models_with
from planner.cli.options import CalibrationOption, DatabaseOption, FormatOption, ModelsOption, OutputOption, QuietOption
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
from planner.errors import InputError

#: tables by group that are shown unless others are asked for
SHOWN_BY = "kind,accelerator"


@app.command()
def validate(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Tables of measurements (.csv), results of vllm bench serve, AIPerf, GuideLLM or inference-perf "
            "(.json), or folders of them.",
            show_default=False,
        ),
    ] = None,
    measurements: Annotated[
        list[Path] | None,
        typer.Option(
            "--measurements", help="The same as an option; the published table by default.", show_default=False
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            help="Only rows whose column is so, as mode=agg, flag= or gpu=H100*|H200*; repeatable.",
            show_default=False,
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            help="Groups: accelerator, model, engine, precision, load, kind, file; model+accelerator crosses.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", help="Only tpot, ttft, throughput, speedup, kernel or acceptance_length.", show_default=False
        ),
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Write every row to this .csv file.", show_default=False)
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
    hardware_db: DatabaseOption = None,
    models: ModelsOption = None,
    calibration: CalibrationOption = None,
    format_: FormatOption = None,
    output: OutputOption = None,
    quiet: QuietOption = False,
) -> None:
    """Validate the planner: predict what was measured, and report how far off it is."""
    from planner.cli.output import choose_format, emit, write_file

    choose_format(format_, output)
    _check(output, "--output")
    _check(predictions, "--predictions")
    from planner.report import render
    from planner.report.validation import PREDICTIONS, validation_blocks, validation_record, validation_rows
    from planner.validation.files import parse_where, select
    from planner.validation.result_files import read_results
    from planner.validation.runs import Facts
    from planner.validation.runs import validate as run
    from planner.validation.scores import parse_by, parse_metrics

    groups, metrics = parse_by(by), parse_metrics(metric or [])
    conditions = parse_where(where or [])
    facts = Facts(tuple(hardware_db or ()), tuple(calibration or ()), tuple(models_with(models)))
    degrees = {"tp": tensor_parallel, "pp": pipeline_parallel, "ep": expert_parallel, "dp": data_parallel}
    given = said_of(gpu, model, engine, degrees, weights, kv)
    with facts.loaded() as database:
        check_named(given, database)
    read, left = read_results([*(files or ()), *(measurements or ())], given)
    with _progress(quiet) as said:
        found = run(select(read, conditions), facts, said=said, left=left)
    if predictions is not None:
        records = list(validation_rows(found, metrics))
        write_file(render.comma_separated(records, PREDICTIONS).encode(), predictions, "--predictions")
    record = validation_record(found, groups, metrics, where or ())
    emit(
        format_, output, data=record,
        blocks=lambda: validation_blocks(found, groups if by else parse_by(SHOWN_BY), metrics),
        records=lambda: [*record["overall"], *record["groups"]],
    )  # fmt: skip


def _check(output: Path | None, option: str) -> None:
    """InputError for a file that could not be written, before anything is run."""
    if output is not None and not output.parent.is_dir():
        raise InputError("no such folder", file=str(output.parent), key=option)
    if output is not None and output.is_dir():
        raise InputError("is a folder", file=str(output), key=option, expected="a file")


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A count of pieces on stderr where that is a terminal; gone when all is run."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return

    def said(done: int, total: int) -> None:
        sys.stderr.write(f"\rpredicting {done} of {total} …")
        sys.stderr.flush()

    try:
        yield said
    finally:
        sys.stderr.write("\r\033[K")
        sys.stderr.flush()
