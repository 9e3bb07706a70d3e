"""One request alone: the tokens per second that bandwidth and arithmetic allow, and what is reached."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from planner.cost.layout import Layout, stack_layouts
from planner.cost.machine import stack_machines
from planner.cost.step import StepModel
from planner.decisions.planned import Planned
from planner.decisions.speed_result import PhysicalLimit
from planner.hardware import Accelerator, Database
from planner.sizing.operating import Rows, Seat
from planner.sizing.plan import step_model

Vector = npt.NDArray[np.float64]


class Alone(NamedTuple):
    """A step of one request on every layout, (layouts,): seconds if memory or arithmetic were perfect, [s]."""

    memory: Vector
    compute: Vector

    @property
    def seconds(self) -> Vector:
        """The longer of both, [s]. Source: roofline without efficiencies or latencies."""
        return np.maximum(self.memory, self.compute)


def alone(step: StepModel, seats: Sequence[Seat], contexts: Vector) -> Alone:
    """A step of one request of ``contexts`` [tokens] at full bandwidth and the dense peak of bf16, (seats,), [s].

    A pipeline's stages work one after the other for a single request, so only tensor and expert ranks
    divide its bytes. Source: roofline, CACM 52(4) 2009, without efficiencies, latencies or collectives.
    """
    layout, machine = stack_layouts([s.layout for s in seats]), stack_machines([s.machine for s in seats])
    cost = step.decode(machine, layout, 1.0, contexts)
    moved = sum((np.asarray(o.bytes) for o in cost.operators), start=np.zeros((len(seats), 1)))
    chips = [s.accelerator for s in seats]
    bandwidth = np.array([c.bandwidth for c in chips])
    peak = np.array([c.peak("bf16") or np.inf for c in chips])
    flops = np.asarray(cost.flops) + np.zeros((len(seats), 1))
    return Alone(moved[:, 0] / bandwidth, flops[:, 0] / peak)


def physical_limits(
    base: Planned, rows: Rows, database: Database, gpus: Sequence[str] | None
) -> tuple[PhysicalLimit, ...]:
    """The limit of every accelerator among ``rows`` in the plan's precision, fastest first, then machines of SRAM.

    Rates in [1/s]. Source: :func:`alone`; achieved ones are the rows' own steps at batch one.
    """
    precision = base.best.seat.precision
    step = step_model(base.found, precision)
    same = [
        i for i, s in enumerate(rows.seats)
        if dict(s.precision.formats) == dict(precision.formats) and s.precision.kv == precision.kv
    ]  # fmt: skip
    plain = [i for i in same if not rows.options[i].drafter.draft_tokens]
    seats = list({id(rows.seats[i]): rows.seats[i] for i in same}.values())
    perfect = alone(step, seats, base.found.load.contexts)
    found = []
    for name in dict.fromkeys(s.accelerator.name for s in seats):
        mine = [i for i, s in enumerate(seats) if s.accelerator.name == name]
        best = min(mine, key=lambda i: float(perfect.seconds[i]))
        found.append(PhysicalLimit(
            accelerator=name,
            gpus=int(seats[best].layout.devices),
            perfect_tokens_per_second=1 / float(perfect.seconds[best]),
            bound_by="memory" if perfect.memory[best] >= perfect.compute[best] else "compute",
            achieved_tokens_per_second=_achieved(rows, [i for i in plain if rows.seats[i].accelerator.name == name]),
            achieved_with_drafts_tokens_per_second=_achieved(
                rows, [i for i in same if rows.seats[i].accelerator.name == name and i not in plain]
            ),
        ))  # fmt: skip
    found.sort(key=lambda limit: -(limit.perfect_tokens_per_second or 0.0))
    if gpus is None:
        chips = [c for c in database.accelerators.values() if "SRAM" in c.memory_type and not c.plannable]
        found += [_sram(chip, step, seats[0], base.found.load.contexts) for chip in chips]
    return tuple(found)


def _achieved(rows: Rows, index: Sequence[int]) -> float | None:
    """Tokens per second at batch one of the fastest of some rows, [1/s]."""
    if not index:
        return None
    at = list(index)
    return float(np.max(rows.acceptance[at, 0] / rows.steps[at, 0]))


def _sram(chip: Accelerator, step: StepModel, any_seat: Seat, contexts: Vector) -> PhysicalLimit:
    """As many chips as hold the weights, all of them streaming at once; latency between them is not known."""
    lacking = [name for name, there in (("memory", chip.memory_bytes), ("bandwidth", chip.bandwidth)) if not there]
    bound: Literal["memory", "unknown"] = "unknown" if lacking else "memory"
    count, rate = 0, None
    if not lacking:
        weights = step_weights(step)
        count = math.ceil(weights / chip.memory_bytes)
        cost = step.decode(any_seat.machine, Layout(), 1.0, contexts)
        moved = sum(float(np.asarray(o.bytes).squeeze()) for o in cost.operators)
        rate = count * chip.bandwidth / moved
    reason = (
        f"{' and '.join(lacking)} not known"
        if lacking
        else "all chips at once; no price, and no latency between chips known, which binds"
    )
    return PhysicalLimit(
        accelerator=chip.name, gpus=count, perfect_tokens_per_second=rate, bound_by=bound,
        achieved_tokens_per_second=None, achieved_with_drafts_tokens_per_second=None, reason=reason,
    )  # fmt: skip


def step_weights(step: StepModel) -> float:
    """Bytes of all weights of a model, [B]. Source: :func:`planner.cost.memory.weight_bytes_per_device`."""
    from planner.cost.memory import weight_bytes_per_device

    return float(np.asarray(weight_bytes_per_device(step.model, step.formats, Layout())))
