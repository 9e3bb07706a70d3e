"""Files of results, tables and what benchmark tools write alike, with what the files leave out filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from planner.errors import InputError
from planner.validation.benchmark_rows import rows_from_results
from planner.validation.comparison import Skipped
from planner.validation.files import Table, read_tables

#: what benchmark tools write; anything else is read as a table
JSON = (".json", ".jsonl", ".ndjson")


def read_results(paths: Sequence[Path], given: Mapping[str, str]) -> tuple[list[Table], list[Skipped]]:
    """Tables of all files and of folders' files, and the runs in JSON files that are no closed loops.

    ``given``: columns as ``gpu`` or ``tp``; they fill empty cells of tables of results, and hold for JSON files
    whatever those say. InputError for a file that is none we know; in a folder it is left out. Without ``paths`` the
    published tables.
    """
    if given and not paths:
        options = ", ".join(given)
        raise InputError(f"{options} given without results they are of", expected="files of results")
    csv, results = _sorted_out(paths)
    tables = [_filled(t, given) for t in read_tables(csv)] if csv or not paths else []
    skipped: list[Skipped] = []
    names = [path.name for path, _ in results]
    for path, named in results:
        name = str(path) if names.count(path.name) > 1 else path.name
        try:
            rows, left = rows_from_results(path, given)
        except InputError as error:
            if named:
                raise
            skipped.append(Skipped(path.name, name, error.problem))
            continue
        skipped += [replace(s, file=name) for s in left]
        columns = tuple(dict.fromkeys(column for row in rows for column in row))
        tables.append(Table(name, "results", columns, tuple(rows)))
    return tables, skipped


def _sorted_out(paths: Sequence[Path]) -> tuple[list[Path], list[tuple[Path, bool]]]:
    """Tables, and files of JSON with whether they were named; each file once. InputError for a folder of neither."""
    csv: list[Path] = []
    results: dict[Path, tuple[Path, bool]] = {}
    for path in paths:
        if not path.is_dir():
            if path.suffix.lower() in JSON:
                results[path.resolve()] = (path, True)
            else:
                csv.append(path)
            continue
        inside = sorted(p for p in path.iterdir() if p.is_file())
        has_tables = any(p.suffix.lower() == ".csv" for p in inside)
        documents = [p for p in inside if p.suffix.lower() in JSON]
        if not has_tables and not documents:
            raise InputError(
                "is a folder without .json or .csv files", file=str(path), expected="results of benchmarks"
            )
        csv += [path] if has_tables else []
        for p in documents:
            results.setdefault(p.resolve(), (p, False))
    return csv, list(results.values())


def _filled(table: Table, given: Mapping[str, str]) -> Table:
    if table.kind != "results" or not given:
        return table
    return replace(table, rows=tuple({**given, **{k: v for k, v in row.items() if v}} for row in table.rows))
