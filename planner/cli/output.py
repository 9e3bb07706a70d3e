"""Where a result goes: format by flag, suffix or terminal; files written whole or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from planner.cli.options import Format
from planner.documents import dotted
from planner.errors import InputError, PlannerError
from planner.report.blocks import Block

SUFFIXES = {
    ".json": Format.json, ".csv": Format.csv, ".md": Format.markdown, ".txt": Format.table,
}  # fmt: skip


def choose_format(wanted: Format | None, output: Path | None) -> Format:
    """The format asked for, else the output file's, else a table. InputError for an odd suffix."""
    if wanted is not None or output is None:
        return wanted or Format.table
    suffix = output.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"no format for {output.name!r}", key="--output",
            expected="--format, or a name ending in " + ", ".join(SUFFIXES),
        )  # fmt: skip
    return SUFFIXES[suffix]


def emit(
    wanted: Format | None,
    output: Path | None,
    *,
    data: Any,
    blocks: Callable[[], Sequence[Block]],
    records: Callable[[], Sequence[Mapping[str, Any]]],
    columns: Sequence[str] = (),
) -> None:
    """Write a result: ``data`` as JSON, ``records`` as CSV, ``blocks`` otherwise.

    ``columns`` head a CSV that may have no rows.
    """
    chosen = choose_format(wanted, output)
    write(_text(chosen, output, data, blocks, records, columns), output)


def _text(
    chosen: Format,
    output: Path | None,
    data: Any,
    blocks: Callable[[], Sequence[Block]],
    records: Callable[[], Sequence[Mapping[str, Any]]],
    columns: Sequence[str],
) -> str:
    from planner.report import render

    if chosen is Format.json:
        return to_json(data)
    if chosen is Format.csv:
        return render.comma_separated(records(), columns)
    if chosen is Format.markdown:
        return render.markdown(blocks())
    if output is None and sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        return render.terminal(blocks())
    return render.plain(blocks())


def to_json(data: Any) -> str:
    """Any result as indented JSON with a final newline; same input, same bytes."""
    if hasattr(data, "model_dump"):
        data = data.model_dump(mode="json")
    return json.dumps(_finite(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any, path: tuple[str | int, ...] = ()) -> Any:
    """The value as JSON can hold it; InputError for a number that is none."""
    if hasattr(value, "model_dump"):
        return _finite(value.model_dump(mode="json"), path)
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(
            f"the result's {dotted(path)} is {value}", expected="smaller or larger numbers in the input"
        )  # fmt: skip
    if isinstance(value, Mapping):
        return {k: _finite(v, (*path, k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v, (*path, i)) for i, v in enumerate(value)]
    return value


def write(text: str, output: Path | None) -> None:
    """Text to standard output, or to a file whole or not at all.

    InputError when ``output`` cannot be written, PlannerError when there is no room for the text.
    """
    if output is None:
        _print(text)
    else:
        write_file(text.encode(errors="replace"), output)


def write_file(content: bytes, output: Path, option: str = "--output") -> None:
    """A file whole or not at all; errors as :func:`write`, naming the ``option`` that asked for it."""
    try:
        found = output.stat()
    except FileNotFoundError:
        found = None
    except OSError as error:
        raise _failed(output, option, error) from None
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise InputError("is a folder", file=str(output), key=option, expected="a file")
    if found is not None and not stat.S_ISREG(found.st_mode):
        # a device or a pipe has nothing to replace, and must never be replaced
        try:
            with output.open("wb") as stream:
                stream.write(content)
        except OSError as error:
            raise _failed(output, option, error) from None
        return
    try:
        target = output.resolve()  # through links, so that a link stays one
    except (OSError, RuntimeError):
        raise InputError("is a loop of links", file=str(output), key=option, expected="a file") from None
    if not target.parent.is_dir():
        raise InputError("no such folder", file=str(target.parent), key=option)
    _replace(content, target, None if found is None else stat.S_IMODE(found.st_mode), option)


def _replace(content: bytes, target: Path, mode: int | None, option: str) -> None:
    """The content at ``target`` by way of a file beside it, with the old file's mode if there was one."""
    beside = target.parent / f".planner-{os.getpid()}.tmp"
    try:
        with beside.open("xb") as stream:
            stream.write(content)
        if mode is not None:
            beside.chmod(mode)
        beside.replace(target)
    except OSError as error:
        raise _failed(target, option, error) from None
    finally:
        beside.unlink(missing_ok=True)


def _failed(output: Path, option: str, error: OSError) -> PlannerError:
    problem = f"cannot be written ({error.strerror})"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        return PlannerError(f"{output}: {problem}")
    return InputError(problem, file=str(output), key=option, expected="a file that can be written")


def _print(text: str) -> None:
    if sys.stdout is None:
        raise PlannerError("standard output is closed; --output writes to a file")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()  # the reader has what it wanted; the result still decides the exit code
    except OSError as error:
        discard_output()
        raise PlannerError(f"standard output: cannot be written ({error.strerror})") from None


def discard_output() -> None:
    """Point standard output at nothing, so that no later flush fails."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
