"""Grids and PUE: bundled rows, the user's on top, and mistakes named."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.errors import InputError
from planner.hardware import Database
from planner.hardware.grid import load_power

ROW = '[[grid]]\nregion = "home"\ngrams_co2_per_kwh = 20\nyear = 2025\nsource = "the utility"\n'


def test_bundled_grids_name_their_year_and_source(database: Database) -> None:
    power = load_power(database.root)
    assert 1 <= power.pue < 2
    assert power.pue_source
    assert power.grid("France").grams_per_kwh < power.grid("world").grams_per_kwh < power.grid("india").grams_per_kwh
    assert all(g.source and g.year > 2000 for g in power.grids.values())


def test_a_users_file_goes_on_top(database: Database, tmp_path: Path) -> None:
    mine = tmp_path / "grid.toml"
    mine.write_text(ROW + ROW.replace("home", "France") + '[pue]\nvalue = 1.1\nsource = "our meter"\n')
    power = database.with_grids([mine]).power
    assert power.grid("home").grams_per_kwh == power.grid("france").grams_per_kwh == 20
    assert (power.pue, power.pue_source) == (1.1, "our meter")
    assert power.grid("world") == database.power.grid("world")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no rows"),
        ("[[grid]\n", "grid.toml:1:"),
        ("grid = 3\n", "has no rows"),
        (ROW.replace("year", "yaer"), "yaer"),
        (ROW.replace("20\n", "-1\n"), "grid[0].grams_co2_per_kwh"),
        (ROW.replace("20\n", '"20"\n'), "a number"),
        (ROW.replace("20\n", "20000\n"), "at most 2000"),
        (ROW.replace("20\n", "nan\n"), "finite"),
        (ROW.replace('source = "the utility"\n', ""), "source"),
        ('[pue]\nvalue = 0.9\nsource = "x"\n', "at least 1"),
        ("[pue]\nvalue = 1.2\n", "pue.source"),
    ],
)
def test_a_malformed_file_is_named(database: Database, tmp_path: Path, text: str, said: str) -> None:
    mine = tmp_path / "grid.toml"
    mine.write_text(text)
    with pytest.raises(InputError) as error:
        load_power(database.root, [mine])
    assert said in str(error.value)
    assert str(mine) in str(error.value)


def test_the_nearest_grid_is_suggested(database: Database) -> None:
    with pytest.raises(InputError) as error:
        database.power.grid("farnce")
    assert error.value.suggestion == "france"
