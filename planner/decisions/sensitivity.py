"""Which inputs a plan hangs on: the smallest change of each that flips it, and what each does to the cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from planner.decisions.levers import Lever, is_given, levers
from planner.decisions.replanning import Decision, Question, decision, for_each, replan
from planner.errors import InputError
from planner.sizing.frozen_result import Result
from planner.sizing.nearest_miss import no_plan
from planner.sizing.result import Plan

#: factors looked at away from now, nearest first; the first of either way is the tornado's
UP = (1.1, 1.3, 1.6, 2.0, 3.0)
DOWN = (0.9, 0.75, 0.6, 0.45, 0.3)
#: relative width of the values between which a flip is found
TOLERANCE = 0.01


class Side(Result):
    """A plan beside a flip."""

    value: float  # of the input, in its unit
    settings: tuple[str, ...]  # options that make this plan
    decision: str
    gpus: int | None  # None without a plan
    usd_per_hour: float | None


class Flip(Result):
    """Where the plan changes: planned on both sides, which are at most one in a hundred apart."""

    factor: float  # of the input
    before: Side
    after: Side
    statement: str


class Sensitivity(Result):
    """What one input does to the plan."""

    name: str
    unit: str
    value: float  # now
    flip_below: Flip | None  # nearest smaller value at which accelerator, layout, precision or drafting change
    flip_above: Flip | None
    count_below: Flip | None  # nearest smaller value at which only the number of accelerators changes
    count_above: Flip | None
    looked_at: tuple[float, float]  # smallest and largest factor planned for
    usd_per_hour_at_0_9: float | None  # of the plan made anew
    usd_per_hour_at_1_1: float | None
    elasticity: float | None  # percent of cost per percent of the input, before replicas are rounded up


class Sensitivities(Result):
    """Everything a plan hangs on, the nearest flip first."""

    decision: str
    gpus: int
    usd_per_hour: float
    inputs: tuple[Sensitivity, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Point:
    factor: float
    plan: Plan | None

    @property
    def decision(self) -> Decision | None:
        return decision(self.plan)

    @property
    def gpus(self) -> int | None:
        return self.plan.gpus if self.plan else None


@dataclass(frozen=True)
class _Way:
    """What was found in one direction: flips as the points on both sides, and the tornado's point."""

    first: Plan | None
    reached: float
    flip: tuple[_Point, _Point] | None
    count: tuple[_Point, _Point] | None


def sensitivities(
    question: Question, *, jobs: int | None = None, progress: Callable[[str], None] | None = None
) -> Sensitivities:
    """Flip points and costs of every input of the closed forms' plan; units as in the result.

    Every input is moved away from its value by growing factors until the decision is another, then halfway
    between the last plan that was the same and the first that was not. A decision that changes and changes back
    between two factors looked at goes unseen. ``progress`` is told what was done. Raises NoPlanError when there is
    no plan to begin with.

    Source: plans made anew at every value, :func:`planner.sizing.recommend`.
    """
    found = replan(question, top=1)
    if found.plan is None:
        raise no_plan(found.nearest_miss)
    workload = question.workload()
    listed = levers(workload, found)
    tasks = [(lever, way, found.plan) for lever in listed for way in (DOWN, UP)]
    ways: list[_Way] = []
    for way in for_each(_look, question, tasks, jobs):
        ways.append(way)
        if progress is not None:
            progress(f"{len(ways)} of {len(tasks)} ways to change an input looked at")
    inputs = [
        _sensitivity(lever, found.plan, below, above)
        for lever, below, above in zip(listed, ways[::2], ways[1::2], strict=True)
    ]
    inputs.sort(key=_nearness)
    now = decision(found.plan)
    assert now is not None
    return Sensitivities(
        decision=now.words,
        gpus=found.plan.gpus,
        usd_per_hour=found.plan.cost.usd_per_hour,
        inputs=tuple(inputs),
        left_out=tuple(
            f for f in ("context", "reasoning", "answer")
            if is_given(workload, f) and not any(x.name.startswith(f) for x in listed)
        ),
    )  # fmt: skip


