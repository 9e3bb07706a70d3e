"""Commands that plan: recommend, compare, estimate. Thin: read options, call the layer that knows."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli.base import (
    LIMIT_CROSSED,
    Progress,
    app,
    compare_app,
    database_with,
    gpus_with,
    models_with,
    prices_with,
    workload_with,
)
from planner.cli.options import (
    AcceptanceOption,
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
    TopOption,
    VerboseOption,
)
from planner.errors import InputError, NoPlanError

if TYPE_CHECKING:
    pass


@app.command()
def recommend(
    workload: Annotated[str, typer.Argument(help="Workload file, or - for standard input.")],
    set_: SetOption = None,
    gpus: GpusOption = None,
    top: TopOption = 5,
    price: PriceOption = None,
    hardware_db: DatabaseOption = None,
    calibration: CalibrationOption = None,
    prices: PricesOption = None,
    models: ModelsOption = None,
    acceptance: AcceptanceOption = None,
    format_: FormatOption = None,
    output: OutputOption = None,
    fail_over_budget: Annotated[
        float | None,
        typer.Option(min=0, help="Exit 4 when the plan costs more than this per hour.", show_default=False),
    ] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate/--no-simulate", help="Confirm the plan in discrete events.")
    ] = True,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Recommend a fleet for a workload: accelerator, count, layout, batch, speculation, cost, why."""
    from planner.cli.output import choose_format, emit
    from planner.cli.speculating import acceptance_with
    from planner.report.recommendation import recommendation_blocks
    from planner.sizing import recommend as size

    choose_format(format_, output)
    if fail_over_budget is not None and not math.isfinite(fail_over_budget):
        raise InputError(f"--fail-over-budget is {fail_over_budget}", expected="dollars per hour")
    started = time.perf_counter()
    asked, said = workload_with(workload, set_)
    database = database_with(hardware_db, prices, calibration)
    statistics: dict[str, float] = {}
    with Progress(quiet), said:
        result = size(
            asked, database, gpus=gpus_with(gpus, database), top=top, price_overrides=prices_with(price, database),
            models=models_with(models), statistics=statistics, simulate=simulate,
            acceptance=acceptance_with(acceptance),
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
        from planner.sizing.nearest_miss import no_plan

        raise no_plan(result.nearest_miss)
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
    calibration: CalibrationOption = None,
    prices: PricesOption = None,
    models: ModelsOption = None,
    format_: FormatOption = None,
    output: OutputOption = None,
) -> None:
    """Compare accelerators: datasheets side by side, or the best plan on each for a workload."""
    from planner.cli.output import emit
    from planner.sizing import compare_on_workload, datasheet
    from planner.sizing.nearest_miss import no_plan

    database = database_with(hardware_db, prices, calibration)
    overrides = prices_with(price, database)
    if workload is None:
        from planner.report.listing import datasheet_blocks

        if set_:
            raise InputError("--set changes a workload", expected="--workload beside it")
        rows = datasheet(database, gpus_with(gpus, database), overrides)
        emit(
            format_, output, data={"schema_version": "1.0", "accelerators": rows},
            blocks=lambda: datasheet_blocks(rows), records=lambda: [r.model_dump() for r in rows],
        )  # fmt: skip
        return
    from planner.report.recommendation import alternative_blocks

    asked, said = workload_with(workload, set_)
    with Progress(quiet=False), said:
        compared = compare_on_workload(
            asked, database, gpus=gpus_with(gpus, database), price_overrides=overrides, models=models_with(models)
        )
    found = compared.accelerators
    emit(
        format_, output, data=compared,
        blocks=lambda: alternative_blocks(found, None),
        records=lambda: [
            {"accelerator": a.accelerator, "feasible": a.feasible, "reason": a.reason,
             **(a.plan.model_dump(exclude={"speculation": {"considered"}}) if a.plan else {})}
            for a in found
        ],
    )  # fmt: skip
    if not any(a.feasible for a in found):
        raise no_plan(compared.nearest_miss)


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
    batch: Annotated[
        float | None, typer.Option(min=1, help="Sequences of one bare decode step.", show_default=False)
    ] = None,
    context: Annotated[float | None, typer.Option(min=1, help="Context of each, tokens.", show_default=False)] = None,
    input_tokens: Annotated[
        float | None, typer.Option(min=1, help="Input tokens of a request.", show_default=False)
    ] = None,
    output_tokens: Annotated[
        float | None, typer.Option(min=1, help="Output tokens of a request.", show_default=False)
    ] = None,
    cached_tokens: Annotated[float, typer.Option(help="Input tokens already cached.")] = 0.0,
    concurrency: Annotated[float | None, typer.Option(min=1, help="Requests in flight.", show_default=False)] = None,
    rate: Annotated[float | None, typer.Option(help="Requests per second.", show_default=False)] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Everything queued at once.", show_default=False)] = False,
    hardware_db: DatabaseOption = None,
    calibration: CalibrationOption = None,
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
    result = price_one(request, database_with(hardware_db, calibrations=calibration), models_with(models))
    emit(
        format_, output, data=result.model_dump(mode="json", exclude_none=True),
        blocks=lambda: estimate_blocks(result),
        records=lambda: [result.model_dump(mode="json", exclude_none=True, exclude={"assumptions"})],
    )  # fmt: skip
    if not result.fits or (result.step is None and result.latency is None):
        raise NoPlanError(result.warnings[0] if result.warnings else "does not fit")
