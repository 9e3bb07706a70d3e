"""Fitting a calibration: robust least squares on logarithms, with priors that shrink what few points know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from planner.hardware.accelerator import ANY, PROCESSORS
from planner.validation.knobs import Knob

Vector = npt.NDArray[np.float64]
#: prior spread of the logarithm of a factor: of all parts and formats, of a format, of an engine, of one part
SPREAD_ANY, SPREAD_FORMAT, SPREAD_ENGINE, SPREAD_PART = 0.30, 0.20, 0.15, 0.15
#: vendors and processors whose parts have no kernel tables of their own: priors are wider
LOOSE = {"AMD": 2.5} | dict.fromkeys(PROCESSORS, 2.5)
#: prior spread of an engine's overheads, seconds
SPREAD_SECONDS = {"step": 1e-3, "layer": 1e-5, "prefill_layer": 1e-4, "sequence": 1e-5, "request": 3e-2}
#: residuals beyond this many spreads count linearly
HUBER = 1.5
ITERATIONS = 30
#: least change of a scaled variable that another iteration is worth, in prior spreads
SETTLED = 1e-4


@dataclass(frozen=True)
class Observation:
    """One measured figure: ``residual`` log(measured/predicted) [1], how the prediction answers to knobs,
    the ``spread`` such figures scatter by [1], and the ``group`` that is left out together. Figures of one
    ``offset`` share a deviation of their own, of ``offset_spread`` [1], that no constant explains.
    """

    residual: float
    slopes: Mapping[Knob, float]
    spread: float
    group: tuple[str, ...] = ()
    offset: tuple[str, ...] = ()
    offset_spread: float = 0.0


@dataclass(frozen=True)
class Fit:
    """Turned knobs: ``values`` logarithms of factors [1] or seconds to add [s]; ``spreads`` posterior
    standard deviations in the same units; ``priors`` those before.
    """

    values: Mapping[Knob, float]
    spreads: Mapping[Knob, float]
    priors: Mapping[Knob, float]

    def identified(self, knob: Knob) -> bool:
        """Whether points told more about a knob than was known before: its spread fell by a third.

        Source: definition.
        """
        return self.spreads[knob] < 2 / 3 * self.priors[knob]

    def shift(self, slopes: Mapping[Knob, float]) -> float:
        """What the fit adds to the logarithm of a prediction with these slopes, [1]. Source: linear."""
        return sum(
            slope * self.values.get(parent, 0.0) for knob, slope in slopes.items() for parent in knob.ancestors()
        )


def prior_spread(knob: Knob) -> float:
    """Standard deviation of a knob before any point, [1] or [s]. Source: the constants above.

    >>> prior_spread(Knob("any", "matmul", "any", "memory")), prior_spread(Knob("vllm", "step", "any", "seconds"))
    (0.3, 0.001)
    """
    if knob.overhead:
        return SPREAD_SECONDS[knob.what]
    if knob.engine:
        return SPREAD_ENGINE
    if knob.vendor:
        return SPREAD_PART * LOOSE.get(knob.vendor, 1.0)
    return (SPREAD_ANY if knob.fmt == ANY else SPREAD_FORMAT) * LOOSE.get(knob.owner, 1.0)


def fit(
    observations: Sequence[Observation],
    floors: Mapping[Knob, float] | None = None,
    prior: Callable[[Knob], float] = prior_spread,
) -> Fit:
    """Knobs that bring predictions to the measured figures, as far as the points outweigh the priors.

    Minimises ``sum huber((r - J x - o)/s) + sum (x/prior)^2 + sum (o/t)^2`` by iteratively reweighted least squares
    in scaled variables, with one o for each offset: rows of one group are not so many independent witnesses.
    ``floors``: least value of a knob [s], so that overheads stay above zero. Without
    observations all values are 0.

    Source: Huber, "Robust Statistics", 1981; ridge regression as a Gaussian prior.

    >>> k = Knob("l4", "matmul", "fp8", "memory")
    >>> found = fit([Observation(0.3, {k: -0.8}, 0.1)] * 20)
    >>> round(found.shift({k: -0.8}), 2)
    0.3
    """
    knobs = sorted({p for o in observations for k in o.slopes for p in k.ancestors()}, key=lambda k: k.label)
    priors = {k: prior(k) for k in knobs}
    if not knobs:
        return Fit({}, {}, {})
    index = {k: i for i, k in enumerate(knobs)}
    scale = np.array([priors[k] for k in knobs])
    matrix = np.zeros((len(observations), len(knobs)))
    for row, o in enumerate(observations):
        for knob, slope in o.slopes.items():
            for parent in knob.ancestors():
                matrix[row, index[parent]] += slope
    offsets = {name: i for i, name in enumerate(dict.fromkeys(o.offset for o in observations if o.offset_spread))}
    apart = np.zeros((len(observations), len(offsets)))
    for row, o in enumerate(observations):
        if o.offset_spread:
            apart[row, offsets[o.offset]] = o.offset_spread
    spread = np.array([o.spread for o in observations])
    target = np.array([o.residual for o in observations]) / spread
    matrix = np.hstack([matrix * scale, apart]) / spread[:, None]
    least = np.array([(floors or {}).get(k, -np.inf) for k in knobs]) / scale
    solution, normal = _robust(matrix, target, np.concatenate([least, np.full(len(offsets), -np.inf)]))
    spreads = np.sqrt(np.diag(np.linalg.inv(normal)))[: len(knobs)] * scale
    values = solution[: len(knobs)] * scale
    return Fit(dict(zip(knobs, values.tolist(), strict=True)), dict(zip(knobs, spreads.tolist(), strict=True)), priors)


def misfit(observations: Sequence[Observation]) -> float:
    """What residuals alone cost a fit, [1]: squares, linear beyond :data:`HUBER` spreads. Source: as :func:`fit`.

    >>> round(misfit([Observation(0.1, {}, 0.1), Observation(0.3, {}, 0.1)]), 6)
    7.75
    """
    off = np.abs([o.residual / o.spread for o in observations])
    return float(np.where(off > HUBER, 2 * HUBER * off - HUBER**2, off**2).sum())


def _robust(matrix: Vector, target: Vector, least: Vector) -> tuple[Vector, Vector]:
    """Solution of the scaled problem with unit priors, and its normal matrix."""
    count = matrix.shape[1]
    solution = np.zeros(count)
    normal = np.eye(count)
    for _ in range(ITERATIONS):
        off = np.abs(target - matrix @ solution)
        weight = np.where(off > HUBER, HUBER / np.maximum(off, 1e-12), 1.0)
        normal = (matrix.T * weight) @ matrix + np.eye(count)
        right = matrix.T @ (weight * target)
        new = _above(normal, right, least)
        done = np.max(np.abs(new - solution)) < SETTLED
        solution = new
        if done:
            break
    return solution, normal


def _above(normal: Vector, right: Vector, least: Vector) -> Vector:
    """Minimum of the quadratic with every variable at or above its floor: those below are held there in turn."""
    held = np.zeros(len(right), dtype=bool)
    solution = np.zeros(len(right))
    for _ in range(len(right) + 1):
        free = ~held
        solution = np.where(held, least, 0.0)
        shifted = right[free] - normal[np.ix_(free, held)] @ solution[held] if held.any() else right[free]
        solution[free] = np.linalg.solve(normal[np.ix_(free, free)], shifted)
        below = free & (solution < least - 1e-12)
        if not below.any():
            break
        held |= below
    return solution
