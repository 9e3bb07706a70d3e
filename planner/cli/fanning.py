"""The fanout command: read options, call the layer that knows."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from planner.cli.base import Progress, app, database_with, gpus_with, models_with, prices_with, workload_with
from planner.cli.options import (
    CalibrationOption,
    DatabaseOption,
    FormatOption,
    GpusOption,
    ModelsOption,
    OutputOption,
    PriceOption,
    PricesOption,
    QuietOption,
    SetOption,
)
from planner.errors import InputError


@app.command()
def fanout(
    workload: Annotated[str, typer.Argument(help="Workload file, or - for standard input.")],
    most: Annotated[int, typer.Option("--most", min=1, max=64, help="Largest fan-out tried.")] = 16,
    value: Annotated[
        float | None, typer.Option("--value", help="What a solved task is worth, $.", show_default=False)
    ] = None,
    set_: SetOption = None,
    gpus: GpusOption = None,
    price: PriceOption = None,
    hardware_db: DatabaseOption = None,
    calibration: CalibrationOption = None,
    prices: PricesOption = None,
    models: ModelsOption = None,
    format_: FormatOption = None,
    output: OutputOption = None,
    simulate: Annotated[
        bool, typer.Option("--simulate/--no-simulate", help="Confirm the plan in discrete events.")
    ] = True,
    quiet: QuietOption = False,
) -> None:
    """How many subagents pay: sharing, join latency, useful work and cost of every fan-out, and turns ahead."""
    from planner.cli.output import choose_format, emit
    from planner.decisions.fanout import fan_out
    from planner.report.fanout import fan_out_blocks

    choose_format(format_, output)
    if value is not None and not (math.isfinite(value) and value > 0):
        raise InputError(f"is {value}", key="--value", expected="dollars, more than zero")
    asked, said = workload_with(workload, set_)
    database = database_with(hardware_db, prices, calibration)
    with Progress(quiet), said:
        result = fan_out(
            asked, database, most=most, value=value, gpus=gpus_with(gpus, database),
            price_overrides=prices_with(price, database), models=models_with(models), simulate=simulate,
        )  # fmt: skip
    emit(
        format_, output, data=result, blocks=lambda: fan_out_blocks(result),
        records=lambda: [r.model_dump(mode="json") for r in result.rows],
    )  # fmt: skip
