"""The speed-up of every way to draft over batch and context, all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.cost.acceptance import domain_factor
from planner.cost.layout import Layout
from planner.cost.machine import Machine
from planner.cost.memory import CacheLayout
from planner.cost.roofline import Array
from planner.cost.step import StepModel
from planner.hardware.acceptance import AcceptanceData
from planner.sizing.operating import Option

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]

BATCHES: Vector = np.exp2(np.arange(0.0, 9.0))
CONTEXTS: Vector = np.exp2(np.arange(8.0, 21.0))


@dataclass(frozen=True)
class Place:
    """Where speculation is judged: a replica of one model on one accelerator, in one layout and precision.

    ``kv_room`` [B] of an accelerator, ``shared_read`` share of cache bytes really read [1].
    """

    step: StepModel
    machine: Machine
    layout: Layout
    kv_room: float
    hybrid_manager: bool = True
    shared_read: float = 1.0


@dataclass(frozen=True)
class Priced:
    """Every option at every context and batch.

    ``plain`` (contexts, batches) [s] of a step without drafts; ``verify`` and ``draft`` (options,
    contexts, batches) [s]; ``lengths`` (3, options, contexts, 1) [tokens] low, middle and high; ``fits``
    (options, contexts, batches) whether memory holds it, ``plain_fits`` the same without drafts.
    """

    options: tuple[Option, ...]
    batches: Vector
    contexts: Matrix
    plain: Matrix
    verify: Matrix
    draft: Matrix
    lengths: Matrix
    fits: npt.NDArray[np.bool_]
    plain_fits: npt.NDArray[np.bool_]

    def speedup(self, which: int = 1) -> Matrix:
        """Time per output token without over with drafts, (options, contexts, batches), [1].

        ``which`` 0 to 2: acceptance low, middle or high. Source: Leviathan et al., arXiv 2211.17192.
        """
        found: Matrix = self.lengths[which] * self.plain / (self.verify + self.draft)
        return found

    def best(self) -> tuple[npt.NDArray[np.int64], Matrix]:
        """The option with the highest speed-up that fits, (contexts, batches), and that speed-up [1].

        Where memory holds no drafter, or nothing at all, the comparison is made as if it did.
        """
        gain = self.speedup()
        held = np.where(self.fits | ~self.fits.any(axis=0), gain, -np.inf)
        at = np.argmax(held, axis=0)
        return at, np.take_along_axis(gain, at[None], axis=0)[0]


def price_map(
    place: Place,
    options: Sequence[Option],
    data: AcceptanceData,
    domain: str,
    batches: Vector,
    contexts: Matrix,
) -> Priced:
    """Price ``options`` at ``batches`` (n,) [sequences] and ``contexts`` (rows, points) [tokens].

    The points of a row are the equally likely contexts of its sequences. Acceptance is scaled by the
    ``domain`` at a row's mean context where it isn't the user's own. Source: planner.cost.
    """
    shape = (len(contexts), len(batches))
    verified: dict[int, Matrix] = {}

    def checked(queries: int) -> Matrix:
        if queries not in verified:
            total: Array = 0.0
            for operator in place.step.operators(
                place.machine, place.layout, batches[None, :], contexts, queries, place.shared_read
            ):
                total = total + operator.seconds
            verified[queries] = np.broadcast_to(np.asarray(total), shape)
        return verified[queries]

    verify = np.array([checked(o.drafter.queries) for o in options])
    draft = np.array(
        [
            np.broadcast_to(o.drafter.seconds(place.machine, place.layout, batches[None, :], contexts, v), shape)
            for o, v in zip(options, verify, strict=True)
        ]
    )
    means = contexts.mean(axis=1, keepdims=True)
    factors = np.array(
        [domain_factor(data, o.drafter.method, domain, means) if o.adjusted else np.ones_like(means) for o in options]
    )
    accepted = np.array([[o.acceptance_low, o.acceptance, o.acceptance_high] for o in options]).T
    return Priced(
        tuple(options), batches, contexts, checked(1), verify, draft,
        1 + (accepted[:, :, None, None] - 1) * factors[None],
        np.array([_fits(place, o, batches, contexts) for o in options]),
        _fits(place, None, batches, contexts),
    )  # fmt: skip


def _fits(place: Place, option: Option | None, batches: Vector, contexts: Matrix) -> npt.NDArray[np.bool_]:
    return largest_batch(place, option, contexts) >= batches[None, :]


def largest_batch(place: Place, option: Option | None, contexts: Matrix) -> Matrix:
    """Sequences of each row's mean cache that memory holds beside the drafter of ``option``, (rows, 1), [1].

    ``contexts`` (rows, points) [tokens]. Source: :meth:`planner.cost.memory.CacheLayout.allocated`.
    """
    cache = CacheLayout(place.step.model.layers, place.step.kv_format, place.hybrid_manager)
    extra = option.drafter.draft_tokens if option else 0
    each = np.asarray(cache.allocated(contexts + extra, place.layout)) + np.asarray(cache.state(place.layout))
    room = place.kv_room
    if option is not None:
        each = each + np.asarray(option.drafter.cache_bytes(contexts + extra, place.layout))
        room = room - float(np.asarray(option.drafter.weight_bytes(place.layout)))
    mean = (each + np.zeros_like(contexts)).mean(axis=1, keepdims=True)
    held: Matrix = np.floor(max(room, 0.0) * float(np.asarray(place.layout.data)) / np.maximum(mean, 1.0))
    return held
