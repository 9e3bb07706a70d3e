"""What moving a cache costs: what is shipped, and what a mistake in the file says."""

from __future__ import annotations

import datetime

import pytest

from planner.documents import parse_toml, read_toml
from planner.errors import InputError
from planner.hardware.database import database_root
from planner.hardware.transfer import load_transfer, parse_transfer

FACT = 'kind = "assumed"\nsource = "a cable"\ndate = "2026-01-01"\n'
GOOD = f'[efficiency]\nvalue = 50\nunit = "%"\n{FACT}[latency]\nvalue = 3\nunit = "ms"\n{FACT}'


def test_shipped_constants_have_sources() -> None:
    found = load_transfer(database_root())
    # published transfer engines reach 0.48 to 0.87 of their links, and need 10 to 50 ms besides
    assert 0.48 <= found.efficiency <= 0.87
    assert 0.01 <= found.latency_s <= 0.05
    assert [name for name, source in found.sources if source] == ["efficiency", "latency"]
    for name, _ in found.sources:
        date = read_toml(database_root() / "transfer.toml").data[name]["date"]
        assert datetime.date.fromisoformat(date) <= datetime.date.today()


def test_units_are_si_inside() -> None:
    found = parse_transfer(parse_toml(GOOD, "mine.toml"))
    assert (found.efficiency, found.latency_s) == (0.5, 0.003)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("50", "150"), r"mine.toml:2: efficiency.value: is 1.5; expected above 0, at most 1"),
        (GOOD.replace("= 3", "= -3"), r"mine.toml:8: latency.value: is -3; expected a positive number"),
        (GOOD.split("[latency]")[0], r"latency: is missing"),
        (GOOD.replace("latency", "latencies"), r"latencies: unknown key.*Did you mean 'latency'"),
        (GOOD.replace('"ms"', '"h"'), r"latency.unit"),
    ],
)
def test_mistakes_name_file_key_and_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_transfer(parse_toml(text, "mine.toml"))
