"""Traces in CSV: Azure and BurstGPT, read a block of lines at a time into arrays.

A block is converted as a whole; only when that fails is it gone through row by row, to convert what
the quick way does not know and to name the line that is wrong.
"""

from __future__ import annotations

import csv
import datetime
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from planner.errors import InputError
from planner.workload.traces import Rows, Source, Vector

BLOCK = 4_000_000  # bytes of lines converted at once
NANOSECONDS = 1e-9
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_UTC = re.compile(r"(?:\+00:?00|Z)$")
Column = Sequence[str]
Columns = Mapping[str, Callable[[Column], Any]]


def read_azure(source: Source) -> Rows:
    """Azure 2023 and 2024: TIMESTAMP with or without an offset, ContextTokens, GeneratedTokens.

    Source: Azure/AzurePublicDataset.
    """
    names = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
    found = _read(source, dict(zip(names, (_moments, _numbers, _numbers), strict=True)))
    moment, tokens, output = (_joined(found[name]) for name in names)
    return Rows(moment, tokens, output)


def read_burstgpt(source: Source) -> Rows:
    """BurstGPT: Timestamp [s], request and response tokens; no response is a failure. Log types kept.

    Source: HPMLL/BurstGPT, all versions of its header.
    """
    columns = {"Timestamp": _moment_numbers, "Request tokens": _numbers, "Response tokens": _numbers}
    typed = "Log Type" in source.start.split("\n", 1)[0]
    wanted: Columns = {**columns, "Log Type": _names} if typed else columns
    found = _read(source, wanted)
    moment, tokens, output = (_joined(found[name]) for name in columns)
    rows = Rows(moment, tokens, output)
    if typed:
        names = np.concatenate([np.asarray(part) for part in found["Log Type"]] or [np.zeros(0, "U1")])
        kinds, index = np.unique(names, return_inverse=True)
        if len(kinds) > 1:
            rows.kinds = index.astype(np.int64)
            rows.stated["kind_names"] = tuple(str(k) for k in kinds)
    return rows


READERS = (
    ("azure", ("ContextTokens", "GeneratedTokens"), read_azure),
    ("burstgpt", ("Request tokens", "Response tokens"), read_burstgpt),
)


def _joined(parts: Sequence[Any]) -> Vector:
    return np.concatenate([np.asarray(p, dtype=float) for p in parts]) if parts else np.zeros(0)


def _read(source: Source, columns: Columns) -> dict[str, list[Any]]:
    """Every wanted column, block by block, as its converter gives it."""
    found: dict[str, list[Any]] = {name: [] for name in columns}
    header: list[str] = []
    index: list[int] = []
    for first, lines in source.blocks(BLOCK):
        line, rest = first, lines
        if not header:
            skipped = next((i for i, text in enumerate(lines) if text.strip()), len(lines))
            header = [h.strip() for h in next(csv.reader(lines[skipped : skipped + 1]), [])]
            index = [_place(name, header, source, first + skipped) for name in columns]
            line, rest = first + skipped + 1, lines[skipped + 1 :]
        for name, values in zip(columns, _convert(source, line, rest, header, index, columns), strict=True):
            found[name].append(values)
    return found


def _place(name: str, header: list[str], source: Source, line: int) -> int:
    if name not in header:
        raise InputError(f"has no column {name!r}", file=source.name, line=line, expected=", ".join(header))
    return header.index(name)


def _convert(
    source: Source,
    line: int,
    lines: list[str],
    header: list[str],
    index: list[int],
    columns: Columns,
) -> Iterator[Any]:
    picked = _columns(lines, len(header), index)
    if picked is None:
        try:
            rows = [r for r in csv.reader(lines, strict=True) if r]
        except csv.Error as error:
            raise InputError(f"is not a CSV file ({error})", file=source.name, line=line) from None
        short = rows and len(min(rows, key=len)) <= max(index)
        picked = None if short else [[r[i] for r in rows] for i in index]
    if picked is not None:
        try:
            return iter([convert(values) for convert, values in zip(columns.values(), picked, strict=True)])
        except ValueError:
            pass
    return iter(_slowly(source, line, lines, header, index, columns))


def _columns(lines: list[str], width: int, index: list[int]) -> list[list[str]] | None:
    """The wanted columns of plain lines, all of ``width`` cells and none quoted; else None."""
    full = [line for line in lines if line.strip()]
    text = "\n".join(full)
    if '"' in text or any(line.count(",") != width - 1 for line in full):
        return None
    cells = text.replace("\r", "").replace("\n", ",").split(",") if full else []
    return [cells[i::width] for i in index]


def _slowly(
    source: Source,
    line: int,
    lines: list[str],
    header: list[str],
    index: list[int],
    columns: Columns,
) -> list[Any]:
    """Row by row: the value, or the line, column and value that cannot be read."""
    found: list[list[Any]] = [[] for _ in index]
    reader = csv.reader(lines)
    for row in reader:
        at = line + reader.line_num - 1
        if not row:
            continue
        if len(row) <= max(index):
            raise InputError("row is cut short", file=source.name, line=at, expected=f"{len(header)} columns")
        for values, i, (name, convert) in zip(found, index, columns.items(), strict=True):
            try:
                values.append(ONE[convert](row[i]))
            except ValueError:
                expected = "a date and time" if convert is _moments else "a number"
                raise InputError(
                    f"is {row[i][:40]!r}", file=source.name, line=at, key=name, expected=expected
                ) from None
    return [np.array(values) for values in found]


def _numbers(values: Column) -> Vector:
    return np.array(values, dtype="U").astype(float) if values else np.zeros(0)


def _moment_numbers(values: Column) -> Vector:
    found = _numbers(values)
    if not np.all(np.isfinite(found)):
        raise ValueError
    return found


def _moments(values: Column) -> Vector:
    """Seconds since 1970 of ISO dates and times, those without an offset taken as UTC, [s]."""
    if not values:
        return np.zeros(0)
    if _UTC.search(values[0].strip()):
        values = [_UTC.sub("", v.strip()) for v in values]
    if any("+" in v or v.count("-") > 2 or "Z" in v for v in values):
        raise ValueError
    moments = np.array([v.strip() for v in values], dtype="U").astype("datetime64[ns]")
    if np.any(np.isnat(moments)):
        raise ValueError
    return np.asarray(moments.astype(np.int64) * NANOSECONDS, dtype=float)


def _names(values: Column) -> Any:
    return np.char.strip(np.array(values, dtype="U")) if values else np.zeros(0, "U1")


def _one_moment(value: str) -> float:
    moment = datetime.datetime.fromisoformat(value.strip())
    aware = moment.replace(tzinfo=datetime.UTC) if moment.tzinfo is None else moment
    return (aware - EPOCH).total_seconds()


def _one_finite(value: str) -> float:
    return float(_moment_numbers([value])[0])


ONE: dict[Callable[[Column], Any], Callable[[str], Any]] = {
    _moments: _one_moment, _numbers: float, _moment_numbers: _one_finite, _names: str.strip,
}  # fmt: skip
