"""The cost command: read options, call the layer that knows."""

from __future__ import annotations

import math
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from planner.decisions.cost_terms import ApiPrice, Carbon
    from planner.hardware.grid import Power


class Term(str, Enum):
    """How accelerators are paid."""

    on_demand = "on-demand"
    spot = "spot"
    reserved = "reserved"
    owned = "owned"


@app.command()
def cost(
    workload: Annotated[str, typer.Argument(help="Workload file, or - for standard input.")],
    term: Annotated[
        Term | None, typer.Option("--term", help="How accelerators are paid, as cost.term.", show_default=False)
    ] = None,
    grid_intensity: Annotated[
        float | None,
        typer.Option("--grid-intensity", help="Carbon of power, g CO2e per kWh.", show_default=False),
    ] = None,
    grid_region: Annotated[
        str | None, typer.Option("--grid-region", help="The same by name of a grid.", show_default=False)
    ] = None,
    grid: Annotated[
        list[Path] | None,
        typer.Option("--grid", help="Own grids and PUE on top, a TOML file; repeatable.", show_default=False),
    ] = None,
    api_price_input: Annotated[
        float | None, typer.Option("--api-price-input", help="An API's $ per M input tokens.", show_default=False)
    ] = None,
    api_price_output: Annotated[
        float | None, typer.Option("--api-price-output", help="An API's $ per M output tokens.", show_default=False)
    ] = None,
    api_price_cached: Annotated[
        float | None,
        typer.Option("--api-price-cached", help="$ per M cached tokens; as input by default.", show_default=False),
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
    """What the plan costs: per hour, month, token, request; terms, energy, carbon, break-even against an API."""
    from planner.cli.output import choose_format, emit
    from planner.decisions.cost_terms import cost_terms
    from planner.report.cost import cost_blocks

    choose_format(format_, output)
    api = _api(api_price_input, api_price_output, api_price_cached)
    asked, said = workload_with(workload, [*(set_ or []), *([f'cost.term="{term.value}"'] if term else [])])
    database = database_with(hardware_db, prices, calibration)
    database = database.with_grids(grid or ())
    carbon = _carbon(grid_intensity, grid_region, database.power)
    with Progress(quiet), said:
        result = cost_terms(
            asked, database, carbon=carbon, api=api, gpus=gpus_with(gpus, database),
            price_overrides=prices_with(price, database), models=models_with(models), simulate=simulate,
        )  # fmt: skip
    emit(
        format_, output, data=result, blocks=lambda: cost_blocks(result),
        records=lambda: [r.model_dump(mode="json") for r in result.split],
    )  # fmt: skip


def _api(input_: float | None, output: float | None, cached: float | None) -> ApiPrice | None:
    """``--api-price-…`` as one price; InputError for one that is no price or that stands alone."""
    from planner.decisions.cost_terms import ApiPrice

    given = {"--api-price-input": input_, "--api-price-output": output, "--api-price-cached": cached}
    for key, value in given.items():
        if value is not None and not (math.isfinite(value) and 0 <= value < 1e6):
            raise InputError(f"is {value}", key=key, expected="$ per million tokens, zero or more")
    if all(value is None for value in given.values()):
        return None
    for key, value in list(given.items())[:2]:
        if value is None:
            raise InputError("is missing", key=key, expected="$ per M input and per M output tokens, both")
    assert input_ is not None and output is not None
    if input_ == output == 0:
        raise InputError("is 0 like the price of output", key="--api-price-input", expected="one of them above zero")
    return ApiPrice(input_, output, cached)


def _carbon(intensity: float | None, region: str | None, power: Power) -> Carbon | None:
    """``--grid-intensity`` or ``--grid-region``, or None; InputError for an impossible figure or both."""
    from planner.decisions.cost_terms import Carbon
    from planner.hardware.grid import CLEANEST, DIRTIEST

    if intensity is not None and region is not None:
        raise InputError("given beside --grid-region", key="--grid-intensity", expected="one of the two")
    if region is not None:
        found = power.grid(region)
        return Carbon(found.grams_per_kwh, found.label)
    if intensity is None:
        return None
    if not (intensity == 0 or CLEANEST <= intensity <= DIRTIEST):
        raise InputError(
            f"is {intensity}", key="--grid-intensity",
            expected=f"grams of CO2e per kWh, {CLEANEST:g} to {DIRTIEST:g} (or none at all, 0)",
        )  # fmt: skip
    return Carbon(intensity, "--grid-intensity")
