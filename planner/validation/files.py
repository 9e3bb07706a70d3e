"""Tables of measurements: which files, what kind of table each is by its columns, and which of its rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from planner.errors import InputError, nearest
from planner.validation.kernels import is_kernel_table
from planner.validation.speculation import is_acceptance_table, is_speculation_table

Row = dict[str, str]
PUBLISHED = Path(__file__).resolve().parent / "data"
SIZE_LIMIT = 200_000_000  # bytes of one table
#: columns of which a table of results has one at least
MEASURED = (
    "tpot_ms", "tpot_p50_ms", "tpot_p99_ms", "ttft_ms", "ttft_p50_ms", "ttft_p99_ms", "output_tok_s_per_gpu",
    "output_tok_s_total", "total_tok_s",
)  # fmt: skip
#: tables that come with measurements and hold none: columns, and what they are
BESIDE = (
    ({"measured_tpot_ms", "predicted_tpot_ms"}, "another planner's predictions; what was measured has its own table"),
    ({"gpu", "all_in_power_kw_per_gpu"}, "assumed costs, nothing measured"),
    ({"mlperf_round", "p99_ttft_slo_ms"}, "a benchmark's limits and lengths, nothing measured"),
)
UNKNOWN = "none of the tables of measurements we read has these columns"
KNOWN = (
    "results (gpu, model, isl, osl, engine, tp, concurrency_or_batch and ttft_ms, tpot_ms or output_tok_s_per_gpu), "
    "speed-ups (target_model, method, speedup), acceptance lengths (model, method, num_draft_tokens, "
    "acceptance_length) or kernel times (gpu, backend, shape, latency_us)"
)


@dataclass(frozen=True)
class Table:
    """One file: its ``name`` in reports, what ``kind`` of table it is, ``columns`` and ``rows``.

    ``kind``: results, speculation, acceptance, kernels, beside (nothing measured) or unknown; ``note`` says
    what the last two are.
    """

    name: str
    kind: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""


def kind_of(columns: Collection[str]) -> tuple[str, str]:
    """Kind of the table with these columns, and a note on tables without measurements.

    >>> kind_of(["gpu", "model", "isl", "osl", "tpot_ms"]), kind_of(["a", "b"])[0]
    (('results', ''), 'unknown')
    """
    have = set(columns)
    for needed, note in BESIDE:
        if needed <= have:
            return "beside", note
    if is_speculation_table(have):
        return "speculation", ""
    if is_acceptance_table(have):
        return "acceptance", ""
    if is_kernel_table(have):
        return "kernels", ""
    if {"gpu", "model"} <= have and have & set(MEASURED):
        return "results", ""
    return "unknown", UNKNOWN


def read_tables(paths: Sequence[Path] = ()) -> list[Table]:
    """The tables of ``paths``, files and folders of ``.csv``; without any those the package ships.

    InputError for what is no table, for a named file of no known kind, and for a folder that has none. A file of no
    known kind in a folder stays, so that its rows are counted.
    """
    files: list[tuple[Path, bool]] = []
    for path in paths or (PUBLISHED,):
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix.lower() == ".csv")
            if not found:
                raise InputError("is a folder without .csv files", file=str(path), expected="tables of measurements")
            files += [(p, False) for p in found]
        else:
            files.append((path, True))
    files = list({p.resolve(): (p, named) for p, named in files}.values())
    several = {p.name for i, (p, _) in enumerate(files) if any(q.name == p.name for q, _ in files[:i])}
    tables = [read_table(p, str(p) if p.name in several else p.name, named) for p, named in files]
    if all(t.kind == "unknown" for t in tables):
        raise InputError(UNKNOWN, file=tables[0].name, key=", ".join(tables[0].columns[:12]), expected=KNOWN)
    return tables


def read_table(path: Path, name: str, named: bool = True) -> Table:
    """One CSV file; InputError when it is none, and when it is of no known kind though ``named`` by the user."""
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise InputError("is larger than 200 MB", file=str(path), expected="a table of measurements")
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError("no such file or folder", file=str(path), key="--measurements") from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", file=str(path), key="--measurements") from None
    columns, rows = parse_rows(content, str(path))
    kind, note = kind_of(columns)
    if kind == "unknown" and named:
        missing = _missing(columns)
        raise InputError(missing or UNKNOWN, file=str(path), line=1, expected=KNOWN)
    if kind in ("results", "speculation", "acceptance"):
        _number_ids(rows)
    for row in rows:
        if not row.get("dp_attention", "-"):  # filled it says how to read the degrees, empty it says nothing
            del row["dp_attention"]
    return Table(name, kind, columns, rows, note)


def parse_rows(content: bytes, file: str) -> tuple[tuple[str, ...], tuple[Row, ...]]:
    """Columns and rows of a CSV file's content; InputError with the line for what is none."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError("is not text in UTF-8", file=file, line=line, expected="a CSV file in UTF-8") from None
    if "\0" in text:
        raise InputError("holds zero bytes, so it is no text", file=file, expected="a CSV file in UTF-8")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    rows: list[Row] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not header:
                header = _header(cells, file, reader.line_num)
                continue
            if len(cells) != len(header):
                raise InputError(
                    f"row of {len(cells)} cells", file=file, line=reader.line_num,
                    expected=f"{len(header)}, one for each column of the first line",
                )  # fmt: skip
            rows.append(dict(zip(header, (c.strip() for c in cells), strict=True)))
    except csv.Error as error:
        raise InputError(
            f"is not a CSV file ({error})", file=file, line=max(1, reader.line_num), expected="cells between commas"
        ) from None
    if not rows:
        raise InputError("has no rows" if header else "is empty", file=file, expected="a table of measurements")
    return tuple(header), tuple(rows)


