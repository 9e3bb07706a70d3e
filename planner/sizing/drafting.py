"""Which ways of drafting a workload allows, and what each accepts and costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planner.cost.acceptance import expected_acceptance
from planner.cost.speculation import Drafter, draft_model
from planner.errors import InputError
from planner.hardware.acceptance import AcceptanceData
from planner.models.model import Model
from planner.sizing.candidates import Precision
from planner.sizing.operating import Option
from planner.workload import Speculation

#: draft lengths tried per method
LENGTHS = {"n-gram": (2, 3, 5, 7, 10), "eagle3": (1, 2, 3, 5), "mtp": (1, 2, 3, 5), "draft-model": (2, 3, 5)}
NONE = Option(Drafter("none", 0))


def drafting_options(
    model: Model,
    speculation: Speculation,
    data: AcceptanceData,
    precision: Precision,
    *,
    drafting_model: Model | None = None,
) -> list[Option]:
    """The options to search: none, and every allowed method at every draft length, [tokens].

    EAGLE-3 is offered when the workload names it or a head of this model has a measured curve;
    MTP when the model carries the module; a draft model when the workload names one. InputError
    when a method is asked for that the model cannot have.

    Source: acceptance data in ``hardware_db/acceptance``.
    """
    options = [] if speculation.enabled is True else [NONE]
    if speculation.enabled is False:
        return [NONE]
    asked = tuple(speculation.methods or ())
    methods = [m for m in (asked or ("n-gram", "mtp", "eagle3", "draft-model")) if m != "none"]
    for method in methods:
        if not _available(method, bool(asked), model, data, drafting_model):
            continue
        for k in LENGTHS[method]:
            options.append(_option(method, k, model, speculation, data, precision, drafting_model))
    return options or [NONE]


def _available(method: str, asked: bool, model: Model, data: AcceptanceData, drafting: Model | None) -> bool:
    if method == "mtp":
        if asked and not model.draft_layers:
            raise InputError(
                f"{model.name} has no multi-token-prediction module",
                key="speculation.methods",
                expected="n-gram, eagle3 or draft-model",
            )
        return bool(model.draft_layers)
    if method == "eagle3":
        return asked or data.has_head(model.name, "eagle3")
    if method == "draft-model":
        if asked and drafting is None:
            raise InputError("no draft model named", key="speculation.draft_model", expected="a model name")
        return drafting is not None
    return True


def _option(
    method: str,
    k: int,
    model: Model,
    speculation: Speculation,
    data: AcceptanceData,
    precision: Precision,
    drafting: Model | None,
) -> Option:
    accepted = expected_acceptance(
        data,
        method,
        np.array([float(k)]),
        speculation.task,
        model=model.name,
        temperature=speculation.temperature,
        user_curve=tuple(speculation.acceptance or ()),
        user_length=speculation.acceptance_length,
    )
    small = drafting if method == "draft-model" else draft_model(model, method, data.draft_vocab, precision.formats)
    drafter = Drafter(method, k, small, data.token_overhead_s if small else 0.0, data.ngram_verify_share, precision.kv)
    factor = 1.0 if speculation.acceptance_factor is None else speculation.acceptance_factor
    length, low, high = (
        min(1 + (float(x[0]) - 1) * factor, k + 1.0) for x in (accepted.length, accepted.low, accepted.high)
    )
    return Option(drafter, length, low, high, accepted.source)


def speedups(options: Sequence[Option], step_seconds: Sequence[float], plain_seconds: float) -> dict[str, float]:
    """Speed-up of each option over no drafting at one batch, by label, [1].

    step_seconds [s] per option, plain_seconds [s] of a decode step: ``AL * t_1 / t_spec``.
    Source: Leviathan et al., arXiv 2211.17192.
    """
    return {
        o.label: o.acceptance * plain_seconds / s
        for o, s in zip(options, step_seconds, strict=True)
        if o.drafter.draft_tokens
    }
