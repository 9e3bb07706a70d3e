"""Terms of payment: which price rows a term means, and what an accelerator of one's own costs per hour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planner.cost.owning import HOURS_PER_YEAR, annual_payment, power_usd_per_hour
from planner.errors import InputError
from planner.hardware import Accelerator, Database, Price
from planner.workload import Workload
from planner.workload.schema import Cost

HOURS_PER_MONTH = HOURS_PER_YEAR / 12
#: terms of price rows a term of the workload means, the first that has a price
ROWS = {
    "on-demand": ("on-demand",),
    "spot": ("spot",),
    "reserved": ("reserved", "3yr rental"),
    "owned": ("owning TCO",),
}


@dataclass(frozen=True)
class Owned:
    """An hour of one accelerator of one's own, [$/h]: capital, power, hosting; ``watts`` [W], ``pue`` [1]."""

    capital: float
    power: float
    hosting: float
    watts: float
    pue: float

    @property
    def usd_per_gpu_hour(self) -> float:
        """All of it, [$/h]. Source: definition."""
        return self.capital + self.power + self.hosting


def term_of(workload: Workload) -> str:
    """The term a plan is paid under, a name. Source: ``cost.term``, else ``hardware.price_term``."""
    term = workload.cost.term if workload.cost else None
    return term or workload.hardware.price_term


def owns(workload: Workload) -> bool:
    """Whether the hourly price follows from capital the workload gives. Source: ``[cost]``.

    InputError for years of amortisation without capital.
    """
    if term_of(workload) != "owned" or workload.cost is None:
        return False
    if not workload.cost.capex_per_gpu and workload.cost.amortisation_years is not None:
        raise InputError(
            "given without capex_per_gpu", key="cost.amortisation_years", expected="cost.capex_per_gpu beside it"
        )
    return bool(workload.cost.capex_per_gpu)


def pue_of(workload: Workload, database: Database) -> tuple[float, str]:
    """Power usage effectiveness and where it is from, [1]. Source: ``cost.pue``, else ``grid.toml``."""
    if workload.cost and workload.cost.pue is not None:
        return workload.cost.pue, "workload"
    return database.power.pue, database.power.pue_source


def watts_of(workload: Workload, chip: Accelerator) -> float | None:
    """Power drawn per accelerator, [W]: ``cost.watts_per_gpu``, else the part's limit. Source: the facts."""
    given = workload.cost.watts_per_gpu if workload.cost else None
    return given if given is not None else chip.tdp_w


def owned_hour(workload: Workload, chip: Accelerator, database: Database) -> Owned | None:
    """What an hour of ``chip`` costs its owner, [$/h]; None without capital for it.

    InputError when years or the price of power are missing. Source: :mod:`planner.cost.owning`.
    """
    cost = workload.cost or Cost()
    capital = {database.accelerator(name).name: usd for name, usd in cost.capex_per_gpu.items()}.get(chip.name)
    if capital is None:
        return None
    for key, meaning in (("amortisation_years", "years"), ("power_price_per_kwh", "$ per kWh")):
        if getattr(cost, key) is None:
            raise InputError("is missing beside capex_per_gpu", key=f"cost.{key}", expected=meaning)
    watts = watts_of(workload, chip)
    if watts is None:
        raise InputError(f"no power known for {chip.name}", key="cost.watts_per_gpu", expected="watts")
    pue, _ = pue_of(workload, database)
    assert cost.amortisation_years is not None and cost.power_price_per_kwh is not None
    return Owned(
        annual_payment(capital, cost.amortisation_years, cost.cost_of_capital) / HOURS_PER_YEAR,
        power_usd_per_hour(watts, pue, cost.power_price_per_kwh),
        cost.hosting_per_gpu_month / HOURS_PER_MONTH,
        watts,
        pue,
    )


def price_of(
    database: Database, chip: Accelerator, workload: Workload, overrides: Mapping[str, float] | None
) -> Price | None:
    """The price a plan on ``chip`` uses, [$/h]: the user's, else its owner's, else the database's under the term.

    None when nobody knows it. Errors as :func:`owned_hour`. Source: the price's own.
    """
    prices = {**workload.hardware.prices, **(overrides or {})}
    named = {database.accelerator(name).name: usd for name, usd in prices.items()}
    own = named.get(chip.name)
    if own is None and owns(workload):
        hour = owned_hour(workload, chip, database)
        return None if hour is None else _owners(chip, hour)
    for term in ROWS.get(term_of(workload), (term_of(workload),)):
        found = database.price(chip.name, override=own, providers=workload.hardware.providers, term=term)
        if found is not None:
            return found
    return None


def _owners(chip: Accelerator, hour: Owned) -> Price:
    return Price(chip.name, hour.usd_per_gpu_hour, "own", "owned", "as [cost] says", "[cost] of the workload")
