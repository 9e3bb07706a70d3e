"""From a length table of the workload file to a distribution, with its checks."""

from __future__ import annotations

import csv
import io
from itertools import pairwise
from pathlib import Path

import numpy as np

from planner.documents import Document
from planner.errors import InputError, nearest
from planner.workload.lengths import (
    Constant,
    Empirical,
    Gamma,
    Lengths,
    Limited,
    Lognormal,
    lognormal_from_percentiles,
)
from planner.workload.schema import LengthTable

PERCENTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
COLUMNS = {
    "context": ("ContextTokens", "input_length", "input_tokens", "prompt_tokens", "Request tokens"),
    "answer": ("GeneratedTokens", "output_length", "output_tokens", "Response tokens"),
    "reasoning": ("GeneratedTokens", "output_length", "output_tokens", "Response tokens"),
}  # fmt: skip
SAMPLE_LIMIT = 64_000_000  # bytes of a CSV of samples
MAX_SAMPLES = 200_000


def build_lengths(
    table: LengthTable | float | None,
    document: Document,
    path: tuple[str | int, ...],
    default_cv: float,
    assumptions: list[tuple[str, str, str]],
) -> Lengths | None:
    """The distribution a table describes, [tokens]; None for none; a number is a constant.

    ``default_cv`` [1] stands in for a missing spread and is recorded in ``assumptions``. InputError
    when the table says too little, too much, or contradicts itself.
    """
    if table is None:
        return None
    if isinstance(table, float | int):
        return Constant(float(table))
    inner = _shape(table, document, path, default_cv, assumptions)
    low, high = table.min or 0.0, table.max if table.max is not None else np.inf
    if low > high:
        raise document.error((*path, "min"), f"is {low:g}, above max {high:g}")
    if table.min is None and table.max is None:
        return inner
    for name in (*PERCENTILES, "mean"):
        value = getattr(table, name)
        if value is not None and not low <= value <= high:
            bound = f"above max {high:g}" if value > high else f"below min {low:g}"
            raise document.error((*path, name), f"is {value:g}, {bound}", "lengths inside their own limits")
    return Limited(inner, low, float(high))


def _shape(
    table: LengthTable,
    document: Document,
    path: tuple[str | int, ...],
    default_cv: float,
    assumptions: list[tuple[str, str, str]],
) -> Lengths:
    percentiles = {q: getattr(table, n) for n, q in PERCENTILES.items() if getattr(table, n) is not None}
    ways = {
        "percentiles": bool(percentiles), "mean": table.mean is not None,
        "values": table.values is not None, "samples": table.samples is not None,
        "histogram": table.histogram is not None,
    }  # fmt: skip
    given = [name for name, there in ways.items() if there]
    if not given:
        raise document.error(
            path, "describes no lengths", "two percentiles, mean and cv, values, samples or a histogram"
        )
    if len(given) > 1:
        raise document.error(path, "describes lengths twice: " + " and ".join(given), "one description")
    if table.cv is not None and table.mean is None:
        raise document.error((*path, "cv"), "given without mean")
    if table.values is not None:
        if not table.values:
            raise document.error((*path, "values"), "is empty", "at least one length")
        return Empirical(tuple(sorted(table.values)))
    if table.samples is not None:
        return _from_csv(table, document, path)
    if table.histogram is not None:
        return _from_histogram(table, document, path)
    if percentiles:
        return _from_percentiles(table, percentiles, document, path, default_cv, assumptions)
    assert table.mean is not None
    return _from_mean(table, document, path, default_cv, assumptions)


def _from_mean(
    table: LengthTable,
    document: Document,
    path: tuple[str | int, ...],
    default_cv: float,
    assumptions: list[tuple[str, str, str]],
) -> Lengths:
    assert table.mean is not None
    if table.distribution == "constant":
        return Constant(table.mean)
    if table.distribution == "empirical":
        raise document.error((*path, "distribution"), "is 'empirical'", "values, samples or a histogram with it")
    cv = table.cv
    if cv is None:
        cv = default_cv
        assumptions.append((f"{path[-1]}.cv", f"{cv:g}", "default"))
    shape = Gamma if table.distribution == "gamma" else Lognormal
    return shape.from_mean(table.mean, cv)


