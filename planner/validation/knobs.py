"""What a calibration can turn, and how a predicted figure answers to each turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from planner.cost.attention import attention_cost
from planner.cost.machine import OPERATORS
from planner.hardware import Database
from planner.hardware.accelerator import ANY, Scale
from planner.hardware.calibration import ALL_REDUCE, ALL_TO_ALL, EXCHANGES, Calibration
from planner.models.model import Model
from planner.sizing.configuration import Setup
from planner.validation.points import MeasuredPoint
from planner.validation.protocols import Prediction, predict, set_up_point

Field = Literal["compute", "memory", "latency", "bandwidth", "seconds"]
#: how far a knob is turned to see what a prediction answers: factor of a scale, seconds of an overhead
TURN = 1.1
TURN_SECONDS = {"step": 3e-4, "layer": 5e-6, "prefill_layer": 2e-5, "sequence": 3e-6, "request": 1e-2}
#: attention kernels whose arithmetic shows in a step: many heads read one latent
COMPUTING = ("latent_attention", "sparse_attention")


@dataclass(frozen=True)
class Knob:
    """One constant of a calibration: ``owner`` an accelerator, an engine or "any"; ``what`` an operator or an
    overhead; ``fmt`` a number format or "any"; ``quantity`` which of its numbers; ``engine`` whose kernels,
    ``vendor`` whose accelerator, or a processor's architecture.
    """

    owner: str
    what: str
    fmt: str
    quantity: Field
    engine: str = ""
    vendor: str = ""

    @property
    def overhead(self) -> bool:
        """Whether it is an engine's seconds and no factor. Source: definition."""
        return self.quantity == "seconds"

    @property
    def label(self) -> str:
        """As reports name it. Source: none needed."""
        owner = self.owner if not self.engine else f"{self.owner} {self.engine}"
        name = f"{owner} {self.what}" + ("" if self.fmt == ANY else f" {self.fmt}")
        return name if self.overhead else f"{name} {self.quantity}"

    def ancestors(self) -> tuple[Knob, ...]:
        """The knobs that move this one: of the vendor, its format, the engine's kernels, the accelerator.

        Source: a hierarchy, so that what one accelerator or engine teaches helps the others.

        >>> [k.label for k in Knob("l4", "matmul", "fp8", "memory", "vllm", "NVIDIA").ancestors()]
        ['NVIDIA matmul memory', 'NVIDIA matmul fp8 memory', 'any vllm matmul fp8 memory', 'l4 matmul fp8 memory']
        """
        if self.overhead:
            return (self,)
        what, fmt, quantity, above = self.what, self.fmt, self.quantity, self.vendor or ANY
        several = [Knob(above, what, ANY, quantity), Knob(above, what, fmt, quantity)]
        if self.engine:
            several.append(Knob(ANY, what, fmt, quantity, self.engine))
        if self.owner != above:
            several.append(Knob(self.owner, what, fmt, quantity, "", self.vendor))
        return tuple(dict.fromkeys(several))


def knobs_of(point: MeasuredPoint, database: Database) -> list[Knob]:
    """The knobs a point's prediction can answer to, of its accelerator and engine; InputError as set_up.

    Source: the operators of :mod:`planner.cost`.
    """
    return knobs_of_setup(set_up_point(point, point.workers, database), point.engine)


def knobs_of_setup(setup: Setup, engine: str) -> list[Knob]:
    """As :func:`knobs_of`, of a configuration. Source: as there."""
    chip, kv, family, vendor = setup.chip.name, setup.precision.kv, setup.engine.family, setup.chip.kernels
    found: list[Knob] = []

    def add(what: str, fmt: str, *quantities: Field) -> None:
        found.extend(Knob(chip, what, fmt, q, family, vendor) for q in quantities)

    used = {p.group for layer in setup.model.layers for p in layer.projections(setup.model.hidden)}
    for fmt in sorted({setup.precision.formats.get(group, "bf16") for group in used}):
        add("matmul", fmt, "memory", "compute", "latency")
    if setup.model.is_moe:
        add("experts", setup.precision.formats.get("experts", "bf16"), "memory", "compute", "latency")
    for operator in decode_operators(setup.model, kv):
        add(operator, kv, "memory", *(("compute",) if operator in COMPUTING else ()), "latency")
    add("prefill_attention", kv, "compute")
    if int(setup.layout.tensor) > 1:
        add(ALL_REDUCE, ANY, "latency", "bandwidth")
    if int(setup.layout.data) > 1 and setup.model.is_moe:
        add(ALL_TO_ALL, ANY, "latency")
    found.extend(Knob(engine, name, ANY, "seconds") for name in TURN_SECONDS)
    return found


