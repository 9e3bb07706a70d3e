"""What a workload's plan costs, under which terms, on which tokens, and beside an API."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from planner.cost.owning import energy_per_token
from planner.decisions.cost_result import BreakEven, CostReport, Energy, Terms, TokenCost
from planner.decisions.cost_split import Split, split_of
from planner.decisions.planned import Planned, planned
from planner.errors import InputError, nearest
from planner.hardware import Accelerator, Database
from planner.serving.fanout import useful_work
from planner.sizing.quality import quality_assumptions
from planner.sizing.result import Assumption
from planner.sizing.seats import allowed_chips
from planner.sizing.terms import ROWS, owned_hour, owns, price_of, pue_of, term_of, watts_of
from planner.units import format_money
from planner.workload import Workload


@dataclass(frozen=True)
class ApiPrice:
    """An API's prices, [$ per million tokens]; cached input costs as other input where not given."""

    input: float
    output: float
    cached: float | None = None

    def per_request(self, split: Split) -> float:
        """A request's price, [$]. Source: definition."""
        cached = self.input if self.cached is None else self.cached
        return (split.new * self.input + split.cached * cached + split.output * self.output) / 1e6


@dataclass(frozen=True)
class Carbon:
    """Carbon of electricity, [g CO2e/kWh], and of which grid."""

    grams_per_kwh: float
    grid: str


def cost_terms(
    workload: Workload,
    database: Database,
    *,
    carbon: Carbon | None = None,
    api: ApiPrice | None = None,
    gpus: Sequence[str] | None = None,
    price_overrides: Mapping[str, float] | None = None,
    models: Sequence[object] = (),
    simulate: bool = True,
) -> CostReport:
    """The plan of least cost for ``workload`` and all that finance asks of it, units as in the result.

    ``carbon`` replaces the workload's grid intensity. InputError when no accelerator has a price under the
    term; else errors as :func:`planner.decisions.planned.planned`. Source: :mod:`planner.cost.owning`,
    :func:`planner.decisions.cost_split.split_of`.
    """
    _check_prices(workload, database, gpus, price_overrides)
    base = planned(
        workload, database, gpus=gpus, price_overrides=price_overrides, models=models, simulate=simulate, pools=True
    )
    plan, split = base.plan, split_of(base, workload)
    rate = plan.throughput.requests_per_second / workload.demand.peak_to_mean
    per_request = plan.cost.usd_per_hour / 3600 / rate
    costs = _token_costs(split, per_request)
    inputs = costs[0].usd_per_request + costs[1].usd_per_request
    if carbon is None and workload.cost and workload.cost.grid_intensity is not None:
        carbon = Carbon(workload.cost.grid_intensity, "workload")
    energy = _energy(base, workload, database, carbon, rate * split.output)
    compared = _break_even(base, api, split, rate) if api else None
    said = list(base.notes)
    if energy is None:
        said.append(f"no power known for {plan.accelerator}: give cost.watts_per_gpu")
    if term_of(workload) == "spot":
        said.append("spot accelerators can be taken back; spares are sized for failures, not for that")
    return CostReport(
        workload=workload.resolved,
        plan=plan,
        terms=_terms(base, workload, database),
        mean_requests_per_second=rate,
        usd_per_hour=plan.cost.usd_per_hour,
        usd_per_month=plan.cost.usd_per_month,
        usd_per_request=per_request,
        usd_per_solved_task=_per_solved(workload, per_request),
        usd_per_million_output_tokens_alone=plan.cost.usd_per_million_output_tokens,
        usd_per_million_input_tokens=inputs / (split.new + split.cached) * 1e6,
        split=costs,
        energy=energy,
        break_even=compared,
        statement=_statement(base, workload, per_request, costs, compared),
        assumptions=_assumptions(base, workload, database, energy),
        warnings=tuple(said),
    )


def _check_prices(
    workload: Workload, database: Database, gpus: Sequence[str] | None, overrides: Mapping[str, float] | None
) -> None:
    """Raise InputError, with the nearest term or part that has a price, when no accelerator has one."""
    chips = allowed_chips(workload, database, gpus, {})
    if not chips or any(price_of(database, chip, workload, overrides) for chip in chips):
        return
    term = term_of(workload)
    names = ", ".join(chip.name for chip in chips[:3]) + (", …" if len(chips) > 3 else "")
    if owns(workload):
        given = workload.cost.capex_per_gpu if workload.cost else {}
        raise InputError(
            f"no capital given for {names}", key="cost.capex_per_gpu", expected=f"{chips[0].name} = $ per accelerator",
            suggestion=nearest(chips[0].name, given),
        )  # fmt: skip
    rows = [row for chip in chips for row in database.prices.of(chip.name)]
    known = {row.term for row in rows}
    others = [t for t in ROWS if known & set(ROWS[t])]
    raise InputError(
        f"no {term} price known for {names}", key="cost.term",
        expected=("terms with a price: " + ", ".join(others) + "; or " if others else "")
        + f"--price {chips[0].name}=USD_PER_HOUR",
    )  # fmt: skip


def _token_costs(split: Split, per_request: float) -> tuple[TokenCost, ...]:
    kinds = (
        ("input", split.new, split.input_seconds),
        ("cached", split.cached, split.cached_seconds),
        ("output", split.output, split.output_seconds),
    )
    found = []
    for (name, tokens, seconds), share in zip(kinds, split.money, strict=True):
        usd = share * per_request
        found.append(TokenCost.model_validate({
            "tokens": name, "tokens_per_request": tokens, "gpu_seconds_per_request": seconds, "share": share,
            "usd_per_request": usd, "usd_per_million_tokens": usd / tokens * 1e6 if tokens >= 1e-9 else None,
        }))  # fmt: skip
    return tuple(found)


