"""Intervals of predictions from what validation found: ``python -m bench.intervals`` writes hardware_db/intervals.

From bench/data/accuracy.csv, for constants nobody fitted end to end (``kernels.toml``) and for fitted ones
(``fitted.toml``): where measured over predicted lies in 80 of 100 cases, by vendor, architecture and engine. Rows of
one group (model, accelerator) are not independent: groups are what counts, and an interval for a group never saw it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.accuracy import Row, read
from planner.hardware import load_database
from planner.hardware.intervals import METRICS, OTHER, SEEN, TRAITS, UNSEEN, load_intervals
from planner.models import load_model

Vector = npt.NDArray[np.float64]

FOLDER = Path(__file__).resolve().parent.parent / "hardware_db" / "intervals"
DATE = "2026-11-26"
LEVEL = 0.8
#: weight of a group for each trait it does not share: kinds with few groups lean on all of them
ELSEWHERE = 0.5
#: rows from which an accelerator counts as seen
ENOUGH = 10
#: residuals used by each file: of predictions for a new group, and for a new accelerator
SETS = {"kernels": ("bare", "bare"), "fitted": ("held_out", "accelerator_held_out")}
#: farthest quantile taken of residuals: beyond it there are single rows
FARTHEST = 0.95


@dataclass(frozen=True)
class Residuals:
    """Logarithms of measured over predicted of ``metric`` with the group and the traits of each row."""

    values: Vector
    unit: npt.NDArray[np.int64]  # what is left out together and counts as one
    weight: Vector
    traits: dict[str, npt.NDArray[np.str_]]

    def take(self, rows: npt.NDArray[np.bool_]) -> Residuals:
        """The rows chosen."""
        traits = {name: v[rows] for name, v in self.traits.items()}
        return Residuals(self.values[rows], self.unit[rows], self.weight[rows], traits)

    def of_units(self, trait: str) -> Residuals:
        """The same where all rows that share ``trait`` count as one unit."""
        _, unit = np.unique(self.traits[trait], return_inverse=True)
        share = self.weight / np.bincount(unit, self.weight)[unit]
        return replace(self, unit=unit, weight=share)


@cache
def _architecture(model: str) -> str:
    return load_model(model).architecture_kind


@cache
def _vendors() -> dict[str, str]:
    return {name: chip.vendor for name, chip in load_database().accelerators.items()}


@cache
def _families() -> dict[str, str]:
    return {name: engine.family for name, engine in load_database().engines.items()}


def residuals(rows: Sequence[Row], metric: str, column: str) -> Residuals:
    """Residuals of a metric in a column; a group of n rows weighs as the root of n."""
    some = [(r, p) for r in rows if r.metric == metric and (p := r.predicted[column]) is not None]
    names = sorted({r.group for r, _ in some})
    unit = np.array([names.index(r.group) for r, _ in some])
    traits = {
        "vendor": [_vendors()[r.accelerator] for r, _ in some],
        "accelerator": [r.accelerator for r, _ in some],
        "architecture": [_architecture(r.model) for r, _ in some],
        "engine": [_families()[r.engine] for r, _ in some],
    }
    values = np.array([math.log(r.measured / p) for r, p in some])
    weight = 1 / np.sqrt(np.bincount(unit)[unit])
    return Residuals(values, unit, weight, {k: np.array(v) for k, v in traits.items()})


def interval(found: Residuals, kind: dict[str, str]) -> tuple[float, float]:
    """Bounds of measured over predicted for a ``kind`` of prediction that belongs to no unit of ``found``, [1].

    Rows weigh less for each trait they do not share. One unit more than there are is expected, and lies beyond all of
    them as likely above as below: that moves the quantiles outwards, far where units are few.
    """
    weight = found.weight.copy()
    for trait, value in kind.items():
        weight *= np.where(found.traits[trait] == value, 1.0, ELSEWHERE)
    units = len(np.unique(found.unit))
    tail = (1 - LEVEL) / 2
    upper = min(FARTHEST, ((1 - tail) * (units + 1) - 0.5) / units)
    order = np.argsort(found.values)
    share = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
    low, high = np.interp([1 - upper, upper], share, found.values[order])
    return min(1.0, math.exp(low)), max(1.0, math.exp(high))


def coverage(rows: Sequence[Row], metric: str, column: str, trait: str = "") -> tuple[float, float]:
    """Share of points inside the intervals that other groups give: over points, and the mean over groups, [1].

    ``trait``: all that share it are left out together, as of an accelerator nobody measured.
    """
    found = residuals(rows, metric, column)
    if trait:
        found = found.of_units(trait)
    inside = np.zeros(len(found.values), bool)
    for unit in np.unique(found.unit):
        others = found.take(found.unit != unit)
        for kind, mine in _kinds(found, found.unit == unit):
            low, high = (math.log(x) for x in interval(others, kind))
            inside[mine] = (low <= found.values[mine]) & (found.values[mine] <= high)
    each = np.bincount(found.unit, inside) / np.bincount(found.unit)
    return float(inside.mean()), float(each.mean())


def _kinds(found: Residuals, rows: npt.NDArray[np.bool_]) -> Iterator[tuple[dict[str, str], npt.NDArray[np.bool_]]]:
    """Kinds among ``rows``, and which of the rows are of it."""
    columns = [found.traits[t] for t in TRAITS]
    for values in sorted({tuple(str(c[i]) for c in columns) for i in np.flatnonzero(rows)}):
        alike = np.all([c == v for c, v in zip(columns, values, strict=True)], axis=0)
        yield dict(zip(TRAITS, values, strict=True)), rows & alike


class Bounds:
    """Intervals of every kind of a metric: never narrower for what was not seen than for anything that was."""

    def __init__(self, rows: Sequence[Row], metric: str, columns: tuple[str, str]) -> None:
        self.seen, self.unseen = (residuals(rows, metric, c) for c in columns)
        self.known = {t: sorted(set(self.seen.traits[t].tolist())) for t in TRAITS}
        self.done: dict[tuple[str, ...], tuple[float, float]] = {}

    def of(self, state: str, kind: dict[str, str]) -> tuple[float, float]:
        """Bounds of measured over predicted, [1]; a trait never seen holds those of each that was."""
        key = (state, *kind.values())
        if key not in self.done:
            missing = [t for t in TRAITS if kind[t] == OTHER]
            bounds = [interval(self.seen, kind)]
            bounds += [interval(self.seen.of_units(t), kind) for t in missing]
            bounds += [self.of(state, {**kind, t: value}) for t in missing for value in self.known[t]]
            if state == UNSEEN:
                bounds.append(interval(self.unseen.of_units("accelerator"), kind))
                if kind["vendor"] != OTHER:
                    bounds.append(self.of(SEEN, kind))
            self.done[key] = min(b[0] for b in bounds), max(b[1] for b in bounds)
        return self.done[key]

    def entries(self) -> Iterator[tuple[str, dict[str, str], str]]:
        """Every kind of prediction: whether its accelerator was seen, its traits, and its interval as TOML."""
        for state in (SEEN, UNSEEN):
            vendors = [*self.known["vendor"], *([OTHER] if state == UNSEEN else [])]
            for values in product(vendors, [*self.known["architecture"], OTHER], [*self.known["engine"], OTHER]):
                kind = dict(zip(TRAITS, values, strict=True))
                low, high = self.of(state, kind)
                alike = np.all([self.seen.traits[t] == v for t, v in kind.items()], axis=0)
                n, groups = int(alike.sum()), len(np.unique(self.seen.unit[alike]))
                yield state, kind, f"{{ low = {low:.3f}, high = {high:.3f}, n = {n}, groups = {groups} }}"


def text(name: str, rows: Sequence[Row]) -> str:
    """A file of intervals."""
    columns = SETS[name]
    count = {a: sum(r.accelerator == a and r.metric == "tpot" for r in rows) for a in {r.accelerator for r in rows}}
    seen = sorted(a for a, n in count.items() if n >= ENOUGH)
    lines = [
        "# Written by python -m bench.intervals: factors of a prediction between which measured figures are expected.",
        "# n rows and groups (model, accelerator) are those of just that kind; the others count with less weight.",
        "schema = 1",
        f'name = "{name}"',
        f"level = {LEVEL}",
        f'unit = "1"\nkind = "derived"\ndate = "{DATE}"',
        f'source = "bench/data/accuracy.csv, columns {columns[0]} and {columns[1]}: measured over predicted, '
        'docs/accuracy.md"',
        f"rows = {sum(count.values())}",
        f"groups = {len({r.group for r in rows})}",
        f"accelerators = {_list(seen)}",
    ]
    for metric in METRICS:
        before = ""
        for state, kind, entry in Bounds(rows, metric, columns).entries():
            table = f"[{metric}.{state}.{kind['vendor']}.{kind['architecture']}]"
            if table != before:
                lines += ["", table]
                before = table
            lines.append(f"{kind['engine']} = {entry}")
    return "\n".join(lines) + "\n"


def _list(names: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{n}"' for n in names) + "]"


TITLES = {"tpot": "time per output token", "ttft": "time to first token"}


def section() -> list[str]:
    """What docs/accuracy.md says of them."""
    rows = read()
    lines = [
        "A prediction carries the factors between which the measured figure is expected in 80 of 100 cases, by vendor,",
        "architecture and engine; `python -m bench.intervals` writes them from the rows of this page, odd groups among",
        "them. A group counts, not its rows, and one that shares less with the prediction weighs less. Covered: the",
        "share of points inside intervals made without their group, or without all rows of their accelerator.",
        "", "| figure | constants | covered | mean over groups | accelerator left out |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for metric, name in TITLES.items():
        for constants, (column, other) in SETS.items():
            of_points, of_groups = coverage(rows, metric, column)
            unseen, _ = coverage(rows, metric, other, "accelerator")
            title = {"kernels": "kernels alone", "fitted": "fitted"}[constants]
            lines.append(f"| {name} | {title} | {of_points:.0%} | {of_groups:.0%} | {unseen:.0%} |")
    lines += [
        "", "Measured over predicted, under vLLM; *other* is what no row is of: a vendor, an attention.", "",
        "| accelerator | architecture | per token, kernels alone | fitted | first token, kernels alone | fitted |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for state, vendor in (("seen", "NVIDIA"), ("seen", "AMD"), ("unseen", "NVIDIA"), ("unseen", OTHER)):
        for architecture in ("dense", "experts", "latent", OTHER):
            shown = [_shown(name, metric, state, vendor, architecture) for metric in METRICS for name in SETS]
            lines.append(f"| {vendor}, {state} | {architecture} | {' | '.join(shown)} |")
    return lines


def _shown(name: str, metric: str, state: str, vendor: str, architecture: str) -> str:
    entry = load_intervals(FOLDER.parent, name).factors[metric][state][vendor][architecture]["vllm"]
    return f"{entry['low']:.2f} to {entry['high']:.2f}"


def main() -> None:
    """Write both files."""
    rows = read()
    FOLDER.mkdir(exist_ok=True)
    for name in SETS:
        (FOLDER / f"{name}.toml").write_text(text(name, rows), encoding="utf-8")


if __name__ == "__main__":
    main()
