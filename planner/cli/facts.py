"""Commands about facts: list, show, init, schema, check-db."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from planner.cli.base import app, database_with, gpus_with, models_with
from planner.cli.options import (
    CalibrationOption,
    DatabaseOption,
    FileOption,
    Format,
    FormatOption,
    GpusOption,
    ModelsOption,
    OutputOption,
    PricesOption,
    SchemaFormatOption,
    TemplateFormatOption,
)
from planner.errors import InputError, nearest


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="gpus, models or prices.")],
    gpus: GpusOption = None,
    hardware_db: DatabaseOption = None,
    calibration: CalibrationOption = None,
    prices: PricesOption = None,
    models: ModelsOption = None,
    format_: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """List accelerators, models or prices."""
    from dataclasses import asdict, fields

    from planner.cli.output import emit
    from planner.report import listing

    kinds = ("gpus", "models", "prices")
    if what not in kinds:
        raise InputError(f"cannot list {what!r}", expected="gpus, models or prices", suggestion=nearest(what, kinds))
    if what == "models" and gpus is not None:
        raise InputError("--gpus goes with gpus and prices", expected="list models without it")
    rows: list[Any]
    head: list[str] = []
    blocks: Callable[[Sequence[Any]], Sequence[Any]]
    if what == "models":
        from planner.models import list_models

        rows = list(list_models(models_with(models)))
        blocks = listing.models_blocks
    elif what == "prices":
        from planner.hardware import Price

        database = database_with(hardware_db, prices, calibration)
        wanted = gpus_with(gpus, database) or list(database.accelerators)
        rows = [p for name in wanted for p in database.prices.of(name)]
        head = [f.name for f in fields(Price)]
        blocks = listing.prices_blocks
    else:
        from planner.sizing import datasheet

        database = database_with(hardware_db, prices, calibration)
        sheet = datasheet(database, gpus_with(gpus, database))
        emit(
            format_, output, data=list(sheet), blocks=lambda: listing.datasheet_blocks(sheet),
            records=lambda: [r.model_dump() for r in sheet],
        )  # fmt: skip
        return
    records = [asdict(r) for r in rows]
    emit(format_, output, data=records, blocks=lambda: blocks(rows), records=lambda: records, columns=head)


@app.command()
def show(
    what: Annotated[str, typer.Argument(help="gpu or model.")],
    name: Annotated[str, typer.Argument(help="Its name.")],
    hardware_db: DatabaseOption = None,
    calibration: CalibrationOption = None,
    models: ModelsOption = None,
    format_: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Show one accelerator or model with every fact and its source."""
    from planner.cli.output import emit
    from planner.report import listing
    from planner.sizing.facts import accelerator_facts, model_facts

    if what not in ("gpu", "model"):
        raise InputError(f"cannot show {what!r}", expected="gpu or model", suggestion=nearest(what, ("gpu", "model")))
    if not name.strip():
        raise InputError(f"the name of the {what} is empty", expected=f"a name of `planner list {what}s`")
    if what == "gpu":
        database = database_with(hardware_db, calibrations=calibration)
        chip = database.accelerator(name)
        facts = accelerator_facts(chip)
        offered = database.prices.of(chip.name)
        emit(
            format_, output, data=facts, blocks=lambda: listing.accelerator_blocks(chip, offered),
            records=lambda: [{"fact": k, **v} for k, v in facts["facts"].items()],
        )  # fmt: skip
        return
    from planner.models import load_model

    model = load_model(name, models_with(models))
    facts = model_facts(model)
    emit(
        format_,
        output,
        data=facts,
        blocks=lambda: listing.model_blocks(model, facts),
        records=lambda: [facts],
    )


@app.command()
def init(
    kind: Annotated[str, typer.Argument(help="chat, rag, coding-agent, reasoning or batch.")] = "chat",
    format_: TemplateFormatOption = None,
    output: FileOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.", show_default=False)] = False,
) -> None:
    """Write a commented workload file to start from."""
    from planner.cli.output import emit, write
    from planner.workload.examples import KINDS, example_text

    if kind not in KINDS:
        raise InputError(
            f"no template {kind!r}", expected="one of " + ", ".join(KINDS), suggestion=nearest(kind, KINDS)
        )
    if output is not None and output.exists() and not force:
        raise InputError("exists already", file=str(output), expected="--force to replace it")
    text = example_text(kind)
    if format_ is None:
        write(text, output)
        return
    from planner.documents import parse_toml
    from planner.report.blocks import Heading, sheet
    from planner.report.render import flatten

    data = parse_toml(text, kind).data
    rows = [{"key": key, "value": value} for key, value in flatten(data, separator=".").items()]
    emit(
        format_, output, data=data, records=lambda: rows,
        blocks=lambda: [Heading(kind), sheet(("Key", "Value"), [tuple(row.values()) for row in rows])],
    )  # fmt: skip


