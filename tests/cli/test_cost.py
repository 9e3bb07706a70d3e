"""The cost command: every format, terms, own prices and grids, and wrong options."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from planner.decisions.cost_result import CostReport
from planner.workload.examples import example_path

Run = Callable[..., tuple[int, str, str]]
CHAT = ("cost", example_path("chat"), "--gpus", "h200-sxm", "--no-simulate")


def found(run: Run, *more: object) -> CostReport:
    code, out, err = run(*CHAT, *more, "--format", "json")
    assert code == 0, err
    return CostReport.model_validate(json.loads(out))


def test_formats_agree(run: Run) -> None:
    result = found(run)
    rows = list(csv.DictReader(io.StringIO(run(*CHAT, "--format", "csv")[1])))
    assert [float(r["usd_per_request"]) for r in rows] == [p.usd_per_request for p in result.split]
    table = run(*CHAT)[1]
    assert result.statement in table
    assert "cost.pue" in table
    assert "| tokens |" in run(*CHAT, "--format", "markdown")[1]


def test_terms_energy_and_an_api(run: Run) -> None:
    spot, demand = found(run, "--term", "spot"), found(run)
    assert spot.usd_per_month < demand.usd_per_month
    assert any("taken back" in warning for warning in spot.warnings)
    carbon = found(run, "--grid-intensity", 380)
    assert carbon.energy is not None
    assert carbon.energy.kg_co2_per_month == pytest.approx(carbon.energy.kwh_per_month * 0.38)
    text = run(*CHAT, "--grid-region", "france", "--api-price-input", 1, "--api-price-output", 4)[1]
    assert "56 g/kWh" in text
    assert "Break-even" in text


def test_own_prices_and_grids(run: Run, tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text(
        'provider = "us"\n[[prices]]\naccelerator = "h200-sxm"\nusd_per_gpu_hour = 1.11\nterm = "reserved"\n'
        'as_of = "2026-11"\nsource = "contract"\n'
    )
    assert found(run, "--term", "reserved", "--prices", prices).terms.usd_per_gpu_hour == 1.11
    grid = tmp_path / "grid.toml"
    grid.write_text('[[grid]]\nregion = "home"\ngrams_co2_per_kwh = 20\nyear = 2025\nsource = "the utility"\n')
    energy = found(run, "--grid", grid, "--grid-region", "home").energy
    assert energy is not None
    assert energy.grams_co2_per_kwh == 20
    grid.write_text('[[grid]]\nregion = "home"\ngrams_co2_per_kwh = "low"\n')
    code, _, err = run(*CHAT, "--grid", grid, "--grid-region", "home")
    assert code == 2
    assert "grid[0].grams_co2_per_kwh" in err
    prices.write_text('provider = "us"\n[[prices]]\naccelerator = "h200-sxm"\nterm = "leased"\n')
    code, _, err = run(*CHAT, "--prices", prices)
    assert code == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--grid-region", "farnce"), "Did you mean 'france'"),
        (("--grid-intensity", -1), "--grid-intensity"),
        (("--grid-intensity", "nan"), "--grid-intensity"),
        (("--grid-intensity", 5, "--grid-region", "france"), "one of the two"),
        (("--api-price-input", 3), "--api-price-output"),
        (("--api-price-cached", 3), "--api-price-input"),
        (("--api-price-input", 0, "--api-price-output", 0), "above zero"),
        (("--api-price-input", -1, "--api-price-output", 0), "zero or more"),
        (("--term", "leased"), "--term"),
        (("--grid", "nowhere.toml"), "nowhere.toml"),
        (("--set", "cost.pue=0.5"), "cost.pue"),
        (("--set", "cost.tern=spot"), "cost.tern"),
        (("--term", "owned", "--set", "cost.capex_per_gpu.h20=1.0"), "cost.capex_per_gpu"),
    ],
)
def test_wrong_options_are_one_clear_line(run: Run, options: tuple[object, ...], said: str) -> None:
    code, out, err = run(*CHAT, *options)
    assert code == 2
    assert out == ""
    assert said in err
    assert "Traceback" not in err