def _look(question: Question, task: tuple[Lever, tuple[float, ...], Plan]) -> _Way:
    """One input in one direction. Source: a grid of factors, then bisection."""
    lever, factors, now = task
    known: dict[float, _Point | None] = {}

    def at(factor: float) -> _Point | None:
        if factor not in known:
            known[factor] = _plan_at(question, lever, factor)
        return known[factor]

    last = _Point(1.0, now)
    first = at(factors[0])
    count = None
    for factor in factors:
        here = at(factor)
        if here is None:
            break
        if count is None and here.gpus != now.gpus and here.plan is not None:
            before, after = _between(at, last, here, lambda p: p.gpus == now.gpus and p.decision == decision(now))
            if after.decision != decision(now):
                return _Way(first.plan if first else None, factor, (before, after), None)
            count = before, after
        if here.decision != decision(now):
            flip = _between(at, last, here, lambda p: p.decision == decision(now))
            return _Way(first.plan if first else None, factor, flip, count)
        last = here
    return _Way(first.plan if first else None, last.factor, None, count)


def _plan_at(question: Question, lever: Lever, factor: float) -> _Point | None:
    """The plan at a factor; None where the input may not be so."""
    if not lever.allows(factor):
        return None
    try:
        return _Point(factor, replan(question, lever.change(factor)).plan)
    except InputError:
        return None


def _between(
    at: Callable[[float], _Point | None], same: _Point, other: _Point, is_same: Callable[[_Point], bool]
) -> tuple[_Point, _Point]:
    """Neighbours of which one is the same and one is not, by halving."""
    while abs(other.factor / same.factor - 1) > TOLERANCE:
        middle = at((same.factor * other.factor) ** 0.5)
        if middle is None:
            break
        same, other = (middle, other) if is_same(middle) else (same, middle)
    return same, other


def _sensitivity(lever: Lever, now: Plan, below: _Way, above: _Way) -> Sensitivity:
    low, high = (_unrounded(p) for p in (below.first, above.first))
    span = UP[0] - DOWN[0]
    return Sensitivity(
        name=lever.name,
        unit=lever.unit,
        value=lever.value(1.0),
        flip_below=_flip(lever, below.flip),
        flip_above=_flip(lever, above.flip),
        count_below=_flip(lever, below.count),
        count_above=_flip(lever, above.count),
        looked_at=(below.reached, above.reached),
        usd_per_hour_at_0_9=below.first.cost.usd_per_hour if below.first else None,
        usd_per_hour_at_1_1=above.first.cost.usd_per_hour if above.first else None,
        elasticity=(high - low) / _unrounded_of(now) / span if low is not None and high is not None else None,
    )


def _unrounded(plan: Plan | None) -> float | None:
    return None if plan is None else _unrounded_of(plan)


def _unrounded_of(plan: Plan) -> float:
    """What a plan would cost without spares and with as much of a replica as needed, [$/h]."""
    serving = (plan.replicas - plan.spare_replicas) / plan.replicas
    used = plan.throughput.requests_per_second / max(plan.throughput.max_requests_per_second, 1e-30)
    return plan.cost.usd_per_hour * serving * min(used, 1.0)


def _flip(lever: Lever, sides: tuple[_Point, _Point] | None) -> Flip | None:
    if sides is None:
        return None
    before, after = sides
    was = before.decision
    assert was is not None
    changed = was.against(after.decision) or f"{before.gpus} -> {after.gpus} accelerators"
    return Flip(
        factor=after.factor, before=_side(lever, before), after=_side(lever, after), statement=changed,
    )  # fmt: skip


def _side(lever: Lever, point: _Point) -> Side:
    change = lever.change(point.factor)
    settings = (
        *(f"--set {s}" for s in change.settings),
        *(f"--price {name}={usd!r}" for name, usd in change.prices),
    )
    now = point.decision
    return Side(
        value=lever.value(point.factor),
        settings=settings,
        decision=now.words if now is not None else "no feasible plan",
        gpus=point.gpus,
        usd_per_hour=point.plan.cost.usd_per_hour if point.plan else None,
    )


def _nearness(s: Sensitivity) -> tuple[float, str]:
    flips = [abs(math.log(f.factor)) for f in (s.flip_below, s.flip_above) if f is not None]
    return (min(flips, default=math.inf), s.name)
