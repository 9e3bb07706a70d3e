"""One configuration as asked on the command line: checked, and everything it names looked up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from planner.cost.layout import Layout
from planner.cost.machine import Machine, machine
from planner.cost.step import StepModel
from planner.errors import InputError, nearest
from planner.hardware import Accelerator, Assumptions, Database, Engine
from planner.hardware.intervals import Intervals
from planner.models import load_model
from planner.models.formats import ALIASES, FORMATS, KV_FORMATS
from planner.models.model import Model
from planner.sizing.candidates import Precision, attention_heads, dominant_format, weight_formats


@dataclass(frozen=True)
class EstimateRequest:
    """What ``planner estimate`` was asked; lengths in tokens, rate in requests per second."""

    model: str
    gpu: str
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    expert_parallel: int = 1
    data_parallel: int = 1
    weights: str = "native"
    kv: str = "native"
    engine: str = "generic"
    batch: float | None = None
    context: float | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None
    concurrency: float | None = None
    rate: float | None = None
    offline: bool = False
    cached_tokens: float = 0.0


@dataclass(frozen=True)
class Setup:
    """Everything looked up for a request."""

    model: Model
    chip: Accelerator
    engine: Engine
    constants: Assumptions
    precision: Precision
    layout: Layout
    step: StepModel
    intervals: Intervals


def check_question(request: EstimateRequest) -> tuple[bool, str]:
    """Whether a bare step is asked, and which load otherwise; InputError when neither is clear."""
    bare = request.batch is not None or request.context is not None
    loads = [n for n in ("concurrency", "rate") if getattr(request, n) is not None]
    loads += ["offline"] if request.offline else []
    if bare:
        if request.batch is None or request.context is None:
            raise InputError("a bare step needs both --batch and --context")
        if loads or request.input_tokens is not None or request.output_tokens is not None:
            raise InputError(
                "--batch and --context ask for a bare step",
                expected="no --input-tokens, --output-tokens, --concurrency, --rate or --offline",
            )
        _positive(request, ("batch", "context"))
        return True, ""
    if request.input_tokens is None or request.output_tokens is None:
        raise InputError("nothing to estimate", expected="--batch and --context, or --input-tokens and --output-tokens")
    if len(loads) != 1:
        given = "none" if not loads else " and ".join("--" + n for n in loads)
        raise InputError(f"one load is needed, {given} given", expected="one of --concurrency, --rate, --offline")
    _positive(request, ("input_tokens", "output_tokens", "concurrency", "rate"))
    if request.cached_tokens < 0 or request.cached_tokens >= request.input_tokens:
        raise InputError("--cached-tokens is not below --input-tokens")
    return False, loads[0]


def _positive(request: EstimateRequest, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(request, name)
        if value is not None and not 0 < value < 1e12:
            raise InputError(f"--{name.replace('_', '-')} is {value:g}", expected="more than zero")


def format_asked(name: str, known: Sequence[str], option: str) -> str:
    """The format a name or alias given as ``option`` means; InputError when it is none of ``known``.

    >>> format_asked("float32", ("bf16", "fp32"), "--weights")
    'fp32'
    """
    folded = ALIASES.get(name.lower(), name.lower())
    if folded not in known:
        raise InputError(
            f"{option} {name!r} is not known", expected="native or one of " + ", ".join(known),
            suggestion=nearest(name.lower(), [*known, "native"]),
        )  # fmt: skip
    return folded


def set_up(request: EstimateRequest, database: Database, models: Sequence[object]) -> Setup:
    """Model, chip, engine, formats and layout of a request; InputError for any that is wrong."""
    model = load_model(request.model, overlays=models)
    chip = database.accelerator(request.gpu)
    if not chip.plannable:
        raise InputError(f"{chip.name} cannot be planned: no {chip.missing} known")
    engine = database.engine(request.engine)
    weights = request.weights
    if weights != "native":
        weights = format_asked(weights, tuple(FORMATS), "--weights")
    kv = model.kv_format if request.kv == "native" else format_asked(request.kv, KV_FORMATS, "--kv")
    formats = weight_formats(model, weights)
    constants = database.assumptions
    layout = _layout(request, model, constants)
    precision = Precision(dominant_format(model, formats), kv, formats)
    step = StepModel(model, formats, kv, constants.draft_independence)
    return Setup(model, chip, engine, constants, precision, layout, step, database.intervals)


def _layout(request: EstimateRequest, model: Model, constants: Assumptions) -> Layout:
    t, p = request.tensor_parallel, request.pipeline_parallel
    d, e = request.data_parallel, request.expert_parallel
    for name, value in (("tensor", t), ("pipeline", p), ("data", d), ("expert", e)):
        if value < 1:
            raise InputError(f"--{name}-parallel is {value}", expected="1 or more")
    heads = attention_heads(model)
    if heads % t:
        raise InputError(f"--tensor-parallel {t} does not divide the {heads} attention heads of {model.name}")
    if p > model.num_layers:
        raise InputError(f"--pipeline-parallel {p} exceeds the {model.num_layers} layers of {model.name}")
    if e > 1 and not model.is_moe:
        raise InputError(f"--expert-parallel {e}: {model.name} has no experts", expected="1")
    if e > 1 and (t * d) % e:
        raise InputError(f"--expert-parallel {e} does not divide the {t * d} accelerators of a stage")
    return Layout(t, p, d, e, constants.expert_imbalance, constants.attention_skew)


def describe_configuration(request: EstimateRequest, setup: Setup) -> dict[str, Any]:
    """The configuration as results print it: names, degrees, formats, and what was asked."""
    return {
        "model": setup.model.name,
        "accelerator": setup.chip.name,
        "gpus": int(setup.layout.devices),
        "tensor_parallel": request.tensor_parallel,
        "pipeline_parallel": request.pipeline_parallel,
        "expert_parallel": request.expert_parallel,
        "data_parallel": request.data_parallel,
        "engine": setup.engine.name,
        "weight_dtype": setup.precision.weights,
        "kv_dtype": setup.precision.kv,
        **{
            name: getattr(request, name)
            for name in ("batch", "context", "input_tokens", "output_tokens", "concurrency", "rate")
            if getattr(request, name) is not None
        },
        **({"offline": True} if request.offline else {}),
    }


def machine_of(setup: Setup) -> Machine:
    """Ceilings of the configuration, units of Machine. Source: the hardware database."""
    return machine(
        setup.chip, setup.engine, setup.precision.kernels, setup.precision.kv,
        int(setup.layout.tensor), int(setup.layout.stage_devices),
    )  # fmt: skip
