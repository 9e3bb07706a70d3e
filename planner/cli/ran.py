"""Options that say what results ran on, where their files don't, spelled once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from planner.errors import InputError, nearest

if TYPE_CHECKING:
    from planner.hardware import Database

ENGINES = ("vllm", "sglang", "trtllm")

RanOn = Annotated[
    str | None, typer.Option("--gpu", "-g", help="Accelerator, where results don't say it.", show_default=False)
]
RanModel = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Model name, id or config.json, instead of the results'.", show_default=False),
]
RanEngine = Annotated[str | None, typer.Option("--engine", help="vllm, sglang or trtllm.", show_default=False)]
RanTensor = Annotated[
    int | None, typer.Option("--tensor-parallel", "--tp", min=1, help="Tensor parallelism.", show_default=False)
]
RanPipeline = Annotated[
    int | None, typer.Option("--pipeline-parallel", "--pp", min=1, help="Pipeline parallelism.", show_default=False)
]
RanExpert = Annotated[
    int | None, typer.Option("--expert-parallel", "--ep", min=1, help="Expert parallelism.", show_default=False)
]
RanData = Annotated[
    int | None, typer.Option("--data-parallel", "--dp", min=1, help="Attention data parallelism.", show_default=False)
]
RanWeights = Annotated[
    str | None,
    typer.Option(
        "--weights", help="Weight format, as fp8 or fp32; the checkpoint's own by default.", show_default=False
    ),
]
RanKv = Annotated[str | None, typer.Option("--kv", help="KV format: bf16, fp8 or fp32.", show_default=False)]


def said_of(
    gpu: str | None,
    model: str | None,
    engine: str | None,
    degrees: dict[str, int | None],
    weights: str | None,
    kv: str | None,
) -> dict[str, str]:
    """Columns of results as the options give them; InputError for an engine or a format we don't know."""
    from planner.models.formats import FORMATS, KV_FORMATS
    from planner.sizing.configuration import format_asked
    from planner.validation.labels import engine_named

    if engine is not None and engine_named(engine)[0] == "generic" and engine.lower() != "generic":
        raise InputError(
            f"is {engine!r}", key="--engine", expected="vllm, sglang or trtllm, a version may follow",
            suggestion=nearest(engine.lower(), ENGINES),
        )  # fmt: skip
    if weights is not None and weights != "native":
        weights = format_asked(weights, tuple(FORMATS), "--weights")
    if kv is not None and kv != "native":
        kv = format_asked(kv, KV_FORMATS, "--kv")
    said = {"gpu": gpu, "model": model, "engine": engine, "weight_precision": weights, "kv_precision": kv, **degrees}
    return {column: str(value) for column, value in said.items() if value is not None}


def check_named(said: dict[str, str], database: Database) -> None:
    """InputError for an accelerator or a model of the options that isn't there, before any file is read."""
    from planner.validation.labels import accelerator_named, model_named

    if "gpu" in said:
        accelerator_named(said["gpu"], database)
    if "model" in said:
        model_named(said["model"])
