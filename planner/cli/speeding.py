"""The speed command: read options, call the layer that knows."""

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
def speed(
    workload: Annotated[str, typer.Argument(help="Workload file, or - for standard input.")],
    target: Annotated[
        str | None, typer.Option("--target", help="Times the base's speed, as 2.5x (default).", show_default=False)
    ] = None,
    tokens_per_second: Annotated[
        float | None,
        typer.Option("--tokens-per-second", help="Output tokens per second and user instead.", show_default=False),
    ] = None,
    price_multiple: Annotated[
        float, typer.Option("--price-multiple", help="What the fast tier is sold at, times the base's price.")
    ] = 6.0,
    drafting_base: Annotated[
        bool, typer.Option("--drafting-base/--plain-base", help="Whether the base keeps the plan's drafts.")
    ] = False,
    top: Annotated[int, typer.Option("--top", min=0, help="Ways to show.")] = 12,
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
    """Every lever to a faster tier with its cost, and what physics allows one request."""
    from planner.cli.output import choose_format, emit
    from planner.decisions.speed import faster
    from planner.report.speed import speed_blocks

    choose_format(format_, output)
    if target is not None and tokens_per_second is not None:
        raise InputError("--target and --tokens-per-second are both given", expected="one of them")
    if tokens_per_second is not None and not (math.isfinite(tokens_per_second) and tokens_per_second > 0):
        raise InputError(f"is {tokens_per_second}", key="--tokens-per-second", expected="more than zero")
    if not (math.isfinite(price_multiple) and price_multiple > 0):
        raise InputError(f"is {price_multiple}", key="--price-multiple", expected="more than zero")
    times = None if target is None else _times(target)
    asked, said = workload_with(workload, set_)
    database = database_with(hardware_db, prices, calibration)
    with Progress(quiet), said:
        result = faster(
            asked, database, target=times, tokens_per_second=tokens_per_second, price_multiple=price_multiple,
            drafting_base=drafting_base,
            gpus=gpus_with(gpus, database), price_overrides=prices_with(price, database), models=models_with(models),
            simulate=simulate,
        )  # fmt: skip
    emit(
        format_, output, data=result, blocks=lambda: speed_blocks(result, top),
        records=lambda: [t.model_dump(mode="json") for t in (result.base, *result.tiers)],
    )  # fmt: skip


def _times(text: str) -> float:
    """``2.5x`` or ``2.5`` as a number above one."""
    try:
        value = float(text.strip().lower().removesuffix("x").strip())
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 1):
        raise InputError(f"is {text!r}", key="--target", expected="times the base's speed, above one, as 2.5x")
    return value
