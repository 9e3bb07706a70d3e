"""Cost of a plan: shares that add up, terms, energy, carbon and break-even by hand, and what must always hold."""

from __future__ import annotations

import pytest

from planner.decisions.cost_result import CostReport
from planner.decisions.cost_terms import ApiPrice, Carbon, cost_terms
from planner.errors import InputError
from planner.hardware import Database
from planner.workload import load_workload
from planner.workload.examples import example_path

ONLY = ["h200-sxm"]


def report(database: Database, name: str = "chat", *settings: str, **more: object) -> CostReport:
    given = {"gpus": ONLY, "price_overrides": {"h200-sxm": 3.0}, "simulate": False, **more}
    return cost_terms(load_workload(example_path(name), settings), database, **given)  # type: ignore[arg-type]


def test_shares_add_up_to_the_money(database: Database) -> None:
    found = report(database)
    assert sum(part.share for part in found.split) == pytest.approx(1)
    assert sum(part.usd_per_request for part in found.split) == pytest.approx(found.usd_per_request)
    monthly = sum(
        part.usd_per_million_tokens * part.tokens_per_request / 1e6 for part in found.split
        if part.usd_per_million_tokens is not None
    ) * found.mean_requests_per_second * 3600 * 730  # fmt: skip
    assert monthly == pytest.approx(found.usd_per_month)
    assert found.usd_per_hour == pytest.approx(3.0 * found.plan.gpus)
    # 20 requests a second on average, whatever the peak
    assert found.usd_per_request == pytest.approx(found.usd_per_hour / 3600 / 20)


def test_gpu_seconds_stay_within_those_paid(database: Database) -> None:
    found = report(database)
    used = sum(part.gpu_seconds_per_request for part in found.split) * found.mean_requests_per_second
    assert 0 < used < found.plan.gpus


def test_cached_tokens_cost_less_than_prefilled_ones(database: Database) -> None:
    new, cached, _ = report(database, "chat").split
    assert cached.usd_per_million_tokens is not None
    assert new.usd_per_million_tokens is not None
    assert 0 < cached.usd_per_million_tokens < new.usd_per_million_tokens / 3
    none = report(database, "chat", "context.cached_fraction=0.0").split[1]
    assert (none.tokens_per_request, none.usd_per_request) == (0, 0)
    assert none.usd_per_million_tokens is None


def test_a_solved_task_pays_for_those_that_fail(database: Database) -> None:
    assert report(database).usd_per_solved_task is None
    given = ("subagents.fan_out=1", "subagents.success=0.25")
    found = report(database, "chat", *given)
    assert found.usd_per_solved_task == pytest.approx(4 * found.usd_per_request)


def test_energy_and_carbon_by_hand(database: Database) -> None:
    found = report(database, "chat", "cost.watts_per_gpu=1000.0", "cost.pue=1.2", carbon=Carbon(400, "test"))
    energy = found.energy
    assert energy is not None
    kwh = found.plan.gpus * 1.0 * 1.2 * 730
    assert energy.kwh_per_month == pytest.approx(kwh)
    assert energy.kg_co2_per_month == pytest.approx(kwh * 0.4)
    tokens = found.split[2].tokens_per_request * 20
    assert energy.joules_per_output_token == pytest.approx(found.plan.gpus * 1000 * 1.2 / tokens)
    assert energy.grams_co2_per_million_output_tokens == pytest.approx(kwh * 400 / (tokens * 3600 * 730 / 1e6))
    assert report(database).energy.kg_co2_per_month is None  # type: ignore[union-attr]
    said = report(database, "chat", "cost.grid_intensity=50.0").energy
    assert said is not None
    assert said.grid == "workload"


def test_break_even_by_hand(database: Database) -> None:
    found = report(database, api=ApiPrice(0.5, 2.0, 0.1))
    even = found.break_even
    assert even is not None
    new, cached, output = (part.tokens_per_request for part in found.split)
    each = (0.5 * new + 0.1 * cached + 2.0 * output) / 1e6
    assert even.api_usd_per_request == pytest.approx(each)
    # at the break-even rate an hour of the API costs what the fleet does
    assert even.requests_per_second * 3600 * each == pytest.approx(found.usd_per_hour)
    assert even.utilisation == pytest.approx(even.requests_per_second / found.plan.throughput.max_requests_per_second)
    assert even.fleet_is_cheaper == (even.utilisation_now > even.utilisation)
    assert even.fleet_is_cheaper == (even.api_usd_per_month > found.usd_per_month)


def test_a_cheaper_api_moves_break_even_up(database: Database) -> None:
    evens = [
        report(database, api=ApiPrice(price, 4 * price)).break_even for price in (0.01, 0.3, 3.0)
    ]  # fmt: skip
    levels = [even.utilisation for even in evens if even is not None]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] > 1
    assert "at any load" in report(database, api=ApiPrice(0.01, 0.04)).statement
    assert "beats the API" in report(database, api=ApiPrice(3.0, 12.0)).statement


def test_parts_of_an_owned_hour_add_up(database: Database) -> None:
    found = report(
        database, "chat", 'cost.term="owned"', "cost.capex_per_gpu.h200-sxm=35000.0", "cost.amortisation_years=5.0",
        "cost.power_price_per_kwh=0.1", price_overrides={},
    )  # fmt: skip
    terms = found.terms
    assert terms.term == "owned"
    assert terms.capital_usd_per_gpu_hour == pytest.approx(7000 / 8760)
    assert terms.power_usd_per_gpu_hour == pytest.approx(0.7 * database.power.pue * 0.1)
    assert terms.hosting_usd_per_gpu_hour == 0
    assert terms.usd_per_gpu_hour == pytest.approx(7000 / 8760 + 0.07 * database.power.pue)
    assert {"cost.cost_of_capital", "cost.pue", "resale"} <= {a.key for a in found.assumptions}


def test_a_term_without_a_price_names_those_that_have_one(database: Database) -> None:
    with pytest.raises(InputError) as error:
        report(database, "chat", 'cost.term="reserved"', gpus=["l4"], price_overrides={})
    assert "no reserved price known for l4" in str(error.value)
    assert "on-demand, spot" in str(error.value)
    capital = ('cost.term="owned"', "cost.capex_per_gpu.h100-sxm=1.0", "cost.amortisation_years=5.0",
               "cost.power_price_per_kwh=0.1")  # fmt: skip
    with pytest.raises(InputError) as error:
        report(database, "chat", *capital, gpus=["h200-sxm"], price_overrides={})
    assert error.value.key == "cost.capex_per_gpu"
    assert error.value.suggestion == "h100-sxm"


def test_the_whole_search_is_priced_under_the_term(database: Database) -> None:
    given = ['cost.term="owned"', "cost.amortisation_years=4.0", "cost.power_price_per_kwh=0.1"]
    capital = ("cost.capex_per_gpu.h200-sxm=35000.0", "cost.capex_per_gpu.b200-sxm=50000.0")
    cheap = ("cost.capex_per_gpu.h200-sxm=35000.0", "cost.capex_per_gpu.b200-sxm=5000000.0")
    either = {"gpus": ["h200-sxm", "b200-sxm", "h100-sxm"], "price_overrides": {}}
    found, other = (report(database, "chat", *given, *c, **either) for c in (capital, cheap))
    assert other.plan.accelerator == "h200-sxm"
    assert found.usd_per_month <= other.usd_per_month
    assert found.terms.term == other.terms.term == "owned"
