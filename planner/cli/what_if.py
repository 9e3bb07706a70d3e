"""Commands that ask what if: sensitivity, sweep, diff."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.base import (
    LIMIT_CROSSED,
    Progress,
    app,
    database_with,
    gpus_with,
    models_with,
    prices_with,
    said_in,
)
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
    from planner.decisions.replanning import Question
    from planner.sizing.result import Recommendation

WorkloadArgument = Annotated[str, typer.Argument(help="Workload file, or - for standard input.")]
SimulateOption = Annotated[bool, typer.Option("--simulate/--no-simulate", help="Confirm plans in discrete events.")]
JobsOption = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, help="Cores; all by default.", show_default=False)
]


class Drawing(str, Enum):
    """Figures a sweep can draw."""

    cost = "cost"
    gpus = "gpus"
    usd_per_million = "usd-per-million"
    ttft = "ttft"
    tpot = "tpot"
    e2e = "e2e"


@app.command()
def sensitivity(
    workload: WorkloadArgument,
    draws: Annotated[int, typer.Option("--draws", min=100, max=100_000, help="Draws of the Monte-Carlo.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the draws.")] = 0,
    confidence: Annotated[
        float, typer.Option("--confidence", help="Confidence to name GPUs for, beside 0.5, 0.8, 0.95 and 0.99.")
    ] = 0.95,
    forecast_cv: Annotated[
        float | None,
        typer.Option(
            "--forecast-cv",
            help="Uncertainty of demand, standard deviation over mean; the workload's, else 0.2.",
            show_default=False,
        ),
    ] = None,
    flips: Annotated[bool, typer.Option("--flips/--no-flips", help="Look for the values that flip the plan.")] = True,
    set_: SetOption = None,
    gpus: GpusOption = None,
    price: PriceOption = None,
    hardware_db: DatabaseOption = None,
    calibration: CalibrationOption = None,
    prices: PricesOption = None,
    models: ModelsOption = None,
    format_: FormatOption = None,
    output: OutputOption = None,
    simulate: SimulateOption = True,
    jobs: JobsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Say what a plan hangs on: values that flip it, what they do to cost, the odds that it keeps its limits."""
    from planner.cli.output import choose_format, emit
    from planner.decisions.sensitivity_report import sensitivity_report
    from planner.report.what_if import sensitivity_blocks

    choose_format(format_, output)
    if not 0 < confidence < 1:
        raise InputError(f"is {confidence:g}", key="--confidence", expected="more than 0 and less than 1")
    if forecast_cv is not None and not (math.isfinite(forecast_cv) and 0 <= forecast_cv <= 5):
        raise InputError(f"is {forecast_cv:g}", key="--forecast-cv", expected="0 to 5")
    question, said = _question(workload, set_, gpus, price, hardware_db, calibration, prices, models)
    with _Counted(quiet) as told, said:
        result = sensitivity_report(
            question, draws=draws, seed=seed, confidences=(confidence,), forecast_cv=forecast_cv, simulate=simulate,
            flips=flips, jobs=jobs, progress=told,
        )  # fmt: skip
    emit(
        format_, output, data=result, blocks=lambda: sensitivity_blocks(result),
        records=lambda: (
            [r.model_dump(mode="json") for r in result.sensitivity.inputs] if result.sensitivity is not None
            else [r.model_dump(mode="json") for r in result.risk.confidence]
        ),
    )  # fmt: skip


