"""The command that measures the machine it runs on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli.base import app
from planner.cli.options import Format, QuietOption, TemplateFormatOption
from planner.errors import InputError

if TYPE_CHECKING:
    from planner.measuring import Figure, Measurement
    from planner.report.blocks import Block


@app.command()
def measure(
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda (NVIDIA and AMD alike).")] = "auto",
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the accelerator; its own by default.", show_default=False)
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", min=1, max=1024, help="Threads of the processor; all by default.", show_default=False
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repetitions and sizes.", show_default=False)] = False,
    format_: TemplateFormatOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write to this file, as my-cpu.toml.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.", show_default=False)] = False,
    quiet: QuietOption = False,
) -> None:
    """Measure this machine and write it as an accelerator."""
    from planner.cli.output import emit, write

    _check_output(format_, output, force)
    from planner import measuring

    if name is not None:
        measuring.check_name(name)
    with _progress(quiet) as said:
        found = measuring.measure(measuring.choose_device(device), quick=quick, threads=threads, said=said)
    name = name or measuring.default_name(found.host)
    if format_ is None and (output is None or output.suffix.lower() == ".toml"):
        write(measuring.entry_text(found, name), output)
    else:
        emit(format_, output, data=_record(found, name), blocks=lambda: _blocks(found, name),
             records=lambda: [_row(f) for f in found.figures])  # fmt: skip
    if found.noisy:
        worst = found.noisy[0]
        _say(f"warning: this machine is noisy: repetitions of {worst.label} spread {worst.sample.spread:.0%} "
             f"(90th less 10th percentile over the median) and {len(found.noisy)} of {len(found.figures)} figures "
             "more than 10%; end other programs and measure again")  # fmt: skip
    if output is not None and output.suffix.lower() == ".toml" and not quiet:
        _say(f"{name} is in {output}; plan with --hardware-db {output} --gpus {name}")


def _check_output(wanted: Format | None, output: Path | None, force: bool) -> None:
    """InputError for a file that could not be written, before anything is measured."""
    from planner.cli.output import SUFFIXES

    if output is None:
        return
    known = (".toml", *SUFFIXES)
    if wanted is None and output.suffix.lower() not in known:
        raise InputError(
            f"no format for {output.name!r}", key="--output",
            expected="--format, or a name ending in " + ", ".join(known),
        )  # fmt: skip
    if not output.parent.is_dir():
        raise InputError("no such folder", file=str(output.parent), key="--output")
    if output.is_file() and not force:
        raise InputError("exists already", file=str(output), expected="--force to replace it")


def _say(text: str) -> None:
    if sys.stderr is not None:
        print(text, file=sys.stderr)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar on stderr where that is a terminal; gone when all is measured."""
    if quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<36}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        line = bar.add_task("measuring", total=1)
        yield lambda label, done, total: bar.update(line, description=label, completed=done, total=total)


def _row(figure: Figure) -> dict[str, Any]:
    """A figure as a record, SI units."""
    return {
        "figure": figure.label, "format": figure.fmt, "unit": figure.unit, "best": figure.best,
        "median": figure.typical, "spread": figure.sample.spread, "repetitions": figure.sample.repetitions,
        "noisy": figure.noisy, "method": figure.method,
    }  # fmt: skip


def _record(found: Measurement, name: str) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "name": name, "date": found.date, "host": asdict(found.host), "figures": [_row(f) for f in found.figures],
        "left_out": list(found.left_out),
    }  # fmt: skip


def _blocks(found: Measurement, name: str) -> Sequence[Block]:
    from planner.report.blocks import Heading, Text, sheet

    host = found.host
    threads = f", {host.threads} thread{'s' if host.threads > 1 else ''}" if host.device == "cpu" else ""
    rows = [
        (f.label, _shown(f.best, f.unit), _shown(f.typical, f.unit), f"{f.sample.spread:.0%}", f.sample.repetitions)
        for f in found.figures
    ]
    columns = ("Figure", "Best", "Median", "Spread", "Repetitions")
    return [
        Heading(f"{name}: {host.name}{threads}, {host.software}"),
        sheet(columns, rows, numeric=columns[1:]),
        *(Text(f"left out: {item}", "note") for item in found.left_out),
    ]


def _shown(value: float, unit: str) -> str:
    """A rate or a fixed time as people read it."""
    if unit == "s":
        return f"{value * 1e6:.3g} us"
    return f"{value / 1e12:.4g} T{unit}" if value >= 1e13 else f"{value / 1e9:.3g} G{unit}"
