"""How sure a plan is: its predictions and its demand drawn many times, and what the fleet then needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from planner.decisions.prediction_interval import PredictionInterval, acceptance_interval, step_time_interval
from planner.serving.queueing import spare_replicas
from planner.sizing.frozen_result import Result
from planner.sizing.operating import Rows
from planner.sizing.replica import ReplicaModel
from planner.sizing.result import Plan
from planner.sizing.search import Search, Sized, actual_rate, replicas_at
from planner.workload import Slo

Vector = npt.NDArray[np.float64]
CONFIDENCES = (0.5, 0.8, 0.95, 0.99)
#: demand's standard deviation over its mean where nobody said: an assumption, printed with every result
FORECAST_CV = 0.2
#: share of the stable rate up to which latencies are computed; beyond it the queue counts as growing
STABLE = 0.995
#: rows computed at once, to bound memory
BLOCK = 250
SCALED = ("steps", "work", "sharing", "stage", "stage_sharing", "own")


class Drawn(Result):
    """What was drawn from: actual over predicted, or over planned, lies between both in a share of cases."""

    name: str
    low: float
    high: float
    level: float
    source: str


class Chance(Result):
    """How often a limit is kept."""

    limit: str
    probability: float


class Confidence(Result):
    """The fleet that keeps every limit with a confidence."""

    confidence: float
    gpus: int | None  # spares included; None where more replicas of this plan don't help often enough
    replicas: int | None
    usd_per_hour: float | None


class Risk(Result):
    """A plan under drawn predictions and demand; every limit kept, the queue stable and the cache in memory."""

    draws: int
    seed: int
    accelerator: str
    gpus: int  # of the plan
    replicas: int
    serving_replicas: int
    probability: float  # that the plan's serving replicas keep every limit
    limits: tuple[Chance, ...]
    unattainable: float  # share of draws in which no number of replicas keeps every limit
    confidence: tuple[Confidence, ...]
    drawn: tuple[Drawn, ...]
    notes: tuple[str, ...] = ()


def risk(
    found: Search,
    sized: Sized,
    plan: Plan,
    *,
    draws: int = 1000,
    seed: int = 0,
    confidences: Sequence[float] = CONFIDENCES,
    forecast_cv: float | None = None,
    step_time: PredictionInterval | None = None,
    acceptance: PredictionInterval | None = None,
) -> Risk:
    """How often ``sized`` keeps its limits when step times, accepted drafts and demand differ from what was planned.

    All steps of a draw are longer or shorter by one factor, drawn from ``step_time`` (of the candidate by
    default), as the error of a prediction is the same for every step; demand is lognormal with mean as planned and
    ``forecast_cv`` (the workload's, else :data:`FORECAST_CV`). Limits are tightened by what the simulation of the
    plan added to the closed forms. The replicas' rate is that of the closed forms, all draws at once.

    Source: :class:`planner.sizing.replica.ReplicaModel` at every draw.
    """
    generator = np.random.default_rng(seed)
    step_time = step_time or step_time_interval(found, sized)
    acceptance = acceptance or acceptance_interval(sized)
    cv, origin = forecast(found, forecast_cv)
    steps = step_time.draw(draws, generator)
    spread = math.log1p(cv**2)
    demand = np.exp(math.sqrt(spread) * generator.standard_normal(draws) - spread / 2)
    accepted = acceptance.draw(draws, generator) if acceptance is not None else np.ones(draws)
    limits = tightened(found.workload.slo, plan)
    needed: list[Vector] = []
    kept: list[dict[str, npt.NDArray[np.bool_]]] = []
    serving = sized.replicas - sized.spares
    for at in np.array_split(np.arange(draws), max(1, math.ceil(draws / BLOCK))):
        rows = scaled(sized.rows, steps[at], accepted[at])
        model = ReplicaModel(rows, found.load, limits, replace(found.constants, utilisation_limit=STABLE))
        needed.append(replicas_needed(found, model, demand[at]))
        kept.append(limits_kept(found, sized, model, demand[at], serving))
    fleets = np.concatenate(needed)
    names = list(kept[0])
    return Risk(
        draws=draws,
        seed=seed,
        accelerator=plan.accelerator,
        gpus=sized.gpus,
        replicas=sized.replicas,
        serving_replicas=serving,
        probability=float(np.mean(fleets <= serving)),
        limits=tuple(Chance(limit=n, probability=float(np.mean(np.concatenate([k[n] for k in kept])))) for n in names),
        unattainable=float(np.mean(~np.isfinite(fleets))),
        confidence=tuple(_confidence(found, sized, fleets, c) for c in sorted({*CONFIDENCES, *confidences})),
        drawn=_drawn(step_time, acceptance, cv, origin),
    )


def forecast(found: Search, given: float | None) -> tuple[float, str]:
    """Coefficient of variation of the demand itself [1], and who said so."""
    if given is not None:
        return given, "flag"
    own = (found.workload.resolved.get("demand") or {}).get("forecast_cv")
    return (FORECAST_CV, "default") if own is None else (float(own), "workload")


def tightened(slos: Sequence[Slo], plan: Plan) -> tuple[Slo, ...]:
    """Limits as the closed forms must keep them for the simulation to keep the real ones, [s].

    Source: the plan's simulated figures over its closed forms', where they are worse.
    """
    if plan.simulated is None:
        return tuple(slos)
    curves = {"ttft": "ttft_s", "tpot": "time_per_output_token_s", "itl": "time_per_output_token_s", "e2e": "e2e_s"}

    def tighter(slo: Slo) -> Slo:
        assert plan.simulated is not None
        closed, simulated = (
            float(getattr(getattr(x, curves[slo.metric]), slo.statistic))
            for x in (plan.simulated.closed_form, plan.latency)
        )
        return replace(slo, limit_s=slo.limit_s * min(1.0, closed / simulated)) if simulated > 0 else slo

    return tuple(tighter(s) for s in slos)


def scaled(rows: Rows, steps: Vector, accepted: Vector) -> Rows:
    """The one row of ``rows`` once per draw: times times ``steps`` [1], accepted drafts times ``accepted`` [1].

    Time from arrival to the queue is the host's and stays. Source: definition.
    """
    many = rows.take(np.zeros(len(steps), dtype=int))
    factor = steps[:, None]
    moved = {name: getattr(many, name) * factor for name in SCALED}
    drafts = many.options[0].drafter.draft_tokens
    gain = np.clip((many.acceptance - 1) * accepted[:, None], 0.0, drafts)
    return replace(many, **moved, work_second=many.work_second * factor**2, acceptance=1 + gain)


def replicas_needed(found: Search, model: ReplicaModel, demand: Vector) -> Vector:
    """Serving replicas each draw needs to keep every limit, (draws,), [1]; infinite where no number does.

    ``demand`` (draws,) over the planned peak [1]. Source: the highest rate of a replica inside the limits.
    """
    highest, possible = model.highest_rate()
    cycle = np.zeros(len(demand))
    if found.workload.demand.concurrent_users is not None:
        cycle = model.serve(highest).e2e.mean[:, 0]
    shares = replicas_at(highest[:, 0], cycle, found.workload, found.load) * demand
    return np.where(possible[:, 0], np.maximum(1.0, np.ceil(shares - 1e-9)), np.inf)


def limits_kept(
    found: Search, sized: Sized, model: ReplicaModel, demand: Vector, serving: int
) -> dict[str, npt.NDArray[np.bool_]]:
    """Which draws keep each limit with ``serving`` replicas, (draws,) by its name.

    Where the queue grows, time to first token and to the end keep none. Source: the closed forms.
    """
    rate = actual_rate(model, model.limit, serving / demand[:, None], found.workload, found.load)
    growing = (rate >= model.limit * (1 - 1e-6))[:, 0]
    served = model.serve(np.minimum(rate, model.limit))
    kept = {"stable queue": ~growing}
    for name, ratio in served.violations.items():
        if name == "utilisation":
            continue
        held = np.broadcast_to(ratio, rate.shape)[:, 0] <= 1.0
        queues = name.startswith(("ttft", "e2e"))
        kept[name] = held & ~growing if queues else held
    return kept


def _confidence(found: Search, sized: Sized, fleets: Vector, confidence: float) -> Confidence:
    """The smallest fleet that a share ``confidence`` of draws is served by."""
    at = min(len(fleets) - 1, max(0, math.ceil(confidence * len(fleets) - 1e-9) - 1))
    serving = float(np.sort(fleets)[at])
    if not math.isfinite(serving):
        return Confidence(confidence=confidence, gpus=None, replicas=None, usd_per_hour=None)
    wanted = found.workload.reliability.spare_replicas
    replicas = int(serving) + (spare_replicas(int(serving)) if wanted is None else wanted)
    gpus = replicas * int(sized.rows.devices[0, 0])
    price = float(np.nan_to_num(sized.rows.price[0, 0]))
    return Confidence(confidence=confidence, gpus=gpus, replicas=replicas, usd_per_hour=gpus * price)


def _drawn(
    step_time: PredictionInterval, acceptance: PredictionInterval | None, cv: float, origin: str
) -> tuple[Drawn, ...]:
    spread = math.sqrt(math.log1p(cv**2))
    z = NormalDist().inv_cdf(0.9)
    low, high = (math.exp(sign * z * spread - spread**2 / 2) for sign in (-1, 1))
    demand = PredictionInterval(low, high, 0.8, f"{origin}: coefficient of variation {cv:g}")
    listed = {"step time": step_time, "accepted drafts": acceptance, "demand": demand}
    return tuple(
        Drawn(name=n, low=x.low, high=x.high, level=x.level, source=x.source)
        for n, x in listed.items()
        if x is not None
    )
