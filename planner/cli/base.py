"""What all commands stand on: the application, the database they read, the sign of progress."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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


def database_with(overlays: list[Path] | None, prices: list[Path] | None = None) -> Database:
    """The database with the user's overlays and price files on top."""
    from planner.hardware import load_database

    return load_database(overlays or (), prices or ())


def prices_with(options: list[str] | None, database: Database) -> dict[str, float]:
    """``--price`` settings by accelerator name, [$/h]; InputError for an unknown one."""
    from planner.hardware import parse_price_options

    parsed = dict(parse_price_options(options or []))
    return {database.accelerator(name).name: usd for name, usd in parsed.items()}


class Progress:
    """A spinner on stderr for work that takes over a second; nothing when quiet or piped."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet or not sys.stderr.isatty()
        self.shown = False
        self.timer: threading.Timer | None = None

    def __enter__(self) -> None:
        if self.quiet:
            return

        def show() -> None:
            self.shown = True
            sys.stderr.write("pricing candidates …\r")
            sys.stderr.flush()

        self.timer = threading.Timer(1.0, show)
        self.timer.daemon = True
        self.timer.start()

    def __exit__(self, *_: object) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.shown:
            sys.stderr.write("\r\033[K")
