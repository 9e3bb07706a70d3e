"""The command that simulates: drawn traffic or a trace through the recommended plan's replicas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
    from planner.serving import RequestRecord


@app.command()
def simulate(
    workload: Annotated[str, typer.Argument(help="Workload file, or - for standard input.")],
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Replay this trace instead of drawing.", show_default=False)
    ] = None,
    requests: Annotated[
        int, typer.Option("--requests", "-n", min=100, max=2_000_000, help="Sequences to draw.")
    ] = 5000,
    duration: Annotated[
        str | None, typer.Option("--duration", help="Draw traffic of this long instead, as 30min.", show_default=False)
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option("--rate", min=0, help="Requests per second of the fleet, not its peak.", show_default=False),
    ] = None,
    replicas: Annotated[int, typer.Option("--replicas", min=0, help="Replicas to simulate; 0 is all that serve.")] = 1,
    routing: Annotated[
        Literal["least-loaded", "power-of-two", "round-robin", "random", "prefix-affinity"],
        typer.Option("--routing", help="How requests are spread over them."),
    ] = "least-loaded",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the drawn traffic.")] = 0,
    records: Annotated[
        Path | None,
        typer.Option("--records", help="Write every request to this .csv or .parquet file.", show_default=False),
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
    quiet: QuietOption = False,
) -> None:
    """Simulate replicas of the recommended plan under drawn traffic or a trace, beside its closed forms."""
    from planner.cli.output import choose_format, emit
    from planner.report.simulation import simulation_blocks
    from planner.sizing.simulation import simulate_plan
    from planner.units import UnitError, parse_duration
    from planner.workload.traces import read_trace

    choose_format(format_, output)
    if records is not None and records.suffix not in (".csv", ".parquet"):
        raise InputError(f"no format for {records.name!r}", key="--records", expected="a name in .csv or .parquet")
    if rate is not None and rate <= 0:
        raise InputError(f"is {rate:g}", key="--rate", expected="more than zero")
    try:
        seconds = None if duration is None else parse_duration(duration)
    except UnitError as error:
        raise InputError(str(error), key="--duration", expected=error.expected, suggestion=error.suggestion) from None
    if seconds is not None and seconds <= 0:
        raise InputError(f"is {duration!r}", key="--duration", expected="more than zero")
    asked, said = workload_with(workload, set_)
    database = database_with(hardware_db, prices, calibration)
    recorded = read_trace(trace) if trace is not None else asked.demand.trace
    with Progress(quiet), said:
        result, rows = simulate_plan(
            asked, database, gpus=gpus_with(gpus, database), price_overrides=prices_with(price, database),
            models=models_with(models), trace=recorded, requests=requests, duration_s=seconds, replicas=replicas,
            routing=routing, rate=rate, seed=seed,
        )  # fmt: skip
    if records is not None:
        _write_records(rows, records)
    emit(
        format_, output, data=result, blocks=lambda: simulation_blocks(result),
        records=lambda: [result.model_dump(mode="json", exclude={"plan"})],
    )  # fmt: skip


def _write_records(rows: Sequence[RequestRecord], path: Path) -> None:
    """One row a request; Parquet needs pyarrow, which the parquet extra installs."""
    from planner.cli.output import write_file
    from planner.report.render import comma_separated

    if path.suffix == ".csv":
        write_file(comma_separated([r._asdict() for r in rows]).encode(), path, "--records")
        return
    try:
        import io

        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError(
            "Parquet needs pyarrow",
            key="--records",
            expected="its parquet extra installed, or a .csv name",
        ) from None
    columns = {name: [getattr(r, name) for r in rows] for name in rows[0]._fields} if rows else {}
    content = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), content)
    write_file(content.getvalue(), path, "--records")
