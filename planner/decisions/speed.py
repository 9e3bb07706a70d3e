"""Which levers make a faster tier, and what each costs beside a small batch alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from planner.decisions.physical_limit import physical_limits
from planner.decisions.planned import Planned, planned
from planner.decisions.speed_hypotheses import cheapest_way, hypotheses
from planner.decisions.speed_levers import LEVERS, Configurations, Key, Levers, Point, time_per_token
from planner.decisions.speed_result import Speed, Tier
from planner.errors import InputError
from planner.hardware import Database
from planner.serving.queueing import spare_replicas
from planner.sizing.candidates import weight_formats
from planner.sizing.operating import BATCHES, Rows, Seat, join
from planner.sizing.result import Assumption
from planner.sizing.search import search
from planner.workload import Workload

#: weight formats tried beside the workload's own
FORMATS = ("fp8", "nvfp4", "mxfp4")
#: who has kernels for a format of four bits
FOUR_BITS = {"NVIDIA": "nvfp4", "AMD": "mxfp4"}
TARGET = 2.5
PRICE = 6.0


def faster(
    workload: Workload,
    database: Database,
    *,
    target: float | None = None,
    tokens_per_second: float | None = None,
    price_multiple: float = PRICE,
    drafting_base: bool = False,
    gpus: Sequence[str] | None = None,
    price_overrides: Mapping[str, float] | None = None,
    models: Sequence[object] = (),
    simulate: bool = True,
) -> Speed:
    """Every combination of levers that makes a user's tokens come faster, and what it costs.

    The base is the recommended plan at its mean batch, without its drafts (they are a lever) unless
    ``drafting_base``. ``target`` is a multiple of its tokens per second and user, ``tokens_per_second`` [1/s] the
    speed itself; neither means :data:`TARGET` times. ``price_multiple`` [1] is what the tier is sold at. Other
    accelerators are those the workload and ``gpus`` allow. Errors as :func:`planner.decisions.planned.planned`;
    InputError when the target is no faster than the base. Units as in the result.

    Source: the step times and prompts of the search, at every batch; no queueing limits: users of a fast tier
    wait for slots as users of the base do.
    """
    base = planned(workload, database, gpus=gpus, price_overrides=price_overrides, models=models, simulate=simulate)
    rows = _all_rows(base, database, gpus, price_overrides, models)
    field = _Field(base, rows, drafting_base)
    speed = 1 / field.gap
    if tokens_per_second is not None:
        target = tokens_per_second / speed
    target = TARGET if target is None else target
    if target <= 1:
        raise InputError(
            f"the base already makes {speed:.1f} tokens per second and user, {1 / target:.2f} times what is asked",
            key="--tokens-per-second" if tokens_per_second is not None else "--target", expected="something faster",
        )  # fmt: skip
    alone = _alone(field, target)
    small = next((t for t in alone if t.levers == ("batch",)), None)
    tiers = _tiers(field, target)
    return Speed(
        workload=workload.resolved,
        plan=base.plan,
        base=field.tier(Point(field.levers.row, field.levers.column, (), 1.0, 1.0), target),
        target_multiple=target,
        target_tokens_per_second=target * speed,
        price_multiple=price_multiple,
        alone=alone,
        tiers=tiers,
        small_batch_only=small,
        limits=physical_limits(base, rows, database, gpus),
        statement=cheapest_way(target, tiers, small),
        hypotheses=hypotheses(target, price_multiple, alone, tiers),
        assumptions=_assumptions(field),
        warnings=base.notes,
    )


def _all_rows(
    base: Planned,
    database: Database,
    gpus: Sequence[str] | None,
    price_overrides: Mapping[str, float] | None,
    models: Sequence[object],
) -> Rows:
    """The plan as the first row, then every configuration the levers allow, limits on latency aside."""
    asked = base.found.workload
    formats = list(dict.fromkeys([*asked.precision.weights, *FORMATS]))
    wider = replace(
        asked,
        slo=(),
        precision=asked.precision.model_copy(update={"weights": formats}),
        speculation=asked.speculation.model_copy(update={"enabled": "auto"}),
        hardware=asked.hardware.model_copy(update={"max_gpus": None}),
    )
    found = search(wider, database, gpus=gpus, price_overrides=price_overrides, models=models).rows
    assert found is not None  # the base is among them
    given = {*asked.precision.weights, *weight_formats(base.found.model, "native").values()}
    kept = [i for i, seat in enumerate(found.seats) if _has_kernels(seat, given)]
    return join([base.best.rows, found.take(kept)])


def _has_kernels(seat: Seat, given: Set[str]) -> bool:
    """Whether formats neither asked for nor the model's own run on it: those of four bits are their vendors' own."""
    four = set(FOUR_BITS.values()) & set(seat.precision.formats.values())
    return four - given <= {FOUR_BITS.get(seat.accelerator.vendor, "")}


class _Field:
    """The levers of a plan: its configurations at every batch, against the plan at its mean batch."""

    def __init__(self, base: Planned, rows: Rows, drafting: bool) -> None:
        self.base, self.rows = base, rows
        self.batch = max(1.0, base.plan.mean_batch)
        batches = np.unique(np.append(BATCHES, self.batch))
        load, tail = base.found.load, base.found.constants.kv_tail
        steps, work = (_at(table, batches) for table in (rows.steps, rows.work))
        gap = time_per_token(steps, rows.acceptance, work / rows.ranks, load.decode_steps, batches)
        held = batches * rows.kv_mean + tail * np.sqrt(batches * rows.kv_second)
        allowed = (held <= rows.kv_room) & (batches <= rows.slots) & (rows.price > 0)
        column = int(np.searchsorted(batches, self.batch))
        keys = _keys(rows)
        self.row = 0 if drafting else keys.index(keys[0]._replace(speculation="none"))
        allowed[[0, self.row], column] = True  # whether the plan's own batch fits was the search's business
        price = (rows.price * rows.devices)[:, 0]
        self.levers = Levers(Configurations(keys, gap, allowed, price, batches), self.row, column)
        self.gap, self.plan_gap = (float(gap[i, column]) for i in (self.row, 0))

    def tier(self, at: Point, target: float) -> Tier:
        """A point as the result shows it. Source: the rows."""
        rows, plan, field = self.rows, self.base.plan, self.levers.all
        seat, option = rows.seats[at.row], rows.options[at.row]
        batch, gap = float(field.batches[at.column]), float(field.gap[at.row, at.column])
        serving = plan.replicas - plan.spare_replicas
        busy = gap / batch / (self.plan_gap / self.batch)
        needed = max(1, math.ceil(serving * busy - 1e-9))
        wanted = self.base.found.workload.reliability.spare_replicas
        replicas = needed + (spare_replicas(needed) if wanted is None else wanted)
        devices = int(rows.devices[at.row, 0])
        layout = seat.layout
        slow = self._step_share(at) * (option.acceptance / option.acceptance_low - 1)
        return Tier(
            levers=at.levers,
            accelerator=seat.accelerator.name,
            gpus_per_replica=devices,
            tensor_parallel=int(layout.tensor),
            pipeline_parallel=int(layout.pipeline),
            expert_parallel=int(layout.expert),
            data_parallel=int(layout.data),
            weight_dtype=seat.precision.weights,
            kv_dtype=seat.precision.kv,
            speculation=option.label,
            acceptance_length=option.acceptance,
            batch=batch,
            tokens_per_second_per_user=1 / gap,
            tokens_per_second_at_low_acceptance=1 / (gap * (1 + slow)),
            speed_multiple=at.speed,
            cost_multiple=at.cost,
            reaches_target=at.speed >= target * (1 - 1e-9),
            replicas=replicas,
            gpus=replicas * devices,
            usd_per_hour=replicas * devices * float(rows.price[at.row, 0]),
            gives_up=self._gives_up(at),
        )

    def _step_share(self, at: Point) -> float:
        """Share of the time per token that steps take, prompts the rest, [1]."""
        batches, gap = self.levers.all.batches, self.levers.all.gap
        step = float(np.interp(batches[at.column], BATCHES, self.rows.steps[at.row]))
        return step / float(self.rows.acceptance[at.row, 0]) / float(gap[at.row, at.column])

    def _gives_up(self, at: Point) -> tuple[str, ...]:
        """What each lever of a point costs besides money, in words."""
        rows, mine, base = self.rows, at.row, self.row
        seat, ours, option = rows.seats[mine], rows.seats[base], rows.options[mine]
        said = []
        if "speculation" in at.levers:
            said.append(
                f"certainty: {option.acceptance:.2f} tokens a step assumed, {option.acceptance_low:.2f} to "
                f"{option.acceptance_high:.2f} likely" if option.drafter.draft_tokens else "the speed of drafts"
            )  # fmt: skip
        if "precision" in at.levers:
            said.append(
                f"quality: {seat.precision.weights} instead of {ours.precision.weights} weights, to be evaluated"
            )
        if "parallelism" in at.levers:
            many, few = (int(rows.devices[i, 0]) for i in (mine, base))
            said.append(
                f"availability: one failure stops {many} accelerators instead of {few}"
                if many > few
                else f"a layout of {many} instead of {few} accelerators"
            )
        batch = self.levers.all.batches[at.column]
        if "batch" in at.levers and batch < self.batch:
            said.append(f"throughput: {batch:.0f} instead of {self.batch:.0f} sequences a replica")
        elif "batch" in at.levers:
            said.append(f"memory: {batch:.0f} instead of {self.batch:.0f} sequences a replica")
        if "accelerator" in at.levers:
            said.append(f"a second kind of accelerator ({seat.accelerator.confidence} confidence in its facts)")
        return tuple(said)

    def others(self, target: float) -> list[Point]:
        """The cheapest point on every other accelerator, with whatever else it changes, [1]."""
        names: dict[str, list[int]] = {}
        for i, key in enumerate(self.levers.all.keys):
            if key.accelerator != self.levers.base.accelerator:
                names.setdefault(key.accelerator, []).append(i)
        found = []
        for rows in names.values():
            points = [
                self.levers.combination((*levers, "accelerator"), target, rows)
                for levers in ((), *self.levers.subsets())
            ]
            reached = [p for p in points if p is not None]
            if reached:
                found.append(min(reached, key=lambda p: p.cost))
        return found


def _at(table: npt.NDArray[np.float64], batches: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Columns of a table over the search's batches at other ones, linear between, (rows, n)."""
    index = np.clip(np.searchsorted(BATCHES, batches, side="right") - 1, 0, len(BATCHES) - 2)
    part = (batches - BATCHES[index]) / (BATCHES[index + 1] - BATCHES[index])
    found: npt.NDArray[np.float64] = table[:, index] * (1 - part) + table[:, index + 1] * part
    return found


