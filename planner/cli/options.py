"""Options several commands share, spelled once."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from planner.errors import InputError


class Format(str, Enum):
    """How a result is written."""

    table = "table"
    json = "json"
    csv = "csv"
    markdown = "markdown"


FormatOption = Annotated[
    Format | None, typer.Option("--format", "-f", help="table, json, csv or markdown.", show_default=False)
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Write to this file; its suffix sets the format.", show_default=False),
]
FileOption = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.", show_default=False)]
TemplateFormatOption = Annotated[
    Format | None,
    typer.Option("--format", "-f", help="table, json, csv or markdown; TOML by default.", show_default=False),
]
SchemaFormatOption = Annotated[
    Format | None,
    typer.Option("--format", "-f", help="table, json, csv or markdown; json by default.", show_default=False),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a field, as demand.requests_per_second=30; repeatable.", show_default=False),
]
GpusOption = Annotated[
    str | None, typer.Option("--gpus", help="Only these accelerators, comma separated.", show_default=False)
]
PriceOption = Annotated[
    list[str] | None,
    typer.Option("--price", help="Own price per accelerator-hour, as h100-sxm=2.49; repeatable.", show_default=False),
]
DatabaseOption = Annotated[
    list[Path] | None,
    typer.Option("--hardware-db", help="Own accelerators, engines or prices on top; repeatable.", show_default=False),
]
CalibrationOption = Annotated[
    list[Path] | None,
    typer.Option("--calibration", help="Constants of `planner calibrate` on top; repeatable.", show_default=False),
]
PricesOption = Annotated[
    list[Path] | None,
    typer.Option("--prices", help="Own price file; replaces prices of its accelerators.", show_default=False),
]
ModelsOption = Annotated[
    list[Path] | None,
    typer.Option("--models", help="Own model entries (folder or file); repeatable.", show_default=False),
]
AcceptanceOption = Annotated[
    list[Path] | None,
    typer.Option("--acceptance", help="Own acceptance of draft tokens, a TOML file; repeatable.", show_default=False),
]
TopOption = Annotated[int, typer.Option("--top", min=0, help="Alternatives to show.")]
VerboseOption = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Say how much was priced and how long it took.", show_default=False),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.", show_default=False)]


def names(text: str | None) -> list[str] | None:
    """A comma-separated option as a list without repeats, or None; InputError when it names nothing.

    >>> names("h100, b200,h100,")
    ['h100', 'b200']
    """
    if text is None:
        return None
    listed = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not listed:
        raise InputError(f"--gpus {text!r} names no accelerator", expected="names, as h100-sxm,b200-sxm")
    return listed
