"""Requests drawn from a workload, for simulations: arrays, the same for the same seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.workload.arrivals import draw_gaps
from planner.workload.lengths import Vector
from planner.workload.workload import RequestClass, Workload

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DrawnRequests:
    """Drawn sequences in order of arrival, (n,) arrays: ``arrival_s`` [s]; ``input`` of which ``cached``,
    and ``output``, whole [tokens], at least one prefilled; ``classes`` index into the workload's
    classes; ``task`` number of the request a sequence belongs to, shared by its siblings [1].
    """

    arrival_s: Vector
    input: Integers
    cached: Integers
    output: Integers
    classes: Integers
    task: Integers

    def __len__(self) -> int:
        return len(self.arrival_s)


def draw_requests(workload: Workload, rate: float, count: int, seed: int = 0) -> DrawnRequests:
    """About ``count`` sequences of requests that arrive at ``rate`` [1/s], a request being one task.

    Times between requests by the workload's arrival process. The ``fan_out`` sequences of a task arrive
    together with the same input; the second and later ones find the shared prefix cached. Lengths of a
    class with a joint sample are drawn together. The workload's own rate and peak are left aside.

    Source: inversion, and NumPy's generators, of the workload's distributions.
    """
    rng = np.random.default_rng(seed)
    fan_out = workload.sequences_per_request
    tasks = max(1, count // fan_out)
    demand = workload.demand
    arrival = np.cumsum(draw_gaps(demand.arrivals, demand.arrival_cv, 1.0 / rate, tasks, rng))
    shares = np.array([c.share for c in workload.classes])
    kinds = np.searchsorted(np.cumsum(shares / shares.sum())[:-1], rng.random(tasks), side="right")
    context, cached, output = (np.zeros((tasks, fan_out)) for _ in range(3))
    for index, request_class in enumerate(workload.classes):
        chosen = np.flatnonzero(kinds == index)
        lengths = _draw_class(request_class, len(chosen), fan_out, rng)
        for found, values in zip((context, cached, output), lengths, strict=True):
            found[chosen] = values.reshape(len(chosen), fan_out)
    if fan_out > 1 and workload.subagents is not None:
        cached[:, 1:] = np.maximum(cached[:, 1:], np.minimum(workload.subagents.shared_prefix, context[:, 1:]))
    whole = np.maximum(np.rint(context), 1).astype(np.int64).ravel()
    return DrawnRequests(
        np.repeat(arrival, fan_out),
        whole,
        np.minimum(np.floor(cached).astype(np.int64).ravel(), whole - 1),
        np.maximum(np.rint(output), 1).astype(np.int64).ravel(),
        np.repeat(kinds.astype(np.int64), fan_out),
        np.repeat(np.arange(tasks), fan_out),
    )


def _draw_class(c: RequestClass, tasks: int, fan_out: int, rng: np.random.Generator) -> tuple[Vector, Vector, Vector]:
    """Input, cached and output [tokens] of one class, task by task, (tasks * fan_out,)."""
    if c.joint is not None:
        return c.joint.draw(tasks, fan_out, rng)
    context = np.repeat(c.context.sample(rng, tasks), fan_out)
    output = np.zeros(tasks * fan_out)
    for part in (c.reasoning, c.answer):
        if part is not None:
            output += part.sample(rng, tasks * fan_out)
    return context, c.cached_fraction * context, output