def _from_percentiles(
    table: LengthTable,
    percentiles: dict[float, float],
    document: Document,
    path: tuple[str | int, ...],
    default_cv: float,
    assumptions: list[tuple[str, str, str]],
) -> Lengths:
    if table.distribution not in (None, "lognormal"):
        raise document.error(
            (*path, "distribution"), f"is {table.distribution!r} with percentiles",
            "lognormal, or mean and cv",
        )  # fmt: skip
    ordered = sorted(percentiles)
    names = {q: n for n, q in PERCENTILES.items()}
    for lower, upper in pairwise(ordered):
        if percentiles[lower] >= percentiles[upper]:
            raise document.error(
                (*path, names[upper]),
                f"is {percentiles[upper]:g}, not above {names[lower]} = {percentiles[lower]:g}",
                "percentiles in increasing order",
            )
    if len(ordered) == 1:
        if ordered[0] != 0.5:
            raise document.error(path, "gives one percentile", "p50 and another, or mean and cv")
        sigma = float(np.sqrt(np.log1p(default_cv**2)))
        assumptions.append((f"{path[-1]}.cv", f"{default_cv:g}", "default"))
        return Lognormal(float(np.log(percentiles[0.5])), sigma)
    fit, error = lognormal_from_percentiles(percentiles)
    if error > 0.02:
        assumptions.append((str(path[-1]), f"lognormal within {error:.0%} of the percentiles", "workload"))
    return fit


def _from_histogram(table: LengthTable, document: Document, path: tuple[str | int, ...]) -> Lengths:
    assert table.histogram is not None
    edges, weights = np.array(table.histogram.edges), np.array(table.histogram.weights)
    if len(edges) != len(weights) + 1:
        raise document.error(
            (*path, "histogram"),
            f"has {len(edges)} edges and {len(weights)} weights",
            "one more edge than weights",
        )
    if np.any(np.diff(edges) <= 0):
        raise document.error((*path, "histogram", "edges"), "do not increase")
    if weights.sum() <= 0:
        raise document.error((*path, "histogram", "weights"), "sum to zero")
    per_bin = 16
    points = (edges[:-1, None] + np.diff(edges)[:, None] * (np.arange(per_bin) + 0.5) / per_bin).ravel()
    share = np.repeat(weights / weights.sum() / per_bin, per_bin)
    keep = share > 0
    return Empirical(tuple(points[keep]), tuple(share[keep]))


def _from_csv(table: LengthTable, document: Document, path: tuple[str | int, ...]) -> Lengths:
    assert table.samples is not None
    base = Path(document.name).parent if not document.name.startswith("<") else Path()
    file = base / table.samples
    if not file.is_file():
        raise document.error((*path, "samples"), f"no such file: {table.samples}")
    if file.stat().st_size > SAMPLE_LIMIT:
        raise document.error((*path, "samples"), f"{table.samples} is over 64 MB")
    try:
        rows = list(csv.reader(io.StringIO(file.read_text(encoding="utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error):
        raise InputError("is not a CSV file", file=str(file)) from None
    rows = [r for r in rows if r and any(cell.strip() for cell in r)]
    if not rows:
        raise InputError("has no rows", file=str(file))
    column = _column(table, rows[0], str(path[-1]), file)
    start = 0 if column[1] else 1
    return Empirical(tuple(_numbers(rows[start:], column[0], file, start)))


def _column(table: LengthTable, header: list[str], key: str, file: Path) -> tuple[int, bool]:
    """Index of the column, and whether the file has no header."""
    if table.column is not None:
        if table.column not in header:
            raise InputError(
                f"has no column {table.column!r}", file=str(file), line=1,
                expected="one of " + ", ".join(header), suggestion=nearest(table.column, header),
            )  # fmt: skip
        return header.index(table.column), False
    for name in COLUMNS.get(key, ()):
        if name in header:
            return header.index(name), False
    try:
        float(header[0])
    except ValueError:
        if len(header) == 1:
            return 0, False
        raise InputError(
            "several columns and none named", file=str(file), line=1, key="column",
            expected="one of " + ", ".join(header),
        ) from None  # fmt: skip
    return 0, True


def _numbers(rows: list[list[str]], column: int, file: Path, start: int) -> list[float]:
    values = []
    for i, row in enumerate(rows):
        try:
            value = float(row[column])
        except (ValueError, IndexError):
            raise InputError(
                f"row is not a length: {','.join(row)[:40]!r}", file=str(file), line=i + start + 1,
                expected="a number of tokens",
            ) from None  # fmt: skip
        if not np.isfinite(value) or value < 0:
            raise InputError(f"length is {value:g}", file=str(file), line=i + start + 1)
        values.append(max(value, 1.0))
    if not values:
        raise InputError("has no rows", file=str(file))
    ordered = np.sort(np.array(values))
    if len(ordered) > MAX_SAMPLES:
        ordered = np.quantile(ordered, (np.arange(MAX_SAMPLES) + 0.5) / MAX_SAMPLES)
    return list(ordered)
