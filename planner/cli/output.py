"""Where a result goes: format by flag, suffix or terminal; files written whole or not at all."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from planner.cli.options import Format
from planner.errors import InputError, PlannerError
from planner.report.blocks import Block

SUFFIXES = {
    ".json": Format.json, ".csv": Format.csv, ".md": Format.markdown, ".txt": Format.table,
}  # fmt: skip


def choose_format(wanted: Format | None, output: Path | None) -> Format:
    """The format asked for, else the output file's, else a table. InputError for an odd suffix."""
    if wanted is not None or output is None:
        return wanted or Format.table
    if output.suffix not in SUFFIXES:
        raise InputError(
            f"no format for {output.name!r}", key="--output",
            expected="--format, or a name ending in " + ", ".join(SUFFIXES),
        )  # fmt: skip
    return SUFFIXES[output.suffix]


def emit(
    wanted: Format | None,
    output: Path | None,
    *,
    data: Any,
    blocks: Callable[[], Sequence[Block]],
    records: Callable[[], Sequence[Mapping[str, Any]]],
) -> None:
    """Write a result: ``data`` as JSON, ``records`` as CSV, ``blocks`` otherwise."""
    chosen = choose_format(wanted, output)
    write(_text(chosen, output, data, blocks, records), output)


def _text(
    chosen: Format,
    output: Path | None,
    data: Any,
    blocks: Callable[[], Sequence[Block]],
    records: Callable[[], Sequence[Mapping[str, Any]]],
) -> str:
    from planner.report import render

    if chosen is Format.json:
        return to_json(data)
    if chosen is Format.csv:
        return render.comma_separated(records())
    if chosen is Format.markdown:
        return render.markdown(blocks())
    if output is None and sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        return render.terminal(blocks())
    return render.plain(blocks())


def to_json(data: Any) -> str:
    """Any result as indented JSON with a final newline; same input, same bytes."""
    if hasattr(data, "model_dump"):
        data = data.model_dump(mode="json")
    return json.dumps(_finite(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return _finite(value.model_dump(mode="json"))
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def write(text: str, output: Path | None) -> None:
    """Text to standard output, or to a file by way of a temporary one beside it."""
    if output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    folder = output.resolve().parent
    if not folder.is_dir():
        raise InputError("no such folder", file=str(folder), key="--output")
    if output.is_dir():
        raise InputError("is a folder", file=str(output), key="--output", expected="a file")
    try:
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as temporary:
            temporary.write(text)
        Path(temporary.name).replace(output)
    except OSError as error:
        raise PlannerError(f"{output}: cannot be written ({error.strerror})") from None
