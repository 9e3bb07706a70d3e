"""What all commands stand on: the application, the database they read, the sign of progress."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli.options import names
from planner.errors import InputError

if TYPE_CHECKING:
    from planner.hardware import Database
    from planner.workload.workload import Workload

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


def database_with(
    overlays: list[Path] | None, prices: list[Path] | None = None, calibrations: list[Path] | None = None
) -> Database:
    """The database with the user's overlays, price files and calibrations on top."""
    from planner.hardware import load_database

    return load_database(overlays or (), prices or (), calibrations or ())


def prices_with(options: list[str] | None, database: Database) -> dict[str, float]:
    """``--price`` settings by accelerator name, [$/h]; InputError for an unknown one."""
    from planner.hardware import parse_price_options

    parsed = dict(parse_price_options(options or []))
    return {_known(name, database, "--price"): usd for name, usd in parsed.items()}


def gpus_with(option: str | None, database: Database) -> list[str] | None:
    """``--gpus`` as names of the database, or None; InputError for an unknown one."""
    listed = names(option)
    return None if listed is None else list(dict.fromkeys(_known(n, database, "--gpus") for n in listed))


def _known(name: str, database: Database, option: str) -> str:
    try:
        return database.accelerator(name).name
    except InputError as error:
        if error.file is not None:
            raise
        raise InputError(error.problem, key=option, expected=error.expected, suggestion=error.suggestion) from None


def workload_with(path: str, settings: list[str] | None) -> tuple[Workload, AbstractContextManager[None]]:
    """The workload, and what to plan it inside of so that a wrong name in it is said with its place."""
    from planner.documents import read_text
    from planner.workload import load_workload

    text, name = read_text(path)
    return load_workload(name, settings or (), text=text), said_in(name, text, settings)


@contextmanager
def said_in(workload: str, text: str, settings: list[str] | None) -> Iterator[None]:
    """An InputError about a name the workload gives (a model, a part, a provider) says where it stands."""
    try:
        yield
    except InputError as error:
        if error.file is not None or (error.key or "").startswith("--"):
            raise
        from planner.documents import parse_toml
        from planner.settings import apply_overrides

        document = apply_overrides(parse_toml(text, workload), settings or ())
        place = tuple((error.key or "").split(".")) if error.key else _place_of(document.data, error.problem)
        if not place:
            raise
        raise document.error(place, error.problem, error.expected, error.suggestion) from None


def _place_of(value: Any, problem: str, path: tuple[str | int, ...] = ()) -> tuple[str | int, ...]:
    """Path of the key or text that ``problem`` quotes, () when it quotes none."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        if (isinstance(entry, str) and repr(entry) in problem) or (isinstance(key, str) and repr(key) in problem):
            return (*path, key)
        found = _place_of(entry, problem, (*path, key))
        if found:
            return found
    return ()


def models_with(overlays: list[Path] | None) -> list[Path]:
    """``--models`` as given; InputError for a file that is no model entry."""
    from planner.documents import read_toml

    for overlay in overlays or ():
        for path in sorted(overlay.glob("*.toml")) if overlay.is_dir() else [overlay]:
            document = read_toml(path)
            for key in ("config", "published", "quantization"):
                if not isinstance(document.data.get(key, {}), dict):
                    raise document.error((key,), f"is {document.data[key]!r}", "a table")
            aliases = document.data.get("aliases", [])
            if not isinstance(aliases, list) or not all(isinstance(name, str) for name in aliases):
                raise document.error(("aliases",), f"is {aliases!r}", "a list of names")
    return list(overlays or ())


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
