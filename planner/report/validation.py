"""A validation as blocks, as a record of JSON keys, and every row of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from planner.report.blocks import Block, Heading, Text, sheet
from planner.validation.runs import Validation
from planner.validation.scores import (
    METRICS,
    Regret,
    Score,
    counts,
    regrets,
    scores,
    skipped_by_reason,
    worst,
)

TITLES = {
    "tpot": "time per output token", "ttft": "time to first token", "throughput": "throughput",
    "speedup": "speed-up", "kernel": "kernel", "acceptance_length": "acceptance length",
}  # fmt: skip
#: lines of a table by group, and of reasons, that a terminal shows
SHOWN = 12
PREDICTIONS = (
    "id", "file", "metric", "statistic", "measured", "predicted", "ratio", "unit", "accelerator", "model", "engine",
    "precision", "load", "kind", "rows", "configuration", "extrapolates", "skipped",
)  # fmt: skip


def validation_record(
    found: Validation, by: Sequence[Sequence[str]], metrics: Sequence[str] = METRICS, where: Sequence[str] = ()
) -> dict[str, Any]:
    """Everything there is to say, by the keys of the JSON: errors relative to the measured figure, [1]."""
    chosen = [c for c in found.compared if c.comparison.metric in metrics]
    made = counts(chosen, found.skipped)
    rows = sum(len(t.rows) for t in found.tables) + found.unread
    return {
        "schema_version": "1.0",
        "overall": [_entry(s) for s in scores(chosen)],
        "groups": [{"by": list(names), **_entry(s)} for names in by for s in scores(chosen, names)],
        "worst": [_entry(s) for s in worst(chosen)],
        "intervals": [asdict(c) for c in found.covered if c.metric in metrics],
        "regret": [asdict(r) for r in regrets(found.offers)],
        "skipped": [
            {"reason": reason, "n": n, "files": files, "examples": ids}
            for reason, n, files, ids in skipped_by_reason(found.skipped)
        ],
        "files": [
            {"file": t.name, "kind": t.kind, "rows": len(t.rows), "compared": made.get(t.name, (0, 0))[0],
             "skipped": made.get(t.name, (0, 0))[1]}
            for t in found.tables
        ],
        "rows": {"read": rows, "compared": len(chosen), "skipped": len(found.skipped)},
        "metrics": list(metrics),
        "where": list(where),
    }  # fmt: skip


def _entry(score: Score) -> dict[str, Any]:
    """A score as a record: its group's dimensions beside the figures."""
    record = asdict(score)
    return {**{k: record.pop(k) for k in ("metric", "statistic", "rows")}, **record.pop("group"), **record}


def validation_rows(found: Validation, metrics: Sequence[str] = METRICS) -> Iterator[dict[str, Any]]:
    """Every comparison, and every row that has none with the reason, in the order of the files."""
    for one in found.compared:
        c = one.comparison
        if c.metric in metrics:
            yield {**{k: getattr(c, k) for k in PREDICTIONS if k not in ("rows", "skipped")}, "rows": one.rows}
    for s in found.skipped:
        yield {"id": s.id, "file": s.file, "skipped": s.reason}


def validation_blocks(found: Validation, by: Sequence[Sequence[str]], metrics: Sequence[str] = METRICS) -> list[Block]:
    """Headline, groups, worst groups, regret, and what was left out."""
    chosen = [c for c in found.compared if c.comparison.metric in metrics]
    read = sum(len(t.rows) for t in found.tables) + found.unread
    blocks: list[Block] = [
        Heading("Predictions beside measurements"),
        Text(f"{read} rows of {len(found.tables)} {_tables(len(found.tables))}: {len(chosen)} figures compared, "
             f"{len(found.skipped)} rows left out"),
        _sheet(scores(chosen), ()),
        Text("Errors are |predicted/measured - 1|; bias is the mean of predicted/measured - 1; rank is Spearman's.",
             "note"),
    ]  # fmt: skip
    if any(c.rows == "flagged" for c in chosen):
        blocks.append(Text("flagged: the row itself says that its configuration or figure is in doubt.", "note"))
    if any(c.rows == "known" for c in chosen):
        blocks.append(Text("known: our data was taken from these rows.", "note"))
    told = [f"{c.covered:.0%} of {c.n} for {TITLES[c.metric]}" for c in found.covered if c.metric in metrics]
    if told:
        blocks.append(
            Text(f"Inside the interval that promises {found.covered[0].level:.0%}: {', '.join(told)}.", "note")
        )
    clean = [c for c in chosen if c.rows == "clean"] or chosen
    for names in by:
        blocks += _by(scores(clean, names), names)
    cells = worst(chosen)
    if cells:
        blocks += [Heading("Largest errors"), _sheet(cells, ("kind", "model", "accelerator"))]
    lost = regrets(found.offers)
    if lost:
        blocks += [
            Heading("Throughput lost by our pick"),
            sheet(("Interactivity", "Groups", "Median", "Mean", "Missed"), [_regret_row(r) for r in lost],
                  numeric=("Groups", "Median", "Mean", "Missed")),
        ]  # fmt: skip
    if found.skipped:
        reasons = skipped_by_reason(found.skipped)
        rows = [(n, reason, ", ".join(files[:2]) + (" …" if files[2:] else "")) for reason, n, files, _ in reasons]
        blocks += [
            Heading("Left out"),
            sheet(("Rows", "Reason", "File"), rows[:SHOWN], numeric=("Rows",)),
            *_more(len(rows) - SHOWN, "reasons"),
        ]
    return blocks


def _tables(number: int) -> str:
    return "table" if number == 1 else "tables"


def _by(found: Sequence[Score], names: Sequence[str]) -> list[Block]:
    shown = sorted((s for s in found if s.statistic == "mean"), key=lambda s: (METRICS.index(s.metric), -s.n))
    kept: list[Score] = []
    for metric in METRICS:
        kept += [s for s in shown if s.metric == metric][:SHOWN]
    if not kept:
        return []
    title = "By " + " and ".join(names)
    return [Heading(title), _sheet(kept, names, rows=False), *_more(len(shown) - len(kept), "groups")]


def _more(number: int, what: str) -> list[Block]:
    return [Text(f"{number} more {what}: --format json has all", "note")] if number > 0 else []


def _sheet(found: Sequence[Score], names: Sequence[str], rows: bool = True) -> Block:
    """Scores as lines, the group's dimensions first."""
    titles = ["Metric", *(name.capitalize() for name in names), *(["Rows"] if rows and not names else [])]
    figures = ("n", "Median", "Mean", "p90", "Bias", "Rank")
    lines = []
    for s in found:
        metric = TITLES[s.metric] + (", p99" if s.statistic == "p99" else "")
        told = [metric, *(s.group[name] for name in names), *([s.rows] if rows and not names else [])]
        rank = None if s.rank_correlation is None else f"{s.rank_correlation:.3f}"
        lines.append((*told, s.n, *(_percent(x) for x in (s.median_ape, s.mean_ape, s.p90_ape)),
                      f"{s.bias:+.1%}", rank))  # fmt: skip
    return sheet((*titles, *figures), lines, numeric=figures)


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.1%}"


def _regret_row(r: Regret) -> tuple[object, ...]:
    if r.interactivity is None:
        level = "all queued"
    else:
        level = f"{r.interactivity:g} tokens/s of a user" if r.interactivity else "any"
    return level, r.groups, _percent(r.median), _percent(r.mean), _percent(r.missed)
