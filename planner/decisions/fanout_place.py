"""The plan's replica as tasks of any fan-out find it: steps, prompts, room, bytes of a group."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from planner.cost.layout import Layout
from planner.cost.machine import Machine
from planner.cost.memory import CacheLayout
from planner.cost.shared_prefix import group_tokens
from planner.cost.speculation import speculative_step_seconds
from planner.cost.step import StepModel
from planner.decisions.fanout_curve import Curve, Site
from planner.decisions.planned import Planned
from planner.serving.load import load_from
from planner.sizing.operating import BATCHES, price_group
from planner.sizing.plan import step_model
from planner.workload import Workload
from planner.workload.schema import Subagents

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


class Place:
    """One replica of the plan as tasks of any fan-out find it."""

    def __init__(self, base: Planned, workload: Workload, agents: Subagents, most: int) -> None:
        found, best = base.found, base.best
        self.base, self.agents, self.workload = base, agents, workload
        self.seat, self.option = best.seat, best.rows.options[0]
        self.others = base.plan.mean_batch
        self.model = step_model(found, self.seat.precision)
        self.load = found.load
        self.cache = CacheLayout(self.model.model.layers, self.seat.precision.kv, found.engine.hybrid_kv_manager)
        self.room, self.slots = float(best.rows.kv_room[0, 0]), self.seat.slots
        self.tokens = self.load.context_mean
        self.prefix = min(float(agents.shared_prefix), self.tokens)
        one, two = (self._prompts(k) for k in (1, 2))
        self.first_prompt, self.each_prompt = one, max(two - one, 0.0)
        self.devices = int(self.seat.layout.devices)

    def _prompts(self, branches: int) -> float:
        """Seconds all prompts of a task add to the steps of a replica, at its mean batch, [s]."""
        found, best = self.base.found, self.base.best
        agents = self.agents.model_copy(update={"fan_out": branches})
        load = load_from(replace(self.workload, subagents=agents))
        rows = price_group(
            self.model, [self.seat], [self.option], load, found.engine.hybrid_kv_manager, best.rows.budget
        )
        each = float(np.interp(max(self.others, 1.0), BATCHES, rows.work[0]))
        return branches * each / float(rows.ranks[0, 0])

    def prefill(self, branches: Vector) -> Vector:
        """The same of any number of branches, [s]: the shared prefix once, the rest for each."""
        return self.first_prompt + (branches - 1) * self.each_prompt

    def shares(self, branches: Vector) -> Vector:
        """Tokens stored over tokens of all contexts, [1]."""
        group = group_tokens(self.prefix, self.tokens - self.prefix, branches)
        return np.asarray(group.stored / group.read_without_cascade)

    def steps(self, most: int, cascade: bool) -> Matrix:
        """Step with j branches of K beside the others, (most, most + 1), [s]."""
        batch = np.maximum(self.others + np.arange(most + 1.0), 1.0)[None, :]
        share = self.shares(np.arange(1.0, most + 1))[:, None] if cascade else np.ones((most, 1))
        seconds = speculative_step_seconds(
            self.model, self.option.drafter, self.seat.machine, self.seat.layout, batch, self.load.contexts, share
        )
        return np.broadcast_to(np.asarray(seconds), (most, most + 1))

    def site(self, most: int, factor: float) -> Site:
        """The replica for the curve; ``factor`` accelerator-seconds are paid for one used."""
        plan = self.base.plan
        k = np.arange(1.0, most + 1)
        prefill = self.prefill(k)
        asked = float(self.prefill(np.array([float(self.agents.fan_out)]))[0])
        first = np.maximum(plan.latency.ttft_s.mean + prefill - asked, prefill)
        busy = min(float(self.base.best.served.prefill_utilisation[0, 0]), 0.95)
        return Site(
            self.others, self.steps(most, self.agents.cascade == "ideal"), prefill, first,
            plan.cost.price_per_gpu_hour / 3600 * self.devices * factor,
            self.devices, self.option.acceptance, 1 / (1 - busy),
        )  # fmt: skip

    def paid_over_used(self, curve: Curve, asked: int) -> float:
        """Accelerator-seconds the plan pays for each one its tasks use, [1]: spares, peaks and idle time."""
        plan = self.base.plan
        tasks = plan.throughput.requests_per_second / self.workload.demand.peak_to_mean
        known = min(asked, len(curve.gpu_seconds))
        beyond = (asked - known) * float(np.diff(curve.gpu_seconds, prepend=0.0)[-1])
        return plan.gpus / tasks / (float(curve.gpu_seconds[known - 1]) + beyond)

    def turn_usd(self, curve: Curve) -> float:
        """Cost of one turn of one sequence, [$]."""
        return float(curve.usd[0])

    def fits(self, most: int) -> npt.NDArray[np.bool_]:
        """Whether a task's branches have room beside the other sequences of a replica, (most,)."""
        k = np.arange(1.0, most + 1)
        each = float(np.asarray(self.cache.allocated(self.load.contexts, self.seat.layout)).mean())
        state = float(np.asarray(self.cache.state(self.seat.layout)))
        held = self.others * (each * self.load.stored_share + state) + k * (each * self.shares(k) + state)
        return (held <= self.room) & (self.others + k <= self.slots)


def group_bytes(
    step: StepModel,
    machine: Machine,
    layout: Layout,
    cache: CacheLayout,
    contexts: Vector,
    prefix: float,
    most: int,
) -> tuple[Vector, Vector, Vector, Vector]:
    """Cache of 1..``most`` branches that share ``prefix`` [tokens]: without sharing, stored, and what a step reads
    without and with a cascade kernel, (most,) each, [B] on all accelerators of a replica.

    ``contexts`` (points,) [tokens] of a branch. Source: :func:`planner.cost.shared_prefix.group_tokens`.
    """
    k = np.arange(1.0, most + 1)
    mean = float(contexts.mean())
    group = group_tokens(min(prefix, mean), mean - min(prefix, mean), k)
    share = np.asarray(group.stored / group.read_without_cascade)
    devices, data, stages = (float(x) for x in (layout.devices, layout.data, layout.pipeline))
    stored = float(np.asarray(cache.stored(contexts, layout)).mean()) * devices / data
    each_rank_one = step.decode(machine, layout, data * stages, contexts)
    moved = sum(float(np.asarray(each_rank_one.bytes_by(name)).squeeze()) for name in ("kv", "indexer"))
    read = moved * devices / (data * stages)  # a micro-batch of one sequence passes every stage
    return k * stored, k * stored * share, k * read, k * read * share
