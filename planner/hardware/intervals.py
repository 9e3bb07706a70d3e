"""How far measured figures lie from predictions, by what is known of the prediction: ``hardware_db/intervals``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from planner.documents import Document, number, only_keys, read_toml, string
from planner.hardware.accelerator import Accelerator
from planner.hardware.engine import Engine

METRICS = ("tpot", "ttft")
#: for constants nobody fitted to end-to-end results, and for those of a calibration
FILES = ("kernels", "fitted")
#: by what predictions are told apart
TRAITS = ("vendor", "architecture", "engine")
#: the value of a trait that validation never met
OTHER = "other"
SEEN, UNSEEN = "seen", "unseen"
KEYS = ("schema", "name", "level", "unit", "kind", "date", "source", "rows", "groups", "accelerators", *METRICS)


@dataclass(frozen=True)
class Factors:
    """Between ``low`` and ``high`` times the prediction the measured figure is expected, at ``level`` [1].

    ``source``: what they are from, and why they are wide where they are.
    """

    low: float
    high: float
    level: float
    source: str

    @property
    def inverse(self) -> Factors:
        """Those of the inverse, as of a rate from those of a time, [1]. Source: definition.

        >>> Factors(0.8, 1.25, 0.8, "").inverse
        Factors(low=0.8, high=1.25, level=0.8, source='')
        """
        return Factors(1 / self.high, 1 / self.low, self.level, self.source)


@dataclass(frozen=True)
class Known:
    """What is known of a prediction: intervals of both times, [1]."""

    tpot: Factors
    ttft: Factors


@dataclass(frozen=True)
class Intervals:
    """Factors by metric, whether the accelerator was seen, vendor, architecture and engine, [1].

    ``accelerators`` those with measured rows; ``rows`` and ``groups`` how many there are of all.
    """

    level: float
    date: str
    source: str
    rows: int
    groups: int
    accelerators: frozenset[str]
    factors: Mapping[str, Mapping[str, Any]]

    def of(self, chip: Accelerator, architecture: str, engine: Engine) -> Known:
        """The intervals for a model of an ``architecture`` on an accelerator under an engine, [1].

        ``architecture`` as :attr:`planner.models.model.Model.architecture_kind` has it. Source: the file.
        """
        state = SEEN if chip.name in self.accelerators else UNSEEN
        return Known(*(self._factors(metric, state, chip, architecture, engine) for metric in METRICS))

    def _factors(self, metric: str, state: str, chip: Accelerator, architecture: str, engine: Engine) -> Factors:
        vendors = self.factors[metric][state]
        vendor = chip.kernels if chip.kernels in vendors else OTHER
        engines = vendors[vendor].get(architecture) or vendors[vendor][OTHER]
        family = engine.family or engine.name
        entry = engines.get(family) or engines[OTHER]
        missing = []
        if state == UNSEEN:
            missing.append(f"no measured row of {chip.name}")
        if architecture not in vendors[vendor] or architecture == OTHER:
            missing.append("no measured model of this architecture")
        if family not in engines or family == OTHER:
            missing.append(f"no measured row of engine {engine.name}")
        kind = f"{chip.kernels}, {architecture}, {family}"
        alike = f"{entry['n']} rows of {entry['groups']} groups are {kind}" if entry["n"] else f"none is {kind}"
        text = f"{self.rows} measured rows in {self.groups} groups ({alike})"
        if missing:
            text = f"{', '.join(missing)}: wider; {text}"
        return Factors(entry["low"], entry["high"], self.level, text)


@lru_cache(maxsize=8)
def load_intervals(root: Path, name: str) -> Intervals:
    """The intervals of ``root/intervals/name.toml``, [1]; InputError with key and line for any mistake.

    ``name``: kernels for constants nobody fitted, fitted for those of a calibration. Source: the file.
    """
    return parse_intervals(read_toml(root / "intervals" / f"{name}.toml"))


def parse_intervals(document: Document) -> Intervals:
    """The intervals a document holds, [1]; InputError with key and line for any mistake."""
    data = document.data
    only_keys(document, data, (), KEYS)
    level = number(document, data, (), "level", upper=1.0)
    names = data.get("accelerators")
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise document.error(("accelerators",), f"is {names!r}", "a list of names")
    factors = {metric: _metric(document, data.get(metric), metric) for metric in METRICS}
    rows, groups = (int(number(document, data, (), key)) for key in ("rows", "groups"))
    source, date = (string(document, data, (), key) for key in ("source", "date"))
    return Intervals(level, date, source, rows, groups, frozenset(names), factors)


def _metric(document: Document, states: Any, metric: str) -> Mapping[str, Any]:
    for path, table in _walk(document, states, (metric,), 3):
        for key, entry in table.items():
            here = (*path, key)
            fields = only_keys(document, entry, here, ("low", "high", "n", "groups"))
            if not number(document, fields, here, "low", upper=1.0) <= 1.0 <= number(document, fields, here, "high"):
                raise document.error((*here, "high"), f"is {fields['high']!r}", "low <= 1 <= high")
            for count in ("n", "groups"):
                number(document, fields, here, count, positive=False)
        if OTHER not in table:
            raise document.error((*path, OTHER), "is missing", "{ low, high, n, groups }")
    for state in (SEEN, UNSEEN):
        if state not in states:
            raise document.error((metric, state), "is missing", "a table per vendor")
    return dict(states)


def _walk(document: Document, table: Any, path: tuple[str, ...], depth: int) -> list[tuple[tuple[str, ...], Any]]:
    """Tables ``depth`` levels below."""
    if not isinstance(table, dict):
        raise document.error(path, f"is {table!r}", "a table")
    if depth == 0:
        return [(path, table)]
    return [found for key, entry in table.items() for found in _walk(document, entry, (*path, key), depth - 1)]
