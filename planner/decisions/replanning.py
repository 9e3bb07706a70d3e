"""Planning the same question again with something changed, as often as a decision needs, on several cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from planner.errors import InputError
from planner.hardware import Database
from planner.hardware.accelerator import ANY, Scale
from planner.hardware.calibration import Calibration
from planner.hardware.loading import OPERATORS
from planner.sizing import recommend
from planner.sizing.result import Plan, Recommendation
from planner.workload import Workload, load_workload

Item = TypeVar("Item")
Answer = TypeVar("Answer")
#: items from which a second process is worth its start
WORTH_A_POOL = 12


@dataclass(frozen=True)
class Question:
    """A workload file with what all its plans share: ``text`` named ``name``, ``settings`` as ``--set`` gives them."""

    name: str
    text: str
    database: Database
    settings: tuple[str, ...] = ()
    gpus: tuple[str, ...] | None = None
    prices: Mapping[str, float] = field(default_factory=dict)
    models: tuple[Path, ...] = ()

    def workload(self, settings: Sequence[str] = ()) -> Workload:
        """The workload with further ``settings``; InputError for what is wrong in it."""
        return load_workload(self.name, (*self.settings, *settings), text=self.text)


@dataclass(frozen=True)
class Change:
    """What differs from the question: settings, prices [$/h] by accelerator, factors on bandwidth efficiency [1]."""

    settings: tuple[str, ...] = ()
    prices: tuple[tuple[str, float], ...] = ()
    bandwidth: tuple[tuple[str, float], ...] = ()


def replan(question: Question, change: Change | None = None, *, simulate: bool = False, top: int = 0) -> Recommendation:
    """The recommendation under a change, as :func:`planner.sizing.recommend` makes it.

    Raises InputError where the change makes the workload wrong. Units as in the result.
    """
    change = change or Change()
    database = question.database
    for name, factor in change.bandwidth:
        scales = {operator: {ANY: Scale(memory=factor)} for operator in OPERATORS}
        database = database.calibrated(Calibration(accelerators={name: scales}))
    return recommend(
        question.workload(change.settings), database, gpus=question.gpus, top=top,
        price_overrides={**question.prices, **dict(change.prices)}, models=question.models, simulate=simulate,
    )  # fmt: skip


@dataclass(frozen=True)
class Decision:
    """What a plan decides, its size aside: plans with equal decisions differ at most in their number of replicas."""

    accelerator: str
    layout: str
    weight_dtype: str
    kv_dtype: str
    speculation: str
    serving: str

    @property
    def words(self) -> str:
        """The decision in one phrase."""
        formats = f"weights {self.weight_dtype}, KV {self.kv_dtype}"
        replica = f"{self.accelerator} in replicas of {self.layout}"
        return f"{replica}, {formats}, speculation {self.speculation}, {self.serving}"

    def against(self, other: Decision | None) -> str:
        """What changed from this decision to ``other``, in words; "no feasible plan" when there is none."""
        if other is None:
            return "no feasible plan"
        names = {"layout": "", "accelerator": "", "weight_dtype": "weights ", "kv_dtype": "KV ",
                 "speculation": "speculation ", "serving": ""}  # fmt: skip
        shown = [n for n in ("accelerator", "layout", "weight_dtype", "kv_dtype", "speculation", "serving")
                 if getattr(self, n) != getattr(other, n)]  # fmt: skip
        return ", ".join(f"{names[n]}{getattr(self, n)} -> {getattr(other, n)}" for n in shown)


def decision(plan: Plan | None) -> Decision | None:
    """The decision of a plan, None for none."""
    if plan is None:
        return None
    s = plan.speculation
    return Decision(
        plan.accelerator,
        layout_of(plan),
        plan.weight_dtype,
        plan.kv_dtype,
        s.method if s.enabled else "off",
        plan.serving,
    )


def layout_of(plan: Plan) -> str:
    """Accelerators and parallelism of a replica, as ``4 (TP4)``.

    TP, PP, DP and EP stand for tensor, pipeline, attention-data and expert parallelism; of a
    disaggregated plan both pools.
    """
    if plan.serving == "disaggregated" and plan.disaggregation is not None:
        prefill, decode = plan.disaggregation.prefill, plan.disaggregation.decode
        return f"{_layout(prefill)} prefill and {_layout(decode)} decode"
    return _layout(plan)


def _layout(part: Any) -> str:
    degrees = {"TP": part.tensor_parallel, "PP": part.pipeline_parallel, "DP": part.data_parallel,
               "EP": part.expert_parallel}  # fmt: skip
    shown = " ".join(f"{name}{n}" for name, n in degrees.items() if n > 1 or name == "TP")
    return f"{part.gpus_per_replica} ({shown})"


def cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_shared: Any = None


def _share(value: Any) -> None:
    global _shared
    _shared = value


def _call(function: Callable[[Any, Item], Answer], item: Item) -> tuple[Answer | None, dict[str, Any] | None]:
    try:
        return function(_shared, item), None
    except InputError as error:
        return None, dict(error.__dict__)


def for_each(
    function: Callable[[Question, Item], Answer], question: Question, items: Sequence[Item], jobs: int | None = None
) -> Iterator[Answer]:
    """``function(question, item)`` of every item, in order, on ``jobs`` cores (all this process may use by default).

    ``function`` must be importable by its name. Raises the InputError of the first item that has one.
    """
    jobs = min(cores() if jobs is None else jobs, len(items))
    done = 0
    if jobs > 1 and len(items) >= WORTH_A_POOL:
        try:
            for answer in _pooled(function, question, items, jobs):
                done += 1
                yield answer
            return
        except BrokenProcessPool:  # no second process to be had here: the rest in this one
            pass
    for item in items[done:]:
        yield function(question, item)


def _pooled(
    function: Callable[[Question, Item], Answer], question: Question, items: Sequence[Item], jobs: int
) -> Iterator[Answer]:
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _share, (question,))
    try:
        waiting = [pool.submit(_call, function, item) for item in items]
        for future in waiting:
            answer, error = future.result()
            if error is not None:
                raise InputError(**error)
            yield answer  # type: ignore[misc]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
