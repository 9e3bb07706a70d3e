"""The search: enumerate, drop what doesn't fit, price all points, refine the best, count replicas."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from planner.cost.layout import Layout
from planner.cost.step import StepModel
from planner.hardware import Assumptions, Database, Engine
from planner.hardware.acceptance import AcceptanceData, load_acceptance
from planner.hardware.intervals import Intervals
from planner.models import load_model
from planner.models.model import Model
from planner.serving.fanout import expected_maximum
from planner.serving.load import Load, load_from
from planner.serving.queueing import spare_replicas
from planner.sizing.bracketing import last_within
from planner.sizing.candidates import precisions
from planner.sizing.drafting import drafting_options
from planner.sizing.operating import Rows, Seat, join, price_group
from planner.sizing.replica import RATE_TOLERANCE, ReplicaModel, Served
from planner.sizing.screening import Screened, screen
from planner.sizing.seats import allowed_chips, seats_on
from planner.sizing.terms import price_of, term_of
from planner.workload import Workload

Vector = npt.NDArray[np.float64]

#: rows looked at exactly: the best overall, and the best of every accelerator
REFINED = 24
PER_ACCELERATOR = 2


@dataclass(frozen=True)
class Sized:
    """One candidate, sized: a row of the search with its fleet. ``served`` has one row."""

    rows: Rows
    served: Served
    replicas: int
    spares: int
    max_rate: float  # sequences per second of one replica inside the SLOs
    objective: float

    @property
    def seat(self) -> Seat:
        """Accelerator, layout and precision of the row. Source: none needed."""
        return self.rows.seats[0]

    @property
    def gpus(self) -> int:
        """Accelerators of the fleet, spares included. Source: definition."""
        return int(self.replicas * float(np.asarray(self.seat.layout.devices)))


@dataclass(frozen=True)
class Search:
    """Everything the search found, best first, and what it could not use."""

    workload: Workload
    model: Model
    engine: Engine
    load: Load
    constants: Assumptions
    found: tuple[Sized, ...]
    rejected: Mapping[str, str]
    screened: Screened | None
    rows: Rows | None
    points: int
    request_rate: float
    notes: tuple[str, ...] = field(default=())
    intervals: Intervals = field(kw_only=True, repr=False)

    @cached_property
    def join_tokens(self) -> float:
        """Expected longest output of a task's sequences, [tokens]. Source: order statistics."""
        return expected_maximum(self.workload.output_quantile, self.load.fan_out)


def search(
    workload: Workload,
    database: Database,
    *,
    gpus: Sequence[str] | None = None,
    price_overrides: Mapping[str, float] | None = None,
    models: Sequence[object] = (),
    acceptance: AcceptanceData | None = None,
) -> Search:
    """Size every candidate for ``workload``.

    Returns candidates best first by the workload's objective ($/h, accelerators, W or s). ``acceptance``:
    data with the user's curves in it, the bundled by default. Raises
    InputError for an unknown model, chip, engine or price. Units as in the results.

    Source: planner.cost and planner.serving.
    """
    model = load_model(workload.model, overlays=models)
    drafting = workload.speculation.draft_model
    drafting_model = load_model(drafting, overlays=models) if drafting else None
    engine = database.engine(workload.engine.name)
    constants = database.assumptions
    load = load_from(workload)
    rejected: dict[str, str] = {}
    chips = allowed_chips(workload, database, gpus, rejected)
    data = acceptance or load_acceptance()
    groups: list[Rows] = []
    for precision in precisions(model, workload.precision.weights, workload.precision.kv):
        if drafting_model:
            own = tuple(drafting_model.formats.values())
            precision = replace(precision, drafter_formats=own)
        step = StepModel(model, precision.formats, precision.kv, constants.draft_independence)
        seats: list[Seat] = []
        held: dict[Layout, tuple[float, float]] = {}
        for chip in chips:
            price = price_of(database, chip, workload, price_overrides)
            if price is None and workload.objective.minimise == "cost":
                rejected.setdefault(chip.name, f"no {term_of(workload)} price known: name one with --price")
                continue
            seats += seats_on(step, precision, chip, price, workload, engine, constants, load, held, rejected)
        if not seats:
            continue
        options = drafting_options(
            model, workload.speculation, data, precision, drafting_model=drafting_model, engine=engine.name,
            context=load.context_mean,
        )  # fmt: skip
        budget = float(workload.engine.max_batched_tokens or engine.max_batched_tokens(80e9))
        groups.append(price_group(step, seats, options, load, engine.hybrid_kv_manager, budget))
    if not groups:
        rate = workload.peak_requests_per_second or 0.0
        return Search(
            workload, model, engine, load, constants, (), rejected, None, None, 0, rate, intervals=database.intervals
        )
    rows = join(groups)
    screened = screen(rows, load, workload.slo, constants)
    chosen = _worth_refining(rows, screened, workload, load)
    found: list[Sized] = []
    if chosen:
        found = _refine(rows.take(chosen), workload, load, constants)
    found.sort(key=_rank(workload))
    kept = {s.seat.accelerator.name for s in found}
    for i, seat in enumerate(rows.seats):
        name = seat.accelerator.name
        if name not in kept and name not in rejected:
            at = _nearest_of(rows, screened, name)
            rejected[name] = _miss(screened, at)
            del i
    rate = workload.peak_requests_per_second or 0.0
    return Search(
        workload, model, engine, load, constants, tuple(found), rejected, screened, rows,
        rows.points, rate, intervals=database.intervals,
    )  # fmt: skip


