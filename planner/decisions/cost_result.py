"""What ``planner cost`` found: terms, the split of money over tokens, energy, carbon, and the API beside it."""

from __future__ import annotations

from typing import Any, Literal

from planner.sizing.frozen_result import Result
from planner.sizing.result import Assumption, Plan


class Terms(Result):
    """How an accelerator is paid; the parts are given where it is owned and [cost] says what it cost."""

    term: str
    usd_per_gpu_hour: float
    price_source: str
    capital_usd_per_gpu_hour: float | None = None
    power_usd_per_gpu_hour: float | None = None
    hosting_usd_per_gpu_hour: float | None = None


class TokenCost(Result):
    """One kind of token of a request, and the money that falls to it."""

    tokens: Literal["input", "cached", "output"]  # prefilled, found in a cache or shared, generated
    tokens_per_request: float
    gpu_seconds_per_request: float  # of steps, as busy as the plan's replicas are at peak
    share: float  # of the money: as of all seconds of steps, or of the pool of such tokens
    usd_per_request: float
    usd_per_million_tokens: float | None  # none of such tokens: no price


class Energy(Result):
    """Electricity of the fleet, all accelerators drawing ``watts_per_gpu`` all the time."""

    watts_per_gpu: float
    pue: float
    kwh_per_month: float  # 730 hours, of the site
    joules_per_output_token: float  # all of it on output tokens, at the mean demand
    grams_co2_per_kwh: float | None = None
    grid: str | None = None
    kg_co2_per_month: float | None = None
    grams_co2_per_million_output_tokens: float | None = None


class BreakEven(Result):
    """The fleet beside an API paid by the token."""

    api_usd_per_million_input: float
    api_usd_per_million_cached: float
    api_usd_per_million_output: float
    api_usd_per_request: float
    api_usd_per_month: float  # at the mean demand
    requests_per_second: float  # mean rate at which both cost the same
    utilisation: float  # that over the highest rate the fleet serves within its limits; above 1 it never pays
    utilisation_now: float  # of the mean demand
    fleet_is_cheaper: bool  # at the mean demand


class CostReport(Result):
    """The cost of a workload's plan."""

    schema_version: str = "1.0"
    workload: dict[str, Any]
    plan: Plan
    terms: Terms
    mean_requests_per_second: float
    usd_per_hour: float
    usd_per_month: float  # 730 hours
    usd_per_request: float
    usd_per_solved_task: float | None  # where the workload has subagents
    usd_per_million_output_tokens_alone: float  # all cost on output tokens, as a plan states it
    usd_per_million_input_tokens: float  # prefilled and cached ones together
    split: tuple[TokenCost, ...]
    energy: Energy | None
    break_even: BreakEven | None
    statement: str
    assumptions: tuple[Assumption, ...] = ()
    warnings: tuple[str, ...] = ()
