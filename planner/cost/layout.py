"""How one replica is spread over accelerators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.cost.roofline import Array


@dataclass(frozen=True)
class Layout:
    """Degrees of parallelism of one replica; ints, or (candidates, 1) arrays.

    ``tensor`` ranks split every matrix, ``data`` attention ranks split the batch and hold copies of
    the attention weights, ``pipeline`` stages split the layers. Experts are spread whole over
    ``expert`` ranks (1: sliced over all of a stage). ``imbalance``: hottest expert rank over the
    mean; ``skew``: slowest attention rank over the mean.
    """

    tensor: Array = 1
    pipeline: Array = 1
    data: Array = 1
    expert: Array = 1
    imbalance: float = 1.0
    skew: float = 1.0

    @property
    def stage_devices(self) -> Array:
        """Accelerators of one pipeline stage, [1]. Source: definition."""
        return self.tensor * self.data

    @property
    def devices(self) -> Array:
        """Accelerators of one replica, [1]. Source: definition.

        >>> Layout(tensor=4, data=2).devices
        8
        """
        return self.stage_devices * self.pipeline

    @property
    def expert_imbalance(self) -> Array:
        """Hot-rank factor on the experts' time, [1]: above 1 only with whole experts per rank. Source: the field."""
        return np.where(np.asarray(self.expert) > 1, self.imbalance, 1.0)[()]

    @property
    def attention_skew(self) -> Array:
        """Slow-rank factor on attention, [1]: above 1 only with attention data parallelism. Source: the field."""
        return np.where(np.asarray(self.data) > 1, self.skew, 1.0)[()]


def stack_layouts(layouts: Sequence[Layout]) -> Layout:
    """One layout whose degrees are (candidates, 1) arrays, [1]. Source: none needed; a reshape.

    >>> stack_layouts([Layout(tensor=1), Layout(tensor=8)]).tensor.shape
    (2, 1)
    """

    def column(name: str) -> Array:
        return np.array([[float(getattr(one, name))] for one in layouts])

    return Layout(
        column("tensor"),
        column("pipeline"),
        column("data"),
        column("expert"),
        layouts[0].imbalance,
        layouts[0].skew,
    )
