"""The commands, thin: read options, call the layer that knows, hand the result to a face."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli.options import (
    DatabaseOption,
    FormatOption,
    GpusOption,
    ModelsOption,
    OutputOption,
    PriceOption,
    PricesOption,
    QuietOption,
    SetOption,
    TopOption,
    VerboseOption,
    names,
)
from planner.errors import InputError, NoPlanError, nearest

if TYPE_CHECKING:
    from planner.hardware import Database

LIMIT_CROSSED = 4
app = typer.Typer(
    help="Plan capacity for LLM inference: which accelerator, how many, at what cost, and why.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
compare_app = typer.Typer(help="Put accelerators side by side.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(compare_app, name="compare")


def _version(value: bool) -> None:
    if value:
        from planner import __version__

        typer.echo(f"planner {__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Plan capacity for LLM inference: which accelerator, how many, at what cost, and why."""


def _database(overlays: list[Path] | None, prices: list[Path] | None = None) -> Database:
    from planner.hardware import load_database

    return load_database(overlays or (), prices or ())


def _prices(options: list[str] | None, database: Database) -> dict[str, float]:
    from planner.hardware import parse_price_options

    parsed = dict(parse_price_options(options or []))
    return {database.accelerator(name).name: usd for name, usd in parsed.items()}


@app.command()
def recommend(
    workload: Annotated[str, typer.Argument(help="Workload file, or - for standard input.")],
    set_: SetOption = None,
    gpus: GpusOption = None,
    top: TopOption = 5,
    price: PriceOption = None,
    hardware_db: DatabaseOption = None,
    prices: PricesOption = None,
    models: ModelsOption = None,
    format_: FormatOption = None,
    output: OutputOption = None,
    fail_over_budget: Annotated[
        float | None,
        typer.Option(help="Exit 4 when the plan costs more than this per hour.", show_default=False),
    ] = None,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Recommend a fleet for a workload: accelerator, count, layout, batch, speculation, cost, why."""
    from planner.cli.output import choose_format, emit
    from planner.report.recommendation import recommendation_blocks
    from planner.sizing import recommend as size
    from planner.workload import load_workload

    choose_format(format_, output)
    started = time.perf_counter()
    asked = load_workload(workload, set_ or ())
    database = _database(hardware_db, prices)
    statistics: dict[str, float] = {}
    with _progress(quiet):
        result = size(
            asked, database, gpus=names(gpus), top=top, price_overrides=_prices(price, database),
            models=models or (), statistics=statistics,
        )  # fmt: skip
    seconds = time.perf_counter() - started
    if verbose:
        points = statistics.get("points", 0)
        typer.echo(
            f"{points:.0f} operating points priced in {seconds:.2f} s ({points / seconds:.0f} per second)",
            err=True,
        )
    emit(
        format_, output, data=result, blocks=lambda: recommendation_blocks(result),
        records=lambda: _plan_records(result),
    )  # fmt: skip
    if result.plan is None:
        miss = result.nearest_miss.statement if result.nearest_miss else "nothing was left to try"
        raise NoPlanError(f"no feasible plan: {miss}")
    if fail_over_budget is not None and result.plan.cost.usd_per_hour > fail_over_budget:
        typer.echo(
            f"over budget: ${result.plan.cost.usd_per_hour:.2f} per hour, ${fail_over_budget:.2f} allowed",
            err=True,
        )
        raise typer.Exit(LIMIT_CROSSED)


def _plan_records(result: Any) -> list[dict[str, Any]]:
    plans = [("recommended", "", result.plan)] if result.plan is not None else []
    plans += [("alternative" if a.feasible else "infeasible", a.reason, a.plan) for a in result.alternatives]
    rows = []
    for (role, reason, plan), name in zip(
        plans,
        ([result.plan.accelerator] if result.plan is not None else []) + [a.accelerator for a in result.alternatives],
        strict=True,
    ):
        record = {"role": role, "accelerator": name, "reason": reason}
        if plan is not None:
            record |= plan.model_dump(mode="json", exclude={"speculation": {"considered"}})
        rows.append(record)
    return rows


class _progress:
    """A spinner on stderr for work that takes over a second; nothing when quiet or piped."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet or not sys.stderr.isatty()
        self.timer: Any = None

    def __enter__(self) -> None:
        if self.quiet:
            return
        import threading

        def show() -> None:
            sys.stderr.write("pricing candidates …\r")
            sys.stderr.flush()

        self.timer = threading.Timer(1.0, show)
        self.timer.daemon = True
        self.timer.start()

    def __exit__(self, *_: object) -> None:
        if self.timer is not None:
            self.timer.cancel()
            sys.stderr.write("\r\033[K")


@compare_app.command("gpus")
def compare_gpus(
    workload: Annotated[
        str | None,
        typer.Option("--workload", "-w", help="Best plan per accelerator for this workload.", show_default=False),
    ] = None,
    set_: SetOption = None,
    gpus: GpusOption = None,
    price: PriceOption = None,
    hardware_db: DatabaseOption = None,
    prices: PricesOption = None,
    models: ModelsOption = None,
    format_: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Compare accelerators: datasheets side by side, or the best plan on each for a workload."""
    from planner.cli.output import emit
    from planner.sizing import compare_on_workload, datasheet

    database = _database(hardware_db, prices)
    overrides = _prices(price, database)
    if workload is None:
        from planner.report.listing import datasheet_blocks

        if set_:
            raise InputError("--set changes a workload", expected="--workload beside it")
        rows = datasheet(database, names(gpus), overrides)
        emit(
            format_, output, data={"schema_version": "1.0", "accelerators": rows},
            blocks=lambda: datasheet_blocks(rows), records=lambda: [r.model_dump() for r in rows],
        )  # fmt: skip
        return
    from planner.report.recommendation import alternative_blocks
    from planner.workload import load_workload

    asked = load_workload(workload, set_ or ())
    found = compare_on_workload(asked, database, gpus=names(gpus), price_overrides=overrides, models=models or ())
    emit(
        format_, output,
        data={"schema_version": "1.0", "workload": asked.resolved, "accelerators": found},
        blocks=lambda: alternative_blocks(found, None),
        records=lambda: [
            {"accelerator": a.accelerator, "feasible": a.feasible, "reason": a.reason,
             **(a.plan.model_dump(exclude={"speculation": {"considered"}}) if a.plan else {})}
            for a in found
        ],
    )  # fmt: skip
    if not any(a.feasible for a in found):
        raise NoPlanError("no feasible plan on any accelerator")


@app.command()
def estimate(
    model: Annotated[str, typer.Option("--model", "-m", help="Model name, id or config.json.")],
    gpu: Annotated[str, typer.Option("--gpu", "-g", help="Accelerator.")],
    tensor_parallel: Annotated[int, typer.Option("--tensor-parallel", "--tp", help="Tensor parallelism.")] = 1,
    pipeline_parallel: Annotated[int, typer.Option("--pipeline-parallel", "--pp", help="Pipeline parallelism.")] = 1,
    expert_parallel: Annotated[int, typer.Option("--expert-parallel", "--ep", help="Expert parallelism.")] = 1,
    data_parallel: Annotated[int, typer.Option("--data-parallel", "--dp", help="Attention data parallelism.")] = 1,
    weights: Annotated[str, typer.Option(help="Weight format, or native.")] = "native",
    kv: Annotated[str, typer.Option(help="KV format, or native.")] = "native",
    engine: Annotated[str, typer.Option(help="vllm, sglang, trtllm or generic.")] = "generic",
    batch: Annotated[float | None, typer.Option(help="Sequences of one bare decode step.", show_default=False)] = None,
    context: Annotated[float | None, typer.Option(help="Context of each, tokens.", show_default=False)] = None,
    input_tokens: Annotated[float | None, typer.Option(help="Input tokens of a request.", show_default=False)] = None,
    output_tokens: Annotated[float | None, typer.Option(help="Output tokens of a request.", show_default=False)] = None,
    cached_tokens: Annotated[float, typer.Option(help="Input tokens already cached.")] = 0.0,
    concurrency: Annotated[float | None, typer.Option(help="Requests in flight.", show_default=False)] = None,
    rate: Annotated[float | None, typer.Option(help="Requests per second.", show_default=False)] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Everything queued at once.", show_default=False)] = False,
    hardware_db: DatabaseOption = None,
    models: ModelsOption = None,
    format_: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Estimate one fixed configuration: a bare decode step, or a served load."""
    from planner.cli.output import emit
    from planner.report.listing import estimate_blocks
    from planner.sizing import EstimateRequest
    from planner.sizing import estimate as price_one

    request = EstimateRequest(
        model, gpu, tensor_parallel, pipeline_parallel, expert_parallel, data_parallel, weights, kv,
        engine, batch, context, input_tokens, output_tokens, concurrency, rate, offline, cached_tokens,
    )  # fmt: skip
    result = price_one(request, _database(hardware_db), models or ())
    emit(
        format_, output, data=result.model_dump(mode="json", exclude_none=True),
        blocks=lambda: estimate_blocks(result),
        records=lambda: [result.model_dump(mode="json", exclude_none=True, exclude={"assumptions"})],
    )  # fmt: skip
    if not result.fits:
        raise NoPlanError(result.warnings[0] if result.warnings else "does not fit")


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="gpus, models or prices.")],
    gpus: GpusOption = None,
    hardware_db: DatabaseOption = None,
    prices: PricesOption = None,
    models: ModelsOption = None,
    format_: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """List accelerators, models or prices."""
    from dataclasses import asdict

    from planner.cli.output import emit
    from planner.report import listing

    kinds = ("gpus", "models", "prices")
    if what not in kinds:
        raise InputError(f"cannot list {what!r}", expected="gpus, models or prices", suggestion=nearest(what, kinds))
    rows: list[Any]
    blocks: Callable[[Sequence[Any]], Sequence[Any]]
    if what == "models":
        from planner.models import list_models

        rows = list(list_models(models or ()))
        blocks = listing.models_blocks
    elif what == "prices":
        database = _database(hardware_db, prices)
        wanted = [database.accelerator(n).name for n in names(gpus) or database.accelerators]
        rows = [p for name in wanted for p in database.prices.of(name)]
        blocks = listing.prices_blocks
    else:
        from planner.sizing import datasheet

        sheet = datasheet(_database(hardware_db, prices), names(gpus))
        emit(
            format_, output, data=list(sheet), blocks=lambda: listing.datasheet_blocks(sheet),
            records=lambda: [r.model_dump() for r in sheet],
        )  # fmt: skip
        return
    records = [asdict(r) for r in rows]
    emit(format_, output, data=records, blocks=lambda: blocks(rows), records=lambda: records)


