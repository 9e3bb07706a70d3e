"""Price every candidate at every batch at once: the rows the search ranks and refines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from planner.cost.layout import Layout, stack_layouts
from planner.cost.machine import Machine, stack_machines
from planner.cost.memory import CacheLayout
from planner.cost.prefill import CHUNK_GRID, PrefillModel
from planner.cost.speculation import Drafter, speculative_step_seconds
from planner.cost.step import StepModel
from planner.hardware import Accelerator, Price
from planner.serving.load import Load
from planner.sizing.candidates import Precision
from planner.workload.lengths import shuffled

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]

#: batches (sequences per replica) every candidate is priced at
STRATA = 16  # of prompt length, for moments
BATCHES = np.concatenate([np.arange(1.0, 9.0), np.round(2 ** np.arange(3.25, 11.01, 0.25))])


@dataclass(frozen=True)
class Option:
    """One way to draft (or none) with the acceptance length it reaches, [tokens].

    ``adjusted``: the length follows temperature, task and domain; the user's own doesn't.
    """

    drafter: Drafter
    acceptance: float = 1.0
    acceptance_low: float = 1.0
    acceptance_high: float = 1.0
    source: str = ""
    adjusted: bool = True

    @property
    def label(self) -> str:
        """``method@k`` or ``none``."""
        return f"{self.drafter.method}@{self.drafter.draft_tokens}" if self.drafter.draft_tokens else "none"


@dataclass(frozen=True)
class Seat:
    """One accelerator in one layout and precision, with the memory it leaves for KV, [B]."""

    accelerator: Accelerator
    layout: Layout
    precision: Precision
    machine: Machine
    price: Price | None
    kv_room: float
    slots: int


@dataclass(frozen=True)
class Rows:
    """Candidates as arrays: one row each, ready for the queueing formulae.

    ``seats`` and ``options`` say what a row is. ``steps`` (rows, batches) [s] per decode or verify
    step; ``work`` and ``work_second`` (rows, batches) [s], [s^2] what a prompt adds to the steps it rides
    on, mean and second moment, and ``sharing`` (rows, batches) [s] what two prompts on the same step add
    beyond that, and ``stage`` and ``stage_sharing`` (rows, batches) [s] the parts of both that add up although
    ranks prefill side by side; ``own`` (rows, samples) [s] the work of each sample at batch one and
    ``chunks`` (rows, samples) those steps; ``ranks`` (rows, 1) attention ranks prefilling side by side;
    ``acceptance`` (rows, 1) [tokens]; ``kv_room``,
    ``kv_mean`` (rows, 1) [B] and ``kv_second`` [B^2] of a resident sequence; ``slots`` (rows, 1).
    """

    seats: tuple[Seat, ...]
    options: tuple[Option, ...]
    steps: Matrix
    work: Matrix
    work_second: Matrix
    sharing: Matrix
    stage: Matrix
    stage_sharing: Matrix
    own: Matrix
    chunks: Matrix
    ranks: Matrix
    acceptance: Matrix
    kv_room: Matrix
    kv_mean: Matrix
    kv_second: Matrix
    slots: Matrix
    request_overhead: Matrix
    devices: Matrix
    price: Matrix
    power: Matrix
    points: int = field(default=0)
    budget: float = 8192.0  # tokens of a rank's step

    def take(self, index: Sequence[int] | npt.NDArray[np.int64]) -> Rows:
        """The rows at ``index``, in that order. Source: none needed; a selection."""
        at = np.asarray(index, dtype=int)
        arrays = {name: getattr(self, name)[at] for name in _ARRAYS}
        return replace(
            self,
            seats=tuple(self.seats[i] for i in at),
            options=tuple(self.options[i] for i in at),
            **arrays,
        )

    def by_seat(self) -> tuple[list[int], list[int]]:
        """First row of every seat, and for every row the place of its seat among those.

        Prefill is the same whatever the drafting, so it need be judged only once per seat.
        """
        place: dict[int, int] = {}
        first: list[int] = []
        inverse = []
        for i, seat in enumerate(self.seats):
            if id(seat) not in place:
                place[id(seat)] = len(first)
                first.append(i)
            inverse.append(place[id(seat)])
        return first, inverse

    def prompt_cv(self, weights: Vector) -> float:
        """Coefficient of variation of the first row's seconds of a prompt, [1]; ``weights`` (samples,) of the load's.

        Over the whole sample: moments of ``work`` are over strata and miss the longest. Source: definition.
        """
        share, own = weights / weights.sum(), self.own[0]
        mean = float(own @ share)
        return float(np.sqrt(max(float(own**2 @ share) / mean**2 - 1, 0.0))) if mean > 0 else 0.0

    def __len__(self) -> int:
        return len(self.seats)


_ARRAYS = (
    "steps", "work", "work_second", "sharing", "stage", "stage_sharing",
    "own", "chunks", "ranks", "acceptance", "kv_room", "kv_mean",
    "kv_second", "slots", "request_overhead", "devices", "price", "power",
)  # fmt: skip


def join(parts: Sequence[Rows]) -> Rows:
    """All rows of several groups as one table. Source: none needed; a concatenation."""
    if len(parts) == 1:
        return parts[0]
    arrays = {name: np.concatenate([getattr(p, name) for p in parts]) for name in _ARRAYS}
    return Rows(
        tuple(s for p in parts for s in p.seats),
        tuple(o for p in parts for o in p.options),
        **arrays,
        points=sum(p.points for p in parts),
        budget=parts[0].budget,
    )


def price_group(
    step: StepModel,
    seats: Sequence[Seat],
    options: Sequence[Option],
    load: Load,
    hybrid_manager: bool,
    budget: float,
) -> Rows:
    """Rows of all seats of one precision under all drafting options.

    ``budget``: tokens a step may hold, [tokens]. Units of the result: :class:`Rows`.

    Source: the cost layer; sharing as in :class:`planner.serving.load.Load`.
    """
    layout = stack_layouts([s.layout for s in seats])
    machine = stack_machines([s.machine for s in seats])
    prefill = _prefill_columns(step, machine, layout, load, budget)
    parts = []
    for option in options:
        steps = np.broadcast_to(
            np.asarray(
                speculative_step_seconds(
                    step, option.drafter, machine, layout, BATCHES[None, :], load.contexts,
                    load.read_share,
                )
            ),
            (len(seats), len(BATCHES)),
        )  # fmt: skip
        kv_mean, kv_second = _resident_bytes(step, option, layout, load, hybrid_manager)
        shape = (len(seats), 1)
        drafted = np.asarray(option.drafter.weight_bytes(layout)) + np.zeros(shape)
        room = np.array([[s.kv_room] for s in seats]) - drafted
        data = np.asarray(layout.data) + np.zeros(shape)
        slots = np.floor(np.clip(room * data / np.maximum(kv_mean, 1.0), 0, None))
        slots = np.clip(slots, 0, np.array([[float(s.slots)] for s in seats]))
        parts.append(
            Rows(
                tuple(seats),
                (option,) * len(seats),
                np.array(steps),
                acceptance=np.full(shape, option.acceptance),
                kv_room=room * data,
                kv_mean=kv_mean,
                kv_second=kv_second,
                slots=slots,
                request_overhead=np.asarray(machine.request_overhead) + np.zeros(shape),
                devices=np.asarray(layout.devices) + np.zeros(shape),
                price=np.array([[s.price.usd_per_gpu_hour if s.price else np.nan] for s in seats]),
                power=np.array([[s.accelerator.tdp_w or np.nan] for s in seats]),
                points=steps.size,
                budget=budget,
                **_at_queries(prefill, option.drafter.draft_tokens + 1),
            )
        )
    return join(parts)


def _prefill_columns(step: StepModel, machine: Machine, layout: Layout, load: Load, budget: float) -> dict[str, Matrix]:
    """What prompts add to steps of every batch, for all seats; moments over strata of prompt length."""
    model = PrefillModel(step, machine, layout, budget)
    table = np.concatenate(model.tables(), axis=1)
    shape = (len(table), 1)
    data = np.asarray(layout.data) + np.zeros(shape)
    ranks = np.asarray(layout.data * layout.pipeline) + np.zeros(shape)
    overhead = np.asarray(model.step_overhead()) + np.zeros(shape)
    attention = np.asarray(model.attention_seconds(load.new, load.cached)) + np.zeros((len(table), len(load.new)))
    strata = np.array_split(np.argsort(load.new), STRATA)
    share = np.array([load.weights[i].sum() for i in strata]) / load.weights.sum()

    def stratum(values: Matrix) -> Matrix:
        return np.stack([np.average(values[..., i], axis=-1, weights=load.weights[i]) for i in strata], axis=-1)

    tokens, attended = stratum(load.new), stratum(attention)
    # siblings are alike, others come in any order
    pairs = np.arange(STRATA) if load.fan_out > 1 else shuffled(STRATA, 0)
    steps, pair_steps = np.ceil(tokens / budget), np.ceil((tokens + tokens[pairs]) / budget)
    each = np.empty((len(table), len(BATCHES), STRATA))
    sharing, stage, stage_sharing = np.zeros((3, *each.shape[:2]))
    own = np.empty_like(attention)
    for r, d in np.unique(np.concatenate([ranks, data], axis=1), axis=0):
        at = np.flatnonzero((ranks[:, 0] == r) & (data[:, 0] == d))
        some = table[at]
        one, both = (_added(BATCHES, t, r, d, budget) for t in (tokens, tokens + tokens[pairs]))
        each[at] = _row_by_row(some, one.reshape(len(one), -1)).reshape(len(at), *one.shape[1:])
        more = (both - one - one[:, :, pairs]) @ share
        sharing[at] = some @ more
        if d > 1:
            part, of_stages = some[:, len(CHUNK_GRID) :], d / r
            stage[at] = part @ (one[len(CHUNK_GRID) :] @ share) * of_stages
            stage_sharing[at] = part @ more[len(CHUNK_GRID) :] * of_stages
        own[at] = _row_by_row(some, _added(np.ones(1), load.new, r, d, budget)[:, 0])
    each += (attended + overhead * steps)[:, None, :]
    return {
        "work": each @ share,
        "work_second": each**2 @ share,
        "sharing": sharing + overhead * ((pair_steps - steps - steps[pairs]) @ share),
        "stage": stage,
        "stage_sharing": stage_sharing,
        "own": own + attention + overhead * np.ceil(load.new / budget),
        "chunks": np.ceil(load.new / budget)[None, :] + np.zeros_like(attention),
        "ranks": ranks,
    }


def _row_by_row(some: Matrix, weights: Matrix) -> Matrix:
    """``some @ weights``, in pieces too small for the library to start threads for: starting them takes longer."""
    found: Matrix = np.matmul(some[:, None, :], weights)[:, 0]
    return found


def _added(batches: Vector, tokens: Vector, ranks: float, data: float, budget: float) -> Matrix:
    """What every entry of the tables of matmuls and of experts counts in the time that prompts of ``tokens`` add.

    (both tables, batches, prompts), [1]: whole chunks and the rest of a prompt on a rank, less the decodes there.
    """
    rank = np.maximum(batches / ranks, 1.0)[:, None]
    full, rest = np.divmod(tokens, budget)
    return np.concatenate(
        [
            full * _counted(n * rank + budget) + _counted(n * rank + rest) - (full + 1) * _counted(n * rank)
            for n in (1.0, data)
        ]
    )


def _counted(tokens: Matrix) -> Matrix:
    """Weights of a table over :data:`planner.cost.prefill.CHUNK_GRID` at ``tokens``, (grid, *tokens), [1]."""
    grid = np.concatenate([[0.0], CHUNK_GRID])
    index = np.clip(np.searchsorted(grid, tokens, side="right") - 1, 0, len(grid) - 2)[None]
    part = (tokens - grid[index]) / (grid[index + 1] - grid[index])
    weights = np.zeros((len(grid), *tokens.shape))
    np.put_along_axis(weights, index, 1 - part, axis=0)
    np.put_along_axis(weights, index + 1, part, axis=0)
    return weights[1:]  # nothing at no tokens


def between(table: Matrix, tokens: Matrix) -> Matrix:
    """Rows of a table over :data:`planner.cost.prefill.CHUNK_GRID` at ``tokens``, (seats, n), 0 at none.

    Linear between grid points and beyond the last. Source: interpolation.
    """
    grid = np.concatenate([[0.0], CHUNK_GRID])
    values = np.concatenate([np.zeros((len(table), 1)), table], axis=1)
    at = np.broadcast_to(tokens, np.broadcast_shapes(np.shape(tokens), (len(table), 1)))
    index = np.clip(np.searchsorted(grid, at, side="right") - 1, 0, len(grid) - 2)
    left = np.take_along_axis(values, index, axis=1)
    right = np.take_along_axis(values, index + 1, axis=1)
    found: Matrix = left + (right - left) * (at - grid[index]) / (grid[index + 1] - grid[index])
    return found


def _at_queries(prefill: dict[str, Matrix], queries: int) -> dict[str, Matrix]:
    """The same with ``queries`` tokens a sequence: what prompts add to a step of that many more rows."""
    if queries == 1:
        return prefill
    rows = np.minimum(BATCHES * queries, BATCHES[-1])
    index = np.clip(np.searchsorted(BATCHES, rows) - 1, 0, len(BATCHES) - 2)
    weight = (rows - BATCHES[index]) / (BATCHES[index + 1] - BATCHES[index])
    moved = {
        name: prefill[name][:, index] * (1 - weight) + prefill[name][:, index + 1] * weight
        for name in ("work", "work_second", "sharing", "stage", "stage_sharing")
    }
    return {**prefill, **moved}


def _resident_bytes(
    step: StepModel, option: Option, layout: Layout, load: Load, hybrid_manager: bool
) -> tuple[Matrix, Matrix]:
    """Mean [B] and second moment [B^2] of one resident sequence's cache, (seats, 1) each."""
    cache = CacheLayout(step.model.layers, step.kv_format, hybrid_manager)
    contexts = (load.contexts * load.stored_share + option.drafter.draft_tokens)[None, :]
    held = (
        np.asarray(cache.allocated(contexts, layout))
        + np.asarray(cache.state(layout))
        + np.asarray(option.drafter.cache_bytes(contexts, layout))
    )
    held = held + np.zeros((np.asarray(layout.tensor).shape[0], 1))
    return held.mean(axis=1, keepdims=True), (held**2).mean(axis=1, keepdims=True)
