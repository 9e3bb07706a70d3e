"""The command that decides about speculative decoding: at a workload's plan, or at a fixed configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli.base import Progress, app, database_with, gpus_with, models_with, prices_with, workload_with
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
    names,
)
from planner.errors import InputError, nearest

if TYPE_CHECKING:
    from planner.decisions.speculation_result import SpeculationDecision
    from planner.hardware.acceptance import AcceptanceData
    from planner.workload import Speculation


@app.command()
def speculate(
    workload: Annotated[
        str | None, typer.Argument(help="Workload file, or - for standard input; or --model and --gpu.")
    ] = None,
    set_: SetOption = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model name, id or config.json.", show_default=False)
    ] = None,
    gpu: Annotated[str | None, typer.Option("--gpu", "-g", help="Accelerator.", show_default=False)] = None,
    tensor_parallel: Annotated[int, typer.Option("--tensor-parallel", "--tp", help="Tensor parallelism.")] = 1,
    pipeline_parallel: Annotated[int, typer.Option("--pipeline-parallel", "--pp", help="Pipeline parallelism.")] = 1,
    expert_parallel: Annotated[int, typer.Option("--expert-parallel", "--ep", help="Expert parallelism.")] = 1,
    data_parallel: Annotated[int, typer.Option("--data-parallel", "--dp", help="Attention data parallelism.")] = 1,
    weights: Annotated[str, typer.Option(help="Weight format, or native.")] = "native",
    kv: Annotated[str, typer.Option(help="KV format, or native.")] = "native",
    engine: Annotated[str, typer.Option(help="vllm, sglang, trtllm or generic.")] = "vllm",
    batch: Annotated[float | None, typer.Option(min=1, help="Sequences in the replica.", show_default=False)] = None,
    context: Annotated[float | None, typer.Option(min=1, help="Context of each, tokens.", show_default=False)] = None,
    task: Annotated[str, typer.Option(help="Task the acceptance is taken for.")] = "chat",
    methods: Annotated[
        str | None, typer.Option(help="Methods to consider, comma separated.", show_default=False)
    ] = None,
    draft_model: Annotated[str | None, typer.Option(help="Model that drafts.", show_default=False)] = None,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="Sampling temperature.")] = 1.0,
    draft_domain: Annotated[
        str, typer.Option(help="in-domain, or generic: a head trained on other text than this.")
    ] = "in-domain",
    acceptance: AcceptanceOption = None,
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
    """Decide about speculative decoding: yes or no, method, draft tokens, speed-up, and where it flips."""
    from planner.cli.output import choose_format, emit
    from planner.hardware.acceptance import load_acceptance

    choose_format(format_, output)
    data = acceptance_with(acceptance) or load_acceptance()
    database = database_with(hardware_db, prices, calibration)
    if workload is not None:
        from planner.decisions.speculation_setting import speculate_at_plan

        _workload_alone(
            model=model, gpu=gpu, batch=batch, context=context, methods=methods, draft_model=draft_model,
            tensor_parallel=tensor_parallel, pipeline_parallel=pipeline_parallel, expert_parallel=expert_parallel,
            data_parallel=data_parallel, weights=weights, kv=kv, engine=engine, task=task, temperature=temperature,
            draft_domain=draft_domain,
        )  # fmt: skip
        asked, said = workload_with(workload, set_)
        with Progress(quiet), said:
            found = speculate_at_plan(
                asked, database, data, gpus=gpus_with(gpus, database), price_overrides=prices_with(price, database),
                models=models_with(models), simulate=simulate,
            )  # fmt: skip
    else:
        from planner.decisions.speculation_setting import speculate_at
        from planner.sizing import EstimateRequest

        if model is None or gpu is None:
            raise InputError("nothing to decide about", expected="a workload, or --model and --gpu")
        if set_ or gpus or price:
            raise InputError("--set, --gpus and --price go with a workload", expected="one instead of --model")
        request = EstimateRequest(
            model, gpu, tensor_parallel, pipeline_parallel, expert_parallel, data_parallel, weights, kv, engine,
            batch, context,
        )  # fmt: skip
        found = speculate_at(
            request, _speculation(task, methods, draft_model, temperature, draft_domain), database, data,
            models_with(models),
        )  # fmt: skip
    emit(format_, output, data=found, blocks=lambda: _blocks(found, output), records=lambda: _records(found))


#: options of a fixed configuration that have a value when nobody gives one
DEFAULTS = {"tensor_parallel": 1, "pipeline_parallel": 1, "expert_parallel": 1, "data_parallel": 1, "weights": "native",
            "kv": "native", "engine": "vllm", "task": "chat", "temperature": 1.0,
            "draft_domain": "in-domain"}  # fmt: skip


def _workload_alone(**given: object) -> None:
    """InputError for an option of a fixed configuration beside a workload."""
    for name, value in given.items():
        if value != DEFAULTS.get(name):
            raise InputError(
                "given beside a workload",
                key="--" + name.replace("_", "-"),
                expected="--set for what the workload says",
            )


def acceptance_with(files: list[Path] | None) -> AcceptanceData | None:
    """The bundled acceptance with the user's files on top; None without any."""
    if not files:
        return None
    from planner.hardware.acceptance import load_acceptance
    from planner.hardware.own_acceptance import with_own

    return with_own(load_acceptance(), files)


def _speculation(
    task: str, methods: str | None, draft_model: str | None, temperature: float, draft_domain: str
) -> Speculation:
    from planner.hardware.own_acceptance import METHODS
    from planner.workload import Speculation
    from planner.workload.schema import TASKS

    if task not in TASKS:
        raise InputError(f"is {task!r}", key="--task", expected="one of " + ", ".join(TASKS),
                         suggestion=nearest(task, TASKS))  # fmt: skip
    listed = names(methods)
    for method in listed or ():
        if method not in METHODS:
            raise InputError(f"is {method!r}", key="--methods", expected="some of " + ", ".join(METHODS),
                             suggestion=nearest(method, METHODS))  # fmt: skip
    if draft_domain not in ("in-domain", "generic"):
        raise InputError(f"is {draft_domain!r}", key="--draft-domain", expected="in-domain or generic")
    return Speculation.model_validate(
        {"task": task, "methods": listed, "draft_model": draft_model, "temperature": temperature,
         "draft_domain": draft_domain}
    )  # fmt: skip


def _blocks(found: SpeculationDecision, output: Path | None) -> list[Any]:
    import shutil

    from planner.report.speculation import speculation_blocks

    return list(speculation_blocks(found, shutil.get_terminal_size().columns if output is None else None))


def _records(found: SpeculationDecision) -> list[dict[str, Any]]:
    """One row for every cell of the map."""
    m = found.map
    if m is None:
        return []
    return [
        {
            "context": context, "batch": batch, "speedup": m.speedup[r][i], "speedup_low": m.speedup_low[r][i],
            "speedup_high": m.speedup_high[r][i], "method": m.method[r][i], "draft_tokens": m.draft_tokens[r][i],
            "fits": m.fits[r][i],
        }
        for r, context in enumerate(m.contexts)
        for i, batch in enumerate(m.batches)
    ]  # fmt: skip