def _chip(base: Planned) -> Accelerator:
    return base.best.seat.accelerator


def _terms(base: Planned, workload: Workload, database: Database) -> Terms:
    cost, price = base.plan.cost, base.best.seat.price
    hour = owned_hour(workload, _chip(base), database) if owns(workload) else None
    if price is not None and price.term == "user":
        hour = None
    return Terms(
        term=price.term if price is not None else term_of(workload),
        usd_per_gpu_hour=cost.price_per_gpu_hour,
        price_source=cost.price_source,
        capital_usd_per_gpu_hour=hour.capital if hour else None,
        power_usd_per_gpu_hour=hour.power if hour else None,
        hosting_usd_per_gpu_hour=hour.hosting if hour else None,
    )


def _energy(
    base: Planned, workload: Workload, database: Database, carbon: Carbon | None, tokens_per_second: float
) -> Energy | None:
    watts = watts_of(workload, _chip(base))
    if watts is None or not math.isfinite(watts):
        return None
    pue, _ = pue_of(workload, database)
    fleet = watts * base.plan.gpus
    kwh = fleet * pue / 1000 * base.found.constants.hours_per_month
    joules = energy_per_token(fleet, pue, tokens_per_second)
    grams = carbon.grams_per_kwh if carbon else None
    return Energy(
        watts_per_gpu=watts,
        pue=pue,
        kwh_per_month=kwh,
        joules_per_output_token=joules,
        grams_co2_per_kwh=grams,
        grid=carbon.grid if carbon else None,
        kg_co2_per_month=None if grams is None else kwh * grams / 1000,
        grams_co2_per_million_output_tokens=None if grams is None else joules * 1e6 / 3.6e6 * grams,
    )


def _break_even(base: Planned, api: ApiPrice, split: Split, rate: float) -> BreakEven:
    hourly, most = base.plan.cost.usd_per_hour, base.plan.throughput.max_requests_per_second
    each = api.per_request(split)
    even = hourly / 3600 / each
    return BreakEven(
        api_usd_per_million_input=api.input,
        api_usd_per_million_cached=api.input if api.cached is None else api.cached,
        api_usd_per_million_output=api.output,
        api_usd_per_request=each,
        api_usd_per_month=each * rate * 3600 * base.found.constants.hours_per_month,
        requests_per_second=even,
        utilisation=even / most,
        utilisation_now=rate / most,
        fleet_is_cheaper=rate > even,
    )


def _per_solved(workload: Workload, per_request: float) -> float | None:
    """Cost of a solved task, [$]: one that fails is paid too."""
    agents = workload.subagents
    if agents is None:
        return None
    solved = float(
        useful_work(agents.fan_out, agents.success, correlation=agents.correlation, avenues=agents.independent_avenues)
    )
    return per_request / solved if solved > 0 else None


def _statement(
    base: Planned, workload: Workload, per_request: float, costs: Sequence[TokenCost], compared: BreakEven | None
) -> str:
    plan = base.plan
    said = (
        f"{plan.gpus} x {plan.accelerator}, {term_of(workload)}, cost {format_money(plan.cost.usd_per_month)} a month, "
        f"{format_money(per_request)} per request; {costs[2].share:.0%} of it is output."
    )
    if compared is None:
        return said
    if compared.utilisation > 1:
        return f"{said} The API is cheaper at any load this fleet serves."
    cheaper = "the fleet is" if compared.fleet_is_cheaper else "the API is"
    return (
        f"{said} The fleet beats the API above {compared.utilisation:.0%} utilisation "
        f"({compared.requests_per_second:.3g} requests/s); at {compared.utilisation_now:.0%}, {cheaper} cheaper."
    )


def _split_said(base: Planned) -> str:
    if base.pair is not None:
        return "prompts pay the prefill pool and answers the decode pool, each its idle time and spares"
    return (
        "money by accelerator-seconds of prompts and of answers at the plan's batch; idle time and spares fall to all "
        "in proportion"
    )


def _assumptions(
    base: Planned, workload: Workload, database: Database, energy: Energy | None
) -> tuple[Assumption, ...]:
    said = [
        Assumption(key="split", value=_split_said(base), origin="plan"),
        Assumption(key="cached tokens", value="pay for the attention that reads them in prefill; memory they hold "
                   "and reads while decoding count as output", origin="plan"),
        Assumption(key="rate", value="the mean demand pays for the fleet of the peak", origin="workload"),
    ]  # fmt: skip
    cost = workload.cost
    if cost is None or cost.term is None:
        said.append(Assumption(key="cost.term", value=term_of(workload), origin="default"))
    if energy is not None:
        given = cost is not None and cost.watts_per_gpu is not None
        value = f"{energy.watts_per_gpu:g} W" + ("" if given else ", the accelerator's limit all the time, no server")
        said.append(Assumption(key="cost.watts_per_gpu", value=value, origin="workload" if given else "database"))
        pue, source = pue_of(workload, database)
        if source != "workload":
            said.append(Assumption(key="cost.pue", value=f"{pue:g} ({source})", origin="database"))
    if owns(workload) and cost is not None:
        said += [
            Assumption(key=f"cost.{key}", value=f"{getattr(cost, key):g}", origin="default")
            for key in ("cost_of_capital", "hosting_per_gpu_month") if key not in cost.model_fields_set
        ]  # fmt: skip
        said.append(Assumption(key="resale", value="worth nothing after cost.amortisation_years", origin="default"))
    return (*said, *quality_assumptions(base.found.model, base.plan.weight_dtype, base.plan.kv_dtype))
