"""An attention kind is four functions of context; this is their common shape."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np

from planner.cost.roofline import Array
from planner.models.formats import FORMATS

Category = Literal["kv", "indexer", "state"]


@dataclass(frozen=True)
class Part:
    """One kernel of a layer's attention for one sequence, before it is split over ranks.

    ``operator`` names the efficiency it runs at; ``flops`` [FLOP] and ``bytes`` [B] have the shape
    of the context argument; ``category`` says what the bytes are. ``split``: FLOPs divide over
    tensor-parallel ranks by heads, or every rank repeats them.
    """

    operator: str
    flops: Array
    bytes: Array
    category: Category
    split: bool = True


class AttentionCost(ABC):
    """What one layer of an attention kind stores and costs, as functions of context length."""

    #: the layer keeps only a bounded number of tokens, which some engines store at full length
    bounded = False

    @abstractmethod
    def stored_bytes(self, context: Array, kv_format: str) -> Array:
        """KV and index bytes one sequence of ``context`` [tokens] stores in this layer, [B].

        Shape of ``context``. Source: the layer's definition in its model's report.
        """

    @property
    def state_bytes(self) -> float:
        """Bytes of recurrent state per sequence, whatever its context, [B]. Source: layer shape."""
        return 0.0

    @abstractmethod
    def decode(self, context: Array, queries: int, kv_format: str) -> tuple[Part, ...]:
        """Kernels of a step that advances one sequence by ``queries`` tokens at ``context`` [tokens].

        FLOPs [FLOP] and bytes [B] in the shape of ``context``. Source: see the class.
        """

    def limits(self, queries: int) -> tuple[float, ...]:
        """Contexts at which a decode step's work stops growing as before, [tokens]; none for most.

        Between them, :meth:`decode` is linear in context. Source: see the class.
        """
        return ()

    @abstractmethod
    def prefill(self, new: Array, cached: Array, kv_format: str) -> tuple[Part, ...]:
        """Kernels that process ``new`` [tokens] after ``cached`` [tokens], causal; same units.

        Source: see the class.
        """

    @abstractmethod
    def kv_fraction(self, tensor_parallel: Array) -> Array:
        """Share of the layer's cache (and of reading it) on each tensor-parallel rank, [1].

        Shape of ``tensor_parallel``. Source: head sharding with replication.
        """

    def kv_bytes_per_token(self, kv_format: str) -> float:
        """Bytes a token adds while the layer still grows, [B/token]. Source: layer shape."""
        grown = np.asarray(self.stored_bytes(np.array([0.0, 1.0]), kv_format))
        return float(grown[1] - grown[0])


def element_bytes(kv_format: str) -> float:
    """Bytes of one cached element in ``kv_format``, [B]. Source: the format's definition.

    >>> element_bytes("fp8")
    1.0
    """
    return FORMATS[kv_format].bytes_per_element


def causal_pairs(new: Array, cached: Array) -> Array:
    """Query-key pairs of ``new`` tokens after ``cached`` ones: ``I*P + I(I+1)/2``, [pairs].

    new I and cached P [tokens], broadcast. Source: the lower triangle, counted.

    >>> causal_pairs(4, 2)
    18.0
    """
    return new * cached + new * (new + 1) / 2


def limited_pairs(new: Array, cached: Array, limit: float) -> Array:
    """Query-key pairs when each query sees at most ``limit`` keys, [pairs].

    ``sum over t = 1..I of min(P + t, w)`` in closed form: a ramp up to w, then flat. new I, cached
    P and limit w [tokens]; broadcast. Source: arithmetic series.

    >>> float(limited_pairs(4, 2, 100)), causal_pairs(4, 2), float(limited_pairs(4, 0, 2))
    (18.0, 18.0, 7.0)
    """
    ramp = np.clip(limit - cached, 0, new)
    return (ramp * cached + ramp * (ramp + 1) / 2 + (new - ramp) * limit)[()]
