"""Blocks as a terminal shows them, as plain text, and as Markdown; records as CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from planner.report.blocks import Block, Heading, Sheet, Text

STYLES = {
    "plain": "", "good": "green", "bad": "red", "note": "dim", "worse": "white on red3", "even": "black on khaki1",
    "gain-1": "black on pale_green1", "gain-2": "black on green3", "gain-3": "white on dark_green",
}  # fmt: skip


def terminal(blocks: Sequence[Block], width: int | None = None) -> str:
    """Blocks with colour and boxes, as rich draws them on a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text as Styled

    console = Console(file=io.StringIO(), force_terminal=True, width=width, highlight=False)
    for block in blocks:
        if isinstance(block, Heading):
            console.print(Styled(f"\n{block.text}", style="bold"))
        elif isinstance(block, Text):
            console.print(Styled(block.text, style=STYLES[block.style]))
        else:
            table = Table(box=SIMPLE_HEAD, title=block.title or None, show_header=block.header,
                          title_justify="left", pad_edge=False)  # fmt: skip
            for column in block.columns:
                right = column in block.numeric
                table.add_column(column, justify="right" if right else "left", overflow="fold")
            for i, row in enumerate(block.rows):
                tones = block.tones[i] if block.tones else ("",) * len(row)
                table.add_row(*(Styled(c, STYLES.get(t, "")) if t else c for c, t in zip(row, tones, strict=True)))
            console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def plain(blocks: Sequence[Block]) -> str:
    """Blocks as text without colour or boxes: columns padded with spaces."""
    lines: list[str] = []
    for block in blocks:
        if isinstance(block, Heading):
            lines += ["", block.text]
        elif isinstance(block, Text):
            lines.append(block.text)
        else:
            lines += _plain_sheet(block)
    return "\n".join(lines).strip("\n") + "\n"


def _plain_sheet(block: Sheet) -> list[str]:
    head = [block.columns] if block.header else []
    table = [*head, *block.rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(block.columns))] if table else []
    lines = [block.title] if block.title else []
    for row in table:
        cells = [
            cell.rjust(w) if name in block.numeric else cell.ljust(w)
            for cell, w, name in zip(row, widths, block.columns, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def markdown(blocks: Sequence[Block]) -> str:
    """Blocks as Markdown, tables included."""
    lines: list[str] = []
    for block in blocks:
        if isinstance(block, Heading):
            lines += ["", f"## {block.text}", ""]
        elif isinstance(block, Text):
            lines += [block.text, ""]
        else:
            if block.title:
                lines += [f"**{block.title}**", ""]
            rules = ["---:" if c in block.numeric else "---" for c in block.columns]
            lines += [_row(block.columns), _row(rules), *(_row(r) for r in block.rows), ""]
    return "\n".join(lines).strip("\n") + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"


def flatten(record: Mapping[str, Any], prefix: str = "", separator: str = "_") -> dict[str, Any]:
    """A nested record as one level, keys joined with ``separator``; lists as text, tables in them as JSON.

    >>> flatten({"a": {"b": 1}, "c": [2, 3], "d": [{"e": None}], "f": float("inf")})
    {'a_b': 1, 'c': '2;3', 'd': '{"e": null}', 'f': None}
    """
    flat: dict[str, Any] = {}
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}{separator}", separator))
        elif isinstance(value, list | tuple):
            flat[name] = ";".join(json.dumps(v) if isinstance(v, Mapping) else str(v) for v in value)
        elif isinstance(value, float) and not math.isfinite(value):
            flat[name] = None
        else:
            flat[name] = value
    return flat


def comma_separated(records: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> str:
    """Records as CSV, one row each: ``columns``, then whatever other flattened keys there are."""
    rows = [flatten(r) for r in records]
    head = list(dict.fromkeys([*columns, *(key for row in rows for key in row)]))
    out = io.StringIO()
    writer = csv.DictWriter(out, head, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