def _header(cells: Sequence[str], file: str, line: int) -> list[str]:
    header = [cell.strip() for cell in cells]
    for other in (";", "\t"):
        if len(header) == 1 and other in header[0]:
            raise InputError(f"has its cells between {other!r}", file=file, line=line, expected="commas")
    double = next((c for i, c in enumerate(header) if c and c in header[:i]), None)
    if double:
        raise InputError(f"has column {double!r} twice", file=file, line=line, expected="each once")
    return header


def _number_ids(rows: Iterable[Row]) -> None:
    """Every row has an id of its own: its number where it has none, a suffix where another has the same."""
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        name = row.get("id") or row.get("name") or f"row {number}"
        seen[name] = seen.get(name, 0) + 1
        row["id"] = name if seen[name] == 1 else f"{name} #{seen[name]}"


def _missing(columns: Collection[str]) -> str:
    """What a table that was meant as one of results lacks, or nothing."""
    have = set(columns)
    if not have & {"gpu", "model", *MEASURED}:
        return ""
    lacking = [c for c in ("gpu", "model") if c not in have]
    if not have & set(MEASURED):
        lacking.append("one of " + ", ".join(MEASURED))
    return "has no column " + " and no ".join(lacking)


@dataclass(frozen=True)
class Condition:
    """``column`` of a row is like one of ``patterns`` (``*`` stands for anything, case doesn't count)."""

    column: str
    patterns: tuple[str, ...]

    def holds(self, row: Row) -> bool:
        """Whether a row fulfils it; a column the row's table lacks is empty.

        >>> Condition("trust", ("ok*", "")).holds({"trust": "OK (id)"}), Condition("flag", ("",)).holds({})
        (True, True)
        """
        value = row.get(self.column, "").lower()
        return any(value == p or fnmatchcase(value, p) for p in self.patterns)


def parse_where(texts: Sequence[str]) -> list[Condition]:
    """``--where`` settings; InputError when one has no ``=``.

    >>> parse_where(["mode=agg", "trust=ok*|as-given"])[1]
    Condition(column='trust', patterns=('ok*', 'as-given'))
    """
    found = []
    for text in texts:
        column, equals, value = text.partition("=")
        if not equals or not column.strip():
            raise InputError(f"is {text!r}", key="--where", expected="COLUMN=VALUE, as mode=agg or flag=")
        found.append(Condition(column.strip(), tuple(p.strip().lower() for p in value.split("|"))))
    return found


def select(tables: Sequence[Table], conditions: Sequence[Condition]) -> list[Table]:
    """The tables with the rows that fulfil all ``conditions``; InputError for a column no table has, and for none."""
    known = {c for t in tables for c in t.columns} | {"id"}
    for one in conditions:
        if one.column not in known:
            raise InputError(
                f"no table has a column {one.column!r}", key="--where", expected="a column of the measurements",
                suggestion=nearest(one.column, known),
            )  # fmt: skip
    if not conditions:
        return list(tables)
    chosen = [
        Table(t.name, t.kind, t.columns, tuple(r for r in t.rows if all(c.holds(r) for c in conditions)), t.note)
        for t in tables
    ]
    if not any(t.rows for t in chosen):
        raise InputError("leaves no row", key="--where", expected="conditions that some row fulfils")
    return [t for t in chosen if t.rows]


def doubtful(row: Row) -> bool:
    """Whether the row itself says that its measurement or configuration is in doubt.

    Any ``flag``, a ``parallelism_trust`` of suspect or corrected.

    >>> doubtful({"flag": "", "parallelism_trust": "as-given"}), doubtful({"flag": "TTFT>5s"})
    (False, True)
    """
    return bool(row.get("flag")) or row.get("parallelism_trust", "").startswith(("suspect", "corrected"))