def _nearest_of(rows: Rows, screened: Screened, name: str) -> int:
    """Row of accelerator ``name`` that came closest to every limit."""
    mine = [i for i, s in enumerate(rows.seats) if s.accelerator.name == name]
    return min(mine, key=lambda i: float(screened.violation[i]))


def _miss(screened: Screened, at: int) -> str:
    ratio = float(screened.violation[at])
    if ratio <= 1.0:
        return "close to a limit, and no rate keeps every one exactly"
    return f"{screened.constraint[at]} misses its limit {ratio:.3g}-fold at best"


def _worth_refining(rows: Rows, screened: Screened, workload: Workload, load: Load) -> list[int]:
    usable = np.flatnonzero(screened.rate > 0)
    if not len(usable):
        return []
    replicas = replicas_at(screened.rate[usable], screened.e2e[usable], workload, load)
    cost = _objective(
        np.ceil(replicas) * rows.devices[usable, 0], rows.price[usable, 0], rows.power[usable, 0],
        screened.e2e[usable], workload,
    ) * (1 + 1e-6 * replicas)  # fmt: skip
    order = usable[np.argsort(cost, kind="stable")]
    chosen = list(order[:REFINED])
    per: dict[str, int] = {}
    for i in order:
        name = rows.seats[i].accelerator.name
        per[name] = per.get(name, 0) + 1
        if per[name] <= PER_ACCELERATOR and i not in chosen:
            chosen.append(i)
    return [int(i) for i in chosen]


def replicas_at(rate: np.ndarray, e2e: np.ndarray, workload: Workload, load: Load) -> np.ndarray:
    """Serving replicas the peak needs, not rounded, at each one's ``rate`` [1/s] and mean ``e2e`` [s], (rows,), [1].

    Source: the rate shared evenly; users by the interactive response-time law.
    """
    demand = workload.demand
    if demand.kind in ("users", "sessions"):
        assert demand.concurrent_users is not None
        users = demand.concurrent_users * demand.peak_to_mean
        return users / (rate / load.fan_out * (e2e + demand.think_time))
    assert workload.peak_requests_per_second is not None
    return workload.peak_requests_per_second * load.fan_out / rate


def _objective(
    gpus: np.ndarray, price: np.ndarray, power: np.ndarray, e2e: np.ndarray, workload: Workload
) -> np.ndarray:
    kind = workload.objective.minimise
    if kind == "cost":
        return gpus * price
    if kind == "gpus":
        return gpus
    if kind == "energy":
        return gpus * np.where(np.isnan(power), 1e9, power)
    return e2e


def objective_value(gpus: int, rows: Rows, served: Served, workload: Workload) -> float:
    """What the workload minimises, of one candidate: $/h, accelerators, W or s. Source: definition."""
    found = _objective(np.array([gpus]), rows.price[:, 0], rows.power[:, 0], served.e2e.mean[:, 0], workload)
    return float(found[0])


def _refine(rows: Rows, workload: Workload, load: Load, constants: Assumptions) -> list[Sized]:
    replica = ReplicaModel(rows, load, workload.slo, constants)
    highest, possible = replica.highest_rate()
    at_highest = replica.serve(highest)
    needed = replicas_at(highest[:, 0], at_highest.e2e.mean[:, 0], workload, load)
    serving = np.maximum(1, np.ceil(needed * (1 + workload.reliability.headroom) - 1e-9))
    actual = actual_rate(replica, highest, serving[:, None], workload, load)
    served = replica.serve(actual)
    found = []
    for i in np.flatnonzero(possible[:, 0]):
        base = int(serving[i])
        wanted = workload.reliability.spare_replicas
        spares = spare_replicas(base) if wanted is None else wanted
        total = base + spares
        gpus = total * int(rows.devices[i, 0])
        if workload.hardware.max_gpus and gpus > workload.hardware.max_gpus:
            continue
        one = rows.take([int(i)])
        mine = served.row(int(i))
        value = objective_value(gpus, one, mine, workload)
        found.append(Sized(one, mine, total, spares, float(highest[i, 0]), value))
    return found


def actual_rate(
    replica: ReplicaModel,
    highest: np.ndarray,
    serving: np.ndarray,
    workload: Workload,
    load: Load,
) -> np.ndarray:
    """Sequences per second each of ``serving`` replicas sees at peak, (rows, 1), [1/s].

    The rate shared evenly; users by their cycle time, at most ``highest``. Source: Little's law.
    """
    demand = workload.demand
    if demand.kind not in ("users", "sessions"):
        assert workload.peak_requests_per_second is not None
        return workload.peak_requests_per_second * load.fan_out / serving + 0 * highest
    assert demand.concurrent_users is not None
    users = (demand.concurrent_users * demand.peak_to_mean / serving)[:, 0]

    def excess(log_rate: Vector, index: npt.NDArray[np.int64]) -> Vector:
        rate = np.exp(log_rate)
        cycle = replica.take(index).response(rate[:, None])[:, 0] + demand.think_time
        return np.log(rate / load.fan_out * cycle / users[index])

    high = np.log(highest[:, 0])
    found, _ = last_within(excess, high - np.log(1e4), high, RATE_TOLERANCE)
    return np.exp(found)[:, None]


def _rank(workload: Workload) -> Callable[[Sized], tuple[object, ...]]:
    margin = workload.speculation.margin

    def key(s: Sized) -> tuple[object, ...]:
        drafts = s.rows.options[0].drafter.draft_tokens
        seat = s.seat
        # equal money: the faster one, speculation only where it beats its margin
        speed = float(s.served.e2e.mean[0, 0]) * (1 + margin if drafts else 1.0)
        return (round(s.objective, 6), speed, seat.accelerator.name, int(seat.layout.tensor))

    return key
