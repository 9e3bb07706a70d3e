"""Constants fitted to end-to-end measurements, on top of what kernels achieve alone.

A calibration scales efficiencies per operator and number format, of every accelerator ("any") and of single
ones, and sets the overheads of engines. The one shipped was fitted to published results; a user's own goes
on top of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from planner.documents import Document, number, only_keys, read_toml, string
from planner.errors import nearest
from planner.hardware.accelerator import ANY, Accelerator, Scale
from planner.hardware.engine import NUMBERS, Engine
from planner.hardware.loading import OPERATORS
from planner.models.formats import FORMATS

ALL_REDUCE = "all_reduce"
ALL_TO_ALL = "all_to_all"
EXCHANGES = (ALL_REDUCE, ALL_TO_ALL)
SCALES = ("compute", "memory", "latency", "bandwidth")
TOP = ("schema", "name", "source", "date", "note", "engine", "kernels", "accelerator", "fit")
#: a scale beyond these says that something else is wrong
LEAST, MOST = 0.05, 20.0

Operators = Mapping[str, Mapping[str, Scale]]


@dataclass(frozen=True)
class Calibration:
    """Fitted constants. ``engines``: overheads by engine and name [s]; ``accelerators``: scales [1] by
    accelerator, vendor or "any", operator, and number format or "any"; ``kernels`` the same by engine.
    """

    name: str = ""
    source: str = ""
    date: str = ""
    engines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    accelerators: Mapping[str, Operators] = field(default_factory=dict)
    kernels: Mapping[str, Operators] = field(default_factory=dict)

    def scales(self, accelerator: str, vendor: str = "") -> dict[str, dict[str, Scale]]:
        """Scales of one accelerator by operator and format, those of any and of its vendor multiplied in, [1].

        Source: definition.

        >>> one = Calibration(accelerators={"any": {"matmul": {"any": Scale(memory=0.9)}},
        ...                                 "l4": {"matmul": {"fp8": Scale(memory=0.5)}}})
        >>> one.scales("l4")["matmul"]["fp8"].memory, one.scales("l4")["matmul"]["any"].memory
        (0.5, 0.9)
        """
        found: dict[str, dict[str, Scale]] = {}
        for name in (ANY, vendor, accelerator):
            for operator, formats in self.accelerators.get(name, {}).items():
                for fmt, scale in formats.items():
                    here = found.setdefault(operator, {})
                    here[fmt] = here.get(fmt, Scale()).times(scale)
        return found


def applied_to_accelerator(chip: Accelerator, calibrations: Sequence[Calibration]) -> Accelerator:
    """The accelerator with every calibration's scales on it. Source: the calibrations."""
    found: dict[str, dict[str, dict[str, Scale]]] = {}

    def put(engine: str, operators: Operators) -> None:
        for operator, formats in operators.items():
            here = found.setdefault(engine, {}).setdefault(operator, {})
            for fmt, scale in formats.items():
                here[fmt] = here.get(fmt, Scale()).times(scale)

    for one in calibrations:
        put(ANY, one.scales(chip.name, chip.kernels))
        for engine, operators in one.kernels.items():
            put(engine, operators)
    return replace(chip, scales=found, _cache={}) if found else chip


def applied_to_engine(engine: Engine, calibrations: Sequence[Calibration]) -> Engine:
    """The engine with every calibration's overheads in place of its own, [s]. Source: the calibrations."""
    values = dict(engine.values)
    sources = dict(engine.sources)
    for one in calibrations:
        for name in (ANY, engine.name):
            for key, seconds in one.engines.get(name, {}).items():
                values[f"overhead.{key}"] = seconds
                sources[f"overhead.{key}"] = f"calibration {one.name}"
    return replace(engine, values=values, sources=sources) if values != engine.values else engine


def load_calibration(path: str | Path) -> Calibration:
    """A calibration file; InputError for any mistake in it. Units as in the class. Source: the file."""
    return parse_calibration(read_toml(path))


def parse_calibration(document: Document) -> Calibration:
    """The calibration a document describes; InputError with key and line for any mistake.

    Overheads in seconds, scales as factors between 0.05 and 20. Source: the document's own.
    """
    data = document.data
    only_keys(document, data, (), TOP)
    engines = {
        name: _overheads(document, table, ("engine", name)) for name, table in _tables(document, data, ("engine",))
    }
    accelerators, kernels = (
        {name: _operators(document, table, (key, name)) for name, table in _tables(document, data, (key,))}
        for key in ("accelerator", "kernels")
    )
    return Calibration(
        string(document, data, (), "name", default=document.name),
        string(document, data, (), "source", default=""),
        str(data.get("date", "")),
        engines,
        accelerators,
        kernels,
    )


def _tables(document: Document, data: Mapping[str, Any], path: tuple[str, ...]) -> list[tuple[str, Mapping[str, Any]]]:
    table = data.get(path[-1], {})
    if not isinstance(table, dict):
        raise document.error(path, f"is {table!r}", "a table")
    for name, entry in table.items():
        if not isinstance(entry, dict):
            raise document.error((*path, name), f"is {entry!r}", "a table")
    return list(table.items())


def _overheads(document: Document, table: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, float]:
    only_keys(document, table, path, NUMBERS["overhead"])
    return {key: _value(document, table, path, key, upper=10.0) for key in table}


def _value(document: Document, table: Mapping[str, Any], path: tuple[str, ...], key: str, upper: float) -> float:
    """A number, or a table with the number as its value."""
    entry = table[key]
    if isinstance(entry, dict):
        only_keys(document, entry, (*path, key), ("value", "unit", "low", "high", "kind", "points", "source"))
        return number(document, entry, (*path, key), "value", positive=False, upper=upper)
    return number(document, table, path, key, positive=False, upper=upper)


def _operators(document: Document, table: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, dict[str, Scale]]:
    known = (*OPERATORS, *EXCHANGES)
    only_keys(document, table, path, known)
    found: dict[str, dict[str, Scale]] = {}
    for operator, formats in _tables(document, {path[-1]: table}, (path[-1],)):
        here = (*path, operator)
        if operator in EXCHANGES:
            found[operator] = {ANY: _scale(document, formats, here)}
            continue
        for fmt, entry in formats.items():
            if fmt not in FORMATS and fmt != ANY:
                choices = (*FORMATS, ANY)
                raise document.error(
                    (*here, fmt), "unknown format", "one of " + ", ".join(choices), nearest(fmt, choices)
                )
            if not isinstance(entry, dict):
                raise document.error((*here, fmt), f"is {entry!r}", "a table, as { memory = 0.95 }")
            found.setdefault(operator, {})[fmt] = _scale(document, entry, (*here, fmt))
    return found


def _scale(document: Document, table: Mapping[str, Any], path: tuple[str, ...]) -> Scale:
    only_keys(document, table, path, SCALES)
    values = {}
    for key in table:
        values[key] = _value(document, table, path, key, upper=MOST)
        if values[key] < LEAST:
            raise document.error((*path, key), f"is {values[key]:g}", f"a factor between {LEAST} and {MOST:g}")
    return Scale(**values)