def _keys(rows: Rows) -> tuple[Key, ...]:
    return tuple(
        Key(
            seat.accelerator.name,
            tuple(int(x) for x in (seat.layout.tensor, seat.layout.pipeline, seat.layout.data, seat.layout.expert)),
            (*(f"{group} {name}" for group, name in sorted(seat.precision.formats.items())), seat.precision.kv),
            option.label,
        )
        for seat, option in zip(rows.seats, rows.options, strict=True)
    )


def _alone(field: _Field, target: float) -> tuple[Tier, ...]:
    """Each lever alone, cheapest first: where it reaches the target, else its fastest."""
    points = []
    for name in LEVERS:
        at = field.levers.combination((name,), target) or field.levers.fastest((name,))
        if at is not None:
            points.append(at)
    points.sort(key=lambda p: (p.speed < target * (1 - 1e-9), p.cost))
    return tuple(field.tier(p, target) for p in points)


def _tiers(field: _Field, target: float) -> tuple[Tier, ...]:
    """The cheapest of every combination on the plan's accelerator and of every other one; cheapest first.

    A combination that costs more than one with fewer of the same levers is left out.
    """
    found: list[Point] = []
    for levers in field.levers.subsets():
        at = field.levers.combination(levers, target)
        if at is None or any(set(p.levers) < set(levers) and p.cost <= at.cost for p in found):
            continue
        found.append(at)
    found += field.others(target)
    return tuple(field.tier(p, target) for p in sorted(found, key=lambda p: p.cost))


def _assumptions(field: _Field) -> tuple[Assumption, ...]:
    base, asked = field.base, field.base.found.workload
    chips = len({seat.accelerator.name for seat in field.rows.seats})
    drafts = base.plan.speculation
    without = f", without its {drafts.method} drafts" if field.row else ""
    formats = ", ".join(dict.fromkeys([*asked.precision.weights, *FORMATS]))
    said = (
        ("base", f"the recommended plan at its mean batch of {base.plan.mean_batch:.1f}{without}", "plan"),
        ("weight formats tried", formats, "default"),
        ("speculation.task", asked.speculation.task, "workload"),
        ("accelerators", f"{chips} with a price and the memory", "database"),
        ("cost", "of an output token, prompts included, at prices per accelerator-hour", "default"),
        ("first token", "not a target: a fast tier is output tokens per second", "default"),
    )
    return tuple(Assumption(key=key, value=value, origin=origin) for key, value, origin in said)