def decode_operators(model: Model, kv_format: str) -> list[str]:
    """Attention kernels of a decode step that have rates of their own, names. Source: :mod:`planner.cost.attention`.

    >>> from planner.models import load_model
    >>> decode_operators(load_model("deepseek-v3.2"), "bf16")
    ['indexer', 'sparse_attention']
    """
    one = np.ones(1)
    specs = {layer.attention for layer in model.layers if layer.attention is not None}
    used = {part.operator for spec in specs for part in attention_cost(spec).decode(one, 1, kv_format)}
    return sorted(used & set(OPERATORS))


def calibration_of(
    values: Mapping[Knob, float], engines: Mapping[str, Mapping[str, float]], name: str = "", source: str = ""
) -> Calibration:
    """A calibration from turned knobs: logarithms of factors [1], and seconds to add to ``engines``' overheads [s].

    Overheads never fall below zero. Source: definition.
    """
    accelerators: dict[str, dict[str, dict[str, Scale]]] = {}
    kernels: dict[str, dict[str, dict[str, Scale]]] = {}
    overheads: dict[str, dict[str, float]] = {}
    for knob, value in values.items():
        if knob.overhead:
            base = engines.get(knob.owner, {}).get(knob.what, 0.0)
            overheads.setdefault(knob.owner, {})[knob.what] = max(0.0, base + value)
            continue
        owners = kernels if knob.engine and knob.owner == ANY else accelerators
        owner = knob.engine if owners is kernels else knob.owner
        formats = owners.setdefault(owner, {}).setdefault(knob.what, {})
        fmt = ANY if knob.what in EXCHANGES else knob.fmt
        scale = Scale(**{knob.quantity: math.exp(value)})
        formats[fmt] = formats.get(fmt, Scale()).times(scale)
    return Calibration(name, source, "", overheads, accelerators, kernels)


def engine_overheads(database: Database, engines: Iterable[str]) -> dict[str, dict[str, float]]:
    """Overheads the database has for engines, [s]. Source: their files and calibrations."""
    return {
        name: {key: database.engine(name).values[f"overhead.{key}"] for key in TURN_SECONDS} for name in set(engines)
    }


@dataclass(frozen=True)
class Answer:
    """A point's prediction and how the logarithm of each figure answers to each knob.

    ``slopes``: per (metric, statistic), by knob: per unit of the factor's logarithm [1], or per second [1/s].
    ``start``: what turned knobs already add to the logarithm of the prediction, by these slopes [1].
    """

    prediction: Prediction
    slopes: Mapping[tuple[str, str], Mapping[Knob, float]]
    start: Mapping[tuple[str, str], float] = field(default_factory=dict)


def answer(
    point: MeasuredPoint,
    database: Database,
    figures: Sequence[tuple[str, str]],
    run: Callable[[MeasuredPoint, Database], Prediction] = predict,
) -> Answer:
    """Predict a point with ``run``, and again with every knob turned a little; InputError as that.

    Source: forward differences of :func:`planner.validation.protocols.predict`.
    """
    base = run(point, database)
    knobs = knobs_of(point, database)
    engines = engine_overheads(database, [point.engine])
    slopes: dict[tuple[str, str], dict[Knob, float]] = {figure: {} for figure in figures}
    for knob in knobs:
        turn = TURN_SECONDS[knob.what] if knob.overhead else -math.log(TURN)  # efficiencies end at the peak
        turned = run(point, database.calibrated(calibration_of({knob: turn}, engines)))
        for figure in figures:
            change = math.log(turned.value(*figure) / base.value(*figure)) / turn
            if change:
                slopes[figure][knob] = change
    return Answer(base, slopes)