@app.command()
def show(
    what: Annotated[str, typer.Argument(help="gpu or model.")],
    name: Annotated[str, typer.Argument(help="Its name.")],
    hardware_db: DatabaseOption = None,
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
    if what == "gpu":
        database = _database(hardware_db)
        chip = database.accelerator(name)
        facts = accelerator_facts(chip)
        offered = database.prices.of(chip.name)
        emit(
            format_, output, data=facts, blocks=lambda: listing.accelerator_blocks(chip, offered),
            records=lambda: [{"fact": k, **v} for k, v in facts["facts"].items()],
        )  # fmt: skip
        return
    from planner.models import load_model

    model = load_model(name, models or ())
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
    output: OutputOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.", show_default=False)] = False,
) -> None:
    """Write a commented workload file to start from."""
    from planner.cli.output import write
    from planner.workload.examples import KINDS, example_text

    if kind not in KINDS:
        raise InputError(
            f"no template {kind!r}", expected="one of " + ", ".join(KINDS), suggestion=nearest(kind, KINDS)
        )
    if output is not None and output.exists() and not force:
        raise InputError("exists already", file=str(output), expected="--force to replace it")
    write(example_text(kind), output)


@app.command()
def schema(
    what: Annotated[str, typer.Argument(help="workload or result.")] = "workload",
    output: OutputOption = None,
) -> None:
    """Print the JSON Schema of a workload file or of a recommendation."""
    from planner.cli.output import to_json, write

    if what == "workload":
        from planner.workload.schema import WorkloadFile as Kind
    elif what == "result":
        from planner.sizing.result import Recommendation as Kind  # type: ignore[assignment]
    else:
        raise InputError(
            f"no schema of {what!r}",
            expected="workload or result",
            suggestion=nearest(what, ("workload", "result")),
        )
    write(to_json(Kind.model_json_schema()), output)


@app.command("check-db")
def check_db(
    hardware_db: DatabaseOption = None,
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

    database = _database(hardware_db, prices)
    problems = [asdict(p) for p in check_database(database)]
    problems += [
        {"file": "models", "key": "", "message": text, "severity": "error"} for text in check_catalogue(models or ())
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
        records=lambda: problems,
    )  # fmt: skip
    if any(p["severity"] == "error" for p in problems):
        raise typer.Exit(2)
