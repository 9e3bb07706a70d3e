"""The user's own prices and grids: taken under any known name, and mistakes are said where they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from planner.errors import InputError
from planner.hardware import Database
from planner.hardware.database import database_root
from planner.hardware.grid import load_power

PRICES = 'provider = "us"\n'
PRICE = '[[prices]]\naccelerator = "l40s"\nusd_per_gpu_hour = 1.0\nas_of = "2026-01-01"\nsource = "the contract"\n'
GRID = '[[grid]]\nregion = "home"\ngrams_co2_per_kwh = 24\nyear = 2025\nsource = "the utility"\n'


@pytest.mark.parametrize("name", ["l40s", "L40S", "L40s"])
def test_an_own_price_counts_under_any_name_of_its_accelerator(name: str, tmp_path: Path, database: Database) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(PRICES + PRICE.replace("l40s", name))
    price = replace(database, extra_prices=(file,)).price("l40s")
    assert price is not None and (price.usd_per_gpu_hour, price.provider) == (1.0, "us")


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("", "provider", "missing"),
        (PRICES, "prices", "no rows"),
        (PRICES + PRICE.replace("l40s", "l4os"), "prices[0].accelerator", "'l40s'"),
        (PRICES + PRICE + PRICE, "prices[1]", "prices[0]"),
        (PRICES + PRICE.replace("1.0", "-1.0"), "prices[0].usd_per_gpu_hour", "positive"),
        (PRICES + PRICE.replace("1.0", "nan"), "prices[0].usd_per_gpu_hour", "finite"),
        (PRICES + PRICE.replace("1.0", '"1"'), "prices[0].usd_per_gpu_hour", "a number"),
        (PRICES + PRICE.replace("usd_per_gpu_hour", "usd_per_hour"), "prices[0].usd_per_hour", "'usd_per_gpu_hour'"),
        (PRICES + PRICE.replace("the contract", " "), "prices[0].source", "empty"),
        (PRICES + PRICE.replace('as_of = "2026-01-01"', ""), "prices[0].as_of", "missing"),
    ],
)
def test_wrong_prices(text: str, key: str, words: str, tmp_path: Path, database: Database) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        replace(database, extra_prices=(file,)).price("l40s")
    assert error.value.key == key
    assert words in str(error.value) and str(file) in str(error.value)


def test_own_grids_come_on_top_and_the_later_file_wins(tmp_path: Path) -> None:
    files = []
    for i, grams in enumerate((24, 30)):
        files.append(tmp_path / f"{i}.toml")
        files[-1].write_text(GRID.replace("24", str(grams)).replace("home", " Home"))
    power = load_power(database_root(), files)
    assert power.grid("home").grams_per_kwh == 30
    assert power.grid("france").source


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("", "grid", "no rows"),
        (GRID + GRID.replace("home", "HOME"), "grid[1].region", "again"),
        (GRID.replace("= 24", "= 0.48"), "grid[0].grams_co2_per_kwh", "not kilograms"),
        (GRID.replace("= 24", "= -24"), "grid[0].grams_co2_per_kwh", "zero or more"),
        (GRID.replace("= 24", "= 24000"), "grid[0].grams_co2_per_kwh", "at most 2000"),
        (GRID.replace("= 24", "= nan"), "grid[0].grams_co2_per_kwh", "finite"),
        (GRID.replace("grams_co2", "gram_co2"), "grid[0].gram_co2_per_kwh", "'grams_co2_per_kwh'"),
        (GRID.replace("2025", "2024.5"), "grid[0].year", "year of the figure"),
        (GRID.replace("2025", "5"), "grid[0].year", "year of the figure"),
        (GRID.replace("year = 2025", ""), "grid[0].year", "missing"),
        (GRID.replace("the utility", ""), "grid[0].source", "empty"),
        ('[pue]\nvalue = 0.9\nsource = "meter"', "pue.value", "at least 1"),
        ("[pue]\nvalue = 1.1", "pue.source", "missing"),
    ],
)
def test_wrong_grids(text: str, key: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(text)
    with pytest.raises(InputError) as error:
        load_power(database_root(), [file])
    assert error.value.key == key
    assert words in str(error.value) and str(file) in str(error.value)


def test_every_shipped_figure_has_its_source_and_date() -> None:
    power = load_power(database_root())
    assert power.pue_source
    assert all(g.source and g.year >= 2020 for g in power.grids.values())
