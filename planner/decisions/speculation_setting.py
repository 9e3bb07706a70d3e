"""Where a question about speculation is asked: at a workload's plan, or at a configuration given by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from planner.cost.layout import Layout
from planner.cost.machine import machine
from planner.cost.step import StepModel
from planner.decisions.speculation import Asked, decide
from planner.decisions.speculation_map import Place
from planner.decisions.speculation_result import SpeculationDecision
from planner.errors import InputError
from planner.hardware import Database
from planner.hardware.acceptance import AcceptanceData
from planner.models import load_model
from planner.serving.load import load_from
from planner.sizing import recommend
from planner.sizing.candidates import precisions
from planner.sizing.configuration import EstimateRequest, describe_configuration, machine_of, set_up
from planner.sizing.drafting import drafting_options
from planner.sizing.footprint import footprint
from planner.sizing.nearest_miss import no_plan
from planner.workload import Speculation, Workload


def speculate_at_plan(
    workload: Workload,
    database: Database,
    data: AcceptanceData,
    *,
    gpus: Sequence[str] | None = None,
    price_overrides: Mapping[str, float] | None = None,
    models: Sequence[object] = (),
    simulate: bool = True,
) -> SpeculationDecision:
    """The decision at the best plan of ``workload``; arguments as of :func:`planner.sizing.recommend`.

    NoPlanError when there is no plan, InputError for anything the user got wrong.
    """
    result = recommend(
        workload, database, gpus=gpus, top=0, price_overrides=price_overrides, models=models, simulate=simulate,
        acceptance=data,
    )  # fmt: skip
    plan = result.plan
    if plan is None:
        raise no_plan(result.nearest_miss)
    model = load_model(workload.model, overlays=models)
    drafting = workload.speculation.draft_model
    constants, engine = database.assumptions, database.engine(plan.engine)
    chip = database.accelerator(plan.accelerator)
    precision = next(
        p
        for p in precisions(model, workload.precision.weights, workload.precision.kv)
        if (p.weights, p.kv) == (plan.weight_dtype, plan.kv_dtype)
    )
    layout = Layout(
        plan.tensor_parallel, plan.pipeline_parallel, plan.data_parallel, plan.expert_parallel,
        constants.expert_imbalance, constants.attention_skew,
    )  # fmt: skip
    small = load_model(drafting, overlays=models) if drafting else None
    kernels = tuple(sorted({*precision.kernels, *(small.formats.values() if small else ())}))
    step = StepModel(model, precision.formats, precision.kv, constants.draft_independence)
    load = load_from(workload)
    place = Place(
        step,
        machine(chip, engine, kernels, precision.kv, plan.tensor_parallel, int(layout.stage_devices)),
        layout,
        footprint(step, chip, engine, layout, workload.engine.memory_fraction).kv_room,
        engine.hybrid_kv_manager,
        load.read_share,
    )
    options = drafting_options(
        model, workload.speculation, data, precision, drafting_model=small, engine=engine.name
    )  # fmt: skip
    named = ("accelerator", "gpus_per_replica", "tensor_parallel", "pipeline_parallel", "data_parallel",
             "expert_parallel", "engine", "weight_dtype", "kv_dtype", "replicas")  # fmt: skip
    configuration: dict[str, Any] = {"model": model.name, **{n: getattr(plan, n) for n in named}}
    asked = Asked(configuration, workload.speculation, max(1.0, plan.mean_batch), load.contexts, result.assumptions)
    return decide(place, options, data, asked)


def speculate_at(
    request: EstimateRequest,
    speculation: Speculation,
    database: Database,
    data: AcceptanceData,
    models: Sequence[object] = (),
) -> SpeculationDecision:
    """The decision for one configuration at ``request.batch`` [sequences] and ``request.context`` [tokens].

    InputError for an unknown name, impossible parallelism, or a batch or context that is missing.
    """
    for option, value in (("--batch", request.batch), ("--context", request.context)):
        if value is None or not 1 <= value < 1e9:
            raise InputError(
                "is missing" if value is None else f"is {value:g}", key=option,
                expected="it beside --model and --gpu: the operating point" if value is None else "1 or more",
            )  # fmt: skip
    setup = set_up(request, database, models)
    small = load_model(speculation.draft_model, overlays=models) if speculation.draft_model else None
    at = machine_of(setup)
    if small is not None:
        kernels = sorted({*setup.precision.kernels, *small.formats.values()})
        at = machine(
            setup.chip, setup.engine, kernels, setup.precision.kv, request.tensor_parallel,
            int(setup.layout.stage_devices),
        )  # fmt: skip
    place = Place(
        setup.step, at, setup.layout, footprint(setup.step, setup.chip, setup.engine, setup.layout).kv_room,
        setup.engine.hybrid_kv_manager,
    )  # fmt: skip
    options = drafting_options(
        setup.model, speculation, data, setup.precision, drafting_model=small, engine=setup.engine.name
    )  # fmt: skip
    assert request.batch is not None and request.context is not None
    asked = Asked(describe_configuration(request, setup), speculation, request.batch, np.array([request.context]))
    return decide(place, options, data, asked)
