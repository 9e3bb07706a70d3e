"""Levers on a user's tokens per second: what each configuration and batch reaches, and at what cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

#: everything that can differ from the base, in the order it is named
LEVERS = ("speculation", "precision", "parallelism", "batch", "accelerator")


#: batches this close, relatively, are one
SAME = 0.1


class Key(NamedTuple):
    """What a configuration is, batch aside: one field per lever."""

    accelerator: str
    parallelism: tuple[int, ...]
    precision: tuple[str, ...]
    speculation: str


@dataclass(frozen=True)
class Configurations:
    """Configurations at the same batches: ``keys`` say what a row is.

    ``gap`` (rows, batches) [s] between a user's tokens, prompts of others included; ``allowed`` the same
    shape: memory and slots hold that batch; ``price`` (rows,) of a whole replica, [$/h] or any unit of cost;
    ``batches`` (batches,) [sequences] of a replica.
    """

    keys: tuple[Key, ...]
    gap: Matrix
    allowed: npt.NDArray[np.bool_]
    price: Vector
    batches: Vector

    @property
    def cost(self) -> Matrix:
        """Replica-seconds of a token at its price, (rows, batches): price times gap over batch."""
        found: Matrix = self.price[:, None] * self.gap / self.batches
        return found


class Point(NamedTuple):
    """A configuration at a batch, against the base: speed and cost as multiples."""

    row: int
    column: int
    levers: tuple[str, ...]
    speed: float
    cost: float


def time_per_token(steps: Matrix, acceptance: Matrix, prompts: Matrix, output: float, batches: Vector) -> Matrix:
    """Time between a user's tokens in a full replica, (rows, batches), [s].

    ``T(B)/AL + B*w/O``: every B tokens of a step O-th of B requests end and others bring their prompts.
    ``steps`` T [s], ``acceptance`` AL (rows, 1) [tokens], ``prompts`` w (rows, batches) [s] of a replica's time per
    request, ``output`` O [tokens]. It is T/AL/(1 - rho) with the share rho of prompts.

    >>> import numpy as np
    >>> one = np.ones((1, 1))
    >>> float(time_per_token(0.02 * one, 2 * one, 0.1 * one, 200.0, np.array([10.0]))[0, 0])
    0.015
    """
    found: Matrix = steps / acceptance + batches * prompts / output
    return found


def differing(key: Key, base: Key) -> frozenset[str]:
    """Levers in which two configurations differ, the batch aside. Source: definition."""
    return frozenset(name for name in key._fields if getattr(key, name) != getattr(base, name))


class Levers:
    """Configurations against a base: a row and a column of theirs."""

    def __init__(self, configurations: Configurations, base_row: int, base_column: int) -> None:
        self.all = configurations
        self.row, self.column = base_row, base_column
        self.base = configurations.keys[base_row]
        self.speed = configurations.gap[base_row, base_column] / configurations.gap
        cost = configurations.cost
        self.cost = np.where(configurations.allowed, cost / cost[base_row, base_column], np.inf)
        self.differs = [differing(key, self.base) for key in configurations.keys]

    def combination(self, levers: Sequence[str], target: float, rows: Sequence[int] | None = None) -> Point | None:
        """The cheapest configuration that differs in exactly ``levers`` and is ``target`` times as fast, or None.

        Without ``batch`` among them the batch is the base's; with it any that is not about the same.
        """
        found = self._masked(levers, rows)
        cost = np.where(found & (self.speed >= target * (1 - 1e-9)), self.cost, np.inf)
        at = int(np.argmin(cost))
        return self._point(at, levers) if np.isfinite(cost.flat[at]) else None

    def fastest(self, levers: Sequence[str], rows: Sequence[int] | None = None) -> Point | None:
        """The fastest configuration that differs in exactly ``levers``, whatever it costs; None where there is none."""
        found = self._masked(levers, rows) & np.isfinite(self.cost)
        speed = np.where(found, self.speed, -np.inf)
        at = int(np.argmax(speed))
        return self._point(at, levers) if np.isfinite(speed.flat[at]) else None

    def subsets(self) -> Iterator[tuple[str, ...]]:
        """Every combination of levers, the fewest first, without other accelerators. Source: definition."""
        own = tuple(name for name in LEVERS if name != "accelerator")
        for size in range(1, len(own) + 1):
            yield from combinations(own, size)

    def _masked(self, levers: Sequence[str], rows: Sequence[int] | None) -> npt.NDArray[np.bool_]:
        wanted = frozenset(levers) - {"batch"}
        kept = np.array([d == wanted for d in self.differs])
        if rows is not None:
            chosen = np.zeros(len(kept), dtype=bool)
            chosen[list(rows)] = True
            kept &= chosen
        if "batch" in levers:
            columns = np.abs(self.all.batches / self.all.batches[self.column] - 1) > SAME
            if not wanted:  # alone, a larger batch is no lever
                columns &= self.all.batches < self.all.batches[self.column]
        else:
            columns = np.arange(len(self.all.batches)) == self.column
        found: npt.NDArray[np.bool_] = kept[:, None] & columns[None, :]
        return found

    def _point(self, at: int, levers: Sequence[str]) -> Point:
        row, column = divmod(at, len(self.all.batches))
        return Point(row, column, tuple(levers), float(self.speed[row, column]), float(self.cost[row, column]))
