"""Rows of a kernel table as groups of arrays, and what comes out of them: comparisons and skipped rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from planner.cost.machine import Machine, machine
from planner.errors import InputError
from planner.hardware import Accelerator, Database
from planner.models.formats import FORMATS
from planner.validation.comparison import Comparison, Skipped
from planner.validation.labels import accelerator_named, engine_named, format_named

Vector = npt.NDArray[np.float64]
Row = Mapping[str, str]
CACHED = "measured faster than its bytes at the memory's peak: read from a cache, or fewer bytes than the row says"


@dataclass
class Outcome:
    """What a table gave: comparisons in the order of its rows, and rows left out with the reason."""

    file: str
    compared: list[Comparison] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def skip(self, name: str, reason: str) -> None:
        """Leave a row out. Source: none needed."""
        self.skipped.append(Skipped(name, self.file, reason))


def number(text: str | None) -> float:
    """A positive number of a cell, or NaN when the cell holds none.

    >>> number("1e3"), number("x"), number("-1")
    (1000.0, nan, nan)
    """
    try:
        value = float(text or "")
    except ValueError:
        return math.nan
    return value if value > 0 and math.isfinite(value) else math.nan


def grouped(rows: Sequence[Row], columns: Sequence[str]) -> dict[tuple[str, ...], list[int]]:
    """Positions of rows that agree in ``columns``, in the order of the table."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(tuple(row.get(c) or "" for c in columns), []).append(i)
    return groups


def known_format(label: str) -> str:
    """Our name of a number format; InputError when it is none of ours.

    >>> known_format("fp8_block"), known_format("int4_wo")
    ('fp8-block', 'int4')
    """
    name = format_named(label)
    if name not in FORMATS:
        raise InputError(f"number format {label!r} is none we have")
    return name


@dataclass(frozen=True)
class Bench:
    """Accelerator and engine of a group of rows, and the machine both make for two formats."""

    chip: Accelerator
    engine: str
    machine: Machine

    def unfitted(self, operator: str, fmt: str) -> str:
        """Why constants of an operator are no fit to this accelerator, or nothing. Source: the database."""
        if self.chip.efficiency(operator, fmt, self.engine).kind == "measured":
            return ""
        return f"no constants fitted for {operator.replace('_', ' ')} in {fmt} on {self.chip.name}"


@lru_cache(maxsize=512)
def bench(database: Database, gpu: str, backend: str, weights: str = "bf16", kv: str = "bf16") -> Bench:
    """Accelerator, engine and machine of a row's labels; InputError for an unknown one.

    Source: :func:`planner.cost.machine.machine`.
    """
    chip = accelerator_named(gpu, database)
    engine, _ = engine_named(backend)
    return Bench(chip, engine, machine(chip, database.engine(engine), [weights], kv, eager=True))


@dataclass(frozen=True)
class Price:
    """Predicted seconds of a group's rows, the least time memory allows, and the operator and format used."""

    seconds: Vector
    floor: Vector | float
    bench: Bench
    operator: str
    fmt: str


@dataclass(frozen=True)
class KernelTable:
    """A table of one kernel's times: which columns say what, and how a group of rows is priced.

    ``labels`` are what rows of a group share, ``numbers`` what varies; ``price`` takes both. ``refuse``
    gives the reason why a group is left out, or nothing.
    """

    kind: str
    labels: tuple[str, ...]
    numbers: tuple[str, ...]
    precision: str
    load: str
    price: Callable[[Database, Mapping[str, str], Mapping[str, Vector]], Price]
    refuse: Callable[[Mapping[str, str]], str] = lambda labels: ""
    time: str = "latency_us"

    @property
    def columns(self) -> frozenset[str]:
        """Columns a table of this kind has. Source: definition."""
        return frozenset((*self.labels, *self.numbers, self.time))

    def compare(self, rows: Sequence[Row], outcome: Outcome, database: Database) -> None:
        """Add every row to ``outcome``: predicted and measured time, [s]. Source: ``price``."""
        for values, members in grouped(rows, self.labels).items():
            labels = dict(zip(self.labels, values, strict=True))
            names = ["/".join((*values, *(rows[i].get(c) or "" for c in self.numbers))) for i in members]
            reason = self.refuse(labels)
            if reason:
                for name in names:
                    outcome.skip(name, reason)
                continue
            columns = {c: np.array([number(rows[i].get(c)) for i in members]) for c in (*self.numbers, self.time)}
            try:
                with np.errstate(all="ignore"):
                    price = self.price(database, labels, columns)
            except InputError as error:
                for name in names:
                    outcome.skip(name, str(error.problem))
                continue
            self._add(outcome, labels, names, columns, price)

    def _add(
        self, outcome: Outcome, labels: Mapping[str, str], names: list[str], columns: dict[str, Vector], price: Price
    ) -> None:
        measured = columns[self.time] * 1e-6
        floor = np.broadcast_to(np.asarray(price.floor, dtype=float), measured.shape)
        unfitted = price.bench.unfitted(price.operator, price.fmt) if price.operator else ""
        chip, engine, precision = price.bench.chip.name, price.bench.engine, labels.get(self.precision, "")
        loads = columns[self.load]
        for k, name in enumerate(names):
            bad = [c for c, v in columns.items() if math.isnan(v[k])]
            if bad:
                outcome.skip(name, f"{', '.join(bad)}: not a positive number")
            elif measured[k] < floor[k]:
                outcome.skip(name, CACHED)
            else:
                outcome.compared.append(Comparison(
                    name, outcome.file, "kernel", float(measured[k]), float(price.seconds[k]), "s", accelerator=chip,
                    engine=engine, precision=precision, load=f"{loads[k]:g}", kind=self.kind, extrapolates=unfitted,
                ))  # fmt: skip
