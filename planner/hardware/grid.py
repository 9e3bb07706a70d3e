"""Carbon intensity of grids and the usual overhead of data centres: dated rows, the user's files on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.documents import Document, number, only_keys, read_toml, words
from planner.errors import InputError, nearest

DIRTIEST = 2000.0  # g/kWh; burning lignite alone is below
CLEANEST = 1.0  # g/kWh; below it is a figure in kilograms, unless it is none at all
FIRST_YEAR, LAST_YEAR = 1990, 2100
LARGEST_PUE = 4.0


@dataclass(frozen=True)
class Grid:
    """One grid: [g CO2e/kWh], in which year, and who says so."""

    region: str
    grams_per_kwh: float
    year: int
    source: str

    @property
    def label(self) -> str:
        """Region, figure's year and source in one line. Source: the row."""
        return f"{self.region}, {self.year}: {self.source}"


@dataclass(frozen=True)
class Power:
    """Grids by region, and the site's energy over that of its machines where nobody gave it, [1]."""

    grids: Mapping[str, Grid]
    pue: float
    pue_source: str

    def grid(self, region: str) -> Grid:
        """The grid of ``region``, any case, [g/kWh]; InputError with the nearest name. Source: its row."""
        name = region.strip().lower()
        if name not in self.grids:
            raise InputError(
                f"no grid {region!r}", key="--grid-region", expected="one of " + ", ".join(sorted(self.grids)),
                suggestion=nearest(name, self.grids),
            )  # fmt: skip
        return self.grids[name]


def load_power(root: Path, files: Sequence[Path] = ()) -> Power:
    """``grid.toml`` of ``root`` with the user's ``files`` on top, [g/kWh]; later files win by region.

    InputError for an unreadable file, an unknown key or a figure that cannot be. Source: each row's own.
    """
    found: dict[str, Grid] = {}
    pue, pue_source = 0.0, ""
    for path in (root / "grid.toml", *files):
        document = read_toml(path)
        data = only_keys(document, document.data, (), ("schema", "pue", "grid"))
        rows = data.get("grid", [])
        if not isinstance(rows, list) or not (rows or "pue" in data):
            raise document.error(("grid",), "has no rows", "[[grid]] tables of region and grams_co2_per_kwh")
        read: dict[str, Grid] = {}
        for i, entry in enumerate(rows):
            row = _grid(document, entry, i)
            name = row.region.strip().lower()
            if name in read:
                raise document.error(("grid", i, "region"), f"is {row.region!r} again", "one row for each region")
            read[name] = row
        found |= read
        if "pue" in data:
            pue, pue_source = _pue(document, data["pue"])
    return Power(found, pue, pue_source)


def _grid(document: Document, entry: Any, i: int) -> Grid:
    path = ("grid", i)
    only_keys(document, entry, path, ("region", "grams_co2_per_kwh", "year", "source", "note"))
    region = words(document, entry, path, "region")
    grams = number(document, entry, path, "grams_co2_per_kwh", positive=False, upper=DIRTIEST)
    if 0 < grams < CLEANEST:
        raise document.error((*path, "grams_co2_per_kwh"), f"is {grams:g}", "grams, not kilograms, of CO2e per kWh")
    year = number(document, entry, path, "year", upper=LAST_YEAR)
    if year != int(year) or year < FIRST_YEAR:
        raise document.error((*path, "year"), f"is {year:g}", f"the year of the figure, from {FIRST_YEAR}")
    return Grid(region, grams, int(year), words(document, entry, path, "source"))


def _pue(document: Document, entry: Any) -> tuple[float, str]:
    table = only_keys(document, entry, ("pue",), ("value", "unit", "source", "date", "kind"))
    value = number(document, table, ("pue",), "value", upper=LARGEST_PUE)
    if value < 1:
        raise document.error(("pue", "value"), f"is {value:g}", "at least 1: the site's energy over its machines'")
    return value, words(document, table, ("pue",), "source")
