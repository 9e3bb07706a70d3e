"""The explain command: read options, call the layer that knows."""

from __future__ import annotations

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


@app.command()
def explain(
    workload: Annotated[str, typer.Argument(help="Workload file, or - for standard input.")],
    full: Annotated[
        bool, typer.Option("--full", help="All operators, the curve along the batch, and eleven claims judged.")
    ] = False,
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
    """Why the plan is what it is: bytes and seconds by component, regimes, crossovers, and what people claim."""
    from planner.cli.output import choose_format, emit
    from planner.decisions.explanation import explain as explained
    from planner.report.explanation import explanation_blocks

    choose_format(format_, output)
    asked, said = workload_with(workload, set_)
    database = database_with(hardware_db, prices, calibration)
    with Progress(quiet), said:
        result = explained(
            asked, database, gpus=gpus_with(gpus, database), price_overrides=prices_with(price, database),
            models=models_with(models), simulate=simulate,
        )  # fmt: skip
    emit(
        format_, output, data=result, blocks=lambda: explanation_blocks(result, full),
        records=lambda: [p.model_dump(mode="json") for p in result.curve],
    )  # fmt: skip
