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
LENGTHS = {
    "n-gram": (2, 3, 5, 7, 10), "suffix": (2, 3, 5, 7, 10), "eagle": (1, 2, 3, 5), "eagle3": (1, 2, 3, 5),
    "mtp": (1, 2, 3, 5), "dspark": (3, 5, 7), "draft-model": (2, 3, 5), "sparse-kv": (2, 3, 5, 8),
}  # fmt: skip
#: methods that need a drafter someone trained or data someone has
GIVEN = ("suffix", "eagle", "eagle3", "dspark", "sparse-kv")
NONE = Option(Drafter("none", 0))


def drafting_options(
    model: Model,
    speculation: Speculation,
    data: AcceptanceData,
    precision: Precision,
    *,
    drafting_model: Model | None = None,
    engine: str = "",
    context: float = 0.0,
) -> list[Option]:
    """The options to search: none, and every allowed method at every draft length, [tokens].

    EAGLE, EAGLE-3, DSpark, suffix and drafting from a sparse cache are offered when the workload names
    them, or a drafter of this model has a curve, measured or the user's; MTP when the model carries the
    module; a draft model when the workload names one. Acceptance is that at ``context`` [tokens].
    InputError when a method is asked for that the model cannot have or nobody knows the acceptance of.

    Source: acceptance data in ``hardware_db/acceptance``.
    """
    options = [] if speculation.enabled is True else [NONE]
    if speculation.enabled is False:
        return [NONE]
    asked = tuple(speculation.methods or ())
    methods = [m for m in (asked or ("n-gram", "mtp", *GIVEN, "draft-model")) if m != "none"]
    for method in methods:
        if not _available(method, bool(asked), model, speculation, data, drafting_model):
            continue
        small = _drafting_model(method, model, data, precision, drafting_model)
        for k in LENGTHS[method]:
            options.append(_option(method, k, model, speculation, data, precision, small, engine, context))
    return options or [NONE]


def _available(
    method: str, asked: bool, model: Model, speculation: Speculation, data: AcceptanceData, drafting: Model | None
) -> bool:
    if method == "mtp":
        if asked and not model.draft_layers:
            raise InputError(
                f"{model.name} has no multi-token-prediction module",
                key="speculation.methods",
                expected="n-gram, eagle3 or draft-model",
            )
        return bool(model.draft_layers)
    if method in GIVEN:
        return asked or data.has_head(model.name, method) or _users(data, model, method, speculation)
    if method == "draft-model":
        if asked and drafting is None:
            raise InputError("no draft model named", key="speculation.draft_model", expected="a model name")
        return drafting is not None
    return True


def _users(data: AcceptanceData, model: Model, method: str, speculation: Speculation) -> bool:
    return data.users(model.name, method, speculation.task) is not None


def _drafting_model(
    method: str, model: Model, data: AcceptanceData, precision: Precision, drafting: Model | None
) -> Model | None:
    if method == "draft-model":
        return drafting
    return draft_model(model, method, data.draft_vocab, precision.formats)


def _option(
    method: str,
    k: int,
    model: Model,
    speculation: Speculation,
    data: AcceptanceData,
    precision: Precision,
    small: Model | None,
    engine: str,
    context: float,
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
        user_rates=tuple(speculation.acceptance_per_position or ()),
        domain=speculation.draft_domain,
        context=context,
    )
    drafter = Drafter(
        method, k, small, data.token_overhead(engine) if small else 0.0, data.ngram_verify_share, precision.kv,
        block=method == "dspark", kv_budget=data.kv_budget if method == "sparse-kv" else 0.0,
        row_overhead=data.row_overhead(engine, small.vocab) if small else 0.0,
    )  # fmt: skip
    given = speculation.acceptance or speculation.acceptance_per_position or speculation.acceptance_length
    factor = 1.0 if speculation.acceptance_factor is None else speculation.acceptance_factor
    length, low, high = (
        min(1 + (float(x[0]) - 1) * factor, k + 1.0) for x in (accepted.length, accepted.low, accepted.high)
    )
    return Option(
        drafter, length, low, high, accepted.source,
        adjusted=not given and not _users(data, model, method, speculation),
    )  # fmt: skip


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