@app.command()
def schema(
    what: Annotated[str, typer.Argument(help="workload, result, estimate or speculation.")] = "workload",
    format_: SchemaFormatOption = None,
    output: FileOption = None,
) -> None:
    """Print the JSON Schema of a workload file or of a result of a command; its fields in other formats."""
    from planner.cli.output import emit
    from planner.report import listing

    if what == "workload":
        from planner.workload.schema import WorkloadFile as Kind
    elif what == "result":
        from planner.sizing.result import Recommendation as Kind  # type: ignore[assignment]
    elif what == "estimate":
        from planner.sizing.result import Estimate as Kind  # type: ignore[assignment]
    elif what == "speculation":
        from planner.decisions.speculation_result import SpeculationDecision as Kind  # type: ignore[assignment]
    else:
        raise InputError(
            f"no schema of {what!r}",
            expected="workload, result, estimate or speculation",
            suggestion=nearest(what, ("workload", "result", "estimate", "speculation")),
        )
    found = Kind.model_json_schema()
    emit(
        format_ or Format.json, output, data=found, blocks=lambda: listing.schema_blocks(found),
        records=lambda: listing.schema_fields(found),
    )  # fmt: skip


@app.command("check-db")
def check_db(
    hardware_db: DatabaseOption = None,
    calibration: CalibrationOption = None,
    prices: PricesOption = None,
    models: ModelsOption = None,
    format_: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Check the hardware database, prices and models: schema, sources, plausibility."""
    from dataclasses import asdict

    from planner.cli.output import emit
    from planner.hardware.check import check_database
    from planner.models import check_catalogue
    from planner.report.blocks import Text, sheet

    database = database_with(hardware_db, prices, calibration)
    problems = [asdict(p) for p in check_database(database)]
    problems += [
        {"file": "models", "key": "", "message": text, "severity": "error"}
        for text in check_catalogue(models_with(models))
    ]
    columns = ("File", "Key", "Problem", "Severity")
    counts = f"{len(database.accelerators)} accelerators, {len(database.prices.rows)} prices"
    emit(
        format_, output, data={"problems": problems, "accelerators": len(database.accelerators),
                               "prices": len(database.prices.rows)},
        blocks=lambda: [
            Text(f"{counts}: " + ("no problem found" if not problems else f"{len(problems)} problems")),
            *([sheet(columns, [tuple(p.values()) for p in problems])] if problems else []),
        ],
        records=lambda: problems, columns=("file", "key", "message", "severity"),
    )  # fmt: skip
    if any(p["severity"] == "error" for p in problems):
        raise typer.Exit(2)


@app.command()
def describe(
    trace: Annotated[
        Path, typer.Argument(help="Recorded traffic, results of a benchmark tool, or a ServeGen folder; - for stdin.")
    ],
    workload: Annotated[
        Path | None, typer.Option("--workload", "-w", help="Write a workload file from it.", show_default=False)
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="Model of that workload.")] = "llama-3.1-8b",
    reference: Annotated[
        bool,
        typer.Option("--reference", help="Let the workload name the trace instead of histograms.", show_default=False),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing workload.", show_default=False)] = False,
    format_: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Describe a trace: lengths, fits, burstiness, peaks, prefix reuse; write a workload from it."""
    from dataclasses import asdict

    from planner.cli.output import emit, write
    from planner.report.traces import trace_blocks
    from planner.workload.description import describe_trace
    from planner.workload.traces import read_trace
    from planner.workload.writing import workload_text

    if workload is not None and workload.exists() and not force:
        raise InputError("exists already", file=str(workload), expected="--force to replace it")
    if reference and (workload is None or str(trace) == "-"):
        raise InputError("--reference without a file to refer to", expected="a trace file and --workload FILE")
    read = read_trace(trace)
    found = describe_trace(read)
    if workload is not None:
        write(workload_text(read, found, model, reference=workload.parent if reference else None), workload)
    record = asdict(found)
    emit(format_, output, data=record, blocks=lambda: trace_blocks(read, found), records=lambda: [record])