@app.command()
def sweep(
    workload: WorkloadArgument,
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--sweep",
            help="A field's values, as demand.requests_per_second=5:50:5 or slo.tpot_p95=20ms,40ms; "
            "repeatable, every combination.",
            show_default=False,
        ),
    ] = None,
    plot: Annotated[
        list[Drawing] | None, typer.Option("--plot", help="Draw a figure of the plans; repeatable.", show_default=False)
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
    simulate: SimulateOption = True,
    jobs: JobsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Plan a workload at many values of some fields: a row for each."""
    from planner.cli.output import choose_format, emit
    from planner.decisions.sweep import parse_axis
    from planner.decisions.sweep import sweep as plan_all
    from planner.report.what_if import sweep_blocks

    choose_format(format_, output)
    axes = [parse_axis(text) for text in fields or ()]
    question, said = _question(workload, set_, gpus, price, hardware_db, calibration, prices, models, checked=False)
    with _Counted(quiet) as told, said:
        result = plan_all(question, axes, simulate=simulate, jobs=jobs, progress=told)
    emit(
        format_, output, data=result, blocks=lambda: sweep_blocks(result, [p.value for p in plot or ()]),
        records=lambda: [
            {**p.settings, **p.model_dump(mode="json", exclude={"settings", "plan"})} for p in result.points
        ],
    )  # fmt: skip
    if not any(p.feasible for p in result.points):
        from planner.sizing.nearest_miss import no_plan

        raise no_plan(result.points[0].binding, f"at any of {len(result.points)} points")


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="Workload file, saved recommendation (JSON), or -.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The same, to compare with.")],
    set_: SetOption = None,
    set_b: Annotated[
        list[str] | None, typer.Option("--set-b", help="As --set, for B alone; repeatable.", show_default=False)
    ] = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit 4 when the plans differ.", show_default=False)
    ] = False,
    gpus: GpusOption = None,
    price: PriceOption = None,
    hardware_db: DatabaseOption = None,
    calibration: CalibrationOption = None,
    prices: PricesOption = None,
    models: ModelsOption = None,
    format_: FormatOption = None,
    output: OutputOption = None,
    simulate: SimulateOption = True,
    quiet: QuietOption = False,
) -> None:
    """Compare two plans, of workloads or saved as JSON: what changed, the money, and why."""
    from planner.cli.output import choose_format, emit
    from planner.decisions.diff import difference
    from planner.report.what_if import difference_blocks

    choose_format(format_, output)
    if a == b == "-":
        raise InputError("both are standard input", key="A B", expected="one of them a file")

    def plan(path: str, settings: list[str]) -> Recommendation:
        return _plan_of(path, settings, gpus, price, hardware_db, calibration, prices, models, simulate, quiet)

    before, after = plan(a, set_ or []), plan(b, [*(set_ or []), *(set_b or [])])
    result = difference(before, after, (a, b))
    emit(
        format_, output, data=result, blocks=lambda: difference_blocks(result),
        records=lambda: [
            {"part": part, **c.model_dump(mode="json")}
            for part, rows in (("workload", result.workload), ("plan", result.plan), ("figures", result.figures))
            for c in rows
        ],
        columns=("part", "field", "before", "after"),
    )  # fmt: skip
    if before.plan is None and after.plan is None:
        from planner.sizing.nearest_miss import no_plan

        raise no_plan(after.nearest_miss)
    if exit_code and not result.same_plan:
        raise typer.Exit(LIMIT_CROSSED)


def _plan_of(
    path: str,
    settings: list[str],
    gpus: str | None,
    price: list[str] | None,
    hardware_db: list[Path] | None,
    calibration: list[Path] | None,
    prices: list[Path] | None,
    models: list[Path] | None,
    simulate: bool,
    quiet: bool,
) -> Recommendation:
    """A saved recommendation, or that of a workload."""
    from planner.decisions.diff import read_plan
    from planner.decisions.replanning import replan
    from planner.documents import read_text

    text, name = read_text(path)
    saved = read_plan(text, name)
    if saved is not None:
        if settings:
            raise InputError(f"{name} is a saved plan", key="--set", expected="a workload to change")
        return saved
    question, said = _question(
        path, settings, gpus, price, hardware_db, calibration, prices, models, read=(text, name)
    )  # fmt: skip
    with Progress(quiet), said:
        return replan(question, simulate=simulate)


def _question(
    path: str,
    settings: list[str] | None,
    gpus: str | None,
    price: list[str] | None,
    hardware_db: list[Path] | None,
    calibration: list[Path] | None,
    prices: list[Path] | None,
    models: list[Path] | None,
    *,
    read: tuple[str, str] | None = None,
    checked: bool = True,
) -> tuple[Question, AbstractContextManager[None]]:
    """What the options ask, and what to plan it inside of so that a wrong name in it is said with its place.

    ``checked``: the workload must be right as it is, without further settings.
    """
    from planner.decisions.replanning import Question
    from planner.documents import read_text

    text, name = read or read_text(path)
    database = database_with(hardware_db, prices, calibration)
    chosen = gpus_with(gpus, database)
    question = Question(
        name, text, database, tuple(settings or ()), None if chosen is None else tuple(chosen),
        prices_with(price, database), tuple(models_with(models)),
    )  # fmt: skip
    if checked:
        question.workload()
    return question, said_in(name, text, settings)


class _Counted:
    """Progress in words on stderr, over itself; nothing when quiet or piped."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet or not sys.stderr.isatty()

    def __enter__(self) -> Callable[[str], None]:
        return self._tell

    def _tell(self, text: str) -> None:
        if not self.quiet:
            sys.stderr.write(f"\r\033[K{text} …")
            sys.stderr.flush()

    def __exit__(self, *_: object) -> None:
        if not self.quiet:
            sys.stderr.write("\r\033[K")
