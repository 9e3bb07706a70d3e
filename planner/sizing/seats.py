"""Which accelerators may be used, and every layout of a model that fits one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from planner.cost.layout import Layout
from planner.cost.machine import machine
from planner.cost.memory import CacheLayout, weight_bytes_per_device
from planner.cost.step import StepModel
from planner.hardware import Accelerator, Assumptions, Database, Engine, Price
from planner.serving.load import Load
from planner.sizing.candidates import Precision, layouts
from planner.sizing.footprint import Footprint, footprint
from planner.sizing.operating import Seat
from planner.workload import Workload


def allowed_chips(
    workload: Workload, database: Database, gpus: Sequence[str] | None, rejected: dict[str, str]
) -> list[Accelerator]:
    """Accelerators to search: allowed, not denied, plannable; ``rejected`` gets the others' reasons.

    InputError for an unknown name. Source: the workload and the database.
    """
    allow = list(gpus or workload.hardware.allow)
    deny = {database.accelerator(name).name for name in workload.hardware.deny}
    if allow:
        chips = list({c.name: c for c in (database.accelerator(n) for n in allow)}.values())
    else:
        chips = [c for c in database.accelerators.values() if c.status != "announced"]
    kept = []
    for chip in chips:
        if chip.name in deny:
            rejected[chip.name] = "denied by the workload"
        elif not chip.plannable:
            rejected[chip.name] = f"facts missing: {chip.missing}"
        else:
            kept.append(chip)
    return kept


def seats_on(
    step: StepModel,
    precision: Precision,
    chip: Accelerator,
    price: Price | None,
    workload: Workload,
    engine: Engine,
    constants: Assumptions,
    load: Load,
    held: dict[Layout, tuple[float, float]],
    rejected: dict[str, str],
) -> list[Seat]:
    """Every layout of the model on ``chip`` that leaves room for its longest sequence, [B].

    ``held`` remembers, by layout, the bytes of the weights and of that sequence, which no chip changes;
    ``rejected`` gets the reason when none fits.
    """
    choice = workload.parallelism
    fixed = workload.hardware.gpus_per_replica
    most = workload.hardware.max_gpus or 10**9
    found: list[Seat] = []
    smallest_gap = math.inf
    shapes = layouts(
        step.model, chip, constants, tensor=choice.tensor, pipeline=choice.pipeline,
        data=choice.data, expert=choice.expert,
    )  # fmt: skip
    longest = float(np.max(load.contexts))
    cache = CacheLayout(step.model.layers, step.kv_format, engine.hybrid_kv_manager)
    # a pipeline is only worth its latency where no single stage holds the model
    single_fits = False
    for layout in sorted(shapes, key=lambda x: int(x.pipeline)):
        devices = int(layout.devices)
        if (fixed and devices != fixed) or devices > most or (layout.pipeline > 1 and single_fits):
            continue
        if layout not in held:
            weights = float(np.asarray(weight_bytes_per_device(step.model, step.formats, layout)))
            sequence = float(np.asarray(cache.allocated(longest, layout) + cache.state(layout)))
            held[layout] = weights, sequence
        weights, one = held[layout]
        hold = footprint(step, chip, engine, layout, workload.engine.memory_fraction, weights)
        if hold.kv_room < one:
            smallest_gap = min(smallest_gap, hold.needed(one))
            continue
        single_fits = single_fits or layout.pipeline == 1
        found.append(_seat(step, precision, chip, price, layout, hold, engine, workload))
    if not found:
        rejected.setdefault(
            chip.name,
            f"does not fit: {smallest_gap / 1e9:.0f} GB needed on each accelerator, "
            f"{chip.memory_bytes / 1e9:.0f} GB there"
            if math.isfinite(smallest_gap)
            else "no layout of this model is allowed on it",
        )
    else:
        rejected.pop(chip.name, None)
    return found


def _seat(
    step: StepModel,
    precision: Precision,
    chip: Accelerator,
    price: Price | None,
    layout: Layout,
    hold: Footprint,
    engine: Engine,
    workload: Workload,
) -> Seat:
    priced = machine(
        chip, engine, precision.kernels, precision.kv,
        int(layout.tensor), int(layout.stage_devices),
    )  # fmt: skip
    slots = workload.engine.max_num_seqs or engine.max_num_seqs(chip.memory_bytes)
    return Seat(chip, layout, precision, priced, price, hold.kv_room, int(slots * int(layout.data)))
