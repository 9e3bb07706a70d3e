"""Terms of payment and formats: which price a plan pays, and that nothing is quantised unasked."""

from __future__ import annotations

import pytest

from planner.errors import InputError
from planner.hardware import Database
from planner.models import load_model
from planner.sizing import recommend
from planner.sizing.candidates import precisions
from planner.sizing.quality import quality_assumptions
from planner.sizing.terms import owned_hour, price_of, term_of
from planner.workload import Workload, load_workload
from planner.workload.examples import example_path
from planner.workload.schema import Precision

OWNED = [
    'cost.term="owned"', "cost.capex_per_gpu.h100-sxm=32000.0", "cost.amortisation_years=4.0",
    "cost.cost_of_capital=0.1", "cost.power_price_per_kwh=0.12", "cost.pue=1.25", "cost.hosting_per_gpu_month=73.0",
]  # fmt: skip


def chat(*settings: str) -> Workload:
    return load_workload(example_path("chat"), settings)


def test_an_hour_of_ones_own_by_hand(database: Database) -> None:
    chip = database.accelerator("h100-sxm")
    hour = owned_hour(chat(*OWNED), chip, database)
    assert hour is not None
    # 32,000 at 10 % over 4 years is 10,095.07 a year; 700 W; $73 a month of 730 hours
    assert hour.capital == pytest.approx(10_095.066 / 8760, rel=1e-6)
    assert hour.power == pytest.approx(0.7 * 1.25 * 0.12)
    assert hour.hosting == pytest.approx(0.10)
    price = price_of(database, chip, chat(*OWNED), None)
    assert price is not None
    assert price.usd_per_gpu_hour == pytest.approx(1.1524048 + 0.105 + 0.10)
    assert owned_hour(chat(*OWNED), database.accelerator("h200-sxm"), database) is None


@pytest.mark.parametrize(
    "dearer",
    ["cost.amortisation_years=3.0", "cost.cost_of_capital=0.2", "cost.pue=1.5", "cost.power_price_per_kwh=0.2",
     "cost.watts_per_gpu=1300.0", "cost.hosting_per_gpu_month=100.0", "cost.capex_per_gpu.h100-sxm=33000.0"],
)  # fmt: skip
def test_owning_costs_more_when_any_part_does(database: Database, dearer: str) -> None:
    chip = database.accelerator("h100-sxm")
    base, more = (owned_hour(chat(*OWNED, *extra), chip, database) for extra in ((), (dearer,)))
    assert base is not None
    assert more is not None
    assert more.usd_per_gpu_hour > base.usd_per_gpu_hour


def test_each_term_has_its_own_prices(database: Database) -> None:
    chip = database.accelerator("h100-sxm")
    prices = {}
    for term in ("on-demand", "spot", "reserved", "owned"):
        price = price_of(database, chip, chat(f'cost.term="{term}"'), None)
        assert price is not None
        prices[term] = price
    assert {term: p.term for term, p in prices.items()} == {
        "on-demand": "on-demand", "spot": "spot", "reserved": "3yr rental", "owned": "owning TCO",
    }  # fmt: skip
    assert prices["spot"].usd_per_gpu_hour < prices["on-demand"].usd_per_gpu_hour
    assert price_of(database, chip, chat(*OWNED), {"h100-sxm": 9.0}).usd_per_gpu_hour == 9.0  # type: ignore[union-attr]


def test_the_older_key_still_counts() -> None:
    assert term_of(chat('hardware.price_term="spot"')) == "spot"
    assert term_of(chat('hardware.price_term="spot"', 'cost.term="owned"')) == "owned"


@pytest.mark.parametrize("missing", ["cost.amortisation_years", "cost.power_price_per_kwh"])
def test_half_an_owner_is_told_what_is_missing(database: Database, missing: str) -> None:
    given = [s for s in OWNED if not s.startswith(missing)]
    with pytest.raises(InputError) as error:
        owned_hour(chat(*given), database.accelerator("h100-sxm"), database)
    assert error.value.key == missing


def test_years_without_capital_are_an_error(database: Database) -> None:
    with pytest.raises(InputError, match="without capex_per_gpu"):
        price_of(
            database, database.accelerator("h100-sxm"), chat('cost.term="owned"', "cost.amortisation_years=4.0"), None
        )


@pytest.mark.parametrize("name", ["llama-3.3-70b-instruct", "deepseek-v3.2", "gpt-oss-120b"])
def test_nothing_is_quantised_unasked(name: str) -> None:
    model = load_model(name)
    allowed = Precision()
    (only,) = precisions(model, allowed.weights, allowed.kv)
    assert all(only.formats[group] == model.format_of(group) for group in only.formats)
    assert only.kv == model.kv_format
    asked = list(precisions(model, ["native"], ["native", "fp8"]))
    assert {p.kv for p in asked} == {model.kv_format, "fp8"}
    assert all(p.formats == only.formats for p in asked)


def test_a_plan_is_as_published_unless_the_workload_allows_less(database: Database) -> None:
    at = {"gpus": ["h200-sxm"], "simulate": False}
    native = recommend(chat('precision.weights=["native"]'), database, **at)  # type: ignore[arg-type]
    fp8 = recommend(chat('precision.weights=["fp8"]'), database, **at)  # type: ignore[arg-type]
    assert native.plan is not None
    assert fp8.plan is not None
    assert (native.plan.weight_dtype, fp8.plan.weight_dtype) == ("bf16", "fp8")
    assert not [a for a in native.assumptions if a.key.startswith("quality")]
    (said,) = [a for a in fp8.assumptions if a.key.startswith("quality")]
    assert "fp8 for published bf16" in said.value
    assert "not measured" in said.value


def test_what_is_said_of_quality() -> None:
    model = load_model("deepseek-v3.2")
    weights, kv = quality_assumptions(model, "fp8-block", "fp8")
    assert "as published" in weights.value
    assert "fp8 for published bf16" in kv.value
    wider, _ = quality_assumptions(model, "bf16", "bf16")
    assert "not measured" not in wider.value
